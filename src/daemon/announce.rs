//! The log lines of a start: the listeners, the advertised addresses and where they come from, who may use the relay, and
//! which peers are denied.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use tracing::{info, warn};

use super::addresses::{self, Chosen};
use super::external::ASKING;
use super::place::{Place, Waiting};
use crate::config::external::Misfit;
use crate::config::{Listener, ListenerPeers, PeersMode, ReadContext, Settings, Site, own_addresses};
use crate::plural::counted;
use crate::shown;
use crate::turn::peers::{Cidr, PeerRule};
use crate::turn::{External, Transport};

/// RFC 8489 section 6.2.3: clients verify the certificate.
const SELF_SIGNED: &str = "browsers refuse the self-signed certificate for turns: URLs; start with --domain, --cert and \
                           --key (or set tls.cert and tls.key) to use a certificate from an authority that they trust";

/// RFC 8656 section 7.2: an Allocate request that names no family asks for IPv4.
const IPV6_ONLY: &str = "there is no IPv4 relayed address, so clients that name no address family, as browsers do, are refused with \
                         440; if clients have IPv4, list an IPv4 address of this machine in relay.addresses";

/// Logs what a relay that has just started does.
pub fn relay(settings: &Settings, site: &Site, place: &Place) {
    info!("listening for clients on {}", listeners(site));
    services(settings, site).iter().for_each(|line| info!("{line}"));
    match (settings.tls.has_certificate(), settings.tls.is_self_signed()) {
        (false, _) => info!("TLS is off: no certificate is configured (tls.cert and tls.key)"),
        (true, true) => warn!("{SELF_SIGNED}"),
        (true, false) => {}
    }
    let ports = &settings.relay.ports;
    let names: Vec<_> = place.relay.iter().map(|chosen| advertised(*chosen, &place.external)).collect();
    let names = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
    info!("relayed addresses: {names}; ports {}-{}", ports.start(), ports.end());
    missing(place, &[]);
    own(place, None);
    for (what, addr) in &place.idle {
        warn!("{what} {addr}: this machine does not have the address yet; it is served once it has");
    }
    if let Some(warning) = private_only(place) {
        warn!("{warning}");
    }
    let auth = &settings.auth;
    let livekit = match auth.livekit_keys.len() {
        0 => String::new(),
        keys => format!("{} for LiveKit's own credentials, ", count(keys, "API key")),
    };
    info!(
        "realm {:?}, {} for time-limited credentials, {livekit}{}",
        auth.realm,
        count(auth.secrets.len(), "shared secret"),
        count(auth.static_users(), "static user")
    );
    if is_ipv6_only(settings, place) {
        warn!("{IPV6_ONLY}");
    }
    info!("{}", denied(settings, site));
    listener_peers(settings, site).iter().for_each(|line| info!("{line}"));
    if !settings.http.listen.is_empty() {
        let scheme = if settings.http.tls { "https" } else { "http" };
        info!("serving metrics and health on {scheme} {}", list(&settings.http.listen));
    }
}

/// What TCP connections may be, a line for all addresses where that is the same.
fn services(settings: &Settings, site: &Site) -> Vec<String> {
    let mut groups: Vec<(String, Vec<SocketAddr>)> = Vec::new();
    let open = settings.recall(&[], &site.listeners);
    for one in open.into_iter().filter(|one| one.transport.is_stream()) {
        let summary = one.service.summary(settings.tls.has_certificate());
        match groups.iter_mut().find(|(other, _)| *other == summary) {
            Some((_, addresses)) if addresses.contains(&one.address) => {}
            Some((_, addresses)) => addresses.push(one.address),
            None => groups.push((summary, vec![one.address])),
        }
    }
    let line = |(summary, addresses): &(String, Vec<SocketAddr>)| {
        format!("TCP connections to {} may speak {summary}", list(addresses))
    };
    groups.iter().map(line).collect()
}

/// What the relay serves, in one line.
pub fn serves(site: &Site, place: &Place) -> String {
    let names: Vec<_> =
        place.relay.iter().map(|chosen| outside(&place.external, chosen.address).to_string()).collect();
    format!("serving clients on {}; relaying with {}", listeners(site), names.join(", "))
}

/// Logs the listeners that this machine cannot open.
pub fn skipped(listeners: &[(Transport, SocketAddr)]) {
    for (transport, addr) in listeners {
        info!("skipping {} {addr}: this machine has no IPv6", transport.as_str());
    }
}

/// Logs how the addresses of this machine have changed, and what they mean for these settings.
pub fn change(settings: &Settings, (before, old): (&Place, &Site), (now, site): (&Place, &Site)) {
    for chosen in before.relay.iter().filter(|chosen| !now.addresses().contains(&chosen.address)) {
        let (what, running) = match now.own.may_contain(chosen.address) {
            true => ("the address to relay with", "continue until their clients end them"),
            false => ("an address of this machine", "cannot relay any more"),
        };
        warn!(
            "relayed address removed: {} is not {what} any more; new allocations do not use it; running ones {running}",
            chosen.address,
        );
    }
    for chosen in now.relay.iter().filter(|chosen| !before.addresses().contains(&chosen.address)) {
        info!("relayed address added: {}", advertised(*chosen, &now.external));
    }
    // What was told as the reason why the relay is not ready is told again once it is, with what is left of it.
    let told = if before.is_ready().is_ok() == now.is_ready().is_ok() { &before.waiting[..] } else { &[] };
    missing(now, told);
    for (what, addr) in before.idle.iter().filter(|listener| !now.idle.contains(listener)) {
        info!("{what} {addr}: this machine has the address now; it is served");
    }
    for (what, addr) in now.idle.iter().filter(|listener| !before.idle.contains(listener)) {
        warn!(
            "{what} {addr}: this machine does not have the address any more; it is served again when it has"
        );
    }
    if let Some(misfit) = now.misfit.as_ref().filter(|misfit| before.misfit.as_ref() != Some(*misfit)) {
        let Misfit { what, fix } = misfit;
        warn!("relay.external_ip: {what}; this entry has no effect: {fix}");
    }
    own(now, Some(before));
    if let Some(warning) = private_only(now).filter(|_| private_only(before).is_none()) {
        warn!("{warning}");
    }
    if is_ipv6_only(settings, now) && !is_ipv6_only(settings, before) {
        warn!("{IPV6_ONLY}");
    }
    for warning in new_warnings(settings, old, site) {
        warn!("{warning}");
    }
}

/// What is to be said about `[peers]` at the addresses of `now` and was not at those of `before`.
fn new_warnings(settings: &Settings, before: &Site, now: &Site) -> Vec<String> {
    let found = |site: &Site| {
        let context = ReadContext {
            own: &|| (site.own.clone(), site.widened),
            discovered: &|| site.relay.clone(),
            ..ReadContext::NONE
        };
        own_addresses::agreement(settings, &context)
    };
    let told = found(before);
    let new = found(now).into_iter().filter(|one| told.iter().all(|told| told.what != one.what));
    let mut lines: Vec<String> = new
        .map(|one| shown::text(&format!("{}: {}; {}", one.keys[0], one.what, one.fix)).into_owned())
        .collect();
    for rule in &settings.peers.allow {
        let (old, new) = (closed(rule, before), closed(rule, now));
        if old.is_empty() && !new.is_empty() {
            lines.push(format!(
                "peers.allow: {rule} does not open this machine's own addresses ({}); to open one, name it exactly",
                own_addresses::list(&new)
            ));
        }
    }
    lines
}

/// Logs what keeps this machine's own addresses from being told from others, unless that was so `before`.
fn own(now: &Place, before: Option<&Place>) {
    if !now.own.complete && before.is_none_or(|before| before.own.complete) {
        warn!(
            "this machine's addresses cannot be read (netlink and /proc/net are not allowed), so services on its other \
             addresses are not protected from clients; allow AF_NETLINK"
        );
    }
    if now.own.widened && before.is_none_or(|before| !before.own.widened) {
        warn!(
            "this machine has too many addresses to keep each, so whole ranges around them are closed to clients; to open \
             addresses, name them exactly in peers.allow"
        );
    }
}

/// Logs what is waited for, unless it was `told`.
fn missing(place: &Place, told: &[Waiting]) {
    let new: Vec<&Waiting> = place.waiting.iter().filter(|waiting| !told.contains(waiting)).collect();
    if let Err(reason) = place.is_ready() {
        let fix = match place.waiting.first() {
            Some(Waiting::Configured(..)) => {
                "correct relay.addresses if this is a mistake; `ip addr` lists those that can be used"
            }
            Some(Waiting::Unknown(..)) => {
                "write the public address in relay.external_ip, or correct what the reason names; docs/configuration.md says who is \
                 asked"
            }
            _ => {
                "connect this machine to a network, or list addresses of this machine in relay.addresses in a configuration \
                 and start with --config"
            }
        };
        let is_asked =
            |waiting: &Waiting| matches!(waiting, Waiting::Unknown(_, why) if why.ends_with(ASKING));
        if !new.is_empty() && place.waiting.iter().all(is_asked) {
            info!("{reason}; the relay waits for the answer, and clients get 508 until then");
        } else if !new.is_empty() {
            warn!("{reason}; the relay waits for one, and clients get 508 until then: {fix}");
        }
        return;
    }
    for waiting in new {
        match waiting {
            Waiting::Configured(ip, why) => {
                warn!(
                    "relay.addresses: waiting for {ip}: {why}; it relays as soon as it can be used (`ip addr` lists those that can)"
                );
            }
            Waiting::Discovered(family, why) => info!("no {family} relayed address: {why}"),
            Waiting::Unknown(ip, why) => info!("{ip} does not relay yet: {why}"),
            Waiting::External(entry, relay) => warn!(
                "relay.external_ip: {entry} waits for its inside address, which does not relay yet (now {relay} does); list the \
                 inside address in relay.addresses to relay with it"
            ),
        }
    }
}

fn listeners(site: &Site) -> String {
    let lists = Transport::ALL.map(|transport| (transport.as_str(), site.over(transport)));
    let lists = lists.iter().filter(|(_, addrs)| !addrs.is_empty());
    lists.map(|(name, addrs)| format!("{name} {}", list(addrs))).collect::<Vec<_>>().join("; ")
}

/// A relayed address, where it comes from, and its external address.
fn advertised(chosen: Chosen, external: &External) -> String {
    let outside = outside(external, chosen.address);
    if outside == chosen.address {
        return chosen.to_string();
    }
    format!("{chosen}, advertised as {outside} (relay.external_ip)")
}

fn outside(external: &External, ip: IpAddr) -> IpAddr {
    external.outside(SocketAddr::new(ip, 0)).ip()
}

fn is_ipv6_only(settings: &Settings, place: &Place) -> bool {
    let configured = &settings.relay.addresses;
    let relay = if configured.is_empty() { &place.addresses() } else { configured };
    !relay.is_empty() && relay.iter().all(IpAddr::is_ipv6)
}

fn private_only(place: &Place) -> Option<String> {
    let is_private = |ip: &IpAddr| addresses::is_private(outside(&place.external, *ip));
    let all = place.addresses();
    (!all.is_empty() && all.iter().all(is_private)).then(|| {
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
        line += &format!("; also denied: {}", shown::text(&list(&peers.deny)));
    }
    // What has no effect was warned about.
    let has_effect = |rule: &&PeerRule| !own_addresses::has_no_effect(rule, &site.own, &peers.nat64);
    let allowed: Vec<_> = peers.allow.iter().filter(has_effect).map(|rule| allowed(rule, site)).collect();
    if !allowed.is_empty() {
        line += &format!("; allowed nevertheless: {}", list(&allowed));
    }
    line
}

/// What clients of listeners with peers of their own reach.
fn listener_peers(settings: &Settings, site: &Site) -> Vec<String> {
    let of = |one: Listener| {
        let ListenerPeers { mode, allow, deny } = &one.peers;
        let allowed: Vec<_> = allow.iter().map(|rule| allowed(rule, site)).collect();
        let reached = match mode {
            PeersMode::Alone if allow.is_empty() => "reach only each other at relayed addresses".to_owned(),
            PeersMode::Alone => format!("reach only {}, and each other at relayed addresses", list(&allowed)),
            PeersMode::Add if allow.is_empty() => "are refused more peers".to_owned(),
            PeersMode::Add => format!("also reach {}", list(&allowed)),
        };
        let denied = match &deny[..] {
            [] => String::new(),
            deny => format!("; denied: {}", shown::text(&list(deny))),
        };
        format!("clients of {one} {reached}{denied}")
    };
    settings.listeners().into_iter().filter(|one| one.peers.rules().is_some()).map(of).collect()
}

/// A rule that allows peers, and what it does not open.
fn allowed(rule: &PeerRule, site: &Site) -> String {
    match closed(rule, site) {
        closed if closed.is_empty() => shown::text(&rule.to_string()).into_owned(),
        closed => {
            let closed = own_addresses::list(&closed);
            format!("{rule} (without this machine's own {closed}; to open one, name it exactly)")
        }
    }
}

/// The own ranges that a rule is about but does not open.
fn closed(rule: &PeerRule, site: &Site) -> Vec<Cidr> {
    let outside = site.relay.iter().map(|ip| Cidr::from(site.outside(*ip)));
    let own: Vec<_> = site.own.iter().copied().chain(outside).collect();
    own_addresses::not_opened(rule, &own, site.widened)
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
    use super::super::external::Questions;
    use super::super::own::Own;
    use super::*;

    fn place(relay: &[&str], external: &[(&str, &str)]) -> Place {
        let chosen = |text: &&str| Chosen { address: text.parse().unwrap(), why: Why::DefaultRoute };
        let pair = |&(local, out): &(&str, &str)| (local.parse().unwrap(), out.parse().unwrap());
        Place {
            own: Own { ranges: Vec::new(), widened: false, complete: true },
            relay: relay.iter().map(chosen).collect(),
            external: External::new(external.iter().map(pair).collect()),
            misfit: None,
            waiting: Vec::new(),
            idle: Vec::new(),
            questions: Questions::default(),
        }
    }

    #[test]
    fn only_private_addresses_cause_a_warning() {
        let warning = private_only(&place(&["192.168.1.5", "fd00::5"], &[])).unwrap();
        assert!(warning.contains("set relay.external_ip"), "{warning}");
        assert!(private_only(&place(&["192.168.1.5", "2001:db8::5"], &[])).is_none());
        assert!(private_only(&place(&["192.168.1.5"], &[("192.168.1.5", "203.0.113.5")])).is_none());
        assert!(private_only(&place(&[], &[])).is_none());
    }

    #[test]
    fn an_external_address_is_logged_with_its_origin() {
        let place = place(&["10.0.0.5", "10.0.0.6"], &[("10.0.0.5", "203.0.113.5")]);
        let lines: Vec<_> = place.relay.iter().map(|chosen| advertised(*chosen, &place.external)).collect();
        let from = "(source address of the default route)";
        let mapped = format!("10.0.0.5 {from}, advertised as 203.0.113.5 (relay.external_ip)");
        assert_eq!(lines, [mapped, format!("10.0.0.6 {from}")]);
    }

    #[test]
    fn denied_and_allowed_ranges_are_logged() {
        let mut settings = Settings::default();
        settings.peers.allow = vec!["10.0.0.0/8".parse().unwrap()];
        settings.peers.deny = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let site = Site { relay: vec!["10.1.2.3".parse().unwrap()], ..Site::default() };
        let line = denied(&settings, &site);
        assert!(
            line.ends_with(
                "; also denied: 10.1.0.0/16, 2001:db8::/32; allowed nevertheless: 10.0.0.0/8 (without this machine's own \
                 10.1.2.3; to open one, name it exactly)"
            ),
            "{line}"
        );
        // NAT64 and IPv4-mapped addresses are judged by what is inside.
        settings.peers.allow = vec!["64:ff9b::/96".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()];
        settings.peers.deny.clear();
        let line = denied(&settings, &site);
        assert!(!line.contains("allowed nevertheless"), "{line}");
    }

    /// What is warned about at the start is also warned about when the addresses that it concerns appear later, once.
    #[test]
    fn addresses_that_come_later_are_warned_about() {
        let mut settings = Settings::default();
        settings.relay.ports = 50000..=60000;
        settings.peers.allow = vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.7:50000".parse().unwrap()];
        settings.peers.deny = vec!["192.0.2.0/24".parse().unwrap()];
        let site = |addresses: &[&str]| Site {
            relay: addresses.iter().take(1).map(|ip| ip.parse().unwrap()).collect(),
            own: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Site::default()
        };
        let (before, now) = (site(&[]), site(&["192.0.2.7", "10.0.0.7"]));
        let lines = new_warnings(&settings, &before, &now).join("\n");
        for said in [
            "peers.allow: the ports of 192.0.2.7:50000 overlap the relay ports",
            "peers.deny: denies the relay's own 192.0.2.7/32, so clients of this relay cannot call each other",
            "peers.allow: 10.0.0.0/8 does not open this machine's own addresses (10.0.0.7)",
        ] {
            assert!(lines.contains(&said.replace("/32,", ",")), "{lines}");
        }
        let more = site(&["192.0.2.7", "10.0.0.7", "10.0.0.8"]);
        assert_eq!(new_warnings(&settings, &now, &more), Vec::<String>::new());
    }
}
