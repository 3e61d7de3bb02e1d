//! Users that an operator has revoked, shared by all workers and everything that can revoke.
//!
//! Revocation goes by the user part: the name of a static user, or the part of a time-limited user name beside its expiry. A
//! time-limited credential is refused if it expires no later than the revocation, so one that is issued afterwards works; a static
//! user has no expiry and is refused until the revocation is taken back. Credentials of LiveKit's older form have no expiry either,
//! and are refused until the revocation is over.
//!
//! A worker looks here when it has verified a request, never for relayed data. The table is a tree, because names are listed in
//! order, and because a hash table that grows would be locked for as long as it takes to move a million names.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::credential::Credential;

/// How many names are examined while the table is locked.
const STEP: usize = 256;

/// Revoked users by name.
#[derive(Debug, Default)]
pub struct Revocations {
    users: RwLock<BTreeMap<Box<str>, Revocation>>,
    /// So that nothing is locked while nobody is revoked.
    len: AtomicUsize,
}

/// Since when and until when a user is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When the user was revoked, in Unix seconds.
    pub since: u64,
    /// Credentials that expire up to this time are refused, in Unix seconds.
    pub until: u64,
    /// The user is a static one, and refused until the revocation is taken back.
    pub is_static: bool,
}

impl Revocation {
    /// Whether it has no effect any more.
    pub fn is_over(&self, unix: u64) -> bool {
        !self.is_static && self.until < unix
    }

    /// The union of two revocations of a user: a second one never shortens the first.
    pub fn and(self, other: Revocation) -> Revocation {
        Revocation {
            since: self.since.min(other.since),
            until: self.until.max(other.until),
            is_static: self.is_static || other.is_static,
        }
    }

    /// Whether a credential of this user is refused.
    fn refuses(&self, unix: u64, credential: &Credential) -> bool {
        match credential.expires() {
            Some(expires) => expires <= self.until,
            None => !self.is_over(unix),
        }
    }
}

impl Revocations {
    /// The most users that can be revoked.
    pub const MAX: usize = 1_000_000;

    /// How many users are revoked.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nobody is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revocation of a user.
    pub fn get(&self, user: &str) -> Option<Revocation> {
        if self.is_empty() { None } else { self.read().get(user).copied() }
    }

    /// Revokes a user from now on. Returns false and changes nothing if the table is full: nobody else's revocation makes room.
    pub fn insert(&self, user: &str, revocation: Revocation) -> bool {
        let mut users = self.write();
        if users.len() >= Revocations::MAX && !users.contains_key(user) {
            return false;
        }
        users.insert(user.into(), revocation);
        self.len.store(users.len(), Ordering::Release);
        true
    }

    /// Takes a revocation back.
    pub fn remove(&self, user: &str) -> Option<Revocation> {
        let mut users = self.write();
        let removed = users.remove(user);
        self.len.store(users.len(), Ordering::Release);
        removed
    }

    /// Forgets revocations that have no effect any more, a few at a time. Returns how many.
    pub fn prune(&self, unix: u64) -> usize {
        let (mut over, mut after) = (Vec::new(), None);
        let mut pruned = 0;
        loop {
            let last = {
                let users = self.read();
                let mut last = None;
                for (user, revocation) in behind(&users, after.as_deref()).take(STEP) {
                    if revocation.is_over(unix) {
                        over.push(user.clone());
                    }
                    last = Some(user.clone());
                }
                last
            };
            for user in over.drain(..) {
                // It may have been revoked again since.
                let mut users = self.write();
                if users.get(&user).is_some_and(|found| found.is_over(unix)) {
                    users.remove(&user);
                    pruned += 1;
                }
                self.len.store(users.len(), Ordering::Release);
            }
            match last {
                Some(last) => after = Some(last),
                None => return pruned,
            }
        }
    }

    /// Up to `limit` revoked users in the order of their names, from behind `after`.
    pub fn page(&self, after: Option<&str>, limit: usize) -> Vec<(Box<str>, Revocation)> {
        let mut page: Vec<(Box<str>, Revocation)> = Vec::new();
        while page.len() < limit {
            let users = self.read();
            let from = page.last().map(|(user, _)| &**user).or(after).map(str::to_owned);
            let before = page.len();
            let rows = behind(&users, from.as_deref()).take(STEP.min(limit - before));
            page.extend(rows.map(|(user, revocation)| (user.clone(), *revocation)));
            if page.len() == before {
                break;
            }
        }
        page
    }

    /// Whether an operator has revoked the user of a credential.
    pub(super) fn refuse(&self, unix: u64, credential: &Credential) -> bool {
        self.get(credential.user()).is_some_and(|revocation| revocation.refuses(unix, credential))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Box<str>, Revocation>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Box<str>, Revocation>> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The users behind one, in the order of their names.
fn behind<'a>(
    users: &'a BTreeMap<Box<str>, Revocation>,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Box<str>, &'a Revocation)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    users.range::<str, _>((from, Bound::Unbounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(until: u64) -> Revocation {
        Revocation { since: 1, until, is_static: false }
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        let revocations = Revocations::default();
        for n in 0..1000 {
            assert!(revocations.insert(&format!("{n:04}"), until(n)));
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = revocations.page(after.as_deref(), 300);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page);
            // What comes and goes meanwhile does not disturb what stays.
            revocations.remove("0299");
        }
        let names: Vec<_> = seen.iter().map(|(user, _)| user.parse::<u64>().unwrap()).collect();
        assert_eq!(names, (0..1000).collect::<Vec<_>>());
        assert_eq!(revocations.len(), 999);
    }

    #[test]
    fn revocations_are_forgotten_when_every_credential_that_they_refuse_has_expired() {
        let revocations = Revocations::default();
        for n in 0..1000 {
            revocations.insert(&format!("{n:04}"), Revocation { is_static: n == 7, ..until(n) });
        }
        assert_eq!(revocations.prune(500), 499);
        assert_eq!((revocations.len(), revocations.get("0007").is_some()), (501, true));
        assert_eq!((revocations.get("0499"), revocations.get("0500")), (None, Some(until(500))));
        assert_eq!(revocations.prune(u64::MAX), 500);
    }

    /// The bound is an error: nobody who was revoked is let in to make room.
    #[test]
    fn a_full_table_evicts_nobody() {
        let revocations = Revocations::default();
        for n in 0..Revocations::MAX {
            assert!(revocations.insert(&n.to_string(), until(9)));
        }
        assert!(!revocations.insert("one more", until(9)));
        assert!(revocations.insert("7", until(10)), "a known name needs no room");
        assert_eq!((revocations.len(), revocations.get("one more")), (Revocations::MAX, None));
        revocations.remove("8");
        assert!(revocations.insert("one more", until(9)));
    }

    #[test]
    fn a_second_revocation_never_shortens_the_first() {
        let first = Revocation { since: 5, until: 100, is_static: true };
        let second = Revocation { since: 7, until: 50, is_static: false };
        assert_eq!(first.and(second), first);
        assert_eq!(second.and(Revocation { until: 200, ..first }), Revocation { until: 200, ..first });
    }
}
