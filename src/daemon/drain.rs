//! A drain: no new allocations, while running ones live on until the last has ended or a deadline has come. Then the relay
//! stops. `drain_orders` begins it and takes it back; what clients are answered meanwhile is in `turn::siblings`.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::unix_now;

/// How often allocations are counted, and how long a drain takes at least: its order is answered meanwhile.
const INTERVAL: Duration = Duration::from_millis(200);

/// The longest deadline: a year.
const DEADLINE_MAX: Duration = Duration::from_secs(31_536_000);

/// Whether the relay drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// It does not.
    #[default]
    Off,
    /// It does.
    On(DrainStatus),
    /// It did, and the relay stops.
    Ended(DrainEnd, DrainStatus),
}

impl Drain {
    /// The drain that goes on, or because of which the relay stops now.
    pub fn status(self) -> Option<DrainStatus> {
        match self {
            Drain::Off => None,
            Drain::On(status) | Drain::Ended(_, status) => Some(status),
        }
    }
}

/// A drain that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// Since when, in seconds of the Unix epoch.
    pub since: u64,
    /// When it ends although there are allocations, in seconds of the Unix epoch.
    pub deadline: Option<u64>,
    /// Allocations that have not ended. A reserved port counts until it expires, 30 seconds at most unless configured.
    pub allocations: u64,
}

/// How a drain has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEnd {
    /// No allocation is left; the relay stops.
    Complete,
    /// The deadline has come; the relay ends this many allocations and stops.
    Deadline(u64),
    /// The relay was stopped.
    Stopped,
    /// It was taken back: the relay serves as before.
    Undrained,
}

impl DrainEnd {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DrainEnd::Complete => "complete",
            DrainEnd::Deadline(_) => "deadline",
            DrainEnd::Stopped => "stopped",
            DrainEnd::Undrained => "undrained",
        }
    }
}

/// What an order to drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// The relay was draining before.
    pub already: bool,
    /// The drain.
    pub status: DrainStatus,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (already, DrainStatus { allocations, deadline, .. }) = (self.already, self.status);
        let begun = if already { "already" } else { "from now on, and makes no new allocations" };
        write!(f, "the relay drains {begun}; ")?;
        match allocations {
            0 => return f.write_str("no allocation is left, so it stops now"),
            1 => f.write_str("it stops when the last allocation has ended")?,
            _ => write!(f, "it stops when the last of {allocations} allocations has ended")?,
        }
        match deadline {
            Some(at) => write!(f, ", in {} s at the latest", at.saturating_sub(unix_now())),
            None => Ok(()),
        }
    }
}

/// The state of the drain, and when it ends.
#[derive(Default)]
pub(super) struct DrainControl {
    state: watch::Sender<Drain>,
    /// When it began, and its deadline.
    times: Option<(Instant, Option<Instant>)>,
}

impl DrainControl {
    /// Follows the drain.
    pub(super) fn watch(&self) -> DrainWatch {
        DrainWatch(self.state.subscribe())
    }

    /// Begins a drain, or gives one that goes on another deadline.
    pub(super) fn begin(&mut self, deadline: Option<Duration>, allocations: u64) -> DrainReport {
        let (now, unix) = (Instant::now(), unix_now());
        let already = match *self.state.borrow() {
            Drain::On(status) => Some(status),
            Drain::Off | Drain::Ended(..) => None,
        };
        let deadline = deadline.map(|after| after.min(DEADLINE_MAX));
        let at = deadline.map(|after| (now + after, unix + after.as_secs()));
        let (began, before) = self.times.unwrap_or((now, None));
        let status = DrainStatus {
            since: already.map_or(unix, |before| before.since),
            deadline: at.map(|(_, unix)| unix).or(already.and_then(|before| before.deadline)),
            allocations,
        };
        self.times = Some((began, at.map(|(at, _)| at).or(before)));
        self.state.send_replace(Drain::On(status));
        DrainReport { already: already.is_some(), status }
    }

    /// Waits until the drain has ended; forever if there is none.
    pub(super) async fn ended(&self, allocations: impl Fn() -> u64) -> DrainEnd {
        let Some((began, deadline)) = self.times else { return std::future::pending().await };
        sleep_until(began + INTERVAL).await;
        loop {
            let left = allocations();
            self.state.send_if_modified(|state| match state {
                Drain::On(status) if status.allocations != left => {
                    status.allocations = left;
                    true
                }
                _ => false,
            });
            if left == 0 {
                return DrainEnd::Complete;
            }
            let wait = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                return DrainEnd::Deadline(left);
            }
            sleep(wait.unwrap_or(INTERVAL).min(INTERVAL)).await;
        }
    }

    /// The relay stops.
    pub(super) fn end(&mut self, end: DrainEnd) {
        self.times = None;
        let drain = *self.state.borrow();
        if let Drain::On(status) = drain {
            self.state.send_replace(Drain::Ended(end, status));
        }
    }

    /// Takes the drain back; false if there is none.
    pub(super) fn take_back(&mut self) -> bool {
        let is_on = matches!(*self.state.borrow(), Drain::On(_));
        if is_on {
            self.times = None;
            self.state.send_replace(Drain::Off);
        }
        is_on
    }
}

/// Follows the drain.
#[derive(Clone)]
pub struct DrainWatch(watch::Receiver<Drain>);

#[cfg(test)]
impl DrainWatch {
    /// For tests of what does not drain.
    pub fn none() -> DrainWatch {
        DrainControl::default().watch()
    }
}

impl DrainWatch {
    /// Whether the relay drains now.
    pub fn now(&self) -> Drain {
        *self.0.borrow()
    }

    /// Why the relay takes no new allocations.
    pub(super) fn reason(&self) -> Option<String> {
        match self.now() {
            Drain::Off => None,
            Drain::On(status) => {
                let are = if status.allocations == 1 { "allocation is" } else { "allocations are" };
                Some(format!("the relay drains; {} {are} left", status.allocations))
            }
            Drain::Ended(..) => Some("the relay is stopping".into()),
        }
    }

    /// Waits until the drain that goes on has ended. `None`: there is none.
    pub async fn ended(&mut self) -> Option<DrainEnd> {
        let mut began = None;
        loop {
            match *self.0.borrow_and_update() {
                Drain::Ended(end, _) => return Some(end),
                Drain::Off => return began.map(|_| DrainEnd::Undrained),
                Drain::On(status) if began.is_some_and(|since| since != status.since) => {
                    return Some(DrainEnd::Undrained);
                }
                Drain::On(status) => began = Some(status.since),
            }
            if self.0.changed().await.is_err() {
                return Some(DrainEnd::Stopped);
            }
        }
    }
}

impl DrainEnd {
    /// Completes "... : ending every allocation and stopping".
    pub(super) fn cause(self) -> &'static str {
        match self {
            DrainEnd::Complete => "drain complete, the last allocation has ended",
            DrainEnd::Deadline(_) => "the deadline of the drain has come",
            DrainEnd::Stopped | DrainEnd::Undrained => "drain",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn second(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_allocation() {
        let left = AtomicU64::new(2);
        let count = || left.load(Ordering::Relaxed);
        let mut drain = DrainControl::default();
        let mut watch = drain.watch();
        assert_eq!((watch.now(), watch.reason(), watch.ended().await), (Drain::Off, None, None));
        assert!(!drain.begin(None, 2).already);
        assert_eq!(watch.reason().unwrap(), "the relay drains; 2 allocations are left");
        let ended = tokio::time::timeout(Duration::from_secs(100), drain.ended(count)).await;
        assert!(ended.is_err());
        left.store(1, Ordering::Relaxed);
        let ended = tokio::time::timeout(Duration::from_secs(1), drain.ended(count)).await;
        assert!(ended.is_err());
        assert_eq!(watch.reason().unwrap(), "the relay drains; 1 allocation is left");
        left.store(0, Ordering::Relaxed);
        assert_eq!(drain.ended(count).await, DrainEnd::Complete);
        drain.end(DrainEnd::Complete);
        assert_eq!(watch.ended().await, Some(DrainEnd::Complete));
        assert_eq!(watch.now().status().map(|last| last.allocations), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_a_drain_and_can_be_changed() {
        let mut drain = DrainControl::default();
        let began = Instant::now();
        drain.begin(second(3600), 7);
        // Without a deadline an order changes nothing.
        let report = drain.begin(None, 7);
        assert!(report.already && report.status.deadline.is_some());
        drain.begin(second(60), 7);
        assert_eq!(drain.ended(|| 7).await, DrainEnd::Deadline(7));
        assert_eq!(began.elapsed(), Duration::from_secs(60));
        // However far away it is
        let mut drain = DrainControl::default();
        drain.begin(Some(Duration::MAX), 7);
        let ended = tokio::time::timeout(Duration::from_secs(60), drain.ended(|| 7)).await;
        assert!(ended.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_is_taken_back_does_not_end() {
        let mut drain = DrainControl::default();
        drain.begin(second(1), 1);
        let mut watch = drain.watch();
        let (ended, ()) = tokio::join!(watch.ended(), async {
            sleep(Duration::from_millis(500)).await;
            assert!(drain.take_back() && !drain.take_back());
        });
        assert_eq!((ended, watch.reason()), (Some(DrainEnd::Undrained), None));
        let never = tokio::time::timeout(Duration::from_secs(100), drain.ended(|| 0)).await;
        assert!(never.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_a_stop() {
        let mut drain = DrainControl::default();
        drain.begin(None, 1);
        let mut watch = drain.watch();
        drain.end(DrainEnd::Stopped);
        assert_eq!(watch.ended().await, Some(DrainEnd::Stopped));
    }
}
