//! What a start tells the operator: where clients come in, what is advertised and why, who may use it, what is denied;
//! one line each.

use std::fmt::Display;

use tracing::{info, warn};

use super::addresses::{self, Chosen};
use crate::config::{Settings, Site};

/// Tells of a relay that has just started.
pub fn relay(settings: &Settings, site: &Site, chosen: &[Chosen]) {
    info!("clients come in at udp {}", list(&site.udp));
    let ports = &settings.relay.ports;
    info!("relayed addresses: {}; ports {}-{}", list(chosen), ports.start(), ports.end());
    if let Some(warning) = private_only(chosen) {
        warn!("{warning}");
    }
    let auth = &settings.auth;
    info!(
        "realm {:?}, {} for time-limited credentials, {}",
        auth.realm,
        count(auth.secrets.len(), "shared secret"),
        count(auth.users.len(), "static user")
    );
    info!("{}", denied(settings));
    if !settings.http.listen.is_empty() {
        info!("metrics and health at http {}", list(&settings.http.listen));
    }
}

fn private_only(chosen: &[Chosen]) -> Option<String> {
    chosen.iter().all(|chosen| addresses::is_private(chosen.address)).then(|| {
        "every relayed address is private, so only clients and peers in the same network can use it: list a public \
         address of this machine in relay.addresses (an address that a NAT in front of it translates cannot be given yet)"
            .to_owned()
    })
}

fn denied(settings: &Settings) -> String {
    let peers = &settings.peers;
    let mut line = String::from(
        "peers denied: everything not globally reachable (loopback, private, link-local, multicast, reserved), tunnels, \
         and this relay's own listeners",
    );
    if !peers.deny.is_empty() {
        line += &format!("; denied besides: {}", list(&peers.deny));
    }
    if !peers.allow.is_empty() {
        line += &format!("; allowed all the same: {}", list(&peers.allow));
    }
    line
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn count(n: usize, what: &str) -> String {
    match n {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::Why;
    use super::*;

    fn chosen(texts: &[&str]) -> Vec<Chosen> {
        texts.iter().map(|text| Chosen { address: text.parse().unwrap(), why: Why::DefaultRoute }).collect()
    }

    #[test]
    fn private_addresses_alone_are_warned_about() {
        assert!(private_only(&chosen(&["192.168.1.5", "fd00::5"])).is_some());
        assert!(private_only(&chosen(&["192.168.1.5", "2001:db8::5"])).is_none());
    }

    #[test]
    fn what_is_denied_and_allowed_is_told() {
        let mut settings = Settings::default();
        settings.peers.allow = vec!["10.0.0.0/8".parse().unwrap()];
        settings.peers.deny = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let line = denied(&settings);
        assert!(
            line.ends_with("; denied besides: 10.1.0.0/16, 2001:db8::/32; allowed all the same: 10.0.0.0/8"),
            "{line}"
        );
    }
}
