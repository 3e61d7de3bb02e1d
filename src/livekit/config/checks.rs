//! Whether settings agree with each other.

use super::Purpose;
use super::urls::BaseUrl;
use crate::config::report::Disagreement;
use crate::livekit::settings::{PeersMode, Settings};
use crate::turn::peers::PeerRule;

/// The most seconds that LiveKit takes for `ttl`.
const LIVEKIT_TTL: u64 = 86_400;

/// The most addresses of `peers.addresses`: a relay takes no more, those of LiveKit's own nodes included.
const ADDRESSES_MAX: usize = 1024;

/// What does not fit together, or is missing for `purpose`.
pub fn agreement(settings: &Settings, purpose: Purpose) -> Vec<Disagreement> {
    let mut found = Vec::new();
    if purpose == Purpose::Run {
        missing(settings, &mut found);
        found.extend(http(settings));
    }
    found.extend(peers(settings));
    if settings.credentials.ttl > LIVEKIT_TTL {
        let what = "LiveKit shortens credentials to 86400 seconds";
        let fix = "write at most 86400, unless only the ICE-server API is used";
        found.push(Disagreement::warning(&["credentials.ttl"], what, fix));
    }
    found
}

/// What the sidecar cannot run without, or only for a part.
fn missing(settings: &Settings, found: &mut Vec<Disagreement>) {
    if settings.livekit.url.is_empty() {
        let fix = "add a line like url = \"wss://livekit.example.org\" to [livekit], or let `hairpin-livekit init` write the \
                   configuration";
        found.push(Disagreement::mistake(&["livekit.url"], "there is no URL of LiveKit", fix));
    }
    if settings.livekit.keys.is_empty() {
        let fix = "add a line like keys_file = \"/etc/hairpin/livekit-keys\" to [livekit]; the file has a line API_KEY: SECRET as \
                   LiveKit's own key_file";
        found.push(Disagreement::mistake(&["livekit.keys_file"], "there is no API key of LiveKit", fix));
    }
    if settings.credentials.secrets.is_empty() {
        let what = "there is no shared secret, so only LiveKit's own credentials work at the relays: the ICE-server API has no \
                    answers, and rtc.turn_servers cannot be rendered";
        let fix = "name a file with a secret of the relays, or set HAIRPIN_LIVEKIT_SECRET";
        let keys = &["credentials.secret_file", "credentials.secret"];
        found.push(Disagreement::warning(keys, what, fix));
    }
    let url = BaseUrl::parse(&settings.livekit.api_url, &["http", "ws"]);
    if url.is_ok_and(|url| !super::relay::is_loopback(&url.host)) {
        let what = "the sidecar's access tokens cross the network without TLS";
        let fix = "write an https URL, unless nobody else can read this network";
        found.push(Disagreement::warning(&["livekit.api_url"], what, fix));
    }
}

fn http(settings: &Settings) -> Vec<Disagreement> {
    let http = &settings.http;
    match (&http.cert, &http.key) {
        (Some(_), None) => {
            let fix = "add http.key with its private key";
            return vec![Disagreement::mistake(
                &["http.cert", "http.key"],
                "the certificate has no private key",
                fix,
            )];
        }
        (None, Some(_)) => {
            let fix = "add http.cert with the certificate chain";
            return vec![Disagreement::mistake(
                &["http.key", "http.cert"],
                "the private key has no certificate",
                fix,
            )];
        }
        (Some(_), Some(_)) => return Vec::new(),
        (None, None) => {}
    }
    let open = http.listen.iter().find(|address| !address.ip().is_loopback());
    let warning = |open| {
        let what = format!(
            "{open} is not a loopback address, and tokens and credentials would cross the network without TLS"
        );
        let fix = "set http.cert and http.key, or listen on 127.0.0.1 behind a proxy with TLS";
        Disagreement::warning(&["http.listen"], what, fix)
    };
    open.map(warning).into_iter().collect()
}

fn peers(settings: &Settings) -> Vec<Disagreement> {
    let peers = &settings.peers;
    let mut found = Vec::new();
    if let Some(wide) = peers.addresses.iter().find(|rule| !is_exact(rule)) {
        let what = format!("{wide} is not an exact address with ports");
        let fix = "write addresses of the SFU with their UDP ports, like \"203.0.113.7:50000-60000\"";
        found.push(Disagreement::mistake(&["peers.addresses"], what, fix));
    }
    if peers.addresses.len() > ADDRESSES_MAX {
        let what = format!("there are {} addresses", peers.addresses.len());
        found.push(Disagreement::mistake(&["peers.addresses"], what, "list at most 1024"));
    }
    if peers.redis_password.is_some() && peers.redis.is_empty() && settings.livekit.config_file.is_none() {
        let fix = "add peers.redis, or remove this line";
        let what = "there is no Redis server that the password is for";
        found.push(Disagreement::warning(&["peers.redis_password_file"], what, fix));
    }
    if peers.mode != PeersMode::Off && !settings.knows_peers() {
        let what = "nothing says which addresses the SFU has, so the relay's peers stay as its own configuration has them";
        let fix = "set livekit.config_file, peers.addresses or peers.redis, or peers.mode = \"off\"";
        found.push(Disagreement::warning(&["peers.mode"], what, fix));
    }
    found
}

fn is_exact(rule: &PeerRule) -> bool {
    rule.range.is_one() && rule.has_ports()
}
