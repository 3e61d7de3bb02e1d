//! The end of the process within `stop_deadline`, whatever a thread does: a guard that is armed when the relay is told to stop,
//! and ends the process if that has not happened in time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::error;

use crate::datapath::WorkerThread;

/// The exit status of a stop that was cut short.
const CUT_SHORT: i32 = 1;

/// How long the log has to write its last lines.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Ends the process when a stop takes too long.
#[derive(Default)]
pub struct StopGuard {
    seconds: AtomicU32,
    armed: AtomicBool,
    /// Names the threads that have not ended. `None`: the daemon has not begun to stop.
    unfinished: Mutex<Option<Unfinished>>,
}

type Unfinished = Box<dyn Fn() -> Vec<WorkerThread> + Send + Sync>;

impl StopGuard {
    /// A guard for stops of at most `seconds`.
    pub fn new(seconds: u32) -> Arc<StopGuard> {
        let guard = StopGuard::default();
        guard.set_deadline(seconds);
        Arc::new(guard)
    }

    /// Changes the deadline of a stop that has not begun.
    pub fn set_deadline(&self, seconds: u32) {
        self.seconds.store(seconds, Ordering::Relaxed);
    }

    /// The relay is told to stop. False if it was before.
    pub fn arm(self: &Arc<Self>) -> bool {
        if self.armed.swap(true, Ordering::Relaxed) {
            return false;
        }
        let guard = self.clone();
        let watch = move || {
            let seconds = guard.seconds.load(Ordering::Relaxed);
            thread::sleep(Duration::from_secs(seconds.into()).saturating_sub(LAST_LINES));
            error!("{}", guard.overdue(seconds));
            cut_short();
        };
        // It has a thread of its own, because any other may be the one that is stuck.
        if let Err(error) = thread::Builder::new().name("stop-deadline".into()).spawn(watch) {
            error!("stop_deadline cannot be kept if a thread is stuck: no thread for it: {error}");
        }
        true
    }

    /// How long the stop that has begun may take.
    pub fn armed(&self) -> Option<Duration> {
        let is_armed = self.armed.load(Ordering::Relaxed);
        is_armed.then(|| Duration::from_secs(self.seconds.load(Ordering::Relaxed).into()))
    }

    /// The daemon stops, and waits for the threads that this names.
    pub fn begin(&self, unfinished: impl Fn() -> Vec<WorkerThread> + Send + Sync + 'static) {
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(unfinished));
    }

    fn overdue(&self, seconds: u32) -> String {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = unfinished.as_ref().map_or_else(Vec::new, |unfinished| unfinished());
        let names: Vec<_> = threads.iter().map(ToString::to_string).collect();
        let (names, have) = match &names[..] {
            [] => ("the daemon".to_owned(), "has"),
            [one] => (one.clone(), "has"),
            all => (all.join(" and "), "have"),
        };
        format!(
            "{names} {have} not ended within stop_deadline, {seconds} s: the process ends now, and what was not logged or sent is \
             lost; please report it, unless the machine was overloaded"
        )
    }
}

/// Ends the process now.
pub fn cut_short() -> ! {
    thread::sleep(LAST_LINES);
    std::process::exit(CUT_SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_takes_too_long_names_the_thread() {
        let guard = StopGuard::new(5);
        assert!(guard.overdue(5).starts_with("the daemon has not ended within stop_deadline, 5 s"));
        let thread = |worker, stages| WorkerThread { worker, stages };
        guard.begin(move || vec![thread(1, false)]);
        assert!(guard.overdue(5).starts_with("worker 1 has not ended"));
        guard.begin(move || vec![thread(1, false), thread(2, true)]);
        let both = "worker 1 and the thread that accepts the connections of worker 2 have not ended";
        assert!(guard.overdue(5).starts_with(both));
    }
}
