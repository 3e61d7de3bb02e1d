//! The rules that the operator writes, and which of several decides.

use std::net::IpAddr;

use super::scope::PortMap;
use super::{Cidr, PeerRule};

/// The rules of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerRules {
    /// They count beside those of the other listeners.
    Add {
        /// What clients may also reach.
        allow: Vec<PeerRule>,
        /// What clients may not reach.
        deny: Vec<PeerRule>,
    },
    /// No others count: what neither they nor an overlay allows is refused, but for live relayed addresses of this relay.
    Alone {
        /// What clients may reach.
        allow: Vec<PeerRule>,
        /// What clients may not reach of that.
        deny: Vec<PeerRule>,
    },
}

/// Rules that count together.
#[derive(Clone, Debug)]
pub(super) struct OperatorRules {
    pub(super) allow: Vec<PeerRule>,
    pub(super) deny: Vec<PeerRule>,
}

/// How much a rule weighs where several are about the same address and port: the longer prefix wins, then the one with ports,
/// then the one that denies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    pub(super) len: u8,
    has_ports: bool,
    pub(super) denies: bool,
}

impl Weight {
    /// That of a rule that allows exactly this address at some ports.
    pub(super) fn exactly(ip: IpAddr) -> Weight {
        Weight { len: Cidr::from(ip).len, has_ports: true, denies: false }
    }
}

impl OperatorRules {
    /// The rule that decides about each port of an address, if there is one.
    pub(super) fn decisions(&self, ip: IpAddr) -> PortMap<Option<Weight>> {
        let mut decisions = PortMap::new(None);
        for (rules, denies) in [(&self.allow, false), (&self.deny, true)] {
            for rule in rules.iter().filter(|rule| rule.range.contains(ip)) {
                let weight = Some(Weight { len: rule.range.len, has_ports: rule.has_ports(), denies });
                decisions.update(rule.ports(), |best| weight.max(best));
            }
        }
        decisions
    }
}
