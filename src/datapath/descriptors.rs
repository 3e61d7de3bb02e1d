//! Divides the file descriptors of the process between relay sockets and connections, so that together they leave some for
//! everything else. Both sides only look at it when they open and close; two that look at the same time may exceed the bound
//! by one each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The descriptors of relay sockets and connections.
pub(in crate::datapath) struct Descriptors {
    most: usize,
    relay_sockets: AtomicUsize,
    connections: AtomicUsize,
}

impl Descriptors {
    /// There may be `most` in total.
    pub(in crate::datapath) fn new(most: usize) -> Arc<Descriptors> {
        Arc::new(Descriptors { most, relay_sockets: AtomicUsize::new(0), connections: AtomicUsize::new(0) })
    }

    /// Takes descriptors for relay sockets; false if there are not that many.
    pub(in crate::datapath) fn take_relay_sockets(&self, count: usize) -> bool {
        let taken = self.relay_sockets.fetch_add(count, Ordering::Relaxed) + count;
        let fits = taken <= self.most.saturating_sub(self.connections.load(Ordering::Relaxed));
        if !fits {
            self.return_relay_sockets(count);
        }
        fits
    }

    /// Returns those of relay sockets.
    pub(in crate::datapath) fn return_relay_sockets(&self, count: usize) {
        self.relay_sockets.fetch_sub(count, Ordering::Relaxed);
    }

    /// The most connections that there may be now.
    pub(in crate::datapath) fn room_for_connections(&self) -> usize {
        self.most.saturating_sub(self.relay_sockets.load(Ordering::Relaxed))
    }

    /// There are so many connections now.
    pub(in crate::datapath) fn set_connections(&self, count: usize) {
        self.connections.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_share_what_there_is() {
        let descriptors = Descriptors::new(5);
        assert!(descriptors.take_relay_sockets(2));
        assert_eq!(descriptors.room_for_connections(), 3);
        descriptors.set_connections(2);
        assert!(!descriptors.take_relay_sockets(2));
        assert!(descriptors.take_relay_sockets(1));
        assert_eq!(descriptors.room_for_connections(), 2, "as many as there are");
        descriptors.return_relay_sockets(3);
        assert_eq!(descriptors.room_for_connections(), 5);
    }
}
