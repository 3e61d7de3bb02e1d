//! Whether the relay is alive: every worker, and the thread beside each, is asked for a sign of life through its command
//! channel.
//!
//! An idle worker waits for its next event, so a counter that its loop increments would tell nothing.

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

/// The latest signs of life.
pub struct Heartbeat {
    started: Instant,
    /// When all threads were last asked and had replied or not, in milliseconds since `started`.
    asked: AtomicU64,
    silent: Mutex<Vec<SilentThread>>,
}

impl Heartbeat {
    /// Every thread counts as alive at first.
    pub fn new() -> Heartbeat {
        Heartbeat { started: Instant::now(), asked: AtomicU64::new(0), silent: Mutex::default() }
    }

    /// Whether the daemon has asked its threads lately, and all of them have replied.
    pub fn is_alive(&self) -> bool {
        let since = self.elapsed().saturating_sub(self.asked.load(Ordering::Relaxed));
        let lately = since <= (INTERVAL + 2 * LIMIT).as_millis() as u64;
        lately && self.silent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn elapsed(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn note(&self, silent: Vec<SilentThread>) {
        let mut before = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in silent.iter().filter(|thread| !before.contains(thread)) {
            error!(worker = thread.worker, stages = thread.stages, "a thread gives no sign of life");
        }
        for thread in before.iter().filter(|thread| !silent.contains(thread)) {
            info!(worker = thread.worker, stages = thread.stages, "a thread gives signs of life again");
        }
        *before = silent;
        self.asked.store(self.elapsed(), Ordering::Relaxed);
    }
}

/// Asks the threads of `workers` for as long as it is polled.
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
        assert!(!heartbeat.is_alive(), "nobody has asked for half a minute");
    }
}
