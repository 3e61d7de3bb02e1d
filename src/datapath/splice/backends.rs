//! What is known of each backend. Backends of the configuration are kept; one that is removed from it is forgotten with its last
//! connection, so the number of metrics is bounded by the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::backend::Backend;
use super::stats::{BackendHealth, BackendStats, SpliceEnd, SpliceFailure};
use crate::counted::Counters;
use crate::datapath::line_budget::{LineBudgets, LineRate};
use crate::turn::SECOND;

/// The lines of each reason about one backend: one that is down has as many clients as one that is up.
const BACKEND_LINES: LineRate = LineRate { lines: 2, period: 10 * SECOND };

/// Lookups of one name at a time. Each has a thread while the resolver takes its time, and they bound the rate of new connections.
const LOOKUPS: usize = 32;

/// Every backend, by its name.
#[derive(Default)]
pub(super) struct Backends(Mutex<BackendTable>);

#[derive(Default)]
struct BackendTable {
    configured: BTreeMap<String, Arc<BackendState>>,
    /// Those that have connections, but are not in the configuration any more.
    former: BTreeMap<String, Arc<BackendState>>,
}

/// One backend, whoever sends connections to it.
pub(super) struct BackendState {
    pub(super) name: String,
    open: AtomicU64,
    total: AtomicU64,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    /// Connections that wait for it.
    waiting: AtomicUsize,
    pub(super) lookups: Arc<Semaphore>,
    rare: Mutex<RareEvents>,
}

/// What changes when connections begin and end.
struct RareEvents {
    failed: Counters<SpliceFailure>,
    closed: Counters<SpliceEnd>,
    health: BackendHealth,
    /// How often it began to fail.
    outages: u64,
    /// It is in the configuration. Of another one nobody wants to know whether it can be reached.
    is_configured: bool,
    /// Lines per reason: limits that refuse many connections hide no outage.
    lines: LineBudgets,
}

/// What follows from a connection that has not reached its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// How many lines of this reason were not written before; `None` if this one is not to be written either.
    pub(super) line: Option<u64>,
    /// The backend could be reached until now: the number of this outage.
    pub(super) outage: Option<u64>,
}

/// A connection that waits for its backend, until this is dropped.
pub(super) struct Waiting(Arc<BackendState>);

/// A connection to a backend, until this is dropped.
pub(super) struct OpenSplice(Arc<BackendState>);

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToBackend,
    ToClient,
}

impl Backends {
    /// These are in the configuration from now on.
    pub(super) fn configure<'a>(&self, backends: impl Iterator<Item = &'a Backend>) {
        let names: BTreeSet<String> = backends.map(ToString::to_string).collect();
        let mut table = self.table();
        let BackendTable { configured, former } = &mut *table;
        let mut before = std::mem::take(configured);
        for name in names {
            let state = before.remove(&name).or_else(|| former.remove(&name));
            let state = state.unwrap_or_else(|| BackendState::new(name.clone()));
            state.set_configured(true);
            configured.insert(name, state);
        }
        before.values().for_each(|state| state.set_configured(false));
        former.append(&mut before);
        table.forget();
    }

    /// The state of a backend. A connection may have been routed by an earlier configuration.
    pub(super) fn get(&self, backend: &Backend) -> Arc<BackendState> {
        let name = backend.to_string();
        let mut table = self.table();
        if let Some(state) = table.configured.get(&name) {
            return state.clone();
        }
        table.former.entry(name).or_insert_with_key(|name| BackendState::new(name.clone())).clone()
    }

    /// What is counted of each.
    pub(super) fn stats(&self) -> Vec<BackendStats> {
        let mut table = self.table();
        table.forget();
        table.configured.values().chain(table.former.values()).map(|state| state.stats()).collect()
    }

    fn table(&self) -> MutexGuard<'_, BackendTable> {
        // Nothing panics between the changes of one lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendTable {
    fn forget(&mut self) {
        // Whoever else has it is a connection.
        self.former.retain(|_, state| Arc::strong_count(state) > 1);
    }
}

impl BackendState {
    fn new(name: String) -> Arc<BackendState> {
        let rare = RareEvents {
            failed: Counters::default(),
            closed: Counters::default(),
            health: BackendHealth::default(),
            outages: 0,
            is_configured: false,
            lines: LineBudgets::default(),
        };
        Arc::new(BackendState {
            name,
            open: AtomicU64::new(0),
            total: AtomicU64::new(0),
            to_backend: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            rare: Mutex::new(rare),
        })
    }

    /// Whether it is in the configuration from now on. If not, its health is forgotten: an outage of it ends, whoever has connections.
    fn set_configured(&self, is_configured: bool) {
        let mut rare = self.rare();
        rare.is_configured = is_configured;
        if !is_configured {
            rare.health = BackendHealth::Unknown;
        }
    }

    /// One more connection waits for it; `None` if `limit` do already.
    pub(super) fn wait(self: &Arc<Self>, limit: usize) -> Option<Waiting> {
        let waiting = Waiting(self.clone());
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(waiting)
    }

    /// A connection has reached it. Returns what was known before.
    pub(super) fn opened(self: &Arc<Self>) -> (OpenSplice, BackendHealth) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        (OpenSplice(self.clone()), self.reached())
    }

    /// It can be reached. Returns what was known before.
    pub(super) fn reached(&self) -> BackendHealth {
        std::mem::replace(&mut self.rare().health, BackendHealth::Up)
    }

    /// Whether this outage goes on.
    pub(super) fn is_out(&self, outage: u64) -> bool {
        let rare = self.rare();
        rare.outages == outage && matches!(rare.health, BackendHealth::Failing { .. })
    }

    /// A connection has not reached it. `now` is in monotonic nanoseconds, `unix` in seconds.
    pub(super) fn failed(&self, why: SpliceFailure, error: &str, now: u64, unix: u64) -> Failed {
        let mut rare = self.rare();
        rare.failed[why] += 1;
        let mut outage = None;
        if why.is_of_backend() && rare.is_configured {
            let since = match rare.health {
                BackendHealth::Failing { since, .. } => since,
                BackendHealth::Unknown | BackendHealth::Up => {
                    rare.outages += 1;
                    outage = Some(rare.outages);
                    unix
                }
            };
            rare.health = BackendHealth::Failing { since, error: error.to_owned() };
        }
        Failed { line: rare.lines.take(now, why.as_str(), BACKEND_LINES), outage }
    }

    /// A connection to it has ended.
    pub(super) fn closed(&self, why: SpliceEnd) {
        self.rare().closed[why] += 1;
    }

    /// So many bytes have left in a direction.
    pub(super) fn moved(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::ToBackend => &self.to_backend,
            Direction::ToClient => &self.to_client,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn stats(&self) -> BackendStats {
        let rare = self.rare();
        BackendStats {
            name: self.name.clone(),
            open: self.open.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            to_backend: self.to_backend.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
            failed: rare.failed,
            closed: rare.closed,
            health: rare.health.clone(),
        }
    }

    fn rare(&self) -> MutexGuard<'_, RareEvents> {
        // Whatever was written is a value.
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenSplice {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(port: u16) -> Backend {
        Backend { host: "192.0.2.1".into(), port, send_proxy: false }
    }

    fn names(backends: &Backends) -> Vec<String> {
        backends.stats().into_iter().map(|one| one.name).collect()
    }

    /// A removed backend is counted while it has connections, and forgotten with the last of them.
    #[test]
    fn the_configuration_bounds_what_is_counted() {
        let backends = Backends::default();
        backends.configure([backend(1), backend(2)].iter());
        let state = backends.get(&backend(2));
        let (open, _) = state.opened();
        drop(state);
        let with_proxy = Backend { send_proxy: true, ..backend(1) };
        backends.configure([backend(1), with_proxy].iter());
        assert_eq!(names(&backends), ["192.0.2.1:1", "192.0.2.1:2"]);
        backends.configure([backend(2), backend(1)].iter());
        assert_eq!(backends.stats()[1].total, 1, "it has come back");
        backends.configure([backend(1)].iter());
        drop(open);
        assert_eq!(names(&backends), ["192.0.2.1:1"]);
        // Routed by an earlier configuration
        drop(backends.get(&backend(3)));
        assert_eq!(names(&backends), ["192.0.2.1:1"]);
    }

    #[test]
    fn a_backend_fails_since_its_first_failure_and_until_it_is_reached() {
        let backends = Backends::default();
        backends.configure([backend(1)].iter());
        let state = backends.get(&backend(1));
        let health = || backends.stats().remove(0).health;
        assert_eq!(health(), BackendHealth::Unknown);
        for (unix, error, outage) in [(100, "one", Some(1)), (200, "two", None)] {
            assert_eq!(state.failed(SpliceFailure::Refused, error, 0, unix).outage, outage);
        }
        assert!(state.is_out(1));
        state.failed(SpliceFailure::Limit, "three", 0, 300);
        assert_eq!(health(), BackendHealth::Failing { since: 100, error: "two".into() });
        let (_open, before) = state.opened();
        assert!(matches!(before, BackendHealth::Failing { since: 100, .. }));
        assert_eq!((health(), state.is_out(1)), (BackendHealth::Up, false));
        state.failed(SpliceFailure::Limit, "a limit of this relay is no failure of the backend", 0, 400);
        assert_eq!(health(), BackendHealth::Up);
        assert_eq!(state.failed(SpliceFailure::Timeout, "again", 0, 500).outage, Some(2));
        assert!(!state.is_out(1), "who waits for the end of the first outage has seen it");
    }

    /// Also while connections to it go on, and when another one of them fails.
    #[test]
    fn a_removed_backend_has_no_outage() {
        let backends = Backends::default();
        backends.configure([backend(1)].iter());
        let state = backends.get(&backend(1));
        state.failed(SpliceFailure::Refused, "one", 0, 100);
        backends.configure([].iter());
        assert_eq!((backends.stats()[0].failure(), state.is_out(1)), (None, false));
        assert_eq!(state.failed(SpliceFailure::Refused, "two", 0, 200).outage, None);
        assert_eq!(backends.stats()[0].failure(), None);
        backends.configure([backend(1)].iter());
        assert_eq!(backends.stats()[0].failure(), None);
        assert_eq!(state.failed(SpliceFailure::Refused, "three", 0, 300).outage, Some(2));
    }

    /// The line about an outage is written whatever limits refuse at the same time.
    #[test]
    fn refusals_by_limits_hide_no_outage() {
        let state = BackendState::new("192.0.2.1:1".into());
        let refused = || state.failed(SpliceFailure::Limit, "limits.spliced_connections", 0, 100).line;
        assert_eq!((0..100).filter(|_| refused().is_some()).count(), 2);
        assert_eq!(state.failed(SpliceFailure::Refused, "one", 0, 100).line, Some(0));
    }

    #[test]
    fn those_that_wait_are_bounded() {
        let backends = Backends::default();
        let state = backends.get(&backend(1));
        let waiting: Vec<_> = (0..2).map(|_| state.wait(2).unwrap()).collect();
        assert!(state.wait(2).is_none() && state.wait(2).is_none());
        drop(waiting);
        assert!(state.wait(1).is_some());
    }
}
