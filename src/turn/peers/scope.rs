//! What an address's judgement says about its ports: [`Scope`], which is cached with each permission and channel.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Why a peer may not be reached. The client sees 403, or its packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// No host has port 0.
    PortZero,
    /// Refused whatever the operator allows: a tunnel (RFC 8656 section 21.4), or an address that means "this host".
    Never(&'static str),
    /// Not a global unicast address.
    Special(&'static str),
    /// The operator's rules deny it.
    Denied,
    /// The rules of the client's listener stand alone and do not allow it.
    Unlisted,
    /// An overlay limits clients to named peers, and none names it.
    NotInOverlay,
    /// One of the relay's own listeners.
    Endpoint,
    /// An address of this machine that is not a relayed one.
    Own,
    /// A relayed address of this machine, at a port where no allocation lives.
    NoAllocation,
    /// Probes reach relayed addresses of this relay only.
    NotForProbes,
}

impl Forbidden {
    /// The text in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Forbidden::PortZero => "port 0",
            Forbidden::Never(name) | Forbidden::Special(name) => name,
            Forbidden::Denied => "denied by peers.deny",
            Forbidden::Unlisted => "not among the peers that its listener allows",
            Forbidden::NotInOverlay => "not among the peers that overlays limit clients to",
            Forbidden::Endpoint => "this server's own endpoint",
            Forbidden::Own => "the address is this relay's own",
            Forbidden::NotForProbes => "no relayed address of this relay, and probes reach nothing else",
            Forbidden::NoAllocation => "the address is this relay's own and no allocation lives on that port",
        }
    }
}

/// Which ports of a peer's address may be reached, and where packets to them go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every port, at the address itself.
    EveryPort,
    /// As these rules say.
    Ports(Arc<PortRules>),
}

/// Rules for the ports of one address.
#[derive(Debug, PartialEq, Eq)]
pub struct PortRules {
    pub(super) access: PortMap<Access>,
    /// The relayed address that is asked for a live allocation: behind a NAT, the inside address.
    pub(super) live: IpAddr,
    /// The address that packets to ports of this machine are sent to: behind a NAT, the inside address.
    pub(super) inside: IpAddr,
    /// The address is this machine's own.
    pub(super) is_own: bool,
}

/// What may be done with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is reached under the address as the client names it.
    Open,
    /// It is reached at the inside address.
    Inside,
    /// It is reached at the inside address while an allocation lives there.
    Live,
    /// The same; otherwise it is elsewhere and reached under the address as the client names it.
    LiveOrOpen,
    /// It is not reached.
    Closed(Forbidden),
}

impl Scope {
    /// Where a packet to `peer`, whose address this scope is about, is sent. `is_live` tells whether a relayed transport
    /// address, by its inside name, holds an allocation now.
    ///
    /// # Errors
    /// The port may not be reached now.
    pub fn send_to(
        &self,
        peer: SocketAddr,
        is_live: impl FnOnce(SocketAddr) -> bool,
    ) -> Result<SocketAddr, Forbidden> {
        let port = peer.port();
        match self {
            _ if port == 0 => Err(Forbidden::PortZero),
            Scope::EveryPort => Ok(peer),
            Scope::Ports(rules) => {
                let inside = SocketAddr::new(rules.inside, port);
                let is_live = || is_live(SocketAddr::new(rules.live, port));
                match *rules.access.get(port) {
                    Access::Open => Ok(peer),
                    Access::Inside => Ok(inside),
                    Access::Live => is_live().then_some(inside).ok_or(Forbidden::NoAllocation),
                    Access::LiveOrOpen => Ok(if is_live() { inside } else { peer }),
                    Access::Closed(why) => Err(why),
                }
            }
        }
    }

    /// Whether a port may be reached; see [`Scope::send_to`].
    ///
    /// # Errors
    /// The port may not be reached now.
    pub fn check(&self, port: u16, is_live: impl FnOnce(SocketAddr) -> bool) -> Result<(), Forbidden> {
        let any = IpAddr::from([0, 0, 0, 0]);
        self.send_to(SocketAddr::new(any, port), is_live).map(drop)
    }

    /// Whether the address is this machine's own.
    pub fn is_own(&self) -> bool {
        match self {
            Scope::EveryPort => false,
            Scope::Ports(rules) => rules.is_own,
        }
    }

    /// Whether the port may be reached, now or once a relayed address lives there.
    pub(in crate::turn) fn admits(&self, port: u16) -> bool {
        self.check(port, |_| true).is_ok()
    }
}

/// A value for each port, as runs of ports with the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortMap<T>(
    /// The first port of each run and its value; the first run starts at 0, and each ends where the next starts.
    Vec<(u16, T)>,
);

impl<T: Copy + PartialEq> PortMap<T> {
    /// The same value for each port.
    pub(super) fn new(value: T) -> PortMap<T> {
        PortMap(vec![(0, value)])
    }

    /// The value of a port.
    pub(super) fn get(&self, port: u16) -> &T {
        let after = self.0.partition_point(|&(first, _)| first <= port);
        &self.0[after - 1].1
    }

    /// Changes the values of a range of ports.
    pub(super) fn update(&mut self, ports: RangeInclusive<u16>, change: impl Fn(T) -> T) {
        let from = self.split(*ports.start());
        let to = ports.end().checked_add(1).map_or(self.0.len(), |next| self.split(next));
        for (_, value) in &mut self.0[from..to] {
            *value = change(*value);
        }
    }

    /// A map with changed values.
    pub(super) fn map<U: Copy + PartialEq>(&self, change: impl Fn(T) -> U) -> PortMap<U> {
        let mut runs: Vec<(u16, U)> = self.0.iter().map(|&(first, value)| (first, change(value))).collect();
        runs.dedup_by(|later, earlier| later.1 == earlier.1);
        PortMap(runs)
    }

    /// A map of the values of both.
    pub(super) fn zip<U: Copy + PartialEq>(&self, other: &PortMap<U>) -> PortMap<(T, U)> {
        let mut starts: Vec<u16> =
            self.0.iter().map(|run| run.0).chain(other.0.iter().map(|run| run.0)).collect();
        starts.sort_unstable();
        starts.dedup();
        PortMap(starts.into_iter().map(|first| (first, (*self.get(first), *other.get(first)))).collect())
    }

    /// The values that occur, by the first port of each run.
    pub(super) fn values(&self) -> impl Iterator<Item = T> {
        self.0.iter().map(|&(_, value)| value)
    }

    /// The values that occur in a range of ports.
    pub(super) fn within(&self, ports: RangeInclusive<u16>) -> impl Iterator<Item = T> {
        let (start, end) = ports.into_inner();
        let after = self.0.partition_point(|&(first, _)| first <= start);
        self.0[after - 1..].iter().take_while(move |&&(first, _)| first <= end).map(|&(_, value)| value)
    }

    /// Makes a run start at `port`; returns its index.
    fn split(&mut self, port: u16) -> usize {
        match self.0.binary_search_by_key(&port, |&(first, _)| first) {
            Ok(at) => at,
            Err(at) => {
                let value = self.0[at - 1].1;
                self.0.insert(at, (port, value));
                at
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_for_each_port() {
        let mut map = PortMap::new(0);
        map.update(80..=90, |value| value + 1);
        map.update(85..=65535, |value| value + 2);
        map.update(0..=0, |value| value + 4);
        let expected = [(0, 4), (1, 0), (79, 0), (80, 1), (84, 1), (85, 3), (90, 3), (91, 2), (65535, 2)];
        for (port, value) in expected {
            assert_eq!(*map.get(port), value, "{port}");
        }
        let odd = map.map(|value| value % 2 == 1);
        assert_eq!(odd.0, [(0, false), (80, true), (91, false)], "equal runs are joined");
        let both = odd.zip(&map);
        assert_eq!((*both.get(84), *both.get(85), *both.get(91)), ((true, 1), (true, 3), (false, 2)));
        assert!(map.within(80..=84).eq([1]) && map.within(84..=91).eq([1, 3, 2]));
    }
}
