//! When connections are looked at again though nothing arrives: one ordered queue with one entry a connection.
//!
//! An entry is never later than the connection's next deadline, but may be earlier: what moves a deadline away leaves
//! the entry where it is, so packets touch this queue hardly ever.

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
    /// Looks at the connection by `at`.
    pub(in crate::datapath) fn arm(&mut self, entry: &mut DeadlineEntry, at: u64, id: StreamId) {
        if entry.0.is_none_or(|armed| at < armed) {
            self.disarm(entry, id);
            self.queue.insert((at, id));
            entry.0 = Some(at);
        }
    }

    /// The connection ends.
    pub(in crate::datapath) fn disarm(&mut self, entry: &mut DeadlineEntry, id: StreamId) {
        if let Some(at) = entry.0.take() {
            self.queue.remove(&(at, id));
        }
    }

    /// When the first is to be looked at.
    pub(in crate::datapath) fn next(&self) -> Option<u64> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Whose time has come. To be disarmed, or armed anew.
    pub(in crate::datapath) fn due(&self, now: u64) -> Option<StreamId> {
        self.queue.first().filter(|&&(at, _)| at <= now).map(|&(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn one_entry_a_connection_in_order() {
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
