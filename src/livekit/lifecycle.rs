//! What happens when participants leave: LiveKit's webhooks and lists go into [`Rooms`], and what comes out of it goes to the relays.
//!
//! The HTTP server calls [`Lifecycle::webhook`] for `POST /v1/webhook`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::health::Health;
use super::kept;
use super::lifecycle_metrics::{LifecycleMetrics, RevocationOutcome};
use super::relays::Relay;
use super::revoke::Revoker;
use super::rooms::{MOST, Moment, Rooms, Seat, UserKind};
use super::server::{Listed, Server, ServerError};
use super::settings::Settings;
use super::tags::Tags;
use super::token::Keys;
use super::webhook::{Event, Refused, Session, Webhooks};
use crate::daemon::store::Store;
use crate::daemon::{is_service, unix_now, variable};
use crate::http::lines::LineLimit;
use crate::plural::counted;

/// How many lists LiveKit is asked for at a time because of events, and because of the comparison.
pub const LISTS: usize = 8;

/// How often what has changed is written to disk.
const SAVE: Duration = Duration::from_secs(2);

/// How often it is written when all that has changed is when sessions were seen last.
const RENEW: Duration = Duration::from_secs(60);

/// Revocations for which writing them takes another second of patience.
const PER_SECOND: usize = 10_000;

/// What others have a part in.
#[derive(Clone)]
pub struct Shared {
    /// LiveKit's API.
    pub server: Arc<Server>,
    /// The tags of participants.
    pub tags: Arc<Tags>,
    /// What works and what does not.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<LifecycleMetrics>,
}

/// Follows participants and revokes those who have left.
pub struct Lifecycle {
    shared: Shared,
    webhooks: Webhooks,
    revoker: Revoker,
    /// Those of the run: a reload does not forget who is where.
    rooms: Arc<Mutex<Rooms>>,
    /// A room may have to be listed earlier than was known.
    wake: Arc<Notify>,
    origin: Instant,
    /// Whether anything is revoked at all.
    is_on: bool,
    store: Arc<Store>,
    directory: Option<PathBuf>,
    /// Whether what is kept of an earlier run was read.
    restored: Arc<AtomicBool>,
    /// Lines of the log about what is too much.
    lines: LineLimit,
}

impl Lifecycle {
    /// That of a sidecar with these settings.
    pub fn new(settings: &Settings, relays: &[Arc<Relay>], shared: Shared) -> Lifecycle {
        let origin = Instant::now();
        let directory = directory(settings);
        Lifecycle {
            webhooks: Webhooks::new(Keys::new(&settings.livekit.keys)),
            revoker: Revoker::new(relays, shared.health.clone(), shared.metrics.clone(), origin),
            rooms: Arc::new(Mutex::new(Rooms::new(settings.credentials.ttl))),
            wake: Arc::default(),
            origin,
            is_on: settings.lifecycle.revoke,
            directory: directory.as_ref().ok().cloned(),
            store: Arc::new(Store::open(directory)),
            restored: Arc::default(),
            lines: LineLimit::default(),
            shared,
        }
    }

    /// The same with other settings, to take the place of this one. It knows what this one knows, and goes on where this one stops.
    pub fn renewed(&self, settings: &Settings, relays: &[Arc<Relay>], shared: Shared) -> Lifecycle {
        let directory = directory(settings);
        let store = match directory.as_ref().ok() == self.directory.as_ref() {
            true => self.store.clone(),
            false => Arc::new(Store::open(directory.as_ref().cloned().map_err(|error| anyhow!("{error:#}")))),
        };
        self.rooms().set_ttl(settings.credentials.ttl, unix_now());
        // The tasks of this one end with it.
        self.rooms().abandon();
        Lifecycle {
            webhooks: self.webhooks.with_keys(Keys::new(&settings.livekit.keys)),
            revoker: self.revoker.with_relays(relays, shared.health.clone(), shared.metrics.clone()),
            rooms: self.rooms.clone(),
            wake: self.wake.clone(),
            origin: self.origin,
            is_on: settings.lifecycle.revoke,
            directory: directory.ok(),
            store,
            restored: self.restored.clone(),
            lines: LineLimit::default(),
            shared,
        }
    }

    /// Whether a webhook with this header `Authorization` is worth its body.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn may_send(&self, authorization: Option<&str>) -> Result<(), Refused> {
        match self.webhooks.may_send(authorization, unix_now()) {
            Ok(()) => Ok(()),
            Err(refused) => self.counted(Err(refused)).map(drop),
        }
    }

    /// A webhook has arrived with these headers `Authorization` and `Content-Type` and this body, of at most
    /// [`BODY_MAX`](super::webhook::BODY_MAX) bytes. The response to an accepted one is 200.
    ///
    /// # Errors
    /// Why it is refused, with the status of the response.
    pub fn webhook(
        &self,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(), Refused> {
        let received = self.webhooks.receive(authorization, content_type, body, unix_now());
        let event = self.counted(received)?;
        if self.is_on {
            self.happened(&event);
        }
        Ok(())
    }

    /// Does its work until it is dropped, but for what others call at intervals: comparisons and counts.
    pub async fn work(self: Arc<Self>) {
        let mut parts = JoinSet::new();
        for index in 0..self.revoker.relays() {
            let this = self.clone();
            parts.spawn(async move { this.revoker.serve(index, &this.shared.tags).await });
        }
        if self.is_on {
            if !self.restored.swap(true, Ordering::Relaxed) {
                self.restore();
            }
            parts.spawn(self.clone().answer_events());
            parts.spawn(self.clone().save());
        }
        // No part ends by itself.
        parts.join_next().await;
    }

    /// Whether participants are followed and revoked.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// What others have a part in.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Does something with the rooms, and carries out what comes of it.
    pub fn with_rooms<T>(&self, change: impl FnOnce(&mut Rooms) -> T) -> T {
        let mut rooms = self.rooms();
        let shed = rooms.shed();
        let result = change(&mut rooms);
        let shed = rooms.shed() - shed;
        self.shared.metrics.unfollowed.inc_by(shed);
        if shed > 0
            && let Some(more) = self.lines.take()
        {
            warn!(
                "there are more than {MOST} participants: some are not followed, nor revoked when they leave{more}"
            );
        }
        while let Some(order) = rooms.order() {
            debug!("{:?} has left", order.user);
            // What is issued from now on must expire later, before a relay refuses anything.
            if order.kind == UserKind::Tag && !self.shared.tags.revoke(&order.user, order.until) {
                self.shared.metrics.revoked(order.kind, RevocationOutcome::TableFull);
                if let Some(more) = self.lines.take() {
                    warn!(
                        "{:?} is not revoked: too many participants have left within the lifetime of credentials{more}",
                        order.user
                    );
                }
                continue;
            }
            self.revoker.push(order);
        }
        result
    }

    /// The time by both clocks.
    pub fn moment(&self) -> Moment {
        // Sessions of an earlier run were seen at zero.
        Moment { now: self.origin.elapsed() + Duration::from_millis(1), unix: unix_now() }
    }

    /// Asks LiveKit who is in a room, after [`Rooms::begin`] or [`Rooms::asks`].
    ///
    /// # Errors
    /// LiveKit has not answered.
    pub async fn list(&self, room: &str) -> Result<(), ServerError> {
        let asked = self.moment();
        let answer = self.shared.server.participants(room).await;
        let outcome = if answer.is_ok() { "ok" } else { "failed" };
        self.shared.metrics.reconciliations.with_label_values(&[outcome]).inc();
        let result = match answer {
            Ok(listed) => {
                let tags: Vec<_> = listed.iter().map(|one| self.tag(room, &one.identity)).collect();
                let sids = listed.iter().map(|Listed { sid, .. }| sid.as_str());
                let list: Vec<_> = sids.zip(tags.iter().map(String::as_str)).collect();
                let moment = self.moment();
                self.with_rooms(|rooms| rooms.listed(moment, asked, room, &list));
                Ok(())
            }
            Err(error) => {
                self.with_rooms(|rooms| rooms.failed(room));
                Err(error)
            }
        };
        self.wake.notify_one();
        result
    }

    /// Forgets what is over.
    pub fn prune(&self) {
        let moment = self.moment();
        self.with_rooms(|rooms| rooms.prune(moment));
        self.shared.tags.prune(moment.unix);
        self.revoker.prune(moment.unix);
    }

    fn counted(&self, received: Result<Event, Refused>) -> Result<Event, Refused> {
        let outcome = match &received {
            Ok(Event::Other) => "ignored",
            Ok(_) => "accepted",
            Err(Refused::NoToken | Refused::Token(_)) => "unauthorized",
            Err(Refused::ContentType | Refused::Malformed) => "malformed",
            Err(Refused::Repeated) => "repeated",
            Err(Refused::Busy) => "busy",
        };
        self.shared.metrics.webhooks.with_label_values(&[outcome]).inc();
        received
    }

    fn happened(&self, event: &Event) {
        let moment = self.moment();
        match event {
            Event::Joined(session) => {
                let tag = self.tag(&session.room, &session.identity);
                self.with_rooms(|rooms| rooms.joined(moment, seat(session, &tag)));
            }
            Event::Left(session, departure) => {
                let tag = self.tag(&session.room, &session.identity);
                let at = self.here(session.at, moment.unix);
                let joined = (session.joined > 0).then(|| self.here(session.joined, moment.unix));
                self.with_rooms(|rooms| rooms.left(moment, seat(session, &tag), (joined, at), *departure));
            }
            Event::Finished { room, at } => {
                let at = self.here(*at, moment.unix);
                self.with_rooms(|rooms| rooms.finished(moment, room, at));
            }
            Event::Other => return,
        }
        self.wake.notify_one();
    }

    /// The time of an event by this machine's clock.
    fn here(&self, at: u64, unix: u64) -> u64 {
        match at {
            0 => unix,
            at => by_our_clock(at, self.shared.server.clock_offset().unwrap_or(0)).min(unix),
        }
    }

    fn tag(&self, room: &str, identity: &str) -> String {
        if identity.is_empty() { String::new() } else { self.shared.tags.all(room, identity) }
    }

    /// Lists rooms that events ask about.
    async fn answer_events(self: Arc<Self>) {
        let mut lists = JoinSet::new();
        loop {
            while lists.try_join_next().is_some() {}
            let now = self.moment().now;
            let free = LISTS.saturating_sub(lists.len());
            let (names, next) = self.with_rooms(|rooms| (rooms.asks(now, free), rooms.next()));
            for name in names {
                let this = self.clone();
                lists.spawn(async move {
                    if let Err(error) = this.list(&name).await {
                        debug!("a room could not be listed: {error}");
                    }
                });
            }
            let due = next.map(|next| self.origin + next);
            let is_busy = lists.len() == LISTS;
            tokio::select! {
                () = self.wake.notified(), if !is_busy => {}
                () = sleep_until(due.unwrap_or(self.origin)), if due.is_some() && !is_busy => {}
                _ = lists.join_next(), if is_busy => {}
            }
        }
    }

    fn restore(&self) {
        if let Some(problem) = self.store.problem() {
            warn!(
                "who is in which room is not kept, so that who leaves while the sidecar is down is not found: {problem}"
            );
        }
        match kept::read(&self.store, &mut self.rooms()) {
            Ok(0) => {}
            Ok(found) => info!("{} of an earlier run", counted(found, "participant")),
            Err(error) => {
                warn!("{error:#}; it is not used, so who left while the sidecar was down is not found")
            }
        }
        match kept::read_revocations(&self.store) {
            Ok(revocations) => {
                for (user, kind, until, _) in &revocations {
                    // What is issued from now on must expire later. The table has more places than the file.
                    let _ = *kind == UserKind::Sid || self.shared.tags.revoke(user, *until);
                }
                self.revoker.restore(&revocations);
            }
            Err(error) => warn!("{error:#}; relays that have not got these revocations will not get them"),
        }
    }

    /// Writes to disk what has changed, now and then.
    async fn save(self: Arc<Self>) {
        let mut is_failing = false;
        let (mut sessions_at, mut revocations_at) = (Instant::now(), Instant::now());
        loop {
            sleep(SAVE).await;
            let renew = sessions_at.elapsed() >= RENEW;
            let sessions = self.with_rooms(|rooms| {
                let is_due = rooms.take_changed() || (renew && rooms.held() > 0);
                is_due.then(|| kept::sessions(rooms))
            });
            let patience = Duration::from_secs((self.revoker.held() / PER_SECOND) as u64);
            let is_due = revocations_at.elapsed() >= patience && self.revoker.take_changed();
            let revocations = is_due.then(|| self.revoker.kept());
            if sessions.is_none() && revocations.is_none() {
                continue;
            }
            let now = Instant::now();
            sessions_at = if sessions.is_some() { now } else { sessions_at };
            revocations_at = if revocations.is_some() { now } else { revocations_at };
            let store = self.store.clone();
            let written = tokio::task::spawn_blocking(move || {
                sessions.map_or(Ok(()), |sessions| kept::write(&store, &sessions))?;
                revocations.map_or(Ok(()), |revocations| kept::write_revocations(&store, &revocations))
            });
            let written = written.await;
            if !matches!(written, Ok(Ok(()))) {
                self.revoker.note_changed();
            }
            match written {
                Ok(Err(error)) if !std::mem::replace(&mut is_failing, true) => {
                    warn!("who is in which room, and who is revoked, cannot be kept: {error:#}");
                }
                Ok(Ok(())) => is_failing = false,
                _ => {}
            }
        }
    }

    /// Writes what is known to disk when the sidecar stops. It blocks.
    pub fn stop(&self) {
        // Otherwise what an earlier run has kept would be lost.
        if !self.is_on || !self.restored.load(Ordering::Relaxed) {
            return;
        }
        let sessions = self.with_rooms(|rooms| kept::sessions(rooms));
        let written = kept::write(&self.store, &sessions);
        let written = written.and_then(|()| kept::write_revocations(&self.store, &self.revoker.kept()));
        if let Err(error) = written {
            warn!("who is in which room, and who is revoked, cannot be kept: {error:#}");
        }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where is kept who is in which room.
fn directory(settings: &Settings) -> Result<PathBuf> {
    kept::directory(settings.lifecycle.state_dir.as_deref(), &variable, is_service())
}

fn seat<'a>(session: &'a Session, tag: &'a str) -> Seat<'a> {
    Seat { room: &session.room, sid: &session.sid, tag }
}

/// A time of LiveKit's clock, which has whole seconds, by a clock that it is ahead of by some milliseconds. It is rounded down: what
/// was issued in the same second stays valid.
fn by_our_clock(at: u64, ahead: i64) -> u64 {
    let millis = (at as i64).saturating_mul(1000).saturating_sub(ahead);
    u64::try_from(millis.div_euclid(1000)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
