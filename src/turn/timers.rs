//! One ordered queue of named deadlines. A thing that can expire stands in it exactly once, at the moment it expires.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{AllocationId, RelayId};

/// What ends at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A relayed address of an allocation was not refreshed.
    Relay(RelayId),
    /// A permission was not refreshed.
    Permission(AllocationId, IpAddr),
    /// A channel was not bound again.
    Channel(AllocationId, u16),
    /// Nobody answered a question.
    Waiting(AllocationId),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(u64, Deadline)>,
}

impl Timers {
    /// The earliest moment, in monotonic nanoseconds.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Starts a deadline, or moves it from where it stood.
    pub(super) fn renew(&mut self, old: Option<u64>, at: u64, deadline: Deadline) {
        if let Some(old) = old {
            self.stop(old, deadline);
        }
        self.queue.insert((at, deadline));
    }

    pub(super) fn stop(&mut self, at: u64, deadline: Deadline) {
        let found = self.queue.remove(&(at, deadline));
        debug_assert!(found, "{deadline:?} was not in the queue at {at}");
    }

    /// The earliest deadline, if it is due. Whoever ends the thing takes its deadline out of the queue.
    pub(super) fn due(&self, now: u64) -> Option<(u64, Deadline)> {
        self.queue.first().copied().filter(|&(at, _)| at <= now)
    }

    /// Takes a deadline out of the queue, if it is there.
    pub(super) fn discard(&mut self, at: u64, deadline: Deadline) {
        self.queue.remove(&(at, deadline));
    }
}
