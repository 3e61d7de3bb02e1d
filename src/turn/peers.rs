//! Which peers may be reached: one function, [`PeerRules::judge`], for permissions, channels and packets (RFC 8656 sections
//! 10.2, 11.2, 12.2 and 21).
//!
//! A relay is a way into the network around it, so everything that is not a global unicast address is refused unless the
//! operator allows it. Tunnels that hide an IPv4 address in an IPv6 one are always refused; a NAT64 address is judged by
//! the IPv4 address inside.
//!
//! A relay is also a way past the firewall of its own machine, which lets the loopback interface pass. So the machine's own
//! addresses are closed, but for the ports where two clients of the relay meet and what the operator names exactly.
//!
//! An address is judged once. The resulting [`Scope`] decides about the ports of each packet without walking lists.

mod cidr;
mod rule;
mod scope;
mod special;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use cidr::{Cidr, CidrError};
pub use rule::{PeerRule, PeerRuleError};
pub use scope::{Forbidden, PortRules, Scope};

use super::External;
use cidr::is_link_local;
use scope::{Access, PortMap};
use special::{DENIED, NAT64, TUNNELS};

/// The configuration of [`PeerRules`].
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What the operator allows. It overrides the built-in refusals with the same or a shorter prefix.
    pub allow: Vec<PeerRule>,
    /// What the operator denies. It overrides `allow` unless that is more specific: has a longer prefix, or the same prefix
    /// and ports.
    pub deny: Vec<PeerRule>,
    /// NAT64 prefixes of this network besides 64:ff9b::/96, of 32, 40, 48, 56, 64 or 96 bits.
    pub nat64: Vec<Cidr>,
    /// Where allocations live: the relayed addresses, their external ones behind a NAT, and former ones that this machine
    /// still has.
    pub relay: Vec<IpAddr>,
    /// What packets to this machine may be addressed to, as the kernel's local routing table has it: addresses and ranges
    /// such as 127.0.0.0/8.
    pub own: Vec<Cidr>,
    /// Whether `own` has ranges that are wider than those of the kernel, because there are too many.
    pub widened: bool,
    /// The relay's own listeners and its HTTP endpoints: their ports are refused at every own address.
    pub endpoints: Vec<SocketAddr>,
}

/// Who may be reached, made once from [`Rules`].
#[derive(Clone, Debug)]
pub struct PeerRules {
    allow: Vec<PeerRule>,
    deny: Vec<PeerRule>,
    denied: Vec<(Cidr, &'static str)>,
    tunnels: Vec<(Cidr, &'static str)>,
    nat64: Vec<Cidr>,
    relay: Vec<IpAddr>,
    /// The own ranges, sorted and disjoint: a machine may have thousands of addresses.
    own: Vec<Cidr>,
    widened: bool,
    /// The ports of the endpoints.
    endpoints: Vec<u16>,
}

/// How much a rule of the operator weighs where several are about the same address and port: the longer prefix wins, then
/// the one with ports, then the one that denies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    len: u8,
    has_ports: bool,
    denies: bool,
}

/// What each port of an address is to packets, and where they go; see [`PortRules`].
struct Judged {
    access: PortMap<Access>,
    live: IpAddr,
    inside: IpAddr,
    is_own: bool,
}

impl PeerRules {
    /// Prepares the rules.
    pub fn new(rules: Rules) -> PeerRules {
        let built_in = |table: &[(&str, &'static str)]| -> Vec<(Cidr, &'static str)> {
            table.iter().map(|(range, name)| (range.parse().expect("a range of ours"), *name)).collect()
        };
        let mut nat64 = rules.nat64;
        nat64.push(NAT64.parse().expect("a range of ours"));
        let listening = rules.endpoints.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let mut own = rules.own;
        own.extend(rules.relay.iter().copied().chain(listening).map(Cidr::from));
        own.sort_unstable_by_key(|range| (range.addr, range.len));
        own.dedup_by(|later, earlier| earlier.covers(later));
        PeerRules {
            allow: rules.allow,
            deny: rules.deny,
            denied: built_in(&DENIED),
            tunnels: built_in(&TUNNELS),
            nat64,
            relay: rules.relay,
            own,
            widened: rules.widened,
            endpoints: rules.endpoints.iter().map(SocketAddr::port).collect(),
        }
    }

    /// Judges a peer's address. Each port is judged by the [`Scope`].
    ///
    /// # Errors
    /// No port of the address may be reached: 403, or the packet is dropped.
    pub fn judge(&self, ip: IpAddr, external: &External) -> Result<Scope, Forbidden> {
        let Judged { access, live, inside, is_own } = match self.inside_nat64(ip)? {
            None => self.judge_address(ip, external)?,
            // Packets go to the NAT64, whatever the address inside is called here
            Some(v4) => {
                let judged = self.judge_address(IpAddr::V4(v4), external)?;
                let access = judged.access.zip(&self.decisions(ip)).map(|(access, rule)| match rule {
                    Some(rule) if rule.denies => Access::Closed(Forbidden::Denied),
                    _ => access,
                });
                Judged { access, inside: ip, ..judged }
            }
        };
        let is_closed = access.values().all(|access| matches!(access, Access::Closed(_)));
        let is_uniform = access.values().count() == 1;
        match *access.get(0) {
            Access::Closed(why) if is_closed => Err(why),
            Access::Open if is_uniform && !is_own => Ok(Scope::EveryPort),
            _ => Ok(Scope::Ports(Arc::new(PortRules { access, live, inside, is_own }))),
        }
    }

    /// What the operator can do about a peer that is refused for this reason. Port 0 means any port.
    pub fn remedy(&self, peer: SocketAddr, why: Forbidden, external: &External) -> Option<Remedy> {
        let named = self.inside_nat64(peer.ip()).ok()?.map_or(peer.ip(), IpAddr::V4);
        let named = SocketAddr::new(named, peer.port());
        match why {
            Forbidden::PortZero | Forbidden::Never(_) | Forbidden::Endpoint => None,
            Forbidden::Denied => Some(Remedy::Denied(named)),
            Forbidden::Special(_) => Some(Remedy::Other(named)),
            Forbidden::Own | Forbidden::NoAllocation if self.endpoints.contains(&peer.port()) => None,
            Forbidden::Own | Forbidden::NoAllocation => {
                let inside = external.inside_of(named.ip());
                let here = SocketAddr::new(inside.unwrap_or(named.ip()), named.port());
                Some(Remedy::Own { here, elsewhere: inside.map(|_| named) })
            }
        }
    }

    /// Whether the operator denies a port of `ports` at this address.
    pub fn denies(&self, ip: IpAddr, ports: RangeInclusive<u16>) -> bool {
        self.decisions(ip).within(ports).any(|rule| rule.is_some_and(|rule| rule.denies))
    }

    /// Whether the operator denies all of `ports` at this address.
    pub fn denies_all(&self, ip: IpAddr, ports: RangeInclusive<u16>) -> bool {
        self.decisions(ip).within(ports).all(|rule| rule.is_some_and(|rule| rule.denies))
    }

    /// Whether every address of a range is judged by the IPv4 address inside.
    pub fn is_nat64(&self, range: &Cidr) -> bool {
        self.nat64.iter().any(|prefix| prefix.covers(range))
    }

    /// The kind of tunnel that this address belongs to, if it is one that hides an IPv4 address (RFC 8656 section 21.4).
    pub fn tunnel(&self, ip: IpAddr) -> Option<&'static str> {
        let is_tunnel = |(range, _): &&(Cidr, _)| range.contains(ip) && !ip.is_loopback();
        self.tunnels.iter().find(is_tunnel).map(|(_, name)| *name)
    }

    /// The IPv4 address that a NAT64 makes of an IPv6 one.
    fn inside_nat64(&self, ip: IpAddr) -> Result<Option<Ipv4Addr>, Forbidden> {
        // The kernel takes it for the loopback address
        if ip.is_unspecified() {
            return Err(Forbidden::Never("unspecified"));
        }
        let IpAddr::V6(v6) = ip else { return Ok(None) };
        match self.tunnel(ip) {
            Some(name) => Err(Forbidden::Never(name)),
            // Packets to it do not reach the NAT64
            None if self.is_own(ip) => Ok(None),
            None => Ok(self.nat64.iter().find_map(|prefix| prefix.embedded(v6))),
        }
    }

    /// Judges an address that hides no other.
    fn judge_address(&self, ip: IpAddr, external: &External) -> Result<Judged, Forbidden> {
        let decisions = self.decisions(ip);
        let inside = external.inside_of(ip);
        if inside.is_none() && !self.is_own(ip) {
            let special = self.special(ip);
            let access = decisions.map(|rule| match (rule, special) {
                (Some(rule), _) if rule.denies => Access::Closed(Forbidden::Denied),
                (rule, Some((len, name))) if rule.is_none_or(|rule| rule.len < len) => {
                    Access::Closed(Forbidden::Special(name))
                }
                _ => Access::Open,
            });
            return Ok(Judged { access, live: ip, inside: ip, is_own: false });
        }
        let mut access = match inside {
            None => {
                let access = decisions.map(|rule| match rule {
                    Some(rule) if rule.denies => Access::Closed(Forbidden::Denied),
                    Some(rule) if self.opens_own(rule, ip) => Access::Open,
                    _ => Access::Live,
                });
                let is_opened = access.values().any(|access| access == Access::Open);
                match access.get(0) {
                    // No allocation can live there
                    Access::Live if !is_opened && !self.relay.contains(&ip) => {
                        return Err(match is_link_local(ip) {
                            // It may be another host's, too
                            true => Forbidden::Special("link-local"),
                            false => Forbidden::Own,
                        });
                    }
                    _ => access,
                }
            }
            // A port is the inside address's if an allocation lives there or the operator opens it there; otherwise it may
            // be another machine's behind the same external address
            Some(inside) => decisions.zip(&self.decisions(inside)).map(|(outer, inner)| {
                let denial = outer.filter(|rule| rule.denies);
                let opening = inner.filter(|rule| !rule.denies && self.opens_own(*rule, inside));
                match (opening, denial) {
                    (Some(opening), denial) if denial.is_none_or(|denial| denial < opening) => Access::Inside,
                    (_, Some(_)) => Access::Closed(Forbidden::Denied),
                    _ if outer.is_some_and(|rule| self.opens_own(rule, ip)) => Access::LiveOrOpen,
                    _ => Access::Live,
                }
            }),
        };
        for &port in &self.endpoints {
            access.update(port..=port, |_| Access::Closed(Forbidden::Endpoint));
        }
        let inside = inside.unwrap_or(ip);
        Ok(Judged { access, live: inside, inside, is_own: true })
    }

    /// The operator's rule that decides about each port of an address, if there is one.
    fn decisions(&self, ip: IpAddr) -> PortMap<Option<Weight>> {
        let mut decisions = PortMap::new(None);
        for (rules, denies) in [(&self.allow, false), (&self.deny, true)] {
            for rule in rules.iter().filter(|rule| rule.range.contains(ip)) {
                let weight = Some(Weight { len: rule.range.len, has_ports: rule.has_ports(), denies });
                decisions.update(rule.ports(), |best| weight.max(best));
            }
        }
        decisions
    }

    /// Whether a rule that allows an own address opens it: one that names it exactly, or a range that lies within one own
    /// range. A wider one was not written with this machine in mind.
    fn opens_own(&self, rule: Weight, ip: IpAddr) -> bool {
        let exact = Cidr::from(ip).len;
        let is_inside = |own: Cidr| own.opens_in_part(self.widened) && own.len <= rule.len;
        rule.len == exact || self.own_range(ip).is_some_and(is_inside)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own_range(ip).is_some()
    }

    /// The widest own range with this address.
    fn own_range(&self, ip: IpAddr) -> Option<Cidr> {
        let after = self.own.partition_point(|range| range.addr <= ip);
        self.own[..after].last().copied().filter(|range| range.contains(ip))
    }

    /// The longest built-in refusal of an address: its length and name.
    fn special(&self, ip: IpAddr) -> Option<(u8, &'static str)> {
        let refusals = self.denied.iter().filter(|(range, _)| range.contains(ip));
        refusals.map(|(range, name)| (range.len, *name)).max_by_key(|(len, _)| *len)
    }
}

/// What an operator can do about a refused peer: the entry for `peers.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The address is this machine's own.
    Own {
        /// The entry, if a server on this machine has the port.
        here: SocketAddr,
        /// The entry, if another machine behind the same external address has it.
        elsewhere: Option<SocketAddr>,
    },
    /// The address is not global unicast.
    Other(SocketAddr),
    /// The operator's rules deny it.
    Denied(SocketAddr),
    /// The relay itself listens on the port.
    Endpoint,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A CreatePermission may have no port
        let entry = |peer: &SocketAddr| match peer.port() {
            0 => peer.ip().to_string(),
            _ => peer.to_string(),
        };
        match self {
            Remedy::Own { here, elsewhere } => {
                write!(f, "to reach a server on this machine, add \"{}\" to peers.allow", entry(here))?;
                if here.port() == 0 {
                    write!(f, ", best with the server's ports")?;
                }
                match elsewhere {
                    None => Ok(()),
                    Some(peer) => {
                        let entry = entry(peer);
                        write!(f, "; to reach another machine behind this external address, add \"{entry}\"")
                    }
                }
            }
            Remedy::Other(peer) => {
                write!(f, "if clients need this peer, add \"{}\" to peers.allow", entry(peer))
            }
            Remedy::Endpoint => {
                write!(f, "no rule opens it; a server on this machine, such as an SFU, needs another port")
            }
            Remedy::Denied(peer) => {
                write!(f, "if clients need this peer, add \"{}\" to peers.allow, or deny less", entry(peer))
            }
        }
    }
}
