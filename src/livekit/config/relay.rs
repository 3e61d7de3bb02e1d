//! `[[relay]]`: how a section becomes a relay. Its keys are in the table.

use std::net::IpAddr;

use super::urls::BaseUrl;
use crate::config::section::Refusal;
use crate::livekit::settings::{RelaySettings, Settings};

/// The name of a relay that has none and is on this machine.
const LOCAL: &str = "local";

/// The most relays: each is asked and probed over and over.
const RELAYS_MAX: usize = 64;

/// Adds a relay to the settings.
pub fn add(settings: &mut Settings, mut relay: RelaySettings) -> Result<(), Refusal> {
    let refusal = |key, what, fix| Err(Refusal { key, what, fix });
    if !relay.url.is_empty() {
        let Ok(url) = BaseUrl::parse(&relay.url, &["https", "http"]) else {
            return refusal("url", "not a URL", "write it again");
        };
        if relay.socket.is_some() {
            return refusal("url", "the relay has a socket, too", "keep one of socket and url");
        }
        if !url.is_tls() && !is_loopback(&url.host) {
            let what = "the token would cross the network without TLS";
            return refusal("url", what, "write https://, and set admin.tls = true at the relay");
        }
        if relay.token.is_none() {
            let what = "the API over TCP needs a token";
            return refusal("url", what, "add a line like token_file = \"/etc/hairpin/turn-2-token\"");
        }
        if relay.name.is_empty() {
            relay.name = url.host;
        }
    } else if relay.token.is_some() {
        return refusal("token_file", "only the API over TCP has tokens", "add a url, or remove this line");
    }
    if relay.name.is_empty() {
        LOCAL.clone_into(&mut relay.name);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if !relay.name.chars().all(is_name) {
        let fix = "use letters, digits, dots, hyphens and underscores";
        return refusal("name", "not a name for logs and metrics", fix);
    }
    if settings.relays.iter().any(|other| other.name == relay.name) {
        return refusal("name", "another relay has the same name", "give each relay a name of its own");
    }
    let reach = |relay: &RelaySettings| (relay.socket.clone(), relay.url.clone());
    if settings.relays.iter().any(|other| reach(other) == reach(&relay)) {
        return refusal("url", "the relay is listed twice", "remove one of the sections");
    }
    if settings.relays.len() >= RELAYS_MAX {
        return refusal("name", "there are too many relays", "list at most 64");
    }
    settings.relays.push(relay);
    Ok(())
}

/// The relay of a configuration that lists none.
pub fn local() -> RelaySettings {
    RelaySettings { name: LOCAL.into(), ..RelaySettings::default() }
}

/// Whether packets to this host stay on the machine.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
