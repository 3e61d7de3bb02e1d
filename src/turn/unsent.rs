//! Data that was handed out to be relayed and has not left after all: the socket did not take it. It is counted when it is
//! handed out, because that is where its allocation is known; to find it again is only needed for what fails.

use super::server::Server;
use super::stats::TrafficCount;
use super::{AllocationId, FiveTuple, Output, RelayId, Totals};

impl Server {
    /// Packets that were to be sent from a relayed address to a peer, and their data, have not left.
    pub fn unsent_to_peer(&mut self, relay: RelayId, unsent: TrafficCount) {
        let Some((tuple, totals)) = self.totals_of(relay.allocation) else { return };
        totals.subtract(&Totals {
            to_peer_packets: unsent.packets,
            to_peer_bytes: unsent.bytes,
            ..Totals::default()
        });
        self.stats.to_peer[tuple.transport.index()].subtract(unsent.packets, unsent.bytes);
    }

    /// Packets that were to be sent to a client, and their data, have not left.
    pub fn unsent_to_client(&mut self, client: &FiveTuple, unsent: TrafficCount) {
        self.stats.to_client[client.transport.index()].subtract(unsent.packets, unsent.bytes);
        let closed = self.outputs.iter().find_map(|output| match output {
            Output::Closed(closed) if closed.tuple == *client => Some(closed.id),
            _ => None,
        });
        let Some(id) = closed.or_else(|| self.by_tuple.get(client).copied()) else { return };
        if let Some((_, totals)) = self.totals_of(id) {
            totals.subtract(&Totals {
                to_client_packets: unsent.packets,
                to_client_bytes: unsent.bytes,
                ..Totals::default()
            });
        }
    }

    /// What an allocation has relayed. One that has ended is not gone while nobody was told that it has.
    fn totals_of(&mut self, id: AllocationId) -> Option<(FiveTuple, &mut Totals)> {
        if let Some(allocation) = self.allocations.get_mut(id) {
            return Some((allocation.tuple, &mut allocation.totals));
        }
        self.outputs.iter_mut().find_map(|output| match output {
            Output::Closed(closed) if closed.id == id => Some((closed.tuple, &mut closed.totals)),
            _ => None,
        })
    }
}
