//! What differs between the listeners of a relay: the peers of their clients, and whether they take new allocations.
//!
//! A listener is found by the local address of a 5-tuple and by whether it is for streams (TCP and TLS share sockets), once per permission, channel and Allocate. Packets
//! meet cached verdicts.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::peers::PeerRules;
use super::{FiveTuple, Transport, TurnConfig};

/// The listeners that differ from the others.
#[derive(Clone, Debug, Default)]
pub struct ListenerTable {
    /// Sorted: those for datagrams first, then by address and port.
    listeners: Arc<[ListenerPolicy]>,
}

/// How one listener serves its clients.
#[derive(Clone, Debug)]
pub struct ListenerPolicy {
    /// A transport of its clients. One for streams serves both TCP and TLS.
    pub transport: Transport,
    /// The address that it is bound to, perhaps a wildcard.
    pub address: SocketAddr,
    /// The peers of its clients; `None`: [`TurnConfig::peers`].
    pub peers: Option<Arc<PeerRules>>,
    /// It is being removed: its allocations live on, and new ones are refused (508).
    pub closing: bool,
}

impl ListenerTable {
    /// A table of these. Of two with the same address, both for streams or neither, one that is not closing counts.
    pub fn new(mut listeners: Vec<ListenerPolicy>) -> ListenerTable {
        listeners.sort_by(|one, other| {
            one.order(other.transport, other.address).then(one.closing.cmp(&other.closing))
        });
        listeners.dedup_by(|later, earlier| later.order(earlier.transport, earlier.address).is_eq());
        ListenerTable { listeners: listeners.into() }
    }

    /// The listener that packets to a local address arrive at: that of exactly this address, otherwise the wildcard of its
    /// family, as the kernel chooses sockets. `None`: it does not differ from others.
    pub fn of(&self, transport: Transport, local: SocketAddr) -> Option<&ListenerPolicy> {
        let find = |address| {
            let found = self.listeners.binary_search_by(|one| one.order(transport, address));
            found.ok().map(|at| &self.listeners[at])
        };
        let any: IpAddr = match local {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        find(local).or_else(|| find(SocketAddr::new(any, local.port())))
    }
}

impl ListenerPolicy {
    /// The flow label and the scope of an IPv6 address do not count: a socket is bound to an address without them.
    fn order(&self, transport: Transport, address: SocketAddr) -> Ordering {
        let key =
            |transport: Transport, address: SocketAddr| (transport.is_stream(), address.ip(), address.port());
        key(self.transport, self.address).cmp(&key(transport, address))
    }
}

impl TurnConfig {
    /// The rules for the peers of a client.
    pub(super) fn peers_of(&self, tuple: &FiveTuple) -> &PeerRules {
        let own = self.listeners.of(tuple.transport, tuple.server).and_then(|one| one.peers.as_deref());
        own.unwrap_or(&self.peers)
    }

    /// Whether the listener of a client is being removed.
    pub(super) fn is_closing(&self, tuple: &FiveTuple) -> bool {
        self.listeners.of(tuple.transport, tuple.server).is_some_and(|one| one.closing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(transport: Transport, address: &str, closing: bool) -> ListenerPolicy {
        ListenerPolicy { transport, address: address.parse().unwrap(), peers: None, closing }
    }

    /// udp(7), inet_lookup: a socket that is bound to the destination is preferred to a wildcard one.
    #[test]
    fn the_exact_address_comes_before_the_wildcard() {
        let table = ListenerTable::new(vec![
            policy(Transport::Udp, "0.0.0.0:3478", false),
            policy(Transport::Udp, "192.0.2.1:3478", true),
            policy(Transport::Tcp, "[::]:3478", true),
            policy(Transport::Udp, "[::]:3478", false),
        ]);
        let of = |transport, local: &str| {
            table.of(transport, local.parse().unwrap()).map(|one| (one.address.to_string(), one.closing))
        };
        assert_eq!(of(Transport::Udp, "192.0.2.1:3478"), Some(("192.0.2.1:3478".into(), true)));
        assert_eq!(of(Transport::Udp, "192.0.2.2:3478"), Some(("0.0.0.0:3478".into(), false)));
        assert_eq!(of(Transport::Udp, "[2001:db8::1]:3478"), Some(("[::]:3478".into(), false)));
        assert_eq!(of(Transport::Tcp, "[fe80::1%3]:3478"), Some(("[::]:3478".into(), true)));
        assert_eq!(of(Transport::Tcp, "192.0.2.1:3478"), None, "another transport");
        let tls = of(Transport::Tls, "[2001:db8::1]:3478");
        assert_eq!(tls, Some(("[::]:3478".into(), true)), "TCP and TLS share sockets");
        assert_eq!(of(Transport::Udp, "192.0.2.1:3479"), None, "another port");
    }

    /// A listener that is opened again while the old one drains takes new allocations.
    #[test]
    fn a_listener_that_has_come_back_is_not_closing() {
        let listeners = [true, false].map(|closing| policy(Transport::Udp, "192.0.2.1:3478", closing));
        for listeners in [listeners.to_vec(), listeners.iter().rev().cloned().collect()] {
            let table = ListenerTable::new(listeners);
            let found = table.of(Transport::Udp, "192.0.2.1:3478".parse().unwrap());
            assert!(found.is_some_and(|one| !one.closing));
        }
    }
}
