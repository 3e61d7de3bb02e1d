//! What interrupts a worker's `epoll_wait` besides packets: a timer, and a waker for other threads.
//!
//! Both are file descriptors in its epoll set, so the worker waits without a timeout: a timeout that is set for each wait
//! costs more than a timer that is set now and then (docs/performance.md).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer that expires at the next deadline.
pub(super) struct WakeTimer {
    timer: TimerFd,
    /// When it expires, in monotonic nanoseconds.
    at: Option<u64>,
}

impl WakeTimer {
    /// A timer that is not set.
    pub(super) fn new() -> io::Result<WakeTimer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(WakeTimer { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, at: None })
    }

    /// Makes the timer expire at `due` or earlier. An earlier expiry costs less than setting it for each packet.
    pub(super) fn set(&mut self, now: u64, due: Option<u64>) -> io::Result<()> {
        let Some(due) = due.filter(|due| self.at.is_none_or(|at| *due < at)) else { return Ok(()) };
        // A duration of zero would disarm it.
        let wait = Duration::from_nanos(due.saturating_sub(now).max(1));
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
        self.at = Some(due);
        Ok(())
    }

    /// Clears its expiry. It is not set afterwards.
    pub(super) fn clear(&mut self) {
        // It does not block: the timer has expired, and its descriptor is non-blocking.
        let _ = self.timer.wait();
        self.at = None;
    }
}

impl AsFd for WakeTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Wakes a worker from another thread.
#[derive(Clone)]
pub(super) struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Waker(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Wakes the worker that polls this waker.
    pub(super) fn wake(&self) {
        // It fails only after 2^64 - 2 calls that no worker has cleared.
        let _ = self.0.write(1);
    }

    /// Clears all calls of [`Waker::wake`] so far.
    pub(super) fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::poll::{EventSource, Events, Poll};

    #[test]
    fn a_timer_expires_once_at_its_deadline_or_when_that_has_passed() {
        let (poll, mut events) = (Poll::new().unwrap(), Events::new(4));
        let mut timer = WakeTimer::new().unwrap();
        poll.add(&timer, EventSource::Timer).unwrap();
        for (now, due) in [(0, 20_000_000), (7, 7), (7, 3)] {
            timer.set(now, None).unwrap();
            timer.set(now, Some(due)).unwrap();
            timer.set(now, Some(due + 3_600_000_000_000)).unwrap();
            poll.wait(&mut events).unwrap();
            assert_eq!((events.len(), events.source(0)), (1, Some(EventSource::Timer)));
            timer.clear();
        }
        let waker = Waker::new().unwrap();
        poll.add(&waker, EventSource::Waker).unwrap();
        waker.wake();
        poll.wait(&mut events).unwrap();
        assert_eq!((events.len(), events.source(0)), (1, Some(EventSource::Waker)), "the timer is cleared");
    }

    #[test]
    fn a_waker_wakes_another_thread() {
        let (poll, mut events) = (Poll::new().unwrap(), Events::new(4));
        let waker = Waker::new().unwrap();
        poll.add(&waker, EventSource::Waker).unwrap();
        let other = waker.clone();
        let waking = std::thread::spawn(move || (0..3).for_each(|_| other.wake()));
        poll.wait(&mut events).unwrap();
        waking.join().unwrap();
        waker.clear();
        waker.wake();
        poll.wait(&mut events).unwrap();
        assert_eq!((events.len(), events.source(0)), (1, Some(EventSource::Waker)));
    }
}
