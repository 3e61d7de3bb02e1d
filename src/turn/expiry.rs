//! The end of allocations, relayed addresses, permissions and channels: by timeout or otherwise.

use std::net::IpAddr;
use std::time::Duration;

use super::server::Server;
use super::stats::LIFETIMES;
use super::timers::Deadline;
use super::{AllocationId, CloseReason, Closed, Now, Output, PerFamily, RelayId, SECOND};
use crate::wire::Family;

impl Server {
    /// When [`Server::handle_timeout`] is due, in monotonic nanoseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next().into_iter().chain(self.sweep.due()).min()
    }

    /// Ends everything whose time is over, and makes one step of applying a new snapshot.
    pub fn handle_timeout(&mut self, now: Now) {
        self.end_expired(now);
        self.sweep_step(now);
    }

    fn end_expired(&mut self, now: Now) {
        while let Some((at, deadline)) = self.timers.due(now.mono) {
            match deadline {
                // RFC 8656 §6, §8: it was not refreshed
                Deadline::Relay(relay) => self.close_relay(now, relay, CloseReason::Expired),
                // RFC 8656 §9
                Deadline::Permission(id, ip) => self.forbid(id, ip),
                // RFC 8656 §12
                Deadline::Channel(id, number) => self.unbind(id, number),
                Deadline::Pending(ticket) => self.cancel(now, ticket),
            }
            // Each arm has removed its deadline. If one ever does not, this loop must still end.
            self.timers.discard(at, deadline);
        }
    }

    /// Called before each input, so that no input meets anything that has expired and nothing else compares times.
    pub(super) fn expire(&mut self, now: Now) {
        if self.timers.next().is_some_and(|at| at <= now.mono) {
            self.end_expired(now);
        }
    }

    /// Ends an allocation with everything that belongs to it.
    pub(super) fn close(&mut self, now: Now, id: AllocationId, reason: CloseReason) {
        for (family, ()) in PerFamily::default() {
            self.close_relay(now, RelayId { allocation: id, family }, reason);
        }
    }

    /// Ends one relayed address of an allocation (RFC 8656 section 8.1), and the allocation with its last one.
    pub(super) fn close_relay(&mut self, now: Now, relay: RelayId, reason: CloseReason) {
        let RelayId { allocation: id, family } = relay;
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let Some((lease, permissions, channels)) = allocation.remove_relay(id, family, &mut self.timers)
        else {
            return;
        };
        let weight = allocation.weight();
        self.stats.permissions -= permissions as u64 * weight;
        self.stats.channels -= channels.len() as u64 * weight;
        *self.stats.relay_gauge(allocation.tuple.transport, family) -= weight;
        self.outputs.extend(channels.into_iter().map(|channel| Output::ChannelUnbound { relay, channel }));
        self.outputs.push_back(Output::CloseRelay(lease.socket));
        if allocation.relays().next().is_none() {
            let lived = now.mono - allocation.opened_at;
            self.stats.allocations -= weight;
            self.outputs.push_back(Output::Closed(Closed {
                id,
                session: allocation.name,
                tuple: allocation.tuple,
                user: allocation.credential.user().clone(),
                reason,
                lived: lived / SECOND,
                totals: allocation.totals,
                is_probe: allocation.is_probe(),
            }));
            self.stats.closed[reason] += weight;
            if weight > 0 {
                self.stats.lifetimes.observe(&LIFETIMES, Duration::from_nanos(lived));
            }
            self.by_tuple.remove(&allocation.tuple);
            self.by_name.remove(&allocation.name);
            self.allocations.remove(id);
        }
    }

    /// Ends a permission, if there is one. Channels to its address stay bound (RFC 8656 section 12).
    pub(super) fn forbid(&mut self, id: AllocationId, ip: IpAddr) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if !allocation.forbid(id, ip, &mut self.timers) {
            return;
        }
        self.stats.permissions -= allocation.weight();
        if !allocation.channels_to(ip).is_empty() {
            let relay = RelayId { allocation: id, family: Family::of(ip) };
            self.outputs.push_back(Output::PermissionLapsed { relay, peer: ip });
        }
    }

    /// Ends a channel binding, if there is one.
    pub(super) fn unbind(&mut self, id: AllocationId, channel: u16) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let Some(bound) = allocation.unbind(id, channel, &mut self.timers) else { return };
        self.stats.channels -= allocation.weight();
        let relay = RelayId { allocation: id, family: Family::of(bound.peer.0.ip()) };
        self.outputs.push_back(Output::ChannelUnbound { relay, channel });
    }
}
