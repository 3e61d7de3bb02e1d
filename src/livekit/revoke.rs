//! Revocations on their way to the relays: pushed at once and in order, a few at a time, again and again while a relay does not
//! answer, and all of them again when it has been restarted.
//!
//! Each has a number. A relay has its place in the sequence, and goes back to the beginning when its instance is another one: what
//! it keeps itself is not known. A revocation is forgotten when every credential that it refuses has expired.

mod queue;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::health::{Health, Part};
use super::lifecycle_metrics::{LifecycleMetrics, RevocationOutcome};
use super::relays::Relay;
use super::rooms::{Order, UserKind};
use super::tags::{PREFIX, Tags};
use crate::admin::client::Failure;
use crate::admin::percent::encoded;
use crate::admin::times::unix_time;
use crate::daemon::unix_now;
use crate::plural::counted;
use queue::{KEPT, Queue, Revocation};

/// How many requests a relay gets at a time.
const IN_FLIGHT: usize = 4;

/// The shortest and the longest time between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How often a revocation is repeated that a relay answers with an error.
const REFUSALS: u8 = 5;

/// Entries of a page of revocations.
const PAGE: usize = 1000;

/// Revocations for relays.
pub struct Revoker {
    relays: Vec<(Arc<Relay>, Arc<Place>)>,
    queue: Arc<Mutex<Queue>>,
    health: Arc<Health>,
    metrics: Arc<LifecycleMetrics>,
    origin: Instant,
}

/// How far a relay is.
#[derive(Default)]
struct Place {
    /// The number of the first revocation that was not pushed to it.
    next: AtomicU64,
    /// The same, whatever instance of it the others were pushed to.
    first: AtomicU64,
    wake: Notify,
    /// What is pushed apart from the sequence.
    rest: Mutex<Rest>,
    /// The instance that it is about.
    instance: Mutex<String>,
    /// Why revocations do not arrive.
    problem: Mutex<Option<String>>,
}

#[derive(Default)]
struct Rest {
    /// What has failed.
    retries: VecDeque<Push>,
    /// What is under way.
    in_flight: Vec<Push>,
}

/// A revocation that a relay gets.
#[derive(Clone)]
struct Push {
    revocation: Revocation,
    /// The relay had it before it was restarted.
    is_repeated: bool,
    refusals: u8,
}

impl Revoker {
    /// Nothing is revoked yet. Times of orders are since `origin`.
    pub fn new(
        relays: &[Arc<Relay>],
        health: Arc<Health>,
        metrics: Arc<LifecycleMetrics>,
        origin: Instant,
    ) -> Revoker {
        let relays = relays.iter().map(|relay| (relay.clone(), Arc::default())).collect();
        Revoker { relays, queue: Arc::default(), health, metrics, origin }
    }

    /// The same with other relays, to take the place of this one. One that this one has keeps its place.
    pub fn with_relays(
        &self,
        relays: &[Arc<Relay>],
        health: Arc<Health>,
        metrics: Arc<LifecycleMetrics>,
    ) -> Revoker {
        let places = relays.iter().map(|relay| {
            let is_it = |other: &Relay| {
                let (one, other) = (&relay.settings, &other.settings);
                (&one.name, &one.socket, &one.url) == (&other.name, &other.socket, &other.url)
            };
            let known = self.relays.iter().find(|(other, _)| is_it(other)).map(|(_, place)| place.clone());
            let place = known.unwrap_or_default();
            (relay.clone(), place)
        });
        Revoker { relays: places.collect(), queue: self.queue.clone(), health, metrics, origin: self.origin }
    }

    /// Revokes a user at every relay.
    pub fn push(&self, order: Order) {
        let dropped = self.queue().push(order, KEPT);
        for (_, place) in &self.relays {
            if let Some((number, kind)) = dropped
                && number >= place.next.load(Ordering::Relaxed)
            {
                self.metrics.revoked(kind, RevocationOutcome::Dropped);
            }
            place.wake.notify_one();
        }
    }

    /// How many relays there are.
    pub fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Forgets revocations that are over.
    pub fn prune(&self, unix: u64) {
        self.queue().prune(unix);
    }

    /// Keeps a relay informed, for ever. What is revoked there already goes into `tags` first.
    pub async fn serve(&self, index: usize, tags: &Tags) {
        let (relay, place) = &self.relays[index];
        let pending = self.metrics.pending.with_label_values(&[&relay.settings.name]);
        let mut state = relay.follow();
        let mut pause = RETRY.0;
        lock(&place.rest).resume();
        loop {
            let rest = lock(&place.rest).retries.len();
            pending.set((self.queue().after(place.next.load(Ordering::Relaxed)) + rest) as i64);
            let answers = state.wait_for(|state| state.status.is_some()).await;
            // The sender lives as long as the relay.
            let Ok(instance) = answers.map(|state| state.status.as_ref().map(|one| one.instance.clone()))
            else {
                return;
            };
            let instance = instance.unwrap_or_default();
            if *lock(&place.instance) != instance {
                if let Err(failure) = read_tags(relay, tags).await {
                    self.note(index, Some(&failure.message));
                    back_off(&mut pause).await;
                    continue;
                }
                self.note(index, None);
                *lock(&place.rest) = Rest::default();
                place.next.store(0, Ordering::Relaxed);
                *lock(&place.instance) = instance;
            }
            relay.note_tags_read();
            let batch = self.batch(place);
            if batch.is_empty() {
                tokio::select! {
                    () = place.wake.notified() => {}
                    changed = state.changed() => if changed.is_err() { return },
                }
                continue;
            }
            let results = push_all(relay, batch).await;
            let failure = self.judge(relay, place, results);
            self.note(index, failure.as_deref());
            match failure {
                None => pause = RETRY.0,
                Some(_) => back_off(&mut pause).await,
            }
        }
    }

    /// What becomes of those that were pushed; returns a message about one that has failed.
    fn judge(
        &self,
        relay: &Relay,
        place: &Place,
        results: Vec<(Push, Result<(), Failure>)>,
    ) -> Option<String> {
        let mut message = None;
        let mut rest = lock(&place.rest);
        rest.in_flight.clear();
        for (mut push, result) in results {
            let Err(error) = result else {
                self.confirmed(&push);
                continue;
            };
            push.refusals += u8::from(is_refusal(&error) && relay.state().status.is_some());
            if push.refusals < REFUSALS {
                rest.retries.push_back(push);
            } else {
                let (name, user) = (&relay.settings.name, &push.revocation.user);
                warn!("relay {name} refuses to revoke {user:?}: {}", error.message);
                self.metrics.revoked(push.revocation.kind, RevocationOutcome::Refused);
            }
            message = Some(error.message);
        }
        message
    }

    /// Reports whether revocations arrive at a relay.
    fn note(&self, index: usize, problem: Option<&str>) {
        let (relay, place) = &self.relays[index];
        let name = &relay.settings.name;
        let problem =
            problem.map(|why| format!("relay {name}: revocations do not arrive and are repeated: {why}"));
        match (lock(&place.problem).as_ref(), &problem) {
            (None, Some(problem)) => warn!("{problem}"),
            (Some(_), None) => info!("relay {name}: revocations arrive again"),
            _ => {}
        }
        *lock(&place.problem) = problem;
        let problem = self.relays.iter().find_map(|(_, place)| lock(&place.problem).clone());
        self.health.report(Part::Revocations, problem.map_or(Ok(()), Err));
    }

    fn confirmed(&self, push: &Push) {
        if push.is_repeated {
            return;
        }
        let took = self.origin.elapsed().saturating_sub(push.revocation.since);
        self.metrics.revocation_seconds.observe(took.as_secs_f64());
        self.metrics.revoked(push.revocation.kind, RevocationOutcome::Confirmed);
    }

    /// What a relay gets next: what has failed before, and then what is new, in order.
    fn batch(&self, place: &Place) -> Vec<Push> {
        let unix = unix_now();
        let mut rest = lock(&place.rest);
        rest.retries.retain(|push| push.revocation.until > unix);
        let failed = rest.retries.len().min(IN_FLIGHT);
        let mut batch: Vec<_> = rest.retries.drain(..failed).collect();
        let queue = self.queue();
        let first = place.first.load(Ordering::Relaxed);
        for (number, revocation) in queue.revocations.range(place.next.load(Ordering::Relaxed)..) {
            if batch.len() >= IN_FLIGHT {
                break;
            }
            place.next.store(number + 1, Ordering::Relaxed);
            place.first.fetch_max(number + 1, Ordering::Relaxed);
            // A relay refuses a time that is in the past.
            if revocation.until > unix {
                let (revocation, is_repeated) = (revocation.clone(), *number < first);
                batch.push(Push { revocation, is_repeated, refusals: 0 });
            }
        }
        rest.in_flight.clone_from(&batch);
        batch
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Rest {
    /// What was under way when another task ended may not have arrived.
    fn resume(&mut self) {
        self.in_flight.drain(..).rev().for_each(|push| self.retries.push_front(push));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single call, so a panic cannot leave an inconsistent state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pushes some at the same time; returns them with their results.
async fn push_all(relay: &Arc<Relay>, batch: Vec<Push>) -> Vec<(Push, Result<(), Failure>)> {
    let mut pushes = JoinSet::new();
    for one in batch {
        let relay = relay.clone();
        pushes.spawn(async move {
            let result = push(&relay, &one.revocation).await;
            (one, result)
        });
    }
    pushes.join_all().await
}

async fn push(relay: &Relay, revocation: &Revocation) -> Result<(), Failure> {
    let end = match revocation.kind {
        UserKind::Sid => "all",
        // The participant may be back already, with a newer credential.
        UserKind::Tag => "refused",
    };
    let answer = relay.revoke(&revocation.user, revocation.until, end).await?;
    match answer["silent_workers"].as_array().is_some_and(|silent| !silent.is_empty()) {
        true => Err(Failure {
            is_broken: true,
            ..Failure::new("a thread of the relay that may have allocations does not respond")
        }),
        false => Ok(()),
    }
}

/// Whether a relay has answered, and would again.
fn is_refusal(failure: &Failure) -> bool {
    !(failure.is_missing || failure.is_gone || failure.is_broken || failure.is_stopping)
}

async fn back_off(pause: &mut Duration) {
    sleep(*pause).await;
    *pause = RETRY.1.min(*pause * 2);
}

/// Reads which tags a relay has revoked already, so that credentials that are issued from now on expire later.
async fn read_tags(relay: &Relay, tags: &Tags) -> Result<(), Failure> {
    // Names are in order, and those of tags begin alike.
    let (mut cursor, mut found) = (PREFIX.to_owned(), 0);
    loop {
        let path = format!("/v1/revocations?limit={PAGE}&cursor={}", encoded(&cursor));
        let page = relay.control().get(&path).await?;
        for one in page["revocations"].as_array().into_iter().flatten() {
            let Some(user) = one["user"].as_str().filter(|user| user.starts_with(PREFIX)) else {
                continue;
            };
            // A static user has no time.
            if let Some(until) = one["until"].as_str().and_then(|until| unix_time(until).ok()) {
                found += usize::from(tags.revoke(user, until));
            }
        }
        match page["next"].as_str() {
            Some(next) if next.starts_with(PREFIX) => next.clone_into(&mut cursor),
            _ => break,
        }
    }
    if found > 0 {
        info!("relay {}: {} revoked", relay.settings.name, counted(found, "participant"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
