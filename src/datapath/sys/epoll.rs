//! A set of sockets to wait for: `epoll(7)`, level-triggered, for reading.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check;
use crate::datapath::watched::Watched;

/// The set. Closing a socket takes it out.
pub(in crate::datapath) struct Epoll {
    fd: OwnedFd,
}

/// Room for what [`Epoll::ready`] finds.
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

    /// Adds a socket, to be known as `watched`.
    pub(in crate::datapath) fn add(&self, socket: BorrowedFd<'_>, watched: Watched) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: watched.pack() };
        // SAFETY: the event outlives the call, which copies it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }

    /// Lets the tokio runtime of this thread wait for the whole set. What was added stays.
    pub(in crate::datapath) fn on_this_runtime(self) -> io::Result<AsyncFd<Epoll>> {
        // SAFETY: `as_raw_fd` always returns the one descriptor that the set owns, which nothing closes before the set is
        // dropped.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Finds which sockets can be read, without waiting; false if there may be more of them than `events` has room for.
    pub(in crate::datapath) fn ready(&self, events: &mut Events) -> io::Result<bool> {
        events.found = 0;
        // SAFETY: the pointer is good for the stated number of events, which the call writes.
        events.found = check(unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                events.room.as_mut_ptr(),
                events.room.len() as libc::c_int,
                0,
            )
        })?;
        Ok(events.found < events.room.len())
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
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

    /// How many were found.
    pub(in crate::datapath) fn len(&self) -> usize {
        self.found
    }

    /// Which socket the `n`th is that was found.
    pub(in crate::datapath) fn watched(&self, n: usize) -> Option<Watched> {
        Watched::unpack(self.room[..self.found][n].u64)
    }
}
