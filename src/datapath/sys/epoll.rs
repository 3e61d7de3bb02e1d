//! A set of sockets to wait for: `epoll(7)`, level-triggered.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use crate::datapath::event_source::EventSource;

/// The set. Closing a socket takes it out.
pub(in crate::datapath) struct Epoll {
    fd: OwnedFd,
}

/// What a socket is waited for. That it has failed is told always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Interest {
    pub read: bool,
    pub write: bool,
}

/// What has become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Readiness {
    /// There is something to read, the end too.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side has shut down its sending, or the socket has failed.
    pub ends: bool,
    /// Both directions are shut.
    pub dead: bool,
}

impl Readiness {
    /// It may be read.
    pub(in crate::datapath) const READABLE: Readiness =
        Readiness { readable: true, writable: false, ends: false, dead: false };
}

/// Room for what [`Epoll::wait`] finds.
pub(in crate::datapath) struct Events {
    room: Box<[libc::epoll_event]>,
    found: usize,
}

impl Epoll {
    /// An empty set.
    pub(in crate::datapath) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call has just returned this descriptor, and nobody else knows it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd as RawFd) } })
    }

    /// Adds a socket to be read, known as `event_source`.
    pub(in crate::datapath) fn add(
        &self,
        socket: BorrowedFd<'_>,
        event_source: EventSource,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, event_source, Interest { read: true, write: false })
    }

    /// Changes what a socket is waited for.
    pub(in crate::datapath) fn set(
        &self,
        socket: BorrowedFd<'_>,
        event_source: EventSource,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, event_source, interest)
    }

    fn control(
        &self,
        operation: libc::c_int,
        socket: BorrowedFd<'_>,
        event_source: EventSource,
        interest: Interest,
    ) -> io::Result<()> {
        let read = if interest.read { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
        let write = if interest.write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: (read | write) as u32, u64: event_source.pack() };
        // SAFETY: the event outlives the call, which copies it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }

    /// Waits until something is to be done for at least one of the sockets, and finds which, as many as there is room for.
    pub(in crate::datapath) fn wait(&self, events: &mut Events) -> io::Result<()> {
        events.found = 0;
        let room = events.room.len() as libc::c_int;
        // SAFETY: the pointer is good for the stated number of events, which the call writes.
        let found =
            check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.room.as_mut_ptr(), room, -1) });
        match found {
            Ok(found) => events.found = found,
            // A debugger, or SIGCONT.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Events {
    /// Room for this many.
    pub(in crate::datapath) fn new(room: usize) -> Events {
        Events { room: vec![libc::epoll_event { events: 0, u64: 0 }; room].into(), found: 0 }
    }

    /// Whether the `n`th socket found has an error to tell.
    pub(in crate::datapath) fn has_error(&self, n: usize) -> bool {
        self.room[..self.found][n].events & libc::EPOLLERR as u32 != 0
    }

    /// Which of two are among those found.
    pub(in crate::datapath) fn find(&self, one: EventSource, other: EventSource) -> (bool, bool) {
        let found = |event_source: EventSource| {
            self.room[..self.found].iter().any(|event| event.u64 == event_source.pack())
        };
        (found(one), found(other))
    }

    /// How many were found.
    pub(in crate::datapath) fn len(&self) -> usize {
        self.found
    }

    /// Which socket the `n`th is that was found.
    pub(in crate::datapath) fn event_source(&self, n: usize) -> Option<EventSource> {
        EventSource::unpack(self.room[..self.found][n].u64)
    }

    /// What has become of the `n`th socket.
    pub(in crate::datapath) fn readiness(&self, n: usize) -> Readiness {
        let events = self.room[..self.found][n].events as libc::c_int;
        let dead = events & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
        let ends = dead || events & libc::EPOLLRDHUP != 0;
        Readiness {
            readable: ends || events & libc::EPOLLIN != 0,
            writable: events & libc::EPOLLOUT != 0,
            ends,
            dead,
        }
    }
}
