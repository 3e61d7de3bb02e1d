//! The peers that a new snapshot has not judged yet.

use std::net::IpAddr;

use slotmap::SlotMap;

use super::AllocationId;
use super::allocation::Allocation;
use crate::auth::Auth;

/// A walk over all allocations, and over the peers of each.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Allocations of which no peer was judged. They may have ended since.
    allocations: Vec<AllocationId>,
    /// An allocation of which some peers were judged.
    current: AllocationId,
    /// Its peers that were not judged. They may have become unknown since.
    peers: Vec<IpAddr>,
    /// Allocations that end because their credential was removed from the configuration; at most as many as one step opens.
    removed: Vec<AllocationId>,
    /// When the walk was started last, in monotonic nanoseconds.
    since: u64,
}

impl Sweep {
    /// Starts anew with all allocations.
    pub(super) fn start(&mut self, now: u64, allocations: impl Iterator<Item = AllocationId>) {
        *self = Sweep { allocations: allocations.collect(), since: now, ..Sweep::default() };
    }

    /// Adds an allocation that may not have been judged by the current snapshot.
    pub(super) fn add(&mut self, now: u64, allocation: AllocationId) {
        self.allocations.push(allocation);
        self.since = now;
    }

    /// When the next step is due: at once, while there is work.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.allocations.is_empty() || !self.peers.is_empty()).then_some(self.since)
    }

    /// The allocations that end because of what the last step has found.
    pub(super) fn take_removed(&mut self) -> Vec<AllocationId> {
        std::mem::take(&mut self.removed)
    }

    /// The next peer to judge. It costs one of `budget` to open an allocation, so that empty ones are bounded too.
    pub(super) fn next(
        &mut self,
        allocations: &SlotMap<AllocationId, Box<Allocation>>,
        auth: &Auth,
        budget: &mut usize,
    ) -> Option<(AllocationId, IpAddr)> {
        while *budget > 0 {
            if let Some(ip) = self.peers.pop() {
                return Some((self.current, ip));
            }
            self.current = self.allocations.pop()?;
            *budget -= 1;
            let Some(allocation) = allocations.get(self.current) else { continue };
            if auth.no_longer_accepts(&allocation.credential) {
                *budget = budget.saturating_sub(allocation.cost_to_close());
                self.removed.push(self.current);
                continue;
            }
            self.peers.extend(allocation.peer_addresses());
        }
        None
    }
}
