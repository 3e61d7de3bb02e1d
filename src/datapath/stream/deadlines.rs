//! Deadlines of connections: one ordered queue with one entry per connection.
//!
//! An entry is never later than the connection's next deadline, but may be earlier: postponing a deadline leaves the entry
//! unchanged, so packets rarely touch this queue. An entry that fires too early is armed again.

use std::collections::BTreeSet;

use crate::datapath::poll::StreamId;

/// The queue, in monotonic nanoseconds.
#[derive(Default)]
pub(in crate::datapath) struct Deadlines {
    queue: BTreeSet<(u64, StreamId)>,
}

/// A connection's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::datapath) struct DeadlineEntry(Option<u64>);

impl Deadlines {
    /// Makes sure that the connection is due at `at` or earlier.
    pub(in crate::datapath) fn arm(&mut self, entry: &mut DeadlineEntry, at: u64, id: StreamId) {
        if entry.0.is_none_or(|armed| at < armed) {
            self.disarm(entry, id);
            self.queue.insert((at, id));
            entry.0 = Some(at);
        }
    }

    /// Removes the entry of a connection.
    pub(in crate::datapath) fn disarm(&mut self, entry: &mut DeadlineEntry, id: StreamId) {
        if let Some(at) = entry.0.take() {
            self.queue.remove(&(at, id));
        }
    }

    /// The earliest deadline.
    pub(in crate::datapath) fn next(&self) -> Option<u64> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// A connection whose entry is due. The caller must disarm it, and may arm it again.
    pub(in crate::datapath) fn due(&self, now: u64) -> Option<StreamId> {
        self.queue.first().filter(|&&(at, _)| at <= now).map(|&(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn one_entry_per_connection_in_order() {
        let mut ids: SlotMap<StreamId, DeadlineEntry> = SlotMap::with_key();
        let (a, b) = (ids.insert(DeadlineEntry::default()), ids.insert(DeadlineEntry::default()));
        let mut deadlines = Deadlines::default();
        deadlines.arm(&mut ids[a], 10, a);
        deadlines.arm(&mut ids[b], 20, b);
        deadlines.arm(&mut ids[b], 30, b);
        assert_eq!((deadlines.next(), deadlines.due(9)), (Some(10), None));
        deadlines.arm(&mut ids[b], 5, b);
        assert_eq!((deadlines.due(9), deadlines.queue.len()), (Some(b), 2));
        deadlines.disarm(&mut ids[b], b);
        deadlines.disarm(&mut ids[b], b);
        assert_eq!((deadlines.due(9), deadlines.due(10)), (None, Some(a)));
        deadlines.disarm(&mut ids[a], a);
        assert_eq!(deadlines.next(), None);
    }
}
