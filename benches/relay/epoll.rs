//! An epoll instance whose file descriptors are known by tokens.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// An epoll instance and its last events.
pub struct Epoll {
    epoll: epoll::Epoll,
    events: Vec<EpollEvent>,
}

impl Epoll {
    /// Creates an instance that returns up to `capacity` events per wait.
    pub fn new(capacity: usize) -> io::Result<Epoll> {
        let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Epoll { epoll, events: vec![EpollEvent::empty(); capacity] })
    }

    /// Watches a file descriptor for input, level-triggered.
    pub fn add(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        self.add_flags(fd, token, EpollFlags::EPOLLIN)
    }

    /// Watches a file descriptor for input, edge-triggered.
    pub fn add_edge_triggered(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        self.add_flags(fd, token, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)
    }

    fn add_flags(&self, fd: impl AsFd, token: usize, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token as u64))?)
    }

    /// The most events that one wait returns.
    pub fn capacity(&self) -> usize {
        self.events.len()
    }

    /// Waits for events and returns their number; an interrupted wait has none.
    pub fn wait(&mut self, timeout: impl Into<EpollTimeout>) -> usize {
        self.epoll.wait(&mut self.events, timeout).unwrap_or(0)
    }

    /// The token of the n-th event.
    pub fn token(&self, n: usize) -> usize {
        self.events[n].data() as usize
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }
}
