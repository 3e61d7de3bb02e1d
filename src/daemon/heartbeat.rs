//! Whether the relay is alive. Every worker and the thread beside it are asked to reply through their command channels.
//!
//! An idle worker waits for its next event, so a counter of its loop would not show whether it is alive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, interval};
use tracing::{error, info};

use crate::datapath::{SilentThread, Workers};

/// How often the threads are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a thread may take to reply.
const LIMIT: Duration = Duration::from_secs(3);

/// The latest replies.
pub struct Heartbeat {
    started: Instant,
    /// When the latest round of questions ended, in milliseconds since `started`.
    asked: AtomicU64,
    silent: Mutex<Vec<SilentThread>>,
}

impl Heartbeat {
    /// Considers every thread alive at first.
    pub fn new() -> Heartbeat {
        Heartbeat { started: Instant::now(), asked: AtomicU64::new(0), silent: Mutex::default() }
    }

    /// Whether the latest round was recent and every thread replied.
    pub fn is_alive(&self) -> bool {
        let since = self.elapsed().saturating_sub(self.asked.load(Ordering::Relaxed));
        let recent = since <= (INTERVAL + 2 * LIMIT).as_millis() as u64;
        recent && self.silent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn elapsed(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn note(&self, silent: Vec<SilentThread>) {
        let mut before = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in silent.iter().filter(|thread| !before.contains(thread)) {
            error!(worker = thread.worker, stages = thread.stages, "a thread does not respond");
        }
        for thread in before.iter().filter(|thread| !silent.contains(thread)) {
            info!(worker = thread.worker, stages = thread.stages, "a thread responds again");
        }
        *before = silent;
        self.asked.store(self.elapsed(), Ordering::Relaxed);
    }
}

/// Asks the threads of `workers` while it is polled.
pub async fn run(workers: Arc<Workers>, heartbeat: Arc<Heartbeat>) {
    let mut interval = interval(INTERVAL);
    loop {
        interval.tick().await;
        heartbeat.note(workers.silent_threads(LIMIT).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_thread_and_a_stuck_daemon_are_noticed() {
        let heartbeat = Heartbeat::new();
        assert!(heartbeat.is_alive());
        let silent = SilentThread { worker: 1, stages: false };
        heartbeat.note(vec![silent]);
        assert!(!heartbeat.is_alive());
        heartbeat.note(Vec::new());
        assert!(heartbeat.is_alive());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(!heartbeat.is_alive(), "the latest round is too old");
    }
}
