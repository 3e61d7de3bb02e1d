//! What the relay, LiveKit's files and this machine say. Nothing here is needed: what is missing becomes a sentence.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Found, Wish};
use crate::admin::client::{Client, Target};
use crate::config::files::unreadable;
use crate::config::livekit_keys::livekit_keys_in_file;
use crate::config::secrets_in_file;
use crate::daemon::reading;
use crate::livekit::config::is_loopback;
use crate::livekit::config::urls::BaseUrl;
use crate::livekit::peers::machine;
use crate::livekit::peers::sfu::{DEFAULT_PORTS, DEV_PORT, SfuConfig};
use crate::livekit::server::{Server, ServerError};
use crate::livekit::settings::{ApiKey, LiveKitSettings};

/// Ports for a relay beside an SFU with LiveKit's ports.
const RELAY_PORTS: &str = "40000-49999";

/// Looks at everything. `url` is that of `wish`.
pub async fn look(wish: &Wish, url: &BaseUrl) -> Found {
    let mut found = Found::default();
    let keys = keys(wish, &mut found);
    sfu(wish, url, &mut found);
    relay(wish, &mut found).await;
    livekit(wish, keys, &mut found).await;
    found
}

/// LiveKit: whether it answers, and takes the key.
async fn livekit(wish: &Wish, keys: Vec<ApiKey>, found: &mut Found) {
    let settings = |api_url: Option<&String>| LiveKitSettings {
        url: wish.livekit_url.clone(),
        api_url: api_url.cloned().unwrap_or_default(),
        keys: keys.clone(),
        ca_file: wish.ca_file.clone(),
        ..LiveKitSettings::default()
    };
    let mut answer = ask(&settings(found.api_url.as_ref())).await;
    // Its configuration may be for another machine, or for a container.
    if wish.api_url.is_none() && matches!(answer, Err(Silence::NotThere(_))) && found.api_url.is_some() {
        let other = ask(&settings(None)).await;
        if !matches!(other, Err(Silence::NotThere(_))) {
            (answer, found.api_url) = (other, None);
        }
    }
    match answer {
        Ok(()) => {}
        Err(Silence::NotThere(why)) => found.problems.push(format!("LiveKit: {why}")),
        Err(Silence::Refuses(why)) => found.problems.push(format!("LiveKit: {why}")),
    }
}

/// Why LiveKit has not answered as it should.
enum Silence {
    NotThere(String),
    Refuses(String),
}

async fn ask(settings: &LiveKitSettings) -> Result<(), Silence> {
    let not_there = |error: ServerError| Silence::NotThere(error.to_string());
    let server = Server::new(settings).map_err(not_there)?;
    server.live().await.map_err(not_there)?;
    if settings.keys.is_empty() {
        // That is said already.
        return Ok(());
    }
    server.rooms().await.map(drop).map_err(|error| Silence::Refuses(error.to_string()))
}

/// The file with API keys: one that is wrong is named now, and not by LiveKit's 401.
fn keys(wish: &Wish, found: &mut Found) -> Vec<ApiKey> {
    let shown = wish.keys_file.display();
    let contents = match reading::read(&wish.keys_file) {
        Ok(contents) => contents,
        Err(error) => {
            let (what, fix) = unreadable(&error);
            found.problems.push(format!(
                "the API keys: {shown} {what}; {fix}, or write a line API_KEY: SECRET of LiveKit's `keys` into it"
            ));
            return Vec::new();
        }
    };
    let read = livekit_keys_in_file(&contents.bytes);
    found.api_key = read.keys.first().map(|(_, key)| key.name.clone());
    let place = |line: Option<usize>| line.map(|line| format!(":{line}")).unwrap_or_default();
    let wrong =
        read.wrong.iter().map(|wrong| format!("{shown}{} {}; {}", place(wrong.line), wrong.what, wrong.fix));
    found.problems.extend(wrong);
    if contents.is_public {
        found
            .problems
            .push(format!("{shown} can be read by every user of this machine; run `chmod o-rwx {shown}`"));
    }
    read.keys.into_iter().map(|(_, key)| ApiKey { key: key.name, secret: key.secret }).collect()
}

/// Where LiveKit's API is, and which addresses and ports its media has.
fn sfu(wish: &Wish, url: &BaseUrl, found: &mut Found) {
    let machine: BTreeSet<IpAddr> = machine::addresses().into_iter().map(|own| own.ip).collect();
    let is_here =
        |host: &str| is_loopback(host) || host.parse().is_ok_and(|ip: IpAddr| machine.contains(&ip));
    found.api_url.clone_from(&wish.api_url);
    if let Some(file) = &wish.livekit_config {
        let shown = file.display();
        let read = reading::read(file).map_err(|error| unreadable(&error).0);
        let text =
            read.and_then(|contents| String::from_utf8(contents.bytes).map_err(|_| "is not UTF-8".into()));
        match text.and_then(|text| SfuConfig::read(&text)) {
            Ok(config) => {
                found.ports = Some(config.ports);
                let api = format!("http://127.0.0.1:{}", config.api_port);
                found.api_url.get_or_insert(api);
            }
            Err(what) => found.problems.push(format!(
                "LiveKit's configuration {shown}: {what}; correct the path, or let the user that runs the sidecar read it"
            )),
        }
        return;
    }
    let api =
        wish.api_url.as_deref().and_then(|url| BaseUrl::parse(url, &["http", "https", "ws", "wss"]).ok());
    let host = api.map_or_else(|| url.host.clone(), |api| api.host);
    if !is_here(&host) {
        found.notes.push(
            "which addresses the SFU has is not known, so the relay's peers stay as its own configuration has them; name LiveKit's \
             configuration with --livekit-config if it is on this machine, or write addresses = [\"203.0.113.7:50000-60000\"] into \
             [peers]"
                .into(),
        );
        return;
    }
    found.ports = Some(bound_ports());
    found.sfu = machine.into_iter().collect();
    found.notes.push(format!(
        "LiveKit is on this machine, and its configuration is not known: its media is taken to be at UDP {}; with \
         --livekit-config FILE the sidecar follows what the file says",
        shown_ports(found.ports.as_ref().unwrap_or(&DEFAULT_PORTS))
    ));
}

/// The ports of an SFU on this machine without a configuration: `livekit-server --dev` has one, which is bound all the time.
fn bound_ports() -> RangeInclusive<u16> {
    let tables =
        ["/proc/net/udp", "/proc/net/udp6"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    match tables.iter().any(|table| is_bound(table, DEV_PORT)) {
        true => DEV_PORT..=DEV_PORT,
        false => DEFAULT_PORTS,
    }
}

/// Whether a UDP port is bound (proc(5): `sl local_address ...`, the port in hex).
fn is_bound(table: &str, port: u16) -> bool {
    let local = |line: &str| {
        line.split_whitespace().nth(1).and_then(|local| local.rsplit(':').next().map(str::to_owned))
    };
    table.lines().skip(1).filter_map(local).any(|local| u16::from_str_radix(&local, 16) == Ok(port))
}

/// The relay: its URLs, its certificates, and where its secret is.
async fn relay(wish: &Wish, found: &mut Found) {
    let client = Client::new(Target::socket(wish.socket.clone()));
    let status = match client.get("/v1/status").await {
        Ok(status) => status,
        Err(failure) => {
            found.secret_file.clone_from(&wish.secret_file);
            return found.problems.push(format!(
                "the relay: {}; start it (`hairpin serve`), and run this again with --force",
                failure.message
            ));
        }
    };
    found.ice_urls = texts(&status["ice_urls"]);
    let certificates = status["certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
    found.names = certificates.iter().flat_map(|one| texts(&one["names"])).collect();
    secret(wish, &status, found);
    if found.ice_urls.is_empty() {
        found.problems.push("the relay tells no URLs for clients; see `hairpin ctl status`".into());
    }
    tls(&status, certificates, found);
    ports(&status, found);
}

/// The shared secret: a file that the relay reads, too.
fn secret(wish: &Wish, status: &Value, found: &mut Found) {
    let known: Vec<PathBuf> = texts(&status["auth"]["secret_files"]).into_iter().map(PathBuf::from).collect();
    found.secret_file = wish.secret_file.clone().or_else(|| known.first().cloned());
    let Some(file) = found.secret_file.clone() else {
        return found.problems.push(
            "no file with the relay's shared secret is known; write the secret of auth.secrets into a file of its own, readable for \
             the sidecar only, and name it with --secret-file"
                .into(),
        );
    };
    if let Some(problem) = unusable_secret(&file) {
        found.problems.push(problem);
    }
}

/// Why LiveKit or the sidecar cannot use a file with the secret.
fn unusable_secret(file: &Path) -> Option<String> {
    let shown = file.display();
    match reading::read(file) {
        Err(error) => {
            let (what, fix) = unreadable(&error);
            Some(format!("the shared secret: {shown} {what}; {fix}"))
        }
        Ok(contents) if secrets_in_file(&contents.bytes).0.is_empty() => {
            Some(format!("{shown} has no shared secret; write it there, alone on its line"))
        }
        Ok(_) => None,
    }
}

/// Browsers check certificates, and TURN over TLS is what the strictest networks let through.
fn tls(status: &Value, certificates: &[Value], found: &mut Found) {
    let listens = status["listeners"].as_array().into_iter().flatten().any(|one| one["transport"] == "tls");
    let is_self_signed = |one: &&Value| one["self_signed"] == true;
    if !listens || certificates.is_empty() {
        found.notes.push(
            "the relay has no TLS, so clients in networks that let only TLS through do not reach it; give it a certificate (tls.cert and \
             tls.key, or `hairpin serve --domain turn.example.org --cert FILE --key FILE`)"
                .into(),
        );
    } else if certificates.iter().filter(is_self_signed).count() == certificates.len() {
        found.notes.push(
            "the relay's certificate is self-signed, and browsers refuse it: TURN over TLS does not work before the relay has one for \
             its domain name (docs/certificates.md)"
                .into(),
        );
    }
}

/// On one machine the ports of relay and SFU must not overlap.
fn ports(status: &Value, found: &mut Found) {
    let Some(sfu) = &found.ports else { return };
    // What a relay without settings has, if it does not say.
    let relay = status["relay_ports"].as_str().unwrap_or("49152-65535");
    let Some((first, last)) = relay.split_once('-') else { return };
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return };
    // One port is no obstacle: the relay passes over ports that are taken.
    if sfu.start() == sfu.end() || first > *sfu.end() || last < *sfu.start() {
        return;
    }
    found.problems.push(format!(
        "the relay takes its ports from {relay}, and the SFU from {}: on one machine they must not overlap; set relay.ports = \
         \"{RELAY_PORTS}\" (`hairpin serve --relay-ports {RELAY_PORTS}`) and restart the relay",
        shown_ports(sfu)
    ));
}

fn shown_ports(ports: &RangeInclusive<u16>) -> String {
    match ports.start() == ports.end() {
        true => ports.start().to_string(),
        false => format!("{}-{}", ports.start(), ports.end()),
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bound_port_is_seen() {
        let table = "  sl  local_address rem_address   st\n  12: 00000000:1ECA 00000000:0000 07\n";
        assert!(is_bound(table, 7882) && !is_bound(table, 7881) && !is_bound("", 7882));
    }

    #[test]
    fn overlapping_ports_are_told_with_the_fix() {
        for (relay, sfu, overlap) in [
            ("49152-65535", 50_000..=60_000, true),
            ("40000-49999", 50_000..=60_000, false),
            ("60000-65535", 50_000..=60_000, true),
            ("1024-65535", 7882..=7882, false),
        ] {
            let mut found = Found { ports: Some(sfu), ..Found::default() };
            ports(&json!({ "relay_ports": relay }), &mut found);
            assert_eq!(!found.problems.is_empty(), overlap, "{relay}");
            assert!(found.problems.iter().all(|one| one.contains("relay.ports = \"40000-49999\"")));
        }
    }

    #[test]
    fn a_relay_without_a_certificate_for_browsers_is_a_note() {
        let said = |listeners: Value, certificates: Value| {
            let mut found = Found::default();
            tls(&json!({ "listeners": listeners }), certificates.as_array().unwrap(), &mut found);
            found.notes.concat()
        };
        let listener = json!([{ "transport": "tls", "address": "0.0.0.0:5349" }]);
        assert!(said(json!([]), json!([])).contains("no TLS"));
        assert!(said(listener.clone(), json!([{ "self_signed": true }])).contains("self-signed"));
        assert!(said(listener, json!([{ "self_signed": false }])).is_empty());
    }
}
