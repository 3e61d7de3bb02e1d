//! What ends a worker's waiting beside packets: a time that has come, and other threads.
//!
//! Both are descriptors in its epoll set, so that it waits without a timeout: one that is given anew for each packet costs
//! more than a timer that is set now and then (measured in docs/performance.md).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Rings when it is time.
pub(in crate::datapath) struct WakeTimer {
    timer: TimerFd,
    /// When it will ring, in monotonic nanoseconds.
    at: Option<u64>,
}

impl WakeTimer {
    /// It is not set.
    pub(in crate::datapath) fn new() -> io::Result<WakeTimer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(WakeTimer { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, at: None })
    }

    /// Sees to it that it rings when this is due. It may ring earlier: that costs less than setting it for each packet.
    pub(in crate::datapath) fn set(&mut self, now: u64, due: Option<u64>) -> io::Result<()> {
        let Some(due) = due.filter(|due| self.at.is_none_or(|at| *due < at)) else { return Ok(()) };
        // Nothing would disarm it.
        let wait = Duration::from_nanos(due.saturating_sub(now).max(1));
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
        self.at = Some(due);
        Ok(())
    }

    /// It rings no more, until it is set again.
    pub(in crate::datapath) fn silence(&mut self) {
        // It has rung, so this does not wait; were that ever not so, it does not either.
        let _ = self.timer.wait();
        self.at = None;
    }
}

impl AsFd for WakeTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Rings when another thread wants something.
#[derive(Clone)]
pub(in crate::datapath) struct Waker(Arc<EventFd>);

impl Waker {
    /// It is silent.
    pub(in crate::datapath) fn new() -> io::Result<Waker> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Waker(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Wakes who waits for it.
    pub(in crate::datapath) fn ring(&self) {
        // It fails only where it has been rung 2^64 - 2 times and nobody came.
        let _ = self.0.write(1);
    }

    /// It rings no more, until it is rung again.
    pub(in crate::datapath) fn silence(&self) {
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
    use crate::datapath::event_source::EventSource;
    use crate::datapath::sys::epoll::{Epoll, Events};

    #[test]
    fn an_alarm_rings_once_when_it_is_time_or_past() {
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::new(4));
        let mut alarm = WakeTimer::new().unwrap();
        epoll.add(alarm.as_fd(), EventSource::WakeTimer).unwrap();
        for (now, due) in [(0, 20_000_000), (7, 7), (7, 3)] {
            alarm.set(now, None).unwrap();
            alarm.set(now, Some(due)).unwrap();
            alarm.set(now, Some(due + 3_600_000_000_000)).unwrap();
            epoll.wait(&mut events).unwrap();
            assert_eq!((events.len(), events.event_source(0)), (1, Some(EventSource::WakeTimer)));
            alarm.silence();
        }
        let bell = Waker::new().unwrap();
        epoll.add(bell.as_fd(), EventSource::Waker).unwrap();
        bell.ring();
        epoll.wait(&mut events).unwrap();
        assert_eq!(
            (events.len(), events.event_source(0)),
            (1, Some(EventSource::Waker)),
            "the alarm is silent"
        );
    }

    #[test]
    fn a_bell_wakes_another_thread() {
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::new(4));
        let bell = Waker::new().unwrap();
        epoll.add(bell.as_fd(), EventSource::Waker).unwrap();
        let other = bell.clone();
        let ringing = std::thread::spawn(move || (0..3).for_each(|_| other.ring()));
        epoll.wait(&mut events).unwrap();
        ringing.join().unwrap();
        bell.silence();
        bell.ring();
        epoll.wait(&mut events).unwrap();
        assert_eq!((events.len(), events.event_source(0)), (1, Some(EventSource::Waker)));
    }
}
