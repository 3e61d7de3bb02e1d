//! Divides the file descriptors of the process between relay sockets and connections, so that together they leave some for
//! everything else. Some are kept for connections: without one, no client of TCP or TLS is
//! served. Both sides only look at it when they open and close; two that look at the same time may exceed the bound by one
//! each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the limit on open files leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorRoom {
    /// The most relay sockets and connections together.
    pub total: usize,
    /// How many of them relay sockets leave to connections, however many allocations there are.
    pub connections: usize,
    /// There may be fewer connections than `limits.connections` was set to.
    pub lowers_connections: bool,
}

impl DescriptorRoom {
    /// Room for everything.
    pub const UNBOUNDED: DescriptorRoom =
        DescriptorRoom { total: usize::MAX, connections: 0, lowers_connections: false };
}

/// The descriptors of relay sockets and connections.
#[derive(Default)]
pub(in crate::datapath) struct Descriptors {
    total: AtomicUsize,
    /// See [`DescriptorRoom::connections`].
    kept: AtomicUsize,
    lowers_connections: AtomicBool,
    relay_sockets: AtomicUsize,
    connections: AtomicUsize,
}

impl Descriptors {
    /// All of `room` is free.
    pub(in crate::datapath) fn new(room: DescriptorRoom) -> Arc<Descriptors> {
        let this = Descriptors::default();
        this.set_room(room);
        Arc::new(this)
    }

    /// Replaces the room. What is in use beyond it stays.
    pub(in crate::datapath) fn set_room(&self, room: DescriptorRoom) {
        let DescriptorRoom { total, connections, lowers_connections } = room;
        self.total.store(total, Ordering::Relaxed);
        self.kept.store(connections, Ordering::Relaxed);
        self.lowers_connections.store(lowers_connections, Ordering::Relaxed);
    }

    /// Takes descriptors for relay sockets; false if there are not that many.
    pub(in crate::datapath) fn take_relay_sockets(&self, count: usize) -> bool {
        let taken = self.relay_sockets.fetch_add(count, Ordering::Relaxed) + count;
        let connections = self.connections.load(Ordering::Relaxed).max(self.kept.load(Ordering::Relaxed));
        let fits = taken <= self.total.load(Ordering::Relaxed).saturating_sub(connections);
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
        self.total.load(Ordering::Relaxed).saturating_sub(self.relay_sockets.load(Ordering::Relaxed))
    }

    /// How many relay sockets and connections there may be together.
    pub(in crate::datapath) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether there may be fewer connections than `limits.connections` was set to.
    pub(in crate::datapath) fn lower_connections(&self) -> bool {
        self.lowers_connections.load(Ordering::Relaxed)
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
        let descriptors = Descriptors::new(DescriptorRoom { total: 5, ..DescriptorRoom::UNBOUNDED });
        assert!(descriptors.take_relay_sockets(2));
        assert_eq!(descriptors.room_for_connections(), 3);
        descriptors.set_connections(2);
        assert!(!descriptors.take_relay_sockets(2));
        assert!(descriptors.take_relay_sockets(1));
        assert_eq!(descriptors.room_for_connections(), 2, "as many as there are");
        descriptors.return_relay_sockets(3);
        assert_eq!(descriptors.room_for_connections(), 5);
    }

    /// Clients over UDP do not lock out those over TCP and TLS.
    #[test]
    fn relay_sockets_leave_some_to_connections() {
        let descriptors =
            Descriptors::new(DescriptorRoom { total: 8, connections: 2, lowers_connections: true });
        assert!((0..6).all(|_| descriptors.take_relay_sockets(1)));
        assert!(!descriptors.take_relay_sockets(1));
        descriptors.set_connections(2);
        assert_eq!(descriptors.room_for_connections(), 2);
        descriptors.return_relay_sockets(1);
        descriptors.set_connections(3);
        assert!(
            !descriptors.take_relay_sockets(1),
            "beyond those that are kept, whoever comes first has one"
        );
    }
}
