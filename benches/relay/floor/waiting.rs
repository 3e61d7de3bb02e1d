//! The ways to wait: a thread of its own in `epoll_wait`, or a task of tokio's around the same epoll.

use std::io;
use std::time::Duration;

use super::{Relay, Shape, TIMER_MILLISECONDS, Waiting};
use crate::clock::Clock;
use crate::sys::{self, Epoll, Timer};

const EVENTS: usize = 64;
/// How far apart rounds begin that let packets gather, in nanoseconds.
const GATHER: u64 = 150_000;
/// The timer's number among the sockets.
const TIMER: usize = usize::MAX;

/// Runs the loop for ever.
pub fn run(mut relay: impl Relay, shape: Shape) -> io::Result<()> {
    let mut epoll = Epoll::new(EVENTS)?;
    relay.watch(&epoll)?;
    let timer = match shape.waiting {
        Waiting::Timer => Some(Timer::every(i64::from(TIMER_MILLISECONDS))?),
        _ => None,
    };
    if let Some(timer) = &timer {
        epoll.add(timer, TIMER, false)?;
    }
    let milliseconds = match shape.waiting {
        Waiting::Epoll | Waiting::Timer => -1,
        Waiting::Timeout => TIMER_MILLISECONDS as i32,
        Waiting::TokioNaive | Waiting::Tokio | Waiting::TokioTimer => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(task(relay, epoll, shape));
        }
    };
    let clock = Clock::start();
    let mut last = 0;
    loop {
        let ready = epoll.wait(milliseconds);
        let began = if shape.gather { clock.now() } else { 0 };
        round(&mut relay, &epoll, ready, timer.as_ref());
        if shape.gather {
            if began - last < 3 * GATHER {
                std::thread::sleep(Duration::from_nanos((began + GATHER).saturating_sub(clock.now())));
            }
            last = began;
        }
    }
}

/// The loop as a task, and the timer's beside it.
async fn task(mut relay: impl Relay, epoll: Epoll, shape: Shape) -> io::Result<()> {
    if shape.waiting == Waiting::TokioTimer {
        tokio::spawn(async {
            let mut timer = tokio::time::interval(Duration::from_millis(TIMER_MILLISECONDS.into()));
            loop {
                timer.tick().await;
            }
        });
    }
    let mut epoll = sys::watch(epoll)?;
    loop {
        let mut guard = epoll.readable_mut().await?;
        let epoll = guard.get_inner_mut();
        let ready = epoll.wait(0);
        let more = round(&mut relay, epoll, ready, None);
        let emptied = match shape.waiting {
            Waiting::TokioNaive => ready == 0,
            _ => ready < epoll.capacity() && !more,
        };
        if emptied {
            guard.clear_ready();
        }
    }
}

/// One round over the sockets that have something; whether one of them may have more.
fn round(relay: &mut impl Relay, epoll: &Epoll, ready: usize, timer: Option<&Timer>) -> bool {
    let mut more = false;
    for n in 0..ready {
        match (epoll.number(n), timer) {
            (TIMER, Some(timer)) => timer.clear(),
            (number, _) => more |= relay.ready(number),
        }
    }
    relay.flush();
    more
}
