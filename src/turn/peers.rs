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
//! Three layers of rules decide: those of the operator, which a listener may add to or replace; the built-in refusals; and
//! overlays, which a program sets while the relay runs. An overlay never opens what the operator denies.
//!
//! An address is judged once. The resulting [`Scope`] decides about the ports of each packet without walking lists.

mod cidr;
mod operator;
mod overlay;
mod remedy;
mod rule;
mod scope;
mod special;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use cidr::{Cidr, CidrError};
pub use operator::ListenerRules;
pub use overlay::{OverlayMode, Overlays};
pub use remedy::Remedy;
pub use rule::{PeerRule, PeerRuleError};
pub use scope::{Forbidden, PortRules, Scope};

use super::External;
use cidr::is_link_local;
use operator::{OperatorRules, Weight};
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
    /// What programs have set.
    pub overlays: Overlays,
}

/// Who may be reached, made once from [`Rules`].
#[derive(Clone, Debug)]
pub struct PeerRules {
    operator: OperatorRules,
    /// For a listener that stands alone, the rules of the others: no overlay opens what they deny.
    others: Option<Arc<OperatorRules>>,
    shared: Arc<SharedRules>,
}

/// What the rules of all listeners have in common.
#[derive(Debug)]
struct SharedRules {
    denied: Vec<(Cidr, &'static str)>,
    tunnels: Vec<(Cidr, &'static str)>,
    nat64: Vec<Cidr>,
    relay: Vec<IpAddr>,
    /// The own ranges, sorted and disjoint: a machine may have thousands of addresses.
    own: Vec<Cidr>,
    widened: bool,
    /// The ports of the endpoints.
    endpoints: Vec<u16>,
    overlays: Overlays,
}

/// What each port of an address is to packets, and where they go; see [`PortRules`].
struct Judged {
    access: PortMap<Access>,
    live: IpAddr,
    inside: IpAddr,
    is_own: bool,
}

/// The ranges that are refused unless they are allowed, and those that always are, each with what it is.
pub fn refused_by_default() -> impl Iterator<Item = (&'static str, &'static str)> {
    special::DENIED.into_iter().chain(special::TUNNELS)
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
        let shared = SharedRules {
            denied: built_in(&DENIED),
            tunnels: built_in(&TUNNELS),
            nat64,
            relay: rules.relay,
            own,
            widened: rules.widened,
            endpoints: rules.endpoints.iter().map(SocketAddr::port).collect(),
            overlays: rules.overlays,
        };
        let operator = OperatorRules { allow: rules.allow, deny: rules.deny };
        PeerRules { operator, others: None, shared: Arc::new(shared) }
    }

    /// The rules of a listener that has some of its own; `self` are those of the others.
    pub fn for_listener(&self, rules: &ListenerRules) -> PeerRules {
        let shared = self.shared.clone();
        match rules {
            ListenerRules::Add { allow, deny } => {
                let operator = OperatorRules {
                    allow: [&self.operator.allow[..], allow].concat(),
                    deny: [&self.operator.deny[..], deny].concat(),
                };
                PeerRules { operator, others: None, shared }
            }
            ListenerRules::Alone { allow, deny } => PeerRules {
                operator: OperatorRules { allow: allow.clone(), deny: deny.clone() },
                others: Some(Arc::new(self.operator.clone())),
                shared,
            },
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
                let access = judged.access.zip(&self.decisions(ip, false)).map(|(access, rule)| match rule {
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

    /// Judges a peer's address for a probe: relayed addresses of this relay while an allocation lives there, whatever the rules
    /// for clients are.
    ///
    /// # Errors
    /// No allocation can live at this address.
    pub fn judge_for_probe(&self, ip: IpAddr, external: &External) -> Result<Scope, Forbidden> {
        let inside = external.inside_of(ip).unwrap_or(ip);
        if !self.shared.relay.contains(&inside) {
            return Err(Forbidden::NotForProbes);
        }
        let mut access = PortMap::new(Access::Live);
        for &port in &self.shared.endpoints {
            access.update(port..=port, |_| Access::Closed(Forbidden::Endpoint));
        }
        Ok(Scope::Ports(Arc::new(PortRules { access, live: inside, inside, is_own: true })))
    }

    /// What the operator can do about a peer that is refused for this reason. Port 0 means any port.
    pub fn remedy(&self, peer: SocketAddr, why: Forbidden, external: &External) -> Option<Remedy> {
        let named = self.inside_nat64(peer.ip()).ok()?.map_or(peer.ip(), IpAddr::V4);
        let named = SocketAddr::new(named, peer.port());
        let inside = external.inside_of(named.ip());
        let here = SocketAddr::new(inside.unwrap_or(named.ip()), named.port());
        match why {
            Forbidden::PortZero | Forbidden::Never(_) | Forbidden::Endpoint | Forbidden::NotForProbes => None,
            Forbidden::Own | Forbidden::NoAllocation if self.shared.endpoints.contains(&peer.port()) => None,
            Forbidden::Denied if self.stands_alone() => Some(Remedy::ListenerDenied(named)),
            Forbidden::Denied => Some(Remedy::Denied(named)),
            _ if self.shared.overlays.is_only() => Some(Remedy::Overlay(here)),
            _ if self.stands_alone() => Some(Remedy::Listener(here)),
            Forbidden::Special(_) | Forbidden::Unlisted | Forbidden::NotInOverlay => {
                Some(Remedy::Other(named))
            }
            Forbidden::Own | Forbidden::NoAllocation => {
                Some(Remedy::Own { here, elsewhere: inside.map(|_| named) })
            }
        }
    }

    /// Whether the operator denies a port of `ports` at this address.
    pub fn denies(&self, ip: IpAddr, ports: RangeInclusive<u16>) -> bool {
        self.operator.decisions(ip).within(ports).any(|rule| rule.is_some_and(|rule| rule.denies))
    }

    /// Whether the operator denies all of `ports` at this address.
    pub fn denies_all(&self, ip: IpAddr, ports: RangeInclusive<u16>) -> bool {
        self.operator.decisions(ip).within(ports).all(|rule| rule.is_some_and(|rule| rule.denies))
    }

    /// Whether every address of a range is judged by the IPv4 address inside.
    pub fn is_nat64(&self, range: &Cidr) -> bool {
        self.shared.nat64.iter().any(|prefix| prefix.covers(range))
    }

    /// The kind of tunnel that this address belongs to, if it is one that hides an IPv4 address (RFC 8656 section 21.4).
    pub fn tunnel(&self, ip: IpAddr) -> Option<&'static str> {
        let is_tunnel = |(range, _): &&(Cidr, _)| range.contains(ip) && !ip.is_loopback();
        self.shared.tunnels.iter().find(is_tunnel).map(|(_, name)| *name)
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
            None => Ok(self.shared.nat64.iter().find_map(|prefix| prefix.embedded(v6))),
        }
    }

    /// Judges an address that hides no other.
    fn judge_address(&self, ip: IpAddr, external: &External) -> Result<Judged, Forbidden> {
        let inside = external.inside_of(ip);
        let is_elsewhere = inside.is_none() && !self.is_own(ip);
        let decisions = self.decisions(ip, !is_elsewhere);
        if is_elsewhere {
            let (special, unlisted) = (self.special(ip), self.unlisted());
            let access = decisions.map(|rule| match (rule, special) {
                (Some(rule), _) if rule.denies => Access::Closed(Forbidden::Denied),
                (None, _) if let Some(why) = unlisted => Access::Closed(why),
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
                    Access::Live if !is_opened && !self.shared.relay.contains(&ip) => {
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
            Some(inside) => {
                let outer = decisions.zip(&self.denied_by_others(ip));
                let inner = self.decisions(inside, true).zip(&self.operator.decisions(inside));
                outer.zip(&inner).map(|((outer, is_denied), (inner, operators))| {
                    let denial = outer.filter(|rule| rule.denies);
                    let opens = |rule: Option<Weight>| {
                        rule.filter(|rule| !rule.denies && self.opens_own(*rule, inside))
                    };
                    let opening = match opens(inner) {
                        // An overlay does not open by one name what the operator denies by another
                        Some(_) if is_denied || denial.is_some() => opens(operators),
                        opening => opening,
                    };
                    match (opening, denial) {
                        (Some(opening), denial) if denial.is_none_or(|denial| denial < opening) => {
                            Access::Inside
                        }
                        (_, Some(_)) => Access::Closed(Forbidden::Denied),
                        _ if outer.is_some_and(|rule| self.opens_own(rule, ip)) => Access::LiveOrOpen,
                        _ => Access::Live,
                    }
                })
            }
        };
        for &port in &self.shared.endpoints {
            access.update(port..=port, |_| Access::Closed(Forbidden::Endpoint));
        }
        let inside = inside.unwrap_or(ip);
        Ok(Judged { access, live: inside, inside, is_own: true })
    }

    /// The rule that decides about each port of an address, if there is one. `is_here`: it stands for this machine.
    fn decisions(&self, ip: IpAddr, is_here: bool) -> PortMap<Option<Weight>> {
        let decisions = self.operator.decisions(ip);
        let overlays = &self.shared.overlays;
        if overlays.is_empty() {
            return decisions;
        }
        let named = overlays.names(ip, is_here).zip(&self.denied_by_others(ip));
        decisions.zip(&named).map(|(rule, (is_named, is_denied))| match rule {
            Some(rule) if rule.denies => Some(rule),
            // A listener that stands alone may allow what is denied at others
            rule if is_named && (!is_denied || rule.is_some()) => Some(Weight::exactly(ip)),
            _ if overlays.is_only() => None,
            rule => rule,
        })
    }

    /// For a listener that stands alone, which ports of an address the rules of the others deny.
    fn denied_by_others(&self, ip: IpAddr) -> PortMap<bool> {
        match &self.others {
            Some(others) => others.decisions(ip).map(|rule| rule.is_some_and(|rule| rule.denies)),
            None => PortMap::new(false),
        }
    }

    /// Why an address that no rule is about is refused, even if it is a global one.
    fn unlisted(&self) -> Option<Forbidden> {
        if self.shared.overlays.is_only() {
            return Some(Forbidden::NotInOverlay);
        }
        self.stands_alone().then_some(Forbidden::Unlisted)
    }

    fn stands_alone(&self) -> bool {
        self.others.is_some()
    }

    /// Whether a rule that allows an own address opens it: one that names it exactly, or a range that lies within one own
    /// range. A wider one was not written with this machine in mind.
    fn opens_own(&self, rule: Weight, ip: IpAddr) -> bool {
        let exact = Cidr::from(ip).len;
        let is_inside = |own: Cidr| own.opens_in_part(self.shared.widened) && own.len <= rule.len;
        rule.len == exact || self.own_range(ip).is_some_and(is_inside)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own_range(ip).is_some()
    }

    /// The widest own range with this address.
    fn own_range(&self, ip: IpAddr) -> Option<Cidr> {
        let after = self.shared.own.partition_point(|range| range.addr <= ip);
        self.shared.own[..after].last().copied().filter(|range| range.contains(ip))
    }

    /// The longest built-in refusal of an address: its length and name.
    fn special(&self, ip: IpAddr) -> Option<(u8, &'static str)> {
        let refusals = self.shared.denied.iter().filter(|(range, _)| range.contains(ip));
        refusals.map(|(range, name)| (range.len, *name)).max_by_key(|(len, _)| *len)
    }
}
