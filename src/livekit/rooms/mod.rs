//! Who is in which room, and what to revoke when they leave: a pure state machine, fed with events, lists and times, and drained of
//! orders.
//!
//! - A session that has left is revoked at once, by its id: LiveKit never uses an id again, and a session that resumes keeps its own
//!   without an event.
//! - The tag of a participant is revoked when no session of it is left in the room. A fresh list of the room decides that, because
//!   events come late, twice, in the wrong order, or never.
//! - A list that failed or is empty proves nothing. A session whose event was lost has left if two lists in a row, which have others,
//!   lack it.
//! - When LiveKit itself is shut down, its participants are about to return, with the credentials that they have: their sessions are
//!   revoked, and their tags only if they are missing when the others have been there for a while.
//!
//! A tag is revoked up to the time of the event plus the lifetime of credentials: what was issued later, to a page that was loaded
//! again, stays valid.

mod left;
mod room;
#[cfg(test)]
mod tests;
mod ttl;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tags;
use super::webhook::Departure;
use left::Left;
use room::{Check, Present, Room};
use ttl::Ttl;

/// The most sessions and pending decisions. What is beyond is counted and not followed.
pub const MOST: usize = 200_000;

/// For how long a credential that LiveKit makes for a session can be valid at the most, in seconds, unless `credentials.ttl` is longer.
const DAY: u64 = 86_400;

/// How many seconds LiveKit's clock may be ahead.
const AHEAD: u64 = 60;

/// How long a client may take to join again after its connection was lost, before its tag is revoked.
const RETURN: Duration = Duration::from_secs(2);

/// When a room is listed again after a list that lacks a session: an answer and its confirmation are apart.
const CONFIRM: Duration = Duration::from_secs(1);

/// For how long after LiveKit's shutdown the end of a room is one of its consequences.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// A time by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since any origin, by a clock that is never set.
    pub now: Duration,
    /// In Unix seconds.
    pub unix: u64,
}

/// A session in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The name of the room.
    pub room: &'a str,
    /// The id of the session, `PA_...`.
    pub sid: &'a str,
    /// The tags of its participant, separated by spaces: one for each shared secret. Empty if it has no identity.
    pub tag: &'a str,
}

/// A user to revoke at every relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id of a session, or a tag.
    pub user: Box<str>,
    /// Which of them.
    pub kind: UserKind,
    /// Credentials that expire up to this time, in Unix seconds.
    pub until: u64,
    /// When the event happened that caused it, by the clock of [`Moment::now`].
    pub since: Duration,
}

/// What the name of a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserKind {
    /// The id of a session.
    Sid,
    /// The tag of a participant.
    Tag,
}

/// The rooms of a deployment.
pub struct Rooms {
    /// By name.
    rooms: HashMap<Box<str>, Room>,
    /// The names of those that have to be listed.
    waiting: HashSet<Box<str>>,
    left: Left,
    /// How many sessions and pending decisions there are in all rooms.
    held: usize,
    /// How many were not followed, because there are too many.
    shed: u64,
    /// Whether who is where has changed since it was saved.
    changed: bool,
    /// How long credentials for tags are valid.
    ttl: Ttl,
    orders: VecDeque<Order>,
}

impl Rooms {
    /// No rooms yet. Credentials for tags are valid for `ttl` seconds.
    pub fn new(ttl: u64) -> Rooms {
        Rooms {
            rooms: HashMap::new(),
            waiting: HashSet::new(),
            left: Left::default(),
            held: 0,
            shed: 0,
            changed: false,
            ttl: Ttl::new(ttl),
            orders: VecDeque::new(),
        }
    }

    /// Credentials for tags that are issued from now on, in Unix seconds, are valid for so long.
    pub fn set_ttl(&mut self, ttl: u64, unix: u64) {
        self.ttl.set(ttl, unix);
    }

    /// Answers that are outstanding will not come: whoever has asked has ended.
    pub fn abandon(&mut self) {
        self.rooms.values_mut().for_each(|room| room.asking = false);
    }

    /// A session has joined, says an event.
    pub fn joined(&mut self, moment: Moment, seat: Seat<'_>) {
        self.learn(seat, moment.now, moment.unix);
    }

    /// A session has left, says an event, which has the times when it has joined and left, in Unix seconds of this machine.
    pub fn left(&mut self, moment: Moment, seat: Seat<'_>, (joined, at): (Option<u64>, u64), how: Departure) {
        let at = at.min(moment.unix);
        let (mut joined, mut tag) = (joined, Cow::Borrowed(seat.tag));
        let since = happened(moment, at);
        if self.left.insert(moment.now, seat.sid) {
            let until = sid_until(&self.ttl, moment.unix);
            self.orders.push_back(Order { user: seat.sid.into(), kind: UserKind::Sid, until, since });
        }
        if let Some(room) = self.rooms.get_mut(seat.room) {
            let gone = room.present.remove(seat.sid);
            room.shadow(seat.tag, gone.as_ref());
            if let Some(gone) = gone {
                joined = joined.map(|joined| joined.min(gone.joined));
                tag = tags::union(seat.tag, &gone.tag).into();
                (self.held, self.changed) = (self.held - 1, true);
            }
        }
        // The participant is there with another session, which has joined with a credential of the same tag.
        if how == Departure::Replaced || seat.tag.is_empty() {
            self.tidy(seat.room);
            return;
        }
        let room = self.rooms.entry(seat.room.into()).or_default();
        let grace = if how == Departure::Lost { RETURN } else { Duration::ZERO };
        let is_doubtful = how == Departure::Shutdown;
        if is_doubtful {
            room.shutdown = Some(moment.now);
        }
        // Its own credential was issued before it has joined. One that was issued in the second in which it has left is another's,
        // unless LiveKit says that all that happened in one second.
        let until = self.ttl.expiry(at) + u64::from(joined.is_some_and(|joined| joined >= at));
        let check = Check { until, due: moment.now + grace, received: moment.now, since, is_doubtful };
        match room.checks.get_mut(&*tag) {
            Some(known) => known.merge(check),
            None if self.held < MOST => {
                room.checks.insert(tag.into(), check);
                self.held += 1;
            }
            None => self.shed += 1,
        }
        if how == Departure::Closed {
            // LiveKit drops events of a large room that ends at once, that of its end too.
            self.finished(moment, seat.room, at);
        }
        self.tidy(seat.room);
    }

    /// A room is closed, says an event of the time `at`, in Unix seconds of this machine. Another room of that name may have
    /// been opened since, so a list says who has left with it.
    pub fn finished(&mut self, moment: Moment, name: &str, at: u64) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.finished = Some((moment.now, at.min(moment.unix)));
        self.tidy(name);
    }

    /// The rooms that have to be listed now, `most` at the most. An answer or a failure has to follow for each.
    pub fn asks(&mut self, now: Duration, most: usize) -> Vec<Box<str>> {
        let due = |name: &str| self.rooms.get(name).and_then(Room::due).is_some_and(|due| due <= now);
        let names: Vec<_> = self.waiting.iter().filter(|name| due(name)).take(most).cloned().collect();
        for name in &names {
            // A room that is due can be asked about.
            self.begin(now, name);
        }
        names
    }

    /// When a room has to be listed next.
    pub fn next(&self) -> Option<Duration> {
        self.waiting.iter().filter_map(|name| self.rooms.get(name)?.due()).min()
    }

    /// A list of this room is about to be asked for. Returns false if that is not useful now.
    pub fn begin(&mut self, now: Duration, name: &str) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return true };
        if room.was_asked(now) {
            return false;
        }
        (room.asking, room.asked) = (true, Some(now));
        true
    }

    /// A list has failed. It says nothing about who is there.
    pub fn failed(&mut self, name: &str) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.asking = false;
            room.failures = room.failures.saturating_add(1);
        }
    }

    /// The answer to a list that was asked for at `asked`: sessions with their tags.
    pub fn listed(&mut self, moment: Moment, asked: Moment, name: &str, list: &[(&str, &str)]) {
        for (sid, tag) in list {
            self.learn(Seat { room: name, sid, tag }, asked.now, asked.unix);
        }
        let Some(room) = self.rooms.get_mut(name) else { return };
        (room.asking, room.failures) = (false, 0);
        let listed: HashSet<&str> = list.iter().map(|(sid, _)| *sid).collect();
        let here: HashSet<&str> = list
            .iter()
            .filter(|(sid, _)| !self.left.contains(sid))
            .flat_map(|(_, tag)| tags::each(tag))
            .collect();
        let lost = room.missing(asked.now, &listed, moment.now + CONFIRM);
        let closed = room.closed_with(asked.now, &listed);
        // Whoever was there at the same time as the lost session and is there still: the room has not been opened anew since, when
        // its participants would be about to return.
        let oldest = room.oldest(&listed);
        let is_shutdown = room.shutdown.is_some_and(|received| moment.now < received + SHUTDOWN);
        let mut gone_tags: Vec<(Box<str>, u64, Duration)> = Vec::new();
        for sid in lost.iter().chain(&closed) {
            let Some(gone) = room.present.remove(sid) else { continue };
            (self.held, self.changed) = (self.held - 1, true);
            self.left.insert(moment.now, sid);
            let at = match room.finished {
                Some((_, at)) if closed.contains(sid) => Some(at),
                _ => oldest.is_some_and(|oldest| oldest <= gone.last).then_some(gone.seen),
            };
            let since = happened(moment, at.unwrap_or(moment.unix));
            let until = sid_until(&self.ttl, moment.unix);
            self.orders.push_back(Order { user: sid.clone(), kind: UserKind::Sid, until, since });
            let Some(at) = at.filter(|_| !gone.tag.is_empty()) else { continue };
            // It may have been seen last long ago, and have an allocation still.
            let until = self.ttl.expiry(at).max(gone.floor).max(moment.unix + 1);
            if is_shutdown && closed.contains(sid) {
                let (due, received) = (moment.now, moment.now);
                let check = Check { until, due, received, since, is_doubtful: true };
                match room.checks.get_mut(&gone.tag) {
                    Some(known) => known.merge(check),
                    None => {
                        room.checks.insert(gone.tag, check);
                        self.held += 1;
                    }
                }
            } else {
                gone_tags.push((gone.tag, until, since));
            }
        }
        room.finished = room.finished.filter(|(received, _)| *received > asked.now);
        for (tag, check) in room.decidable(asked.now, oldest) {
            self.held -= 1;
            gone_tags.push((tag, check.until, check.since));
        }
        for (tag, until, since) in gone_tags {
            let is_there = tags::each(&tag).any(|one| here.contains(one));
            if is_there || room.defer(&tag, until) || until < moment.unix {
                continue;
            }
            let orders =
                tags::each(&tag).map(|one| Order { user: one.into(), kind: UserKind::Tag, until, since });
            self.orders.extend(orders);
        }
        self.tidy(name);
    }

    /// The next user to revoke.
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The names of the rooms that somebody is in.
    pub fn names(&self) -> Vec<Box<str>> {
        let inhabited = self.rooms.iter().filter(|(_, room)| !room.present.is_empty());
        inhabited.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets those whose credentials have expired long ago.
    pub fn prune(&mut self, moment: Moment) {
        // By the clock of this run: what an earlier one has seen is compared with lists first.
        let life = Duration::from_secs(self.ttl.longest().max(DAY));
        self.ttl.prune(moment.unix);
        self.left.prune(moment.now);
        let (mut held, mut changed) = (0, self.changed);
        self.rooms.retain(|_, room| {
            let before = room.present.len();
            room.present.retain(|_, present| present.last + life >= moment.now);
            room.checks.retain(|_, check| check.until >= moment.unix);
            changed |= room.present.len() != before;
            held += room.present.len() + room.checks.len();
            !room.is_empty() || room.was_asked(moment.now)
        });
        (self.held, self.changed) = (held, changed);
        self.waiting.retain(|name| self.rooms.contains_key(name));
    }

    /// Each room's sessions and tags.
    pub fn seats(&self) -> impl Iterator<Item = impl Iterator<Item = (Seat<'_>, u64)>> {
        self.rooms.iter().map(|(name, room)| {
            room.present
                .iter()
                .map(|(sid, present)| (Seat { room: name, sid, tag: &present.tag }, present.seen))
        })
    }

    /// How many sessions and pending decisions there are.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many were not followed, because there are too many.
    pub fn shed(&self) -> u64 {
        self.shed
    }

    /// Whether who is where has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A session that was there at this time, before the sidecar was started again.
    pub fn restore(&mut self, seat: Seat<'_>, seen: u64) {
        self.learn(seat, Duration::ZERO, seen);
        self.changed = false;
    }

    /// A session is in a room. One that has left never comes back: this is an old event, or an old list.
    fn learn(&mut self, seat: Seat<'_>, now: Duration, unix: u64) {
        if seat.sid.is_empty() || self.left.contains(seat.sid) {
            return;
        }
        let full = self.held >= MOST;
        let known = self.rooms.get_mut(seat.room).and_then(|room| room.present.get_mut(seat.sid));
        match known {
            Some(known) => {
                known.saw(now, unix);
                self.changed |= known.has_tags(seat.tag);
            }
            None if full => self.shed += 1,
            None => {
                let room = self.rooms.entry(seat.room.into()).or_default();
                room.present.insert(seat.sid.into(), Present::new(seat.tag, now, unix));
                (self.held, self.changed) = (self.held + 1, true);
            }
        }
    }

    /// Notes whether a room has to be listed, and forgets it when nothing is left of it.
    fn tidy(&mut self, name: &str) {
        let Some(room) = self.rooms.get(name) else { return };
        if room.is_waiting() {
            self.waiting.insert(name.into());
        } else {
            self.waiting.remove(name);
        }
        // One that was listed has to wait for its turn again, whoever is in it.
        if room.is_empty() && room.asked.is_none() {
            self.rooms.remove(name);
        }
    }
}

/// The last expiry that a credential of a session can have which has left by now.
fn sid_until(ttl: &Ttl, unix: u64) -> u64 {
    unix + ttl.longest().max(DAY) + AHEAD
}

/// When an event of the time `at` has happened, by the clock that is never set. Its time has whole seconds.
fn happened(moment: Moment, at: u64) -> Duration {
    let late = moment.unix.saturating_sub(at).saturating_sub(1);
    moment.now.saturating_sub(Duration::from_secs(late))
}
