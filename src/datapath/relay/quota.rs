//! Counts allocations per user and in total. RFC 8656 section 7.2: error 486 beyond a user's quota, 508 when the server is
//! full.
//!
//! [`Quota`] is a guard: dropping it releases one allocation, also when a worker panics. A reserved port (EVEN-PORT with the
//! R bit) counts as an allocation of the user who reserved it, until it is claimed or expires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::{Account, AccountKey};
use crate::turn::Denial;

/// The counts of the process. Its lock is only taken when allocations are created and deleted.
pub(in crate::datapath) struct QuotaLedger {
    counts: Mutex<QuotaCounts>,
}

/// Entries of 0 are removed, so there are no more entries than allocations.
#[derive(Default)]
struct QuotaCounts {
    user_allocations: usize,
    allocations: usize,
    users: HashMap<AccountKey, usize>,
    /// Those of clients. Probes are no load, and a drain does not wait for them.
    total: usize,
}

/// One allocation, which counts until this guard is dropped.
pub(in crate::datapath) struct Quota {
    ledger: Arc<QuotaLedger>,
    user: Account,
}

impl QuotaLedger {
    /// Allows `user_allocations` allocations per user without a limit of its own, and `allocations` in total.
    pub(in crate::datapath) fn new(user_allocations: usize, allocations: usize) -> Arc<QuotaLedger> {
        Arc::new(QuotaLedger {
            counts: Mutex::new(QuotaCounts { user_allocations, allocations, ..QuotaCounts::default() }),
        })
    }

    /// Replaces the limits. Existing allocations stay, even beyond the new limits.
    pub(in crate::datapath) fn set_limits(&self, user_allocations: usize, allocations: usize) {
        let mut counts = self.counts();
        (counts.user_allocations, counts.allocations) = (user_allocations, allocations);
    }

    /// Reserves one allocation for a user.
    pub(in crate::datapath) fn reserve(self: &Arc<Self>, user: &Account) -> Result<Quota, Denial> {
        let mut counts = self.counts();
        counts.check(user)?;
        if counts.total >= counts.allocations && !user.is_probe() {
            return Err(Denial::Total(counts.allocations));
        }
        counts.total += weight(user);
        counts.add(user);
        Ok(Quota { ledger: self.clone(), user: user.clone() })
    }

    /// The number of allocations and reservations, without those of probes.
    pub(in crate::datapath) fn total(&self) -> usize {
        self.counts().total
    }

    fn counts(&self) -> MutexGuard<'_, QuotaCounts> {
        // Nothing panics while the lock is held, so the counts are consistent.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much an allocation of this user counts in the total.
fn weight(user: &Account) -> usize {
    (!user.is_probe()).into()
}

impl QuotaCounts {
    fn check(&self, user: &Account) -> Result<(), Denial> {
        let limit = user.allocations(self.user_allocations);
        if self.users.get(&user.key()).copied().unwrap_or(0) >= limit {
            Err(Denial::Quota(limit))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, user: &Account) {
        *self.users.entry(user.key()).or_default() += 1;
    }

    fn remove(&mut self, user: &Account) {
        let key = user.key();
        let Some(count) = self.users.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.users.remove(&key);
        }
    }
}

impl Quota {
    /// The user that the allocation counts for.
    pub(in crate::datapath) fn user(&self) -> &Account {
        &self.user
    }

    /// Transfers the allocation to another user. If that user has no quota left, nothing changes.
    pub(in crate::datapath) fn transfer_to(&mut self, user: &Account) -> Result<(), Denial> {
        if self.user.key() == user.key() {
            return Ok(());
        }
        if self.user.is_probe() != user.is_probe() {
            return Err(Denial::Token);
        }
        let ledger = self.ledger.clone();
        let mut counts = ledger.counts();
        counts.check(user)?;
        self.assign(&mut counts, user);
        Ok(())
    }

    /// Returns the allocation to the user it was transferred from, even beyond that user's quota.
    pub(in crate::datapath) fn return_to(&mut self, user: &Account) {
        let ledger = self.ledger.clone();
        self.assign(&mut ledger.counts(), user);
    }

    fn assign(&mut self, counts: &mut QuotaCounts, user: &Account) {
        counts.remove(&self.user);
        counts.add(user);
        self.user = user.clone();
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let mut counts = self.ledger.counts();
        counts.total -= weight(&self.user);
        counts.remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Account {
        Account::person(name)
    }

    /// Many clients have the name of a static user or of an expiry, so neither counts like a person.
    #[test]
    fn shared_names_have_no_limit_or_one_of_their_own() {
        let ledger = QuotaLedger::new(2, usize::MAX);
        let most = |user: Account| {
            let held: Vec<Quota> = std::iter::from_fn(|| ledger.reserve(&user).ok()).take(50).collect();
            held.len()
        };
        assert_eq!(most(Account::person("alice")), 2);
        assert_eq!(most(Account::static_user("alice", 0)), 50);
        assert_eq!(most(Account::static_user("alice", 7)), 7);
        assert_eq!(most(Account::expiry_only("1700000000")), 50);
        let _held: Vec<Quota> =
            (0..9).map(|_| ledger.reserve(&Account::static_user("alice", 0)).unwrap()).collect();
        assert_eq!(most(Account::person("alice")), 2, "a person of the same name is not affected");
        ledger.set_limits(usize::MAX, usize::MAX);
        assert_eq!(most(Account::person("alice")), 50);
        assert_eq!(most(Account::static_user("alice", 7)), 0);
    }

    /// RFC 8656 §7.2: 486 for a user without quota left, 508 for everyone when the server is full.
    #[test]
    fn quotas_and_the_total_are_limited() {
        let ledger = QuotaLedger::new(2, 3);
        let (alice, bob) = (user("alice"), user("bob"));
        let first = ledger.reserve(&alice).unwrap();
        let _second = ledger.reserve(&alice).unwrap();
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota(2)));
        let _third = ledger.reserve(&bob).unwrap();
        assert_eq!(ledger.reserve(&bob).err(), Some(Denial::Total(3)));
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota(2)));
        drop(first);
        assert!(ledger.reserve(&bob).is_ok(), "an allocation was released");
        assert!(ledger.reserve(&alice).is_ok(), "the temporary guard was released too");
    }

    #[test]
    fn a_reservation_is_transferred_to_its_claimer() {
        let ledger = QuotaLedger::new(1, 2);
        let (alice, bob) = (user("alice"), user("bob"));
        let mut made = ledger.reserve(&alice).unwrap();
        let other = ledger.reserve(&bob).unwrap();
        assert_eq!(made.transfer_to(&bob), Err(Denial::Quota(1)));
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota(1)), "it still counts for alice");
        drop(other);
        assert_eq!(made.transfer_to(&bob), Ok(()));
        assert_eq!(made.transfer_to(&bob), Ok(()), "to the same user, although the quota is full");
        assert!(ledger.reserve(&alice).is_ok());
        drop(made);
        assert!(ledger.counts().users.is_empty(), "no entry is left");
        assert_eq!(ledger.total(), 0);
    }

    /// Probes work at a full relay, take nothing from clients, and have a small bound of their own.
    #[test]
    fn probes_count_apart() {
        let ledger = QuotaLedger::new(1, 1);
        let mut probes: Vec<Quota> =
            (0..Account::PROBES).map(|_| ledger.reserve(&Account::probe()).unwrap()).collect();
        assert_eq!(
            (ledger.reserve(&Account::probe()).err(), ledger.total()),
            (Some(Denial::Quota(Account::PROBES)), 0)
        );
        let mut client = ledger.reserve(&user("alice")).unwrap();
        assert_eq!(ledger.reserve(&user("bob")).err(), Some(Denial::Total(1)));
        assert_eq!(client.transfer_to(&Account::probe()), Err(Denial::Token));
        assert_eq!(probes[0].transfer_to(&user("bob")), Err(Denial::Token));
        probes.pop();
        assert!(ledger.reserve(&Account::probe()).is_ok() && ledger.total() == 1);
    }

    #[test]
    fn a_panic_releases_the_quota() {
        let ledger = QuotaLedger::new(1, 1);
        let shared = ledger.clone();
        let thread = std::thread::spawn(move || {
            let _quota = shared.reserve(&user("alice")).unwrap();
            panic!("intended panic of a worker");
        });
        assert!(thread.join().is_err());
        assert!(ledger.reserve(&user("bob")).is_ok());
    }
}
