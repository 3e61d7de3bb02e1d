//! Buffers and pipes that connections share. A connection holds one only while it has bytes to move, so idle ones cost neither.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::BUFFER;

/// Large buffers at a time: 64 MiB, and as much that was decrypted from them. Connections beyond that move their bytes in small ones.
const LARGE: usize = 1024;

/// Large buffers that are kept for the next connection.
const SPARE: usize = 64;

/// The size of a small buffer: enough for messages of a WebSocket, and little enough that each direction of every connection
/// may hold one.
pub(super) const SMALL: usize = 4 << 10;

/// Buffers and pipes.
pub(super) struct Pools {
    /// Large buffers that may still be taken.
    large: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
    /// Pipes that may still be taken.
    pipes: AtomicUsize,
    idle: Mutex<Vec<Pipe>>,
    /// splice(2) does not work here.
    copies: AtomicBool,
}

/// A buffer, which returns to its pool.
pub(super) struct Buffer<'a> {
    pub(super) bytes: Vec<u8>,
    pool: Option<&'a Pools>,
}

/// A pipe, empty between two uses.
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// A pipe that is in use.
pub(super) struct PipeLease<'a> {
    pipe: Option<Pipe>,
    pools: &'a Pools,
    /// Bytes in it.
    pub(super) filled: usize,
}

impl Pools {
    /// Nothing is in use yet; there are at most so many pipes.
    pub(super) fn new(pipes: usize) -> Pools {
        Pools {
            large: AtomicUsize::new(LARGE),
            spare: Mutex::default(),
            pipes: AtomicUsize::new(pipes),
            idle: Mutex::default(),
            copies: AtomicBool::new(false),
        }
    }

    /// A buffer: a large one if `bulk`, and if there are not too many already.
    pub(super) fn buffer(&self, bulk: bool) -> Buffer<'_> {
        if !bulk || !take(&self.large) {
            return Buffer { bytes: vec![0; SMALL], pool: None };
        }
        let spare = lock(&self.spare).pop();
        Buffer { bytes: spare.unwrap_or_else(|| vec![0; BUFFER]), pool: Some(self) }
    }

    /// A pipe, if one is free and splice(2) works.
    pub(super) fn pipe(&self) -> Option<PipeLease<'_>> {
        if self.copies.load(Ordering::Relaxed) || !take(&self.pipes) {
            return None;
        }
        let idle = lock(&self.idle).pop();
        let pipe = idle.or_else(|| {
            let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
            Some(Pipe { read, write })
        });
        if pipe.is_none() {
            self.pipes.fetch_add(1, Ordering::Relaxed);
        }
        pipe.map(|pipe| PipeLease { pipe: Some(pipe), pools: self, filled: 0 })
    }

    /// Large buffers and pipes that are in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> (usize, usize) {
        let taken = |all: usize, left: &AtomicUsize| all - left.load(Ordering::Relaxed);
        (taken(LARGE, &self.large), taken(super::limits::SpliceLimits::PIPES, &self.pipes))
    }

    /// Whether any is in use.
    #[cfg(test)]
    pub(super) fn are_used(&self) -> bool {
        self.in_use() != (0, 0)
    }

    /// splice(2) is not tried again: this kernel, or what stands in for one, does not have it for sockets.
    pub(super) fn never_splice(&self) {
        self.copies.store(true, Ordering::Relaxed);
    }
}

impl PipeLease<'_> {
    pub(super) fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("it is there until the lease is dropped")
    }
}

impl Drop for PipeLease<'_> {
    fn drop(&mut self) {
        // Bytes that are left in it belong to a connection that has ended.
        if self.filled == 0
            && let Some(pipe) = self.pipe.take()
        {
            lock(&self.pools.idle).push(pipe);
        }
        drop(self.pipe.take());
        self.pools.pipes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let Some(pool) = self.pool else { return };
        let mut spare = lock(&pool.spare);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.bytes));
        }
        drop(spare);
        pool.large.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes one of those that are left; false if none is.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn lock<T>(mutex: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    // Every change is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many connections there are, and whatever they move.
    #[test]
    fn large_buffers_are_bounded() {
        let pools = Pools::new(0);
        let buffers: Vec<_> = (0..LARGE + 3).map(|_| pools.buffer(true)).collect();
        assert_eq!(buffers.iter().filter(|buffer| buffer.bytes.len() == BUFFER).count(), LARGE);
        assert!(buffers[LARGE..].iter().all(|buffer| buffer.bytes.len() == SMALL));
        drop(buffers);
        assert_eq!(lock(&pools.spare).len(), SPARE);
        assert_eq!((pools.buffer(true).bytes.len(), pools.buffer(false).bytes.len()), (BUFFER, SMALL));
    }

    #[test]
    fn pipes_are_bounded_and_used_again_while_they_are_empty() {
        let pools = Pools::new(2);
        let (one, mut other) = (pools.pipe().unwrap(), pools.pipe().unwrap());
        assert!(pools.pipe().is_none());
        other.filled = 1;
        drop((one, other));
        assert_eq!(lock(&pools.idle).len(), 1, "one with the bytes of another connection is closed");
        assert!(pools.pipe().is_some());
        pools.never_splice();
        assert!(pools.pipe().is_none());
    }
}
