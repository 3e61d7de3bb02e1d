//! Looks at everything, from the relay to LiveKit. One failure hides no other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::sfu::{self, Registration};
use super::{Finding, Verdict, clock, credentials, dns, livekit, ports};
use crate::admin::times::unix_time;
use crate::auth::{livekit_credential, time_limited_password};
use crate::config::files::unreadable;
use crate::daemon::{reading, unix_now};
use crate::livekit::ice_url::IceUrl;
use crate::livekit::peers::sfu::SfuConfig;
use crate::livekit::probe::client::TurnCredential;
use crate::livekit::probe::failure::Failure;
use crate::livekit::probe::meeting;
use crate::livekit::probe::rounds::{self, Outcome};
use crate::livekit::probe::targets::{self, ProbeTarget};
use crate::livekit::probe::tls::Roots;
use crate::livekit::relays::{Relay, RelayStatus};
use crate::livekit::settings::{ApiKey, RelaySettings, Settings};

/// Time for the answers of a relay's API.
const API: Duration = Duration::from_secs(10);

/// The owner of the sidecar's peer overlay.
const OWNER: &str = "livekit";

/// The user part of credentials that are made to be tried.
const USER: &str = "hairpin-livekit-check";

/// A participant that there is not.
const PARTICIPANT: &str = "PA_hairpincheck";

/// For how many seconds LiveKit's own credentials are valid.
const LIVEKIT_TTL: u64 = 300;

/// What a relay has answered.
struct Seen {
    relay: Relay,
    status: RelayStatus,
    /// The same, with what only a check looks at.
    raw: Value,
}

/// Checks everything that these settings name.
pub async fn run(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for relay in &settings.relays {
        seen.extend(look(relay, &mut findings).await);
    }
    for one in &seen {
        probe(one, settings, &mut findings).await;
    }
    names(&seen, &mut findings).await;
    findings.extend(livekit::look(&settings.livekit).await);
    let config = configuration(settings, &mut findings);
    for one in &seen {
        let mut overlays = one.raw["overlays"].as_array().into_iter().flatten();
        let overlay = overlays.find(|overlay| overlay["owner"] == OWNER);
        let verdict = sfu::peers(settings, overlay, config.as_ref().map(|(sfu, _)| sfu));
        findings.push(Finding::new("peers", &one.relay.settings.name, verdict));
    }
    registration(settings, &seen, config.as_ref(), &mut findings).await;
    outside(&seen, &mut findings);
    findings
}

/// Asks a relay for its status.
async fn look(settings: &RelaySettings, findings: &mut Vec<Finding>) -> Option<Seen> {
    let name = &settings.name;
    let mut wrong = |said: String| findings.push(Finding::new("relay", name, Verdict::Wrong(said)));
    let relay = match Relay::new(settings.clone()) {
        Ok(relay) => relay,
        Err(failure) => {
            wrong(failure.message);
            return None;
        }
    };
    let asked = timeout(API, async {
        let raw = relay.control().get("/v1/status").await.map_err(|failure| failure.message)?;
        let status = serde_json::from_value::<RelayStatus>(raw.clone());
        status.map(|status| (status, raw)).map_err(|_| {
            "what answers is no hairpin relay, or one of another version; install the same version as of hairpin-livekit".to_owned()
        })
    });
    let (status, raw) = match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(message)) => {
            wrong(message);
            return None;
        }
        Err(_) => {
            wrong(format!("its API has not answered within {} s; see its log and /livez", API.as_secs()));
            return None;
        }
    };
    let verdict = if !status.draining.is_null() {
        Verdict::Wrong(
            "it drains, so it takes no new clients; undo that with `hairpin ctl undrain`, or wait for its restart".into(),
        )
    } else if status.ready {
        Verdict::Good(format!("version {}, ready", status.version))
    } else {
        let why = status.not_ready.as_deref().unwrap_or("it does not say why");
        Verdict::Wrong(format!("it is not ready: {why}; see its log and /readyz"))
    };
    findings.push(Finding::new("relay", name, verdict));
    relay.saw(status.clone());
    Some(Seen { relay, status, raw })
}

/// Probes a relay on every transport, and tries the credentials that clients get.
async fn probe(seen: &Seen, settings: &Settings, findings: &mut Vec<Finding>) {
    let (relay, name) = (&seen.relay, &seen.relay.settings.name);
    // It says itself why it takes no clients.
    if !seen.status.ready || !seen.status.draining.is_null() {
        return;
    }
    let roots = match Roots::load(relay.settings.ca_file.as_deref()) {
        Ok(roots) => Arc::new(roots),
        Err(problem) => {
            let said = format!("{problem}; correct relay.ca_file");
            return findings.push(Finding::new("probe", name, Verdict::Wrong(said)));
        }
    };
    let outcomes = match rounds::outcomes(relay, &roots).await {
        Ok(outcomes) => outcomes,
        Err(problem) => {
            let said = format!("{problem}; give the sidecar a token with the scope admin");
            return findings.push(Finding::new("probe", name, Verdict::Wrong(said)));
        }
    };
    if outcomes.is_empty() {
        let said = "there is nothing to probe: the relay has no listener, or relay.urls no TURN URL; add one";
        findings.push(Finding::new("probe", name, Verdict::Wrong(said.into())));
    }
    for (target, outcome) in &outcomes {
        let verdict = match outcome {
            Ok(took) => Verdict::Good(format!("two clients meet in {} ms", took.as_millis())),
            Err(failure) => Verdict::Wrong(failure.sentence(target)),
        };
        findings.push(Finding::new(
            "probe",
            format!("{name} {} {}", target.transport, target.shown),
            verdict,
        ));
    }
    // Which firewall it is can be told of this machine's only.
    if relay.settings.url.is_empty() {
        findings.extend(firewall(name, &seen.status, &outcomes));
    }
    let Some((target, _)) = outcomes.iter().find(|(_, outcome)| outcome.is_ok()) else { return };
    secrets(seen, settings, target, &roots, findings).await;
    if !relay.settings.url.is_empty() {
        findings.extend(remote_clock(relay).await);
    }
}

/// If listeners that the relay has do not answer, a firewall of this machine is the likely reason.
fn firewall(name: &str, status: &RelayStatus, outcomes: &[(ProbeTarget, Outcome)]) -> Option<Finding> {
    let is_blocked = |outcome: &Outcome| outcome.as_ref().err().is_some_and(Failure::is_blocked);
    outcomes.iter().any(|(_, outcome)| is_blocked(outcome)).then(|| {
        let said = format!(
            "the relay listens, but packets do not arrive: a firewall of this machine is in the way; open {}",
            ports::to_open(status)
        );
        Finding::new("firewall", name, Verdict::Wrong(said))
    })
}

/// Tries a credential of the shared secret, and what LiveKit issues if the relay has its keys.
async fn secrets(
    seen: &Seen,
    settings: &Settings,
    target: &ProbeTarget,
    roots: &Roots,
    findings: &mut Vec<Finding>,
) {
    let name = &seen.relay.settings.name;
    let (family, auth) = (targets::family(&seen.status), &seen.raw["auth"]);
    if let Some(secret) = settings.credentials.secrets.first() {
        let ttl = settings.credentials.ttl;
        let username = format!("{}:{USER}", unix_now() + ttl);
        let password = time_limited_password(secret.as_bytes(), &username);
        let outcome = meeting::accepts(target, family, &TurnCredential { username, password }, roots).await;
        let verdict = credentials::of_shared_secret(&outcome, target, ttl, auth);
        findings.push(Finding::new("credentials", name, verdict));
    }
    // The relay has the keys for the sake of way 2.
    if auth["livekit_keys"].as_u64().is_some_and(|keys| keys > 0) {
        for ApiKey { key, secret } in &settings.livekit.keys {
            let expires = Some(unix_now() + LIVEKIT_TTL);
            let (username, password) = livekit_credential(key, secret.as_bytes(), PARTICIPANT, expires);
            let outcome =
                meeting::accepts(target, family, &TurnCredential { username, password }, roots).await;
            let verdict = credentials::of_livekit(&outcome, target, key);
            findings.push(Finding::new("livekit-keys", name, verdict));
        }
    }
}

/// How the clock of a relay elsewhere differs: its credentials for probes tell its time.
async fn remote_clock(relay: &Relay) -> Option<Finding> {
    let (sent, made) = (unix_now(), relay.control().post("/v1/probe-credentials", &json!({})).await.ok()?);
    let middle = (sent + unix_now()) / 2;
    let expires = unix_time(made["expires"].as_str()?).ok()?;
    let ahead = expires as i64 - PROBE_LIFETIME - middle as i64;
    let name = &relay.settings.name;
    Some(Finding::new("clock", name, clock::judge(&format!("relay {name}"), ahead * 1000)))
}

/// For how many seconds a relay makes credentials for probes.
const PROBE_LIFETIME: i64 = 300;

/// What DNS says of each name in a URL, once for all relays that have it.
async fn names(seen: &[Seen], findings: &mut Vec<Finding>) {
    let mut addresses: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for one in seen {
        for url in one.relay.ice_urls().iter().filter_map(|url| IceUrl::parse(url)) {
            if url.address().is_none() {
                addresses.entry(url.host).or_default().extend(dns::addresses_of(&one.status));
            }
        }
    }
    for (name, of_relays) in addresses {
        let resolved = rounds::resolve(name.clone()).await;
        findings.push(Finding::new("dns", &name, dns::judge(&name, &resolved, &of_relays)));
    }
}

/// LiveKit's own configuration, if it is on this machine.
fn configuration(settings: &Settings, findings: &mut Vec<Finding>) -> Option<(SfuConfig, Registration)> {
    let file = settings.livekit.config_file.as_ref()?;
    let read = reading::read(file).map_err(|error| {
        let (what, _) = unreadable(&error);
        format!("{what}; correct livekit.config_file, or let this user read it")
    });
    let parsed = read.and_then(|contents| {
        let text = str::from_utf8(&contents.bytes).map_err(|_| "is not UTF-8".to_owned());
        let both = text.and_then(|text| Ok((SfuConfig::read(text)?, Registration::read(text)?)));
        both.map_err(|what| format!("{what}; correct LiveKit's configuration"))
    });
    match parsed {
        Ok(both) => Some(both),
        Err(problem) => {
            findings.push(Finding::new(
                "livekit-config",
                file.display().to_string(),
                Verdict::Wrong(problem),
            ));
            None
        }
    }
}

/// What LiveKit's configuration says of the relays and of the sidecar.
async fn registration(
    settings: &Settings,
    seen: &[Seen],
    config: Option<&(SfuConfig, Registration)>,
    findings: &mut Vec<Finding>,
) {
    if let (Some((config, registration)), Some(file)) = (config, &settings.livekit.config_file) {
        let shown = file.display().to_string();
        let urls: Vec<String> = seen.iter().flat_map(|one| one.relay.ice_urls()).collect();
        let (verdict, name) = sfu::registration(registration, &urls);
        findings.push(Finding::new("livekit-config", &shown, verdict));
        if let Some(name) = name {
            let addresses = seen.iter().flat_map(|one| dns::addresses_of(&one.status)).collect();
            let resolved = rounds::resolve(name.clone()).await;
            findings.push(Finding::new("dns", &name, dns::judge(&name, &resolved, &addresses)));
        }
        for one in seen.iter().filter(|one| one.relay.settings.url.is_empty()) {
            let ports = one.status.relay_ports.as_deref().unwrap_or_default();
            let verdict = sfu::shared_ports(config, ports);
            findings.extend(verdict.map(|verdict| Finding::new("ports", &one.relay.settings.name, verdict)));
        }
    }
    let registration = config.map(|(_, registration)| registration);
    let verdict = sfu::webhook(registration, &settings.http, &settings.livekit.keys);
    findings.push(Finding::new("webhook", "", verdict));
}

/// What this machine cannot see.
fn outside(seen: &[Seen], findings: &mut Vec<Finding>) {
    for one in seen {
        let urls = one.relay.ice_urls();
        let Some(url) = urls.iter().find_map(|url| IceUrl::parse(url)) else { continue };
        let said = format!(
            "what a provider's firewall drops cannot be seen from this machine: open {} there, and try from another network, with WebRTC's \
             trickle-ice page or `turnutils_uclient -y -p {} -u USER -w PASSWORD {}`; `hairpin credentials --user test` prints a user \
             and a password",
            ports::to_open(&one.status),
            url.port,
            url.host
        );
        findings.push(Finding::new("outside", &one.relay.settings.name, Verdict::Hint(said)));
    }
}
