//! How far a relay is: what it gets next, what is under way, and what has failed.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::{Queue, Revocation};

/// How many requests a relay gets at a time.
pub const IN_FLIGHT: usize = 4;

/// How many of them may be repetitions of what has failed: what is new waits for none of them.
const RETRIES: usize = IN_FLIGHT / 2;

/// How many of them may be what an earlier instance of the relay had.
const REPEATED: usize = IN_FLIGHT - 1;

/// The shortest and the longest time between two attempts.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A revocation that a relay gets.
#[derive(Clone)]
pub struct Push {
    /// Its place in the sequence.
    pub number: u64,
    /// What is revoked.
    pub revocation: Revocation,
    /// The relay had it before it was restarted.
    pub is_repeated: bool,
    /// How often it has failed.
    pub failures: u32,
    /// How often the relay has answered with an error.
    pub refusals: u8,
}

/// How far a relay is.
#[derive(Default)]
pub struct Progress {
    /// The number of the first revocation that it never got.
    pub next: u64,
    /// What an earlier instance got and this one may lack.
    pub again: Range<u64>,
    /// Which of these it has without being told.
    pub known: HashSet<u64>,
    /// What has failed, by the time of the next attempt.
    pub retries: BTreeMap<(Instant, u64), Push>,
    /// What is under way.
    pub in_flight: Vec<Push>,
    /// The instance that it is about.
    pub instance: String,
    /// Why revocations do not arrive.
    pub problem: Option<String>,
}

impl Progress {
    /// The relay was restarted. These it has all the same.
    pub fn restarted(&mut self, instance: String, known: HashSet<u64>) {
        (self.again, self.known, self.instance) = (0..self.next, known, instance);
    }

    /// What was under way when another task ended may not have arrived.
    pub fn resume(&mut self, now: Instant) {
        for push in std::mem::take(&mut self.in_flight) {
            self.retries.insert((now, push.number), push);
        }
    }

    /// What the relay gets next: what has failed, what is new, in order, and what an earlier instance had.
    pub fn take(&mut self, queue: &Queue, now: Instant, unix: u64) -> Option<Push> {
        if self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        let push = self.take_retry(queue, now, unix).or_else(|| self.take_next(queue, unix))?;
        self.in_flight.push(push.clone());
        Some(push)
    }

    /// An attempt has succeeded or was given up.
    pub fn ended(&mut self, push: &Push) {
        let place = self.in_flight.iter().position(|one| one.number == push.number);
        place.map(|place| self.in_flight.swap_remove(place));
    }

    /// An attempt has failed, and another one follows.
    pub fn failed(&mut self, mut push: Push, now: Instant) {
        self.ended(&push);
        let pause = RETRY.1.min(RETRY.0 * 2u32.pow(push.failures.min(8)));
        push.failures += 1;
        self.retries.insert((now + pause, push.number), push);
    }

    /// When something that has failed can be repeated.
    pub fn due(&self) -> Option<Instant> {
        let (due, _) = *self.retries.first_key_value()?.0;
        self.may_retry().then_some(due)
    }

    /// How many the relay has not confirmed.
    pub fn pending(&self, queue: &Queue) -> usize {
        let new = queue.revocations.range(self.next..).count();
        let again = queue.revocations.range(self.again.clone());
        let again = again.filter(|(number, _)| !self.known.contains(number)).count();
        new + again + self.retries.len() + self.in_flight.len()
    }

    /// Whether the relay has not confirmed this one.
    pub fn lacks(&self, number: u64) -> bool {
        let mut under_way = self.in_flight.iter().chain(self.retries.values());
        number >= self.next || under_way.any(|push| push.number == number && !push.is_repeated)
    }

    /// The numbers of those that it got and has not confirmed.
    pub fn under_way(&self) -> impl Iterator<Item = u64> {
        self.in_flight.iter().chain(self.retries.values()).map(|push| push.number)
    }

    fn may_retry(&self) -> bool {
        let retries = self.in_flight.iter().filter(|push| push.failures > 0).count();
        self.in_flight.len() < IN_FLIGHT && retries < RETRIES
    }

    fn take_retry(&mut self, queue: &Queue, now: Instant, unix: u64) -> Option<Push> {
        while self.due().is_some_and(|due| due <= now) {
            let (_, push) = self.retries.pop_first()?;
            // It may be over, dropped, or have a successor.
            if push.revocation.until > unix && queue.revocations.contains_key(&push.number) {
                return Some(push);
            }
        }
        None
    }

    fn take_next(&mut self, queue: &Queue, unix: u64) -> Option<Push> {
        // A relay refuses a time that is in the past.
        let found = queue.revocations.range(self.next..).find(|(_, one)| one.until > unix);
        self.next = found.map_or(queue.end(), |(number, _)| number + 1);
        let push = |(number, revocation): (&u64, &Revocation), is_repeated| Push {
            number: *number,
            revocation: revocation.clone(),
            is_repeated,
            failures: 0,
            refusals: 0,
        };
        if let Some(found) = found {
            return Some(push(found, false));
        }
        if self.in_flight.len() >= REPEATED {
            return None;
        }
        let mut again = queue.revocations.range(self.again.clone());
        let found = again.find(|(number, one)| one.until > unix && !self.known.contains(number));
        self.again.start = found.map_or(self.again.end, |(number, _)| number + 1);
        if found.is_none() {
            self.known = HashSet::new();
        }
        found.map(|found| push(found, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::rooms::{Order, UserKind};

    fn queue(users: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for user in users {
            let order =
                Order { user: (*user).into(), kind: UserKind::Sid, until: 100, since: Duration::ZERO };
            queue.push(order, 100);
        }
        queue
    }

    /// The users that a relay gets now.
    fn taken(progress: &mut Progress, queue: &Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| progress.take(queue, now, 0))
            .map(|push| push.revocation.user.to_string())
            .collect()
    }

    /// A thread of the relay hangs: each revocation fails again and again, and new ones are told to the other threads at once.
    #[test]
    fn what_has_failed_leaves_room_for_what_is_new() {
        let (mut queue, mut progress, now) =
            (queue(&["1", "2", "3", "4"]), Progress::default(), Instant::now());
        assert_eq!(taken(&mut progress, &queue, now), ["1", "2", "3", "4"]);
        for push in progress.in_flight.clone() {
            progress.failed(push, now);
        }
        assert_eq!(progress.due(), Some(now + RETRY.0));
        assert_eq!(taken(&mut progress, &queue, now), [""; 0]);
        let now = now + RETRY.0;
        assert_eq!(taken(&mut progress, &queue, now), ["1", "2"]);
        assert_eq!((progress.due(), progress.pending(&queue)), (None, 4));
        let order = Order { user: "5".into(), kind: UserKind::Sid, until: 100, since: Duration::ZERO };
        queue.push(order, 100);
        assert_eq!(taken(&mut progress, &queue, now), ["5"]);
        let first = progress.in_flight[0].clone();
        progress.failed(first, now);
        assert_eq!(taken(&mut progress, &queue, now), ["3"]);
        assert!(progress.lacks(0) && progress.lacks(4) && progress.lacks(5));
    }

    #[test]
    fn a_restarted_relay_gets_what_is_new_first_and_nothing_that_it_has() {
        let (mut queue, mut progress, now) =
            (queue(&["1", "2", "3", "4"]), Progress::default(), Instant::now());
        taken(&mut progress, &queue, now);
        progress.in_flight.clear();
        progress.restarted("two".into(), HashSet::from([1]));
        let order = Order { user: "5".into(), kind: UserKind::Sid, until: 100, since: Duration::ZERO };
        queue.push(order, 100);
        assert_eq!((progress.pending(&queue), progress.lacks(0)), (4, false));
        assert_eq!(taken(&mut progress, &queue, now), ["5", "1", "3"], "a place is left for another one");
        progress.in_flight.clear();
        assert_eq!(taken(&mut progress, &queue, now), ["4"]);
        progress.in_flight.clear();
        assert_eq!((taken(&mut progress, &queue, now).len(), progress.pending(&queue)), (0, 0));
    }

    #[test]
    fn what_was_under_way_is_repeated_unless_it_has_a_successor() {
        let (mut queue, mut progress, now) = (queue(&["1", "2"]), Progress::default(), Instant::now());
        taken(&mut progress, &queue, now);
        progress.resume(now);
        let order = Order { user: "1".into(), kind: UserKind::Sid, until: 200, since: Duration::ZERO };
        queue.push(order, 100);
        assert_eq!(taken(&mut progress, &queue, now), ["2", "1"]);
        let until: Vec<_> = progress.in_flight.iter().map(|push| push.revocation.until).collect();
        assert_eq!(until, [100, 200]);
    }
}
