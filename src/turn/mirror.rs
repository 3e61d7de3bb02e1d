//! What a forwarding table outside of the server needs, in the kernel for example: it relays the data of bound channels
//! by itself, and brings its counts back.

use super::server::Server;
use super::{AllocationId, ChannelBound, Output, PeerAddr, RelayId, Totals};
use crate::wire::Family;

impl Server {
    /// Tells everything about a bound channel.
    pub(super) fn announce_channel(&mut self, id: AllocationId, number: u16) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let Some(channel) = allocation.channel(number) else { return };
        let family = Family::of(channel.peer.0.ip());
        let Some(relay) = allocation.relay(family) else { return };
        let (peer, scope) = (channel.peer, &channel.verdict.scope);
        // While nobody lives at a relayed address, the mirror drops what is sent there
        let sent_to = scope
            .send_to(peer.0, |relayed| self.shared.live.is_live(relayed))
            .or_else(|_| scope.send_to(peer.0, |_| true));
        self.outputs.push_back(Output::ChannelBound(ChannelBound {
            tuple: allocation.tuple,
            relay: RelayId { allocation: id, family },
            socket: relay.socket,
            relayed: relay.addr,
            peer,
            sent_to: sent_to.map_or(peer, PeerAddr),
            channel: number,
            expires: channel.expires,
            is_permitted: allocation.peer(channel.peer.0.ip()).is_some_and(|peer| peer.is_permitted()),
            scope: scope.clone(),
            bandwidth: self.snapshot.config.limits.bandwidth,
        }));
    }

    /// Adds what was relayed elsewhere for a relayed address since the last call. Counts for an allocation that has ended
    /// are ignored.
    pub fn counted_elsewhere(&mut self, relay: RelayId, totals: Totals) {
        let Some(allocation) = self.allocations.get_mut(relay.allocation) else { return };
        allocation.totals.add(&totals);
        let row = allocation.traffic_row;
        self.stats.to_peer[row].add(totals.to_peer_packets, totals.to_peer_bytes);
        self.stats.to_client[row].add(totals.to_client_packets, totals.to_client_bytes);
    }
}
