//! Whether `[peers]` does to the addresses of this machine what it seems to say. Own addresses are closed to clients, which
//! would get past the firewall there, unless a rule names them exactly; and two clients of the relay meet at its addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::external;
use super::kind::ReadContext;
use super::listener::ListenerSettings;
use super::report::Disagreement;
use super::settings::Settings;
use crate::turn::peers::{Cidr, PeerRule, PeerRules, Rules};
use crate::turn::{External, Transport};

/// The most addresses that a message lists.
const LISTED: usize = 4;

/// What ranges of `peers.allow` do not open, although it is in them.
pub fn notes(settings: &Settings, context: &ReadContext<'_>) -> Vec<Disagreement> {
    let allow = &settings.peers.allow;
    if allow.is_empty() {
        return Vec::new();
    }
    let machine = Machine::new(settings, context);
    let own = machine.all();
    allow.iter().filter_map(|rule| too_wide(rule, &own, &machine)).collect()
}

/// Every disagreement between `[peers]`, `[relay]` and the addresses of this machine; all are warnings.
pub fn agreement(settings: &Settings, context: &ReadContext<'_>) -> Vec<Disagreement> {
    let peers = &settings.peers;
    if peers.allow.is_empty() && peers.deny.is_empty() {
        return Vec::new();
    }
    let (machine, ports) = (Machine::new(settings, context), &settings.relay.ports);
    let own = machine.all();
    let mut found: Vec<_> = peers
        .allow
        .iter()
        // An external address with every port is another machine's
        .filter_map(|rule| {
            relay_ports(rule, if rule.has_ports() { &own } else { &machine.own }, &machine, ports)
        })
        .collect();
    found.extend(peers.allow.iter().filter_map(|rule| listeners(rule, &own, &machine, settings)));
    let rules = PeerRules::new(Rules { nat64: peers.nat64.clone(), ..Rules::default() });
    found.extend(peers.allow.iter().filter_map(|rule| never(rule, &own, &rules)));
    found.extend(denied(settings, machine.outside));
    found
}

/// The addresses of this machine, as far as they are known before it relays.
struct Machine {
    own: Vec<Cidr>,
    /// Whether some of them are wider than the machine's.
    widened: bool,
    /// Its relayed addresses, as sockets are bound to them.
    relay: Vec<IpAddr>,
    /// The same as peers know them.
    outside: Vec<IpAddr>,
    external: External,
}

impl Machine {
    fn new(settings: &Settings, context: &ReadContext<'_>) -> Machine {
        let relay = match settings.relay.addresses.is_empty() {
            true => (context.discovered)(),
            false => settings.relay.addresses.clone(),
        };
        // What does not fit is reported elsewhere
        let mut entries = external::written(&settings.relay.external_ip);
        entries.retain(|entry| !entry.waits(&relay));
        let external = external::pair(&entries, &relay).unwrap_or_default();
        let outside = relay.iter().map(|ip| external.outside_of(*ip).unwrap_or(*ip)).collect();
        let (own, widened) = (context.own)();
        let own = own.into_iter().chain(relay.iter().copied().map(Cidr::from)).collect();
        Machine { own, widened, relay, outside, external }
    }

    /// The own ranges, and what stands for them outside of a NAT.
    fn all(&self) -> Vec<Cidr> {
        self.own.iter().copied().chain(self.outside.iter().copied().map(Cidr::from)).collect()
    }
}

/// Whether a rule of `peers.allow` opens nothing, whatever this machine's addresses are beside these.
pub fn has_no_effect(rule: &PeerRule, own: &[Cidr], nat64: &[Cidr]) -> bool {
    never(rule, own, &PeerRules::new(Rules { nat64: nat64.to_vec(), ..Rules::default() })).is_some()
}

/// The own ranges that a rule of `peers.allow` is about but does not open, because it is wider than each of them.
pub fn not_opened(rule: &PeerRule, own: &[Cidr], widened: bool) -> Vec<Cidr> {
    if opens(rule, own, widened) {
        return Vec::new();
    }
    let inside = |range: &&Cidr| rule.range.covers(range);
    let mut ranges: Vec<Cidr> = own.iter().filter(inside).copied().collect();
    ranges.sort_unstable_by_key(|range| (range.first(), std::cmp::Reverse(range.last())));
    ranges.dedup_by(|later, earlier| earlier.covers(later));
    ranges
}

/// Ranges as text.
pub fn list(ranges: &[Cidr]) -> String {
    let shown = ranges.iter().take(LISTED).map(|range| PeerRule::from(*range).to_string());
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if ranges.len() > LISTED {
        text += &format!(" and {} more", ranges.len() - LISTED);
    }
    text
}

/// Whether a rule is about one address, or about a part of one own range.
fn opens(rule: &PeerRule, own: &[Cidr], widened: bool) -> bool {
    let is_part = |range: &Cidr| range.opens_in_part(widened) && range.covers(&rule.range);
    rule.range.is_one() || own.iter().any(is_part)
}

/// Whether a rule opens addresses of this machine.
fn opens_own(rule: &PeerRule, own: &[Cidr], widened: bool) -> bool {
    let is_own = own.iter().any(|range| range.covers(&rule.range) || rule.range.covers(range));
    is_own && opens(rule, own, widened)
}

fn too_wide(rule: &PeerRule, own: &[Cidr], machine: &Machine) -> Option<Disagreement> {
    let closed = not_opened(rule, own, machine.widened);
    let elsewhere = |range: &&Cidr| !range.first().is_loopback();
    let example = match closed.iter().find(elsewhere).or(closed.first())?.first() {
        IpAddr::V4(v4) if v4.is_loopback() => IpAddr::from(Ipv4Addr::LOCALHOST),
        // Behind a NAT, a server here is named by its inside address
        ip => machine.external.inside_of(ip).unwrap_or(ip),
    };
    let example = SocketAddr::new(example, 7882);
    let what = format!("{rule} does not open this machine's own addresses ({})", list(&closed));
    let fix = format!("to reach a server on this machine, name it exactly, like \"{example}\"");
    Some(Disagreement::warning(&["peers.allow"], what, fix))
}

/// A rule that opens own addresses at ports that relayed addresses have too.
fn relay_ports(
    rule: &PeerRule,
    own: &[Cidr],
    machine: &Machine,
    relay: &RangeInclusive<u16>,
) -> Option<Disagreement> {
    let ports = rule.ports();
    let overlap = ports.start() <= relay.end() && relay.start() <= ports.end();
    // An address that is discovered is never a loopback one
    let is_apart =
        rule.range.first().is_loopback() && !machine.relay.iter().any(|ip| rule.range.contains(*ip));
    if !overlap || is_apart || !opens_own(rule, own, machine.widened) {
        return None;
    }
    let (first, last) = (relay.start(), relay.end());
    if !rule.has_ports() {
        let ip = SocketAddr::new(rule.range.first(), 7882);
        let what = format!(
            "{rule} is this machine's own, and opens every UDP port there, also the relay ports {first}-{last}"
        );
        let fix = format!("name the ports of the server, like \"{ip}\", outside of relay.ports");
        return Some(Disagreement::warning(&["peers.allow", "relay.ports"], what, fix));
    }
    let what =
        format!("the ports of {rule} overlap the relay ports {first}-{last}, so both may want the same one");
    let fix = match rest(relay, &ports) {
        Some(rest) => format!("set relay.ports to others, like \"{}-{}\"", rest.start(), rest.end()),
        None => "set relay.ports to ports that the server does not use".to_owned(),
    };
    Some(Disagreement::warning(&["peers.allow", "relay.ports"], what, fix))
}

/// A rule that opens own addresses and names ports that the relay itself listens on. They stay closed at every own address.
fn listeners(rule: &PeerRule, own: &[Cidr], machine: &Machine, settings: &Settings) -> Option<Disagreement> {
    if !rule.has_ports() || !opens_own(rule, own, machine.widened) {
        return None;
    }
    let listen = settings.listen.all().into_iter().map(|(transport, addr)| match transport {
        Transport::Udp => ("listen.udp", addr),
        Transport::Tcp => ("listen.tcp", addr),
        Transport::Tls => ("listen.tls", addr),
    });
    let more = settings.listener.iter().flat_map(ListenerSettings::each).map(|one| ("listener", one.address));
    let http = settings.http.listen.iter().map(|addr| ("http.listen", *addr));
    let mut taken = BTreeMap::<u16, Vec<&str>>::new();
    for (key, addr) in listen.chain(more).chain(http) {
        if rule.ports().contains(&addr.port()) {
            let keys = taken.entry(addr.port()).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if taken.is_empty() {
        return None;
    }
    let text = |(port, keys): (&u16, &Vec<&str>)| format!("{port} ({})", keys.join(", "));
    let ports: Vec<_> = taken.iter().take(LISTED).map(text).collect();
    let what = format!(
        "{rule} does not open {}, {} this relay itself listens on",
        ports.join(", "),
        if taken.len() == 1 { "a port that" } else { "ports that" },
    );
    Some(Disagreement::warning(
        &["peers.allow"],
        what,
        "give the server another port, and name only its ports",
    ))
}

/// The larger part of the relay's ports that is left without `taken`.
fn rest(relay: &RangeInclusive<u16>, taken: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let below = taken.start().checked_sub(1).map(|last| *relay.start()..=last);
    let above = taken.end().checked_add(1).map(|first| first..=*relay.end());
    below.into_iter().chain(above).filter(|ports| !ports.is_empty()).max_by_key(RangeInclusive::len)
}

/// RFC 8656 §9: two clients of this relay call each other at its own address, which the operator denies.
fn denied(settings: &Settings, relay: Vec<IpAddr>) -> Option<Disagreement> {
    let rules = Rules {
        allow: settings.peers.allow.clone(),
        deny: settings.peers.deny.clone(),
        relay: relay.clone(),
        ..Rules::default()
    };
    let rules = PeerRules::new(rules);
    let ports = &settings.relay.ports;
    let denied: Vec<IpAddr> = relay.into_iter().filter(|ip| rules.denies(*ip, ports.clone())).collect();
    (!denied.is_empty()).then(|| {
        let all = denied.iter().all(|ip| rules.denies_all(*ip, ports.clone()));
        let denied: Vec<_> = denied.into_iter().map(Cidr::from).collect();
        let what = format!(
            "denies the relay's own {}, so clients of this relay cannot call each other{}",
            list(&denied),
            if all { "" } else { " at the ports that it denies" },
        );
        Disagreement::warning(&["peers.deny"], what, "if they should, deny ranges that do not include it")
    })
}

/// A rule for addresses that are refused whatever is allowed.
fn never(rule: &PeerRule, own: &[Cidr], rules: &PeerRules) -> Option<Disagreement> {
    let (first, last) = (rule.range.first(), rule.range.last());
    let why = match rules.tunnel(first) {
        Some(name) if rules.tunnel(last) == Some(name) => format!("{name} addresses are always refused"),
        _ if rule.range.is_one() && first.is_unspecified() => {
            "the unspecified address is always refused".into()
        }
        // An own address there is judged as it is
        _ if rules.is_nat64(&rule.range) && !own.iter().any(|range| range.covers(&rule.range)) => {
            "NAT64 addresses are judged by the IPv4 address inside".into()
        }
        _ => return None,
    };
    let fix = match first {
        _ if rules.is_nat64(&rule.range) => "write the IPv4 range".to_owned(),
        IpAddr::V6(v6) if rule.range.is_one() && v6.to_ipv4().is_some_and(|v4| !v4.is_unspecified()) => {
            format!("write the IPv4 address, {}", v6.to_ipv4().expect("it has one"))
        }
        _ => "remove it".to_owned(),
    };
    Some(Disagreement::warning(&["peers.allow"], format!("{rule} has no effect: {why}"), fix))
}
