//! A worker's epoll set, level-triggered: which sockets it waits for, and what each event is about.
//!
//! The kernel keeps 64 bits with each socket. The generation of a key is in the upper half; its index and the kind of
//! the socket are in the lower half. So an event for a socket that is closed already is told from one for the socket that took its
//! place.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slotmap::{Key, KeyData};

use crate::turn::RelaySocketId;

slotmap::new_key_type! {
    /// A UDP listener socket in its worker's table. Never reused.
    pub(super) struct ListenerKey;
    /// A connection in its worker's table. Never reused.
    pub(super) struct StreamId;
    /// A relay socket in its worker's table. Never reused.
    pub(super) struct RelaySocketKey;
}

impl From<RelaySocketId> for RelaySocketKey {
    fn from(id: RelaySocketId) -> RelaySocketKey {
        KeyData::from_ffi(id.0).into()
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    /// A UDP listener socket.
    Listener(ListenerKey),
    /// A relay socket.
    Relay(RelaySocketKey),
    /// A client's connection.
    Stream(StreamId),
    /// The worker's timer.
    Timer,
    /// The worker's waker.
    Waker,
}

/// What a socket is polled for. Errors are reported always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What happened at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// There is something to read, which includes the end of a stream.
    pub(super) readable: bool,
    /// There is room to write.
    pub(super) writable: bool,
    /// An error is pending.
    pub(super) error: bool,
    /// The other side has shut down its sending side, or the socket has failed.
    pub(super) ends: bool,
    /// Both directions are shut down.
    pub(super) dead: bool,
}

/// The epoll set. Closing a socket removes it.
pub(super) struct Poll(Epoll);

/// Room for what [`Poll::wait`] finds.
pub(super) struct Events {
    buffer: Box<[EpollEvent]>,
    found: usize,
}

impl Poll {
    /// An empty set.
    pub(super) fn new() -> io::Result<Poll> {
        Ok(Poll(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// A set to which nothing can be added.
    #[cfg(test)]
    pub(super) fn broken() -> Poll {
        Poll(Epoll(std::fs::File::open("/dev/null").expect("it exists").into()))
    }

    /// Adds a socket to be read.
    pub(super) fn add(&self, socket: impl AsFd, source: EventSource) -> io::Result<()> {
        Ok(self.0.add(socket, event(source, Interest { read: true, write: false }))?)
    }

    /// Changes what a socket is polled for.
    pub(super) fn set(&self, socket: impl AsFd, source: EventSource, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(socket, &mut event(source, interest))?)
    }

    /// Removes a socket that stays open elsewhere.
    pub(super) fn remove(&self, socket: impl AsFd) {
        // It fails only for a socket that is not in the set.
        let _ = self.0.delete(socket);
    }

    /// Waits until at least one socket has an event, and collects as many as there is room for.
    pub(super) fn wait(&self, events: &mut Events) -> io::Result<()> {
        events.found = match self.0.wait(&mut events.buffer, EpollTimeout::NONE) {
            Ok(found) => found,
            // A debugger, or SIGCONT.
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

impl Events {
    /// Room for `capacity` events.
    pub(super) fn new(capacity: usize) -> Events {
        Events { buffer: vec![EpollEvent::empty(); capacity].into(), found: 0 }
    }

    /// How many events were found.
    pub(super) fn len(&self) -> usize {
        self.found
    }

    /// What the `n`th event is about.
    pub(super) fn source(&self, n: usize) -> Option<EventSource> {
        EventSource::unpack(self.buffer[..self.found][n].data())
    }

    /// What happened at the `n`th event's socket.
    pub(super) fn readiness(&self, n: usize) -> Readiness {
        let flags = self.buffer[..self.found][n].events();
        let error = flags.contains(EpollFlags::EPOLLERR);
        let dead = error || flags.contains(EpollFlags::EPOLLHUP);
        let ends = dead || flags.contains(EpollFlags::EPOLLRDHUP);
        Readiness {
            readable: ends || flags.contains(EpollFlags::EPOLLIN),
            writable: flags.contains(EpollFlags::EPOLLOUT),
            error,
            ends,
            dead,
        }
    }
}

impl Readiness {
    /// There may be something to read.
    pub(super) const READABLE: Readiness =
        Readiness { readable: true, writable: false, error: false, ends: false, dead: false };
}

fn event(source: EventSource, interest: Interest) -> EpollEvent {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, interest.read);
    flags.set(EpollFlags::EPOLLOUT, interest.write);
    EpollEvent::new(flags, source.pack())
}

/// Bits of the kind.
const KIND_BITS: u32 = 2;

impl EventSource {
    fn pack(self) -> u64 {
        match self {
            EventSource::Listener(key) => keyed(key.data(), 0),
            EventSource::Relay(key) => keyed(key.data(), 1),
            EventSource::Stream(id) => keyed(id.data(), 2),
            // No key has generation 0.
            EventSource::Timer => 0,
            EventSource::Waker => 1,
        }
    }

    fn unpack(data: u64) -> Option<EventSource> {
        let (generation, low) = (data >> 32, data & 0xFFFF_FFFF);
        let key = KeyData::from_ffi(generation << 32 | low >> KIND_BITS);
        match (generation, low & ((1 << KIND_BITS) - 1)) {
            (0, 0) => Some(EventSource::Timer),
            (0, 1) => Some(EventSource::Waker),
            (0, _) => None,
            (_, 0) => Some(EventSource::Listener(key.into())),
            (_, 1) => Some(EventSource::Relay(key.into())),
            (_, 2) => Some(EventSource::Stream(key.into())),
            _ => None,
        }
    }
}

fn keyed(key: KeyData, kind: u64) -> u64 {
    let (generation, index) = (key.as_ffi() >> 32, key.as_ffi() & 0xFFFF_FFFF);
    debug_assert!(index < 1 << (32 - KIND_BITS), "an index has 30 bits; tables are far smaller");
    generation << 32 | index << KIND_BITS | kind
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        let mut relays: SlotMap<RelaySocketKey, ()> = SlotMap::with_key();
        let first = relays.insert(());
        relays.remove(first);
        let second = relays.insert(());
        let sources = [
            EventSource::Listener(SlotMap::with_key().insert(())),
            EventSource::Relay(first),
            EventSource::Relay(second),
            EventSource::Stream(SlotMap::with_key().insert(())),
            EventSource::Timer,
            EventSource::Waker,
        ];
        for (n, source) in sources.into_iter().enumerate() {
            assert_eq!(EventSource::unpack(source.pack()), Some(source));
            assert!(sources[..n].iter().all(|other| other.pack() != source.pack()));
        }
        assert_eq!(EventSource::unpack(u64::MAX), None);
    }
}
