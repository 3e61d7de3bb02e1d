//! Whether the relay is alive: every worker, the thread beside it and the daemon have given a sign of life lately.
//!
//! Threads are asked through their command channels: an idle worker waits for its next event, so a counter of its loop would not
//! show whether it is alive. How long workers take to reply is a histogram in the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info};

use crate::datapath::{WorkerThread, Workers};
use crate::histogram::{self, Histogram};

/// How often threads are asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// How old a sign of life may be.
const LIMIT: Duration = Duration::from_secs(3);

/// How long the daemon may carry out one change. Each of its steps has a deadline of its own; all of them together end before.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// The bounds of [`LoopLag::replies`]. A pass takes up to 12 ms when a worker has more to do than it can.
pub const LAGS: [Duration; 12] = histogram::microseconds([
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 3_000_000,
]);

/// How late a worker comes to what waits for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopLag {
    /// How long it took to reply to questions.
    pub replies: Histogram<{ LAGS.len() }>,
    /// How long it has not replied to the one that it was asked last.
    pub unanswered: Duration,
}

/// The latest signs of life.
pub struct Heartbeat {
    started: Instant,
    threads: Vec<Pulse>,
    /// That of the daemon itself: of the thread that serves HTTP and signals.
    daemon: AtomicU64,
    /// When the daemon began the change that it carries out, in milliseconds after the start; 0 if there is none.
    change: AtomicU64,
}

/// A change that the daemon carries out, until this is dropped.
pub struct RunningChange<'a>(&'a AtomicU64);

impl Drop for RunningChange<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The latest sign of life of a thread, in milliseconds after the start.
struct Pulse {
    thread: WorkerThread,
    at: AtomicU64,
    lag: Mutex<Lag>,
}

/// What is known of the replies of a thread.
#[derive(Default)]
struct Lag {
    replies: Histogram<{ LAGS.len() }>,
    /// When the question was asked that it has not replied to.
    asked: Option<Instant>,
}

/// A thread, or the daemon, that has given no sign of life for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    who: Who,
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Daemon,
    /// The daemon serves HTTP, but does nothing else.
    Change,
    Thread(WorkerThread),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Change => write!(f, "the daemon has carried out one change for {} s", self.seconds),
            _ => write!(f, "{} has given no sign of life for {} s", self.name(), self.seconds),
        }
    }
}

impl Silence {
    fn name(&self) -> String {
        match self.who {
            Who::Daemon | Who::Change => "the daemon".into(),
            Who::Thread(thread) => thread.to_string(),
        }
    }
}

impl Heartbeat {
    /// Considers every thread alive at first.
    pub fn new(threads: impl Iterator<Item = WorkerThread>) -> Heartbeat {
        let pulse = |thread| Pulse { thread, at: AtomicU64::new(0), lag: Mutex::default() };
        let threads = threads.map(pulse).collect();
        Heartbeat { started: Instant::now(), threads, daemon: AtomicU64::new(0), change: AtomicU64::new(0) }
    }

    /// The daemon begins a change, and takes up nothing else until the result is dropped.
    pub fn change(&self) -> RunningChange<'_> {
        self.change.store(self.elapsed().max(1), Ordering::Relaxed);
        RunningChange(&self.change)
    }

    /// Who is silent: the daemon before its threads, since it is the one that hears them.
    pub fn silence(&self) -> Option<Silence> {
        let daemon = self.since(&self.daemon).map(|seconds| Silence { who: Who::Daemon, seconds });
        daemon.or_else(|| self.silent_threads().next()).or_else(|| self.endless_change())
    }

    fn endless_change(&self) -> Option<Silence> {
        let began = self.change.load(Ordering::Relaxed);
        let age = Duration::from_millis(self.elapsed().saturating_sub(began));
        (began > 0 && age > CHANGE_LIMIT).then_some(Silence { who: Who::Change, seconds: age.as_secs() })
    }

    /// How late each worker comes to what waits for it.
    pub fn lags(&self) -> impl Iterator<Item = LoopLag> {
        self.threads.iter().filter(|pulse| !pulse.thread.stages).map(|pulse| {
            let lag = pulse.lag();
            let unanswered = lag.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
            LoopLag { replies: lag.replies, unanswered }
        })
    }

    fn silent_threads(&self) -> impl Iterator<Item = Silence> {
        self.threads.iter().filter_map(|pulse| {
            Some(Silence { who: Who::Thread(pulse.thread), seconds: self.since(&pulse.at)? })
        })
    }

    /// How many seconds old a sign of life is, if it is too old.
    fn since(&self, at: &AtomicU64) -> Option<u64> {
        let age = Duration::from_millis(self.elapsed().saturating_sub(at.load(Ordering::Relaxed)));
        (age > LIMIT).then_some(age.as_secs())
    }

    fn elapsed(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn note(&self, at: &AtomicU64) {
        at.store(self.elapsed(), Ordering::Relaxed);
    }
}

impl Pulse {
    fn ask(&self) {
        self.lag().asked = Some(Instant::now());
    }

    /// The thread has replied after so long, or has ended.
    fn replied(&self, took: Option<Duration>) {
        let mut lag = self.lag();
        lag.asked = None;
        if let Some(took) = took {
            lag.replies.observe(&LAGS, took);
        }
    }

    fn lag(&self) -> MutexGuard<'_, Lag> {
        // Every change leaves a valid value.
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the threads of `workers` while it is polled.
pub async fn run(workers: Arc<Workers>, heartbeat: Arc<Heartbeat>) {
    let mut asking = JoinSet::new();
    for index in 0..heartbeat.threads.len() {
        let (workers, heartbeat) = (workers.clone(), heartbeat.clone());
        asking.spawn(async move {
            loop {
                let pulse = &heartbeat.threads[index];
                pulse.ask();
                // One question at a time, so that a stuck thread does not collect them.
                let took = workers.ping(pulse.thread).await;
                if took.is_some() {
                    heartbeat.note(&pulse.at);
                }
                pulse.replied(took);
                sleep(INTERVAL).await;
            }
        });
    }
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Vec::new();
    loop {
        interval.tick().await;
        heartbeat.note(&heartbeat.daemon);
        let silent: Vec<Silence> = heartbeat.silent_threads().collect();
        let is_among =
            |one: &Silence, others: &[Silence]| others.iter().any(|other| other.name() == one.name());
        for silence in silent.iter().filter(|one| !is_among(one, &before)) {
            error!("{silence}");
        }
        for silence in before.iter().filter(|one| !is_among(one, &silent)) {
            info!("{} responds again", silence.name());
        }
        before = silent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: [WorkerThread; 2] =
        [WorkerThread { worker: 0, stages: false }, WorkerThread { worker: 0, stages: true }];

    #[tokio::test(start_paused = true)]
    async fn a_silent_thread_and_a_stuck_daemon_are_noticed() {
        let heartbeat = Heartbeat::new(THREADS.into_iter());
        assert_eq!(heartbeat.silence(), None);
        tokio::time::advance(LIMIT).await;
        assert_eq!(heartbeat.silence(), None);
        heartbeat.note(&heartbeat.daemon);
        heartbeat.note(&heartbeat.threads[0].at);
        tokio::time::advance(Duration::from_millis(1)).await;
        let text = "the thread that accepts the connections of worker 0 has given no sign of life for 3 s";
        assert_eq!(heartbeat.silence().unwrap().to_string(), text);
        heartbeat.note(&heartbeat.threads[1].at);
        assert_eq!(heartbeat.silence(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        let text = "the daemon has given no sign of life for 5 s";
        assert_eq!(heartbeat.silence().unwrap().to_string(), text);
    }

    /// A main loop that hangs in a change is stuck, although the daemon serves HTTP.
    #[tokio::test(start_paused = true)]
    async fn a_change_that_does_not_end_is_noticed() {
        let heartbeat = Heartbeat::new(std::iter::empty());
        let change = heartbeat.change();
        for seconds in [60, 1] {
            assert_eq!(heartbeat.silence(), None);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            heartbeat.note(&heartbeat.daemon);
        }
        let text = "the daemon has carried out one change for 60 s";
        assert_eq!(heartbeat.silence().unwrap().to_string(), text);
        drop(change);
        assert_eq!(heartbeat.silence(), None);
    }

    /// A late reply counts when it comes. Until then the unanswered question shows for how long the worker has been stuck.
    #[tokio::test(start_paused = true)]
    async fn a_late_reply_counts_and_shows_before() {
        let heartbeat = Heartbeat::new(THREADS.into_iter());
        let [worker, stages] = &heartbeat.threads[..] else { panic!("there are two threads") };
        let only = || heartbeat.lags().map(|lag| (lag.unanswered, lag.replies)).collect::<Vec<_>>();
        let mut replies = Histogram::default();
        assert_eq!(only(), [(Duration::ZERO, replies)], "only workers count");
        worker.ask();
        stages.ask();
        let late = Duration::from_secs(7);
        tokio::time::advance(late).await;
        assert_eq!(only(), [(late, replies)]);
        worker.replied(Some(late));
        replies.observe(&LAGS, late);
        assert_eq!(only(), [(Duration::ZERO, replies)]);
        worker.ask();
        worker.replied(None);
        assert_eq!(only(), [(Duration::ZERO, replies)], "a thread that has ended replies no more");
    }
}
