//! Whether settings agree with each other; whether one is right by itself is judged where it is read.

use std::net::SocketAddr;

use super::external;
use super::settings::{ListenSettings, Settings};

/// Settings that do not go together.
pub struct Disagreement {
    /// The settings it is about; the first that stands in the file gets the blame.
    pub keys: Vec<&'static str>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
    /// It runs all the same.
    pub warning: bool,
}

/// Whatever disagrees at `now` (unix seconds), in the order of the table.
pub fn agreement(settings: &Settings, now: u64) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let ListenSettings { udp, tcp, tls, .. } = &settings.listen;
    if settings.listen.all().is_empty() {
        found.push(mistake(
            &["listen.udp", "listen.tcp", "listen.tls"],
            "no client could come in",
            "list an address, or remove the line",
        ));
    }
    let http = &settings.http.listen;
    found.extend(taken(&[("listen.udp", udp)]));
    found.extend(taken(&[("listen.tcp", tcp), ("listen.tls", tls), ("http.listen", http)]));
    found.extend(settings.tls.disagreements(!tls.is_empty(), now));
    // Discovered addresses are known at the start alone.
    let relay = &settings.relay;
    if !relay.addresses.is_empty()
        && let Err(misfit) = external::pair(&relay.external_ip, &relay.addresses)
    {
        found.push(mistake(&["relay.external_ip", "relay.addresses"], misfit.what, misfit.fix));
    }
    let ports = &settings.relay.ports;
    let in_range =
        |listener: &&SocketAddr| ports.contains(&listener.port()) && shares_an_address(listener, settings);
    let inside: Vec<_> = udp.iter().filter(in_range).map(ToString::to_string).collect();
    if !inside.is_empty() {
        let (listeners, first, last) = (inside.join(" and "), ports.start(), ports.end());
        let what = format!("clients come in at {listeners}, inside the port range {first}-{last}");
        found.push(mistake(&["relay.ports", "listen.udp"], what, "move one of them"));
    }
    if settings.limits.max_allocation_lifetime < settings.limits.allocation_lifetime {
        let what = format!(
            "at most {} s, but {} s when nothing is asked for",
            settings.limits.max_allocation_lifetime, settings.limits.allocation_lifetime
        );
        let keys = &["limits.max_allocation_lifetime", "limits.allocation_lifetime"];
        found.push(mistake(keys, what, "raise max_allocation_lifetime or lower allocation_lifetime"));
    }
    for listener in settings.http.listen.iter().filter(|listener| !listener.ip().is_loopback()) {
        let what = format!("{listener} is no loopback address");
        let fix = "see to it that only your own machines can connect: there is no access control";
        found.push(Disagreement { warning: true, ..mistake(&["http.listen"], what, fix) });
    }
    found
}

/// Listeners of one kind of socket that cannot be had together.
fn taken(lists: &[(&'static str, &Vec<SocketAddr>)]) -> Option<Disagreement> {
    let all =
        || lists.iter().enumerate().flat_map(|(n, (key, list))| list.iter().map(move |addr| (n, *key, addr)));
    let covers = |wildcard: &SocketAddr, other: &SocketAddr| {
        wildcard.ip().is_unspecified()
            && !other.ip().is_unspecified()
            && (wildcard.is_ipv4(), wildcard.port()) == (other.is_ipv4(), other.port())
    };
    all().find_map(|(n, key, one)| {
        let what = |other: &SocketAddr| match covers(one, other) {
            true => format!("{one} is every address, so {other} is taken by it"),
            false => format!("{other} is taken twice"),
        };
        let (_, other_key, other) =
            all().find(|(m, _, other)| covers(one, other) || (n < *m && one == *other))?;
        Some(mistake(&[key, other_key], what(other), "remove or move one of them"))
    })
}

/// Refuses to be an anonymous relay.
pub fn credentials(settings: &Settings) -> Option<Disagreement> {
    let auth = &settings.auth;
    (auth.secrets.is_empty() && auth.users.is_empty()).then(|| {
        mistake(
            &["auth.secrets", "auth.secret_files", "auth.user", super::SECRET_VARIABLE],
            "no credentials, and hairpin never runs as an anonymous relay",
            "set auth.secrets, auth.secret_files, an [[auth.user]] or HAIRPIN_AUTH_SECRET in the environment",
        )
    })
}

/// Settings that cannot run together.
pub fn mistake(keys: &[&'static str], what: impl Into<String>, fix: impl Into<String>) -> Disagreement {
    Disagreement { keys: keys.to_vec(), what: what.into(), fix: fix.into(), warning: false }
}

/// Whether relay sockets may be bound to the listener's address. Discovered ones may be any.
fn shares_an_address(listener: &SocketAddr, settings: &Settings) -> bool {
    let addresses = &settings.relay.addresses;
    let same_family = |wildcard: &SocketAddr| addresses.iter().any(|a| a.is_ipv4() == wildcard.is_ipv4());
    addresses.is_empty()
        || addresses.contains(&listener.ip())
        || (listener.ip().is_unspecified() && same_family(listener))
}
