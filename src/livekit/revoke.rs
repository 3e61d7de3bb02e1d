//! Revocations on their way to the relays: pushed at once and in order, a few at a time, again and again while a relay does not
//! answer, and all of them again when it has been restarted, unless it says that it has them.
//!
//! Each has a number, and each relay a place in the sequence. A revocation is forgotten when every credential that it refuses has
//! expired. [`Revoker::kept`] is what is written to disk, so that it arrives although the sidecar is restarted.

mod place;
mod queue;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::health::{Health, Part};
use super::lifecycle_metrics::{LifecycleMetrics, RevocationOutcome};
use super::relays::{Relay, in_time};
use super::rooms::{Order, UserKind};
use super::tags::{PREFIX, Tags};
use crate::admin::client::Failure;
use crate::admin::percent::encoded;
use crate::admin::times::unix_time;
use crate::daemon::unix_now;
use crate::http::lines::LineLimit;
use crate::plural::counted;
use place::{Progress, Push, RETRY};
pub use queue::KEPT;
use queue::{Queue, Revocation};

/// How often a revocation is repeated that a relay answers with an error.
const REFUSALS: u8 = 5;

/// How often pending revocations are counted at the most.
const COUNT: Duration = Duration::from_millis(100);

/// Entries of a page of revocations.
const PAGE: usize = 1000;

/// What ids of sessions begin with.
const SESSION_PREFIX: &str = "PA_";

/// Revocations for relays.
pub struct Revoker {
    relays: Vec<(Arc<Relay>, Arc<Place>)>,
    queue: Arc<Mutex<Queue>>,
    /// Whether [`Revoker::kept`] is not what it was.
    changed: Arc<AtomicBool>,
    dropped: LineLimit,
    health: Arc<Health>,
    metrics: Arc<LifecycleMetrics>,
    origin: Instant,
}

/// What is known of the way to a relay.
#[derive(Default)]
struct Place {
    progress: Mutex<Progress>,
    wake: Notify,
}

/// A revocation as it is kept: the user, which kind that is, until when, and whether every relay has confirmed it.
pub type Kept = (Box<str>, UserKind, u64, bool);

/// Why a relay has not confirmed a revocation.
struct NotConfirmed {
    failure: Failure,
    /// The relay has refused it, and would again.
    is_refused: bool,
    /// The relay does not answer at all, so others would fail, too.
    is_down: bool,
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
        let (queue, changed, dropped) = (Arc::default(), Arc::default(), LineLimit::default());
        Revoker { relays, queue, changed, dropped, health, metrics, origin }
    }

    /// The same with other relays, to take the place of this one. One that this one has keeps its place; another one gets all that
    /// was revoked before.
    pub fn with_relays(
        &self,
        relays: &[Arc<Relay>],
        health: Arc<Health>,
        metrics: Arc<LifecycleMetrics>,
    ) -> Revoker {
        let next = self.queue().end();
        let places = relays.iter().map(|relay| {
            let is_it = |other: &Relay| {
                let (one, other) = (&relay.settings, &other.settings);
                (&one.name, &one.socket, &one.url) == (&other.name, &other.socket, &other.url)
            };
            let known = self.relays.iter().find(|(other, _)| is_it(other)).map(|(_, place)| place.clone());
            let place = known.unwrap_or_else(|| {
                let progress = Progress { next, ..Progress::default() };
                Arc::new(Place { progress: Mutex::new(progress), ..Place::default() })
            });
            (relay.clone(), place)
        });
        let (queue, changed, origin) = (self.queue.clone(), self.changed.clone(), self.origin);
        Revoker {
            relays: places.collect(),
            queue,
            changed,
            dropped: LineLimit::default(),
            health,
            metrics,
            origin,
        }
    }

    /// Revokes a user at every relay.
    pub fn push(&self, order: Order) {
        let dropped = self.queue().push(order, KEPT);
        self.changed.store(true, Ordering::Relaxed);
        for (relay, place) in &self.relays {
            if let Some((number, kind)) = dropped
                && lock(&place.progress).lacks(number)
            {
                self.metrics.revoked(kind, RevocationOutcome::Dropped);
                if let Some(more) = self.dropped.take() {
                    let name = &relay.settings.name;
                    warn!(
                        "relay {name}: a revocation was dropped, because {KEPT} newer ones wait; it can be revoked by \
                         hand with `hairpin ctl revoke`{more}"
                    );
                }
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

    /// How many are kept.
    pub fn held(&self) -> usize {
        self.queue().revocations.len()
    }

    /// Whether what is kept has changed since the last call.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// What is kept was not written.
    pub fn note_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// What matters after a restart, in order.
    pub fn kept(&self) -> Vec<Kept> {
        let places: Vec<_> = self.relays.iter().map(|(_, place)| lock(&place.progress)).collect();
        let lacking: HashSet<u64> = places.iter().flat_map(|progress| progress.under_way()).collect();
        let first = places.iter().map(|progress| progress.next).min().unwrap_or(0);
        let queue = self.queue();
        let kept = queue.revocations.iter().map(|(number, one)| {
            let is_confirmed = *number < first && !lacking.contains(number);
            ((*one.user).into(), one.kind, one.until, is_confirmed)
        });
        kept.collect()
    }

    /// Goes on with what an earlier run has kept: what was not confirmed is pushed, and the rest to relays that lack it.
    pub fn restore(&self, kept: &[Kept]) {
        let mut queue = self.queue();
        // What has happened since the start comes last.
        let later = std::mem::take(&mut *queue).revocations;
        let since = self.origin.elapsed();
        let restored = |confirmed: bool| {
            let restored = kept.iter().filter(move |(.., is_confirmed)| *is_confirmed == confirmed);
            restored.map(move |(user, kind, until, _)| Order {
                user: user.clone(),
                kind: *kind,
                until: *until,
                since,
            })
        };
        for order in restored(true) {
            queue.push(order, KEPT);
        }
        let next = queue.end();
        for order in restored(false) {
            queue.push(order, KEPT);
        }
        for one in later.into_values() {
            queue.push(
                Order { user: (*one.user).into(), kind: one.kind, until: one.until, since: one.since },
                KEPT,
            );
        }
        drop(queue);
        for (_, place) in &self.relays {
            lock(&place.progress).next = next;
            place.wake.notify_one();
        }
    }

    /// Keeps a relay informed, for ever. What is revoked there already goes into `tags` first.
    pub async fn serve(&self, index: usize, tags: &Tags) {
        let (relay, place) = &self.relays[index];
        let pending = self.metrics.pending.with_label_values(&[&relay.settings.name]);
        let mut counted = None;
        let mut state = relay.follow();
        let mut pushes = JoinSet::new();
        let mut pause = RETRY.0;
        let mut hold = None;
        lock(&place.progress).resume(Instant::now());
        loop {
            let instance = state.borrow_and_update().status.as_ref().map(|status| status.instance.clone());
            let answers = instance.is_some();
            if let Some(instance) = instance {
                if lock(&place.progress).instance != instance {
                    match self.read_revoked(relay, place, tags).await {
                        Ok(known) => lock(&place.progress).restarted(instance, known),
                        Err(failure) => {
                            self.note(index, Some(&failure.message));
                            sleep(pause).await;
                            pause = RETRY.1.min(pause * 2);
                            continue;
                        }
                    }
                    self.note(index, None);
                    pause = RETRY.0;
                }
                relay.note_tags_read();
                hold = hold.filter(|hold| *hold > Instant::now());
                while hold.is_none()
                    && let Some(push) = self.take(place)
                {
                    let relay = relay.clone();
                    pushes.spawn(async move {
                        let result = push_to(&relay, &push.revocation).await;
                        (push, result)
                    });
                }
            }
            let is_idle = pushes.is_empty();
            if is_idle || counted.is_none_or(|counted: Instant| counted.elapsed() >= COUNT) {
                counted = Some(Instant::now());
                pending.set(lock(&place.progress).pending(&self.queue()) as i64);
            }
            let due = hold.or_else(|| lock(&place.progress).due()).filter(|_| answers);
            tokio::select! {
                Some(Ok((push, result))) = pushes.join_next(), if !is_idle => {
                    match self.judge(index, push, result) {
                        true => (hold, pause) = (None, RETRY.0),
                        false if hold.is_some() => {}
                        false => {
                            hold = Some(Instant::now() + pause);
                            pause = RETRY.1.min(pause * 2);
                        }
                    }
                }
                // The sender lives as long as the relay.
                changed = state.changed() => if changed.is_err() { return },
                () = place.wake.notified() => if !answers { sleep(COUNT).await },
                () = sleep_until(due.unwrap_or(self.origin)), if due.is_some() => {}
            }
        }
    }

    fn take(&self, place: &Place) -> Option<Push> {
        lock(&place.progress).take(&self.queue(), Instant::now(), unix_now())
    }

    /// What becomes of a push; returns whether it shows that the relay answers.
    fn judge(&self, index: usize, mut push: Push, result: Result<(), NotConfirmed>) -> bool {
        let (relay, place) = &self.relays[index];
        let mut progress = lock(&place.progress);
        let Err(NotConfirmed { failure, is_refused, is_down }) = result else {
            progress.ended(&push);
            let is_all = progress.retries.is_empty();
            drop(progress);
            self.confirmed(&push);
            if is_all {
                self.note(index, None);
            }
            return true;
        };
        push.refusals += u8::from(is_refused && relay.state().status.is_some());
        if push.refusals < REFUSALS {
            progress.failed(push, Instant::now());
            drop(progress);
            self.note(index, Some(&failure.message));
        } else {
            progress.ended(&push);
            drop(progress);
            let (name, user) = (&relay.settings.name, &push.revocation.user);
            warn!("relay {name} refuses to revoke {user:?}: {}", failure.message);
            self.metrics.revoked(push.revocation.kind, RevocationOutcome::Refused);
        }
        !is_down
    }

    /// Reports whether revocations arrive at a relay.
    fn note(&self, index: usize, problem: Option<&str>) {
        let (relay, place) = &self.relays[index];
        let name = &relay.settings.name;
        let problem =
            problem.map(|why| format!("relay {name}: revocations do not arrive and are repeated: {why}"));
        let was = std::mem::replace(&mut lock(&place.progress).problem, problem.clone());
        match (was, &problem) {
            (None, Some(problem)) => warn!("{problem}"),
            (Some(_), None) => info!("relay {name}: revocations arrive again"),
            _ => {}
        }
        let problem = self.relays.iter().find_map(|(_, place)| lock(&place.progress).problem.clone());
        self.health.report(Part::Revocations, problem.map_or(Ok(()), Err));
    }

    fn confirmed(&self, push: &Push) {
        self.changed.store(true, Ordering::Relaxed);
        if push.is_repeated {
            return;
        }
        let took = self.origin.elapsed().saturating_sub(push.revocation.since);
        self.metrics.revocation_seconds.observe(took.as_secs_f64());
        self.metrics.revoked(push.revocation.kind, RevocationOutcome::Confirmed);
    }

    /// Reads whom a relay has revoked already, so that credentials that are issued from now on expire later; returns the numbers of
    /// those that it need not be told again.
    async fn read_revoked(&self, relay: &Relay, place: &Place, tags: &Tags) -> Result<HashSet<u64>, Failure> {
        let mut known = HashSet::new();
        let mut found = 0;
        each_revoked(relay, PREFIX, |user, until| {
            found += usize::from(tags.revoke(user, until));
            known.extend(self.queue().number(user, until));
        })
        .await?;
        if lock(&place.progress).next > 0 {
            each_revoked(relay, SESSION_PREFIX, |user, until| known.extend(self.queue().number(user, until)))
                .await?;
        }
        if found > 0 {
            info!("relay {}: {} revoked", relay.settings.name, counted(found, "participant"));
        }
        Ok(known)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single call, so a panic cannot leave an inconsistent state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn push_to(relay: &Relay, revocation: &Revocation) -> Result<(), NotConfirmed> {
    let end = match revocation.kind {
        UserKind::Sid => "all",
        // The participant may be back already, with a newer credential.
        UserKind::Tag => "refused",
    };
    // One that hangs must not hold up what comes later.
    match in_time(relay.revoke(&revocation.user, revocation.until, end)).await {
        Ok(answer) => match answer["silent_workers"].as_array().is_some_and(|silent| !silent.is_empty()) {
            true => {
                let failure =
                    Failure::new("a thread of the relay that may have allocations does not respond");
                Err(NotConfirmed { failure, is_refused: false, is_down: false })
            }
            false => Ok(()),
        },
        Err(failure) => {
            let is_down = failure.is_missing || failure.is_gone || failure.is_broken || failure.is_stopping;
            Err(NotConfirmed { failure, is_refused: !is_down, is_down })
        }
    }
}

/// Reads the revocations of a relay whose users begin with this, with their times.
async fn each_revoked(relay: &Relay, prefix: &str, mut each: impl FnMut(&str, u64)) -> Result<(), Failure> {
    // Names are in order.
    let mut cursor = prefix.to_owned();
    loop {
        let path = format!("/v1/revocations?limit={PAGE}&cursor={}", encoded(&cursor));
        let page = in_time(relay.control().get(&path)).await?;
        for one in page["revocations"].as_array().into_iter().flatten() {
            let user = one["user"].as_str().filter(|user| user.starts_with(prefix));
            // A static user has no time.
            let until = one["until"].as_str().and_then(|until| unix_time(until).ok());
            if let (Some(user), Some(until)) = (user, until) {
                each(user, until);
            }
        }
        match page["next"].as_str() {
            Some(next) if next.starts_with(prefix) => next.clone_into(&mut cursor),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
