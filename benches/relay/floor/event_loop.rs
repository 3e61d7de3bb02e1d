//! The event loop, in every wait mode: a thread that blocks in `epoll_wait`, or a tokio task around the same epoll.

use std::io;
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::sys;
use super::variant::{Variant, WaitMode};
use crate::clock::Clock;
use crate::epoll::Epoll;

/// A relay that the loop drives.
pub trait EventHandler {
    /// Adds its sockets to the epoll, each with its own token.
    fn watch(&self, epoll: &Epoll) -> io::Result<()>;
    /// Forwards what this token's socket has received, and returns whether there may be more.
    fn ready(&mut self, token: usize) -> bool;
    /// Sends what is queued; called at the end of each pass.
    fn flush(&mut self);
}

const EVENTS: usize = 64;
/// Nanoseconds between the beginnings of two passes of a relay that gathers packets.
const GATHER: u64 = 150_000;
/// The period of timers, or the timeout, in the modes that have one.
const TIMER_MILLISECONDS: u8 = 100;
/// The token of the timer.
const TIMER: usize = usize::MAX;

/// Runs until an error.
pub fn run(mut relay: impl EventHandler, variant: Variant) -> io::Result<()> {
    let mut epoll = Epoll::new(EVENTS)?;
    relay.watch(&epoll)?;
    let mut timer = None;
    let mut timeout = EpollTimeout::NONE;
    match variant.wait_mode {
        WaitMode::Epoll => {}
        WaitMode::EpollTimeout => timeout = TIMER_MILLISECONDS.into(),
        WaitMode::TimerFd => {
            let started = start_timer()?;
            epoll.add(&started, TIMER)?;
            timer = Some(started);
        }
        WaitMode::TokioNaive | WaitMode::Tokio | WaitMode::TokioTimer => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(run_in_tokio(relay, epoll, variant));
        }
    }
    let clock = Clock::start();
    let mut last = 0;
    loop {
        let ready = epoll.wait(timeout);
        let began = if variant.gather { clock.now() } else { 0 };
        pass(&mut relay, &epoll, ready, timer.as_ref());
        if variant.gather {
            if began - last < 3 * GATHER {
                std::thread::sleep(Duration::from_nanos((began + GATHER).saturating_sub(clock.now())));
            }
            last = began;
        }
    }
}

/// A timer that fires periodically without being set again.
fn start_timer() -> io::Result<TimerFd> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let period = TimeSpec::milliseconds(TIMER_MILLISECONDS.into());
    timer.set(Expiration::Interval(period), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

async fn run_in_tokio(mut relay: impl EventHandler, epoll: Epoll, variant: Variant) -> io::Result<()> {
    if variant.wait_mode == WaitMode::TokioTimer {
        tokio::spawn(async {
            let mut timer = tokio::time::interval(Duration::from_millis(TIMER_MILLISECONDS.into()));
            loop {
                timer.tick().await;
            }
        });
    }
    let mut epoll = sys::register(epoll)?;
    loop {
        let mut guard = epoll.readable_mut().await?;
        let epoll = guard.get_inner_mut();
        let ready = epoll.wait(EpollTimeout::ZERO);
        let more = pass(&mut relay, epoll, ready, None);
        let drained = match variant.wait_mode {
            WaitMode::TokioNaive => ready == 0,
            _ => ready < epoll.capacity() && !more,
        };
        if drained {
            guard.clear_ready();
        }
    }
}

/// Handles the events of one wait and returns whether a socket may have more.
fn pass(relay: &mut impl EventHandler, epoll: &Epoll, ready: usize, timer: Option<&TimerFd>) -> bool {
    let mut more = false;
    for n in 0..ready {
        match (epoll.token(n), timer) {
            // Reading the timer clears its readiness.
            (TIMER, Some(timer)) => drop(timer.wait()),
            (token, _) => more |= relay.ready(token),
        }
    }
    relay.flush();
    more
}
