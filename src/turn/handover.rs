//! Allocations move from one server to another, with everything that belongs to them. Their sockets travel beside them.

use super::allocation::Allocation;
use super::server::Server;
use super::{AllocationId, Now, Output, RelayId};

impl Server {
    /// Removes an allocation without ending it. Its relay sockets stay open and belong to whoever has it.
    pub fn take(&mut self, now: Now, id: AllocationId) -> Option<Box<Allocation>> {
        self.expire(now);
        let allocation = self.allocations.remove(id)?;
        self.by_tuple.remove(&allocation.tuple);
        self.by_name.remove(&allocation.name);
        for (at, deadline) in allocation.deadlines(id) {
            self.timers.stop(at, deadline);
        }
        let weight = allocation.weight();
        self.stats.allocations -= weight;
        self.stats.permissions -= allocation.permissions() as u64 * weight;
        self.stats.channels -= allocation.channels() as u64 * weight;
        for (family, _) in allocation.relays() {
            *self.stats.relay_gauge(allocation.tuple.transport, family) -= weight;
        }
        self.outputs.extend(allocation.channel_families().map(|(channel, family)| {
            let relay = RelayId { allocation: id, family };
            Output::ChannelUnbound { relay, channel }
        }));
        Some(allocation)
    }

    /// Adds an allocation that another server had. Its peers are judged anew; its deadlines stay as they are.
    ///
    /// # Errors
    /// The table is full, or the 5-tuple has an allocation or is about to have one: the allocation comes back.
    pub fn adopt(
        &mut self,
        now: Now,
        mut allocation: Box<Allocation>,
    ) -> Result<AllocationId, Box<Allocation>> {
        self.expire(now);
        let tuple = allocation.tuple;
        let is_taken = self.by_tuple.contains_key(&tuple) || self.pending.allocate_on(&tuple).is_some();
        let count = self.allocations.len() + self.pending.allocates();
        if is_taken || count >= self.snapshot.config.limits.allocations {
            return Err(allocation);
        }
        allocation.forget_verdicts();
        let weight = allocation.weight();
        self.stats.allocations += weight;
        self.stats.permissions += allocation.permissions() as u64 * weight;
        self.stats.channels += allocation.channels() as u64 * weight;
        for (family, _) in allocation.relays() {
            *self.stats.relay_gauge(tuple.transport, family) += weight;
        }
        if self.by_name.contains_key(&allocation.name) {
            // It comes from another process.
            allocation.name = self.shared.names.next();
        }
        let name = allocation.name;
        let id = self.allocations.insert(allocation);
        self.by_tuple.insert(tuple, id);
        self.by_name.insert(name, id);
        for (at, deadline) in self.allocations[id].deadlines(id) {
            self.timers.renew(None, at, deadline);
        }
        self.sweep.add(now.mono, id);
        Ok(id)
    }
}
