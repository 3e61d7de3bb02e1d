//! A room: the sessions in it, and the decisions that wait for a list of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::livekit::tags;

/// The shortest time between two lists of a room.
const LISTS: Duration = Duration::from_secs(1);

/// The longest time between two attempts at a list that fails.
const RETRY: Duration = Duration::from_secs(8);

/// When an answer that has not come will not come any more.
const ABANDONED: Duration = Duration::from_secs(15);

/// When everybody who comes back has come back: after a shutdown of LiveKit, and after the first ones are in the room again.
const SETTLED: Duration = Duration::from_secs(30);

/// In how many lists in a row a session is missing that has left.
const MISSING: u8 = 2;

/// A room.
#[derive(Default)]
pub struct Room {
    /// The sessions, by their ids.
    pub present: HashMap<Box<str>, Present>,
    /// Tags of which a session has left, to be revoked if no other one is there.
    pub checks: HashMap<Box<str>, Check>,
    /// When an event has been received that the room is closed, and its time.
    pub finished: Option<(Duration, u64)>,
    /// When an event has been received that a participant has left because LiveKit is shut down.
    pub shutdown: Option<Duration>,
    /// When it was asked last who is there.
    pub asked: Option<Duration>,
    /// Whether the answer is outstanding.
    pub asking: bool,
    /// How many answers in a row have failed.
    pub failures: u32,
    /// When it is asked again because somebody was missing.
    confirm: Option<Duration>,
}

/// A session that is there.
pub struct Present {
    /// The tags of its participant.
    pub tag: Box<str>,
    /// When it was seen first, in Unix seconds.
    pub joined: u64,
    /// When it was seen last, in Unix seconds.
    pub seen: u64,
    /// The same by the clock that is never set.
    pub last: Duration,
    /// When it was seen first.
    pub first: Duration,
    /// Up to which time its tag is to be revoked at least when it has left, because of other sessions that have left.
    pub floor: u64,
    /// In how many lists in a row it was missing.
    missing: u8,
    /// LiveKit's lists are kept by identity, so the end of an older session may have removed this one's entry.
    shadowed: bool,
}

/// A tag to be revoked, if no session of it is left.
pub struct Check {
    /// Up to which expiry, in Unix seconds.
    pub until: u64,
    /// When it is decided.
    pub due: Duration,
    /// When the event was received. Only a list that was asked for later decides.
    pub received: Duration,
    /// When the event happened.
    pub since: Duration,
    /// LiveKit was shut down, so it may come back: only a list of a room in which others are settled decides.
    pub is_doubtful: bool,
}

impl Present {
    /// It is seen for the first time.
    pub fn new(tag: &str, now: Duration, unix: u64) -> Present {
        Present {
            tag: tag.into(),
            joined: unix,
            seen: unix,
            last: now,
            first: now,
            floor: 0,
            missing: 0,
            shadowed: false,
        }
    }

    /// It is seen again.
    pub fn saw(&mut self, now: Duration, unix: u64) {
        (self.seen, self.last) = (self.seen.max(unix), self.last.max(now));
        (self.missing, self.shadowed) = (0, false);
    }

    /// Its participant has these tags, besides those that former secrets have made. Returns whether some of them are new.
    pub fn has_tags(&mut self, tags: &str) -> bool {
        let is_new = tags::each(tags).any(|tag| !tags::shares(&self.tag, tag));
        if is_new {
            self.tag = tags::union(tags, &self.tag).into();
        }
        is_new
    }
}

impl Check {
    /// Another session of the tag has left.
    pub fn merge(&mut self, other: Check) {
        // The later event counts.
        if other.until >= self.until {
            self.is_doubtful = other.is_doubtful;
        }
        self.until = self.until.max(other.until);
        self.due = self.due.max(other.due);
        self.received = self.received.max(other.received);
    }
}

impl Room {
    /// When it has to be asked who is there.
    pub fn due(&self) -> Option<Duration> {
        let finished = self.finished.map(|(received, _)| received);
        let checks = self.checks.values().filter(|check| !check.is_doubtful).map(|check| check.due);
        let due = checks.chain(finished).chain(self.confirm).min()?;
        let pause = match self.failures {
            _ if self.asking => ABANDONED,
            0 | 1 => LISTS,
            n => RETRY.min(LISTS * 2u32.pow((n - 1).min(8))),
        };
        Some(due.max(self.asked.map_or(Duration::ZERO, |asked| asked + pause)))
    }

    /// Whether a list is under way, or was a moment ago.
    pub fn was_asked(&self, now: Duration) -> bool {
        let pause = if self.asking { ABANDONED } else { LISTS };
        self.asked.is_some_and(|asked| now < asked + pause)
    }

    /// Whether something waits for a list. What is doubtful waits for the comparisons.
    pub fn is_waiting(&self) -> bool {
        self.checks.values().any(|check| !check.is_doubtful)
            || self.finished.is_some()
            || self.confirm.is_some()
    }

    /// Whether it can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.checks.is_empty()
    }

    /// A session of this tag has left. If it was the older one, lists may lack the others although they are there.
    pub fn shadow(&mut self, tag: &str, gone: Option<&Present>) {
        for present in self.present.values_mut().filter(|present| tags::shares(&present.tag, tag)) {
            present.shadowed |= gone.is_none_or(|gone| gone.first <= present.first);
        }
    }

    /// The sessions that have left according to a list of those who are there. Somebody who is missing for the first time is
    /// looked for again at `confirm`. An empty list says nothing.
    pub fn missing(&mut self, asked: Duration, listed: &HashSet<&str>, confirm: Duration) -> Vec<Box<str>> {
        let mut gone = Vec::new();
        self.confirm = None;
        for (sid, present) in &mut self.present {
            if listed.is_empty() {
                present.missing = 0;
            } else if !listed.contains(&**sid) && present.last < asked && !present.shadowed {
                present.missing += 1;
                match present.missing {
                    MISSING.. => gone.push(sid.clone()),
                    _ => self.confirm = Some(confirm),
                }
            }
        }
        gone
    }

    /// The sessions that have left with the room: they were seen before it was closed, and a list lacks them.
    pub fn closed_with(&self, asked: Duration, listed: &HashSet<&str>) -> Vec<Box<str>> {
        let Some((_, at)) = self.finished.filter(|(received, _)| *received <= asked) else {
            return Vec::new();
        };
        let closed =
            self.present.iter().filter(|(sid, present)| present.seen <= at && !listed.contains(&***sid));
        closed.map(|(sid, _)| sid.clone()).collect()
    }

    /// When the first one of those was seen who are there still.
    pub fn oldest(&self, listed: &HashSet<&str>) -> Option<Duration> {
        let there = self.present.iter().filter(|(sid, _)| listed.contains(&***sid));
        there.map(|(_, present)| present.first).min()
    }

    /// The tags that a list decides that was asked for then. The first one of those in it has come at `oldest`.
    pub fn decidable(&mut self, asked: Duration, oldest: Option<Duration>) -> Vec<(Box<str>, Check)> {
        let decides = |check: &Check| match check.is_doubtful {
            false => check.due <= asked && check.received <= asked,
            true => oldest.is_some_and(|oldest| oldest.max(check.received) + SETTLED <= asked),
        };
        self.checks.extract_if(|_, check| decides(check)).collect()
    }

    /// Whether events say that a session of this tag is there, which a list lacks. Then its end will revoke the tag, at least up to
    /// `until`.
    pub fn defer(&mut self, tag: &str, until: u64) -> bool {
        let mut is_there = false;
        for present in self.present.values_mut().filter(|present| tags::shares(&present.tag, tag)) {
            present.floor = present.floor.max(until);
            is_there = true;
        }
        is_there
    }
}
