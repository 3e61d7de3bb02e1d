//! One ordered queue of named deadlines. Everything that can expire is in it exactly once, at the time it expires.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{AllocationId, RelayId, Ticket};

/// What ends at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A relayed address that was not refreshed.
    Relay(RelayId),
    /// A permission that was not refreshed.
    Permission(AllocationId, IpAddr),
    /// A channel that was not bound again.
    Channel(AllocationId, u16),
    /// A request whose question was not answered.
    Pending(Ticket),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(u64, Deadline)>,
}

impl Timers {
    /// The earliest deadline, in monotonic nanoseconds.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Starts a deadline, or moves it from `old`.
    pub(super) fn renew(&mut self, old: Option<u64>, at: u64, deadline: Deadline) {
        if let Some(old) = old {
            self.stop(old, deadline);
        }
        self.queue.insert((at, deadline));
    }

    /// Removes a deadline.
    pub(super) fn stop(&mut self, at: u64, deadline: Deadline) {
        let found = self.queue.remove(&(at, deadline));
        debug_assert!(found, "{deadline:?} was not in the queue at {at}");
    }

    /// The earliest deadline, if it is due. The code that ends the thing removes the deadline with [`Timers::stop`].
    pub(super) fn due(&self, now: u64) -> Option<(u64, Deadline)> {
        self.queue.first().copied().filter(|&(at, _)| at <= now)
    }

    /// Every deadline.
    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeSet<(u64, Deadline)> {
        &self.queue
    }

    /// Removes a deadline that may already be gone.
    pub(super) fn discard(&mut self, at: u64, deadline: Deadline) {
        self.queue.remove(&(at, deadline));
    }
}
