//! ICMP messages about packets to peers, told to the client (RFC 8656 section 11.5).

use std::net::SocketAddr;

use rand::RngExt;

use super::server::Server;
use super::stats::Dropped;
use super::{Icmp, Now, Output, PeerAddr, RelayId};
use crate::wire::{Class, Encoder, Family, Method, TransactionId, attribute};

impl Server {
    /// An ICMP message about a packet that a relayed address sent to `peer`. The client is told in a Data indication, within
    /// a rate limit.
    pub fn peer_error(&mut self, now: Now, relay: RelayId, peer: PeerAddr, icmp: Icmp) {
        self.expire(now);
        let is_told = match relay.family {
            Family::V4 => matches!(icmp.kind, 3 | 11),
            Family::V6 => matches!(icmp.kind, 1..=3),
        };
        let Some(allocation) = self.allocations.get_mut(relay.allocation).filter(|_| is_told) else {
            return self.stats.drop(Dropped::Icmp, 1);
        };
        // The packet's destination needs the permission, not the router that sent the ICMP message. Behind a NAT it has
        // several names
        let external = &self.snapshot.config.external;
        let former = external.former_of(peer.0.ip()).map(|ip| SocketAddr::new(ip, peer.0.port()));
        // In the order of packets from the peer: the last of those that were used equally late is its name there, too
        let names = [peer.0, former.unwrap_or(peer.0), external.outside(peer.0)];
        let is_permitted =
            |name: &SocketAddr| allocation.peer(name.ip()).is_some_and(|peer| peer.is_permitted());
        let named = names.into_iter().filter(is_permitted).max_by_key(|name| allocation.used(*name));
        let Some(peer) = named.filter(|_| allocation.count_icmp(now.mono)) else {
            return self.stats.drop(Dropped::Icmp, 1);
        };
        // RFC 8656 §18.13: only these messages state an MTU
        let states_mtu =
            matches!((relay.family, icmp.kind, icmp.code), (Family::V4, 3, 4) | (Family::V6, 2, _));
        let id = TransactionId(self.rng.random());
        let mut indication = Encoder::new(Class::Indication, Method::Data, id);
        indication.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        indication.icmp(icmp.kind, icmp.code, if states_mtu { icmp.mtu } else { 0 });
        self.outputs.push_back(Output::Reply { to: allocation.tuple, message: indication.finish() });
    }
}
