//! The log lines of a start: the listeners, the advertised addresses and where they come from, who may use the relay, and
//! which peers are denied.

use std::fmt::Display;
use std::net::IpAddr;

use tracing::{info, warn};

use super::addresses::{self, Chosen};
use crate::config::{Settings, Site, own_addresses};
use crate::plural::counted;
use crate::turn::Transport;
use crate::turn::peers::{Cidr, PeerRule};

/// RFC 8489 section 6.2.3: clients verify the certificate.
const SELF_SIGNED: &str = "browsers refuse the self-signed certificate for turns: URLs; start with --domain, --cert and \
                           --key (or set tls.cert and tls.key) to use a certificate from an authority that they trust";

/// RFC 8656 section 7.2: an Allocate request that names no family asks for IPv4.
const IPV6_ONLY: &str = "there is no IPv4 relayed address, so clients that name no address family, as browsers do, are refused with \
                         440; if clients have IPv4, list an IPv4 address of this machine in relay.addresses";

/// Logs what a relay that has just started does.
pub fn relay(settings: &Settings, site: &Site, chosen: &[Chosen]) {
    info!("listening for clients on {}", listeners(site));
    match (settings.tls.cert.is_some(), settings.tls.is_self_signed()) {
        (false, _) => info!("TLS is off: no certificate is configured (tls.cert and tls.key)"),
        (true, true) => warn!("{SELF_SIGNED}"),
        (true, false) => {}
    }
    let ports = &settings.relay.ports;
    let names: Vec<_> = chosen.iter().map(|chosen| advertised(*chosen, site)).collect();
    info!("relayed addresses: {}; ports {}-{}", names.join(", "), ports.start(), ports.end());
    if let Some(warning) = private_only(site) {
        warn!("{warning}");
    }
    let auth = &settings.auth;
    info!(
        "realm {:?}, {} for time-limited credentials, {}",
        auth.realm,
        count(auth.secrets.len(), "shared secret"),
        count(auth.users.len(), "static user")
    );
    if site.relay.iter().all(IpAddr::is_ipv6) {
        warn!("{IPV6_ONLY}");
    }
    info!("{}", denied(settings, site));
    if !settings.http.listen.is_empty() {
        info!("serving metrics and health on http {}", list(&settings.http.listen));
    }
}

fn listeners(site: &Site) -> String {
    let lists = Transport::ALL.map(|transport| (transport.as_str(), site.over(transport)));
    let lists = lists.iter().filter(|(_, addrs)| !addrs.is_empty());
    lists.map(|(name, addrs)| format!("{name} {}", list(addrs))).collect::<Vec<_>>().join("; ")
}

/// A relayed address, where it comes from, and its external address.
fn advertised(chosen: Chosen, site: &Site) -> String {
    let outside = site.outside(chosen.address);
    if outside == chosen.address {
        return chosen.to_string();
    }
    format!("{chosen}, advertised as {outside} (relay.external_ip)")
}

fn private_only(site: &Site) -> Option<String> {
    site.relay.iter().all(|ip| addresses::is_private(site.outside(*ip))).then(|| {
        "every relayed address is private, so only clients and peers in the same network can use this relay; if a NAT maps a \
         public address to this machine, set relay.external_ip to that address in a configuration (start with --config), \
         otherwise list a public address of this machine in relay.addresses"
            .to_owned()
    })
}

fn denied(settings: &Settings, site: &Site) -> String {
    let peers = &settings.peers;
    let mut line = String::from(
        "peers denied: addresses that are not globally reachable (loopback, private, link-local, multicast, reserved), \
         tunnels, this relay's own listeners, and this machine's own addresses but for ports with an allocation",
    );
    if !peers.deny.is_empty() {
        line += &format!("; also denied: {}", list(&peers.deny));
    }
    if !peers.allow.is_empty() {
        let allowed: Vec<_> = peers.allow.iter().map(|rule| allowed(rule, site)).collect();
        line += &format!("; allowed nevertheless: {}", list(&allowed));
    }
    line
}

/// A rule that allows peers, and what it does not open.
fn allowed(rule: &PeerRule, site: &Site) -> String {
    let outside = site.relay.iter().map(|ip| Cidr::from(site.outside(*ip)));
    let own: Vec<_> = site.own.iter().copied().chain(outside).collect();
    match own_addresses::not_opened(rule, &own) {
        closed if closed.is_empty() => rule.to_string(),
        closed => {
            let closed = own_addresses::list(&closed);
            format!("{rule} (without this machine's own {closed}; to open one, name it exactly)")
        }
    }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn count(n: usize, what: &str) -> String {
    if n == 0 { format!("no {what}") } else { counted(n, what) }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::Why;
    use super::*;
    use crate::turn::External;

    fn site(relay: &[&str], external: &[(&str, &str)]) -> Site {
        Site {
            listeners: Vec::new(),
            relay: relay.iter().map(|text| text.parse().unwrap()).collect(),
            external: External::new(
                external.iter().map(|(local, out)| (local.parse().unwrap(), out.parse().unwrap())).collect(),
            ),
            own: Vec::new(),
            cpus: 1,
        }
    }

    #[test]
    fn only_private_addresses_cause_a_warning() {
        let warning = private_only(&site(&["192.168.1.5", "fd00::5"], &[])).unwrap();
        assert!(warning.contains("set relay.external_ip"), "{warning}");
        assert!(private_only(&site(&["192.168.1.5", "2001:db8::5"], &[])).is_none());
        assert!(private_only(&site(&["192.168.1.5"], &[("192.168.1.5", "203.0.113.5")])).is_none());
    }

    #[test]
    fn an_external_address_is_logged_with_its_origin() {
        let site = site(&["10.0.0.5", "10.0.0.6"], &[("10.0.0.5", "203.0.113.5")]);
        let chosen = |address| Chosen { address, why: Why::DefaultRoute };
        let lines: Vec<_> = site.relay.iter().map(|ip| advertised(chosen(*ip), &site)).collect();
        let from = "(source address of the default route)";
        let mapped = format!("10.0.0.5 {from}, advertised as 203.0.113.5 (relay.external_ip)");
        assert_eq!(lines, [mapped, format!("10.0.0.6 {from}")]);
    }

    #[test]
    fn denied_and_allowed_ranges_are_logged() {
        let mut settings = Settings::default();
        settings.peers.allow = vec!["10.0.0.0/8".parse().unwrap()];
        settings.peers.deny = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let line = denied(&settings, &site(&["10.1.2.3"], &[]));
        assert!(
            line.ends_with(
                "; also denied: 10.1.0.0/16, 2001:db8::/32; allowed nevertheless: 10.0.0.0/8 (without this machine's own \
                 10.1.2.3; to open one, name it exactly)"
            ),
            "{line}"
        );
    }
}
