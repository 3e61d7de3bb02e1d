//! The external addresses of a relay behind a NAT that maps addresses one to one.
//!
//! Clients are told the external address, and peers know no other. The relay itself must not send to it, because many such
//! NATs do not hairpin packets. So a packet for a port of this machine that is addressed to an external address is sent to the
//! local address behind it, and a packet from a local address is named as the client addressed it. What else is behind the
//! same external address is decided by [`peers`](super::peers).

use std::net::{IpAddr, SocketAddr};

/// The most former external addresses that are remembered.
const FORMER: usize = 256;

/// Pairs of a local and an external address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    pairs: Vec<(IpAddr, IpAddr)>,
    /// The external addresses that local ones had before: clients of running allocations were told them.
    former: Vec<(IpAddr, IpAddr)>,
}

impl External {
    /// `pairs` of local and external addresses of the same family; no address occurs twice on its side.
    pub fn new(pairs: Vec<(IpAddr, IpAddr)>) -> External {
        External { pairs, former: Vec::new() }
    }

    /// Knows the external addresses that local ones had `before`, at most one each, while they are this machine's. Two clients
    /// of the relay that were told them still meet there.
    pub fn after(mut self, before: &External, is_own: impl Fn(IpAddr) -> bool) -> External {
        let is_used = |ip: &IpAddr| self.pairs.iter().any(|(local, external)| local == ip || external == ip);
        let mut former: Vec<(IpAddr, IpAddr)> = Vec::new();
        for &(local, external) in before.pairs.iter().chain(&before.former) {
            let is_known = former.iter().any(|(known, _)| *known == local);
            if former.len() < FORMER && !is_known && !is_used(&external) && is_own(local) {
                former.push((local, external));
            }
        }
        self.former = former;
        self
    }

    /// The external address that a local one had before.
    pub fn former_of(&self, local: IpAddr) -> Option<IpAddr> {
        self.former.iter().find(|(ip, _)| *ip == local).map(|(_, external)| *external)
    }

    /// The external address of a local one; other addresses stay as they are.
    pub fn outside(&self, local: SocketAddr) -> SocketAddr {
        self.outside_of(local.ip()).map_or(local, |external| SocketAddr::new(external, local.port()))
    }

    /// The local address of an external one; other addresses stay as they are.
    pub fn inside(&self, external: SocketAddr) -> SocketAddr {
        self.inside_of(external.ip()).map_or(external, |local| SocketAddr::new(local, external.port()))
    }

    /// The external address of a local one, if it has one.
    pub fn outside_of(&self, local: IpAddr) -> Option<IpAddr> {
        self.pairs.iter().find(|(ip, _)| *ip == local).map(|(_, external)| *external)
    }

    /// The local address behind an external one, if it is one.
    pub fn inside_of(&self, external: IpAddr) -> Option<IpAddr> {
        let mut pairs = self.pairs.iter().chain(&self.former);
        pairs.find(|(_, ip)| *ip == external).map(|(local, _)| *local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let pair = |local: &str, external: &str| (local.parse().unwrap(), external.parse().unwrap());
        let external = External::new(vec![pair("10.0.0.5", "203.0.113.5"), pair("fd00::5", "2001:db8::5")]);
        for (local, outside) in
            [("10.0.0.5:9", "203.0.113.5:9"), ("[fd00::5]:9", "[2001:db8::5]:9"), ("8.8.8.8:9", "8.8.8.8:9")]
        {
            let (local, outside): (SocketAddr, SocketAddr) =
                (local.parse().unwrap(), outside.parse().unwrap());
            assert_eq!((external.outside(local), external.inside(outside)), (outside, local));
        }
    }

    /// Clients that were told an external address are reached there, whatever it is replaced by, and until this machine does not
    /// have the relayed address any more.
    #[test]
    fn a_former_external_address_still_leads_to_its_relayed_one() {
        let [local, a, b, c]: [IpAddr; 4] =
            ["10.0.0.5", "203.0.113.1", "203.0.113.2", "203.0.113.3"].map(|ip| ip.parse().unwrap());
        let first = External::new(vec![(local, a)]);
        let same = External::new(vec![(local, a)]).after(&first, |_| true);
        assert_eq!(same, first);
        let second = External::new(vec![(local, b)]).after(&first, |_| true);
        assert_eq!((second.outside_of(local), second.former_of(local)), (Some(b), Some(a)));
        assert_eq!([a, b].map(|ip| second.inside_of(ip)), [Some(local); 2]);
        assert_eq!(
            External::new(vec![(local, b)]).after(&second, |_| true),
            second,
            "another change forgets nothing"
        );
        let third = External::new(vec![(local, c)]).after(&second, |_| true);
        assert_eq!([a, b, c].map(|ip| third.inside_of(ip)), [None, Some(local), Some(local)]);
        let none = External::default().after(&third, |_| true);
        assert_eq!((none.outside_of(local), none.inside_of(c)), (None, Some(local)));
        assert_eq!(External::default().after(&third, |_| false), External::default());
        let back = External::new(vec![(local, a)]).after(&second, |_| true);
        assert_eq!((back.outside_of(local), back.former_of(local)), (Some(a), Some(b)));
    }
}
