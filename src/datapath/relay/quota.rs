//! How many allocations each user has, and how many there are in total. RFC 8656 section 7.2: 486 beyond a user's quota,
//! 508 when the server is full.
//!
//! What was reserved is a [`Quota`]: dropping it returns it, also while a worker panics. The reservation of a port
//! (EVEN-PORT with R) counts as well: for its maker until it is claimed or lapses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::turn::Denial;

/// The counts of a process. A short lock, taken only when allocations are created and end.
pub(in crate::datapath) struct QuotaLedger {
    counts: Mutex<QuotaCounts>,
}

/// No entry is 0, so the table is no larger than the total.
#[derive(Default)]
struct QuotaCounts {
    user_allocations: usize,
    allocations: usize,
    users: HashMap<Arc<str>, usize>,
    total: usize,
}

/// The share of one allocation. Dropping it returns it.
pub(in crate::datapath) struct Quota {
    ledger: Arc<QuotaLedger>,
    user: Arc<str>,
}

impl QuotaLedger {
    /// At most `user_allocations` allocations per user and `allocations` of all.
    pub(in crate::datapath) fn new(user_allocations: usize, allocations: usize) -> Arc<QuotaLedger> {
        Arc::new(QuotaLedger {
            counts: Mutex::new(QuotaCounts { user_allocations, allocations, ..QuotaCounts::default() }),
        })
    }

    /// Replaces the limits. Allocations beyond them stay.
    pub(in crate::datapath) fn set_limits(&self, user_allocations: usize, allocations: usize) {
        let mut counts = self.counts();
        (counts.user_allocations, counts.allocations) = (user_allocations, allocations);
    }

    /// Reserves one allocation for a user.
    pub(in crate::datapath) fn reserve(self: &Arc<Self>, user: &Arc<str>) -> Result<Quota, Denial> {
        let mut counts = self.counts();
        counts.check(user)?;
        if counts.total >= counts.allocations {
            return Err(Denial::Capacity);
        }
        counts.total += 1;
        counts.add(user);
        Ok(Quota { ledger: self.clone(), user: user.clone() })
    }

    /// How many allocations and reservations there are.
    #[cfg(test)]
    pub(in crate::datapath) fn total(&self) -> usize {
        self.counts().total
    }

    fn counts(&self) -> MutexGuard<'_, QuotaCounts> {
        // Nothing panics between the changes of one lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuotaCounts {
    fn check(&self, user: &str) -> Result<(), Denial> {
        if self.users.get(user).copied().unwrap_or(0) >= self.user_allocations {
            Err(Denial::Quota)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, user: &Arc<str>) {
        *self.users.entry(user.clone()).or_default() += 1;
    }

    fn remove(&mut self, user: &str) {
        let Some(count) = self.users.get_mut(user) else { return };
        *count -= 1;
        if *count == 0 {
            self.users.remove(user);
        }
    }
}

impl Quota {
    /// Charges `user` from now on; if that user has as many as allowed, nothing changes.
    pub(in crate::datapath) fn pass_to(&mut self, user: &Arc<str>) -> Result<(), Denial> {
        if self.user == *user {
            return Ok(());
        }
        let mut counts = self.ledger.counts();
        counts.check(user)?;
        counts.remove(&self.user);
        counts.add(user);
        drop(counts);
        self.user = user.clone();
        Ok(())
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let mut counts = self.ledger.counts();
        counts.total -= 1;
        counts.remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Arc<str> {
        name.into()
    }

    /// RFC 8656 §7.2: 486 for the user who has enough, 508 for everyone when the server is full.
    #[test]
    fn a_user_fills_its_quota_then_the_server_is_full() {
        let ledger = QuotaLedger::new(2, 3);
        let (alice, bob) = (user("alice"), user("bob"));
        let first = ledger.reserve(&alice).unwrap();
        let _second = ledger.reserve(&alice).unwrap();
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota));
        let _third = ledger.reserve(&bob).unwrap();
        assert_eq!(ledger.reserve(&bob).err(), Some(Denial::Capacity));
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota));
        drop(first);
        assert!(ledger.reserve(&bob).is_ok(), "a place came back");
        assert!(ledger.reserve(&alice).is_ok(), "what was not kept came back too");
    }

    #[test]
    fn a_reservation_passes_from_its_maker_to_its_claimer() {
        let ledger = QuotaLedger::new(1, 2);
        let (alice, bob) = (user("alice"), user("bob"));
        let mut made = ledger.reserve(&alice).unwrap();
        let other = ledger.reserve(&bob).unwrap();
        assert_eq!(made.pass_to(&bob), Err(Denial::Quota));
        assert_eq!(ledger.reserve(&alice).err(), Some(Denial::Quota), "it still counts on alice");
        drop(other);
        assert_eq!(made.pass_to(&bob), Ok(()));
        assert_eq!(made.pass_to(&bob), Ok(()), "to itself, though the quota is full");
        assert!(ledger.reserve(&alice).is_ok());
        drop(made);
        assert!(ledger.counts().users.is_empty(), "nobody is remembered");
        assert_eq!(ledger.total(), 0);
    }

    #[test]
    fn a_panic_gives_everything_back() {
        let ledger = QuotaLedger::new(1, 1);
        let held = ledger.clone();
        let thread = std::thread::spawn(move || {
            let _quota = held.reserve(&user("alice")).unwrap();
            panic!("a worker fails, as this test wants it to");
        });
        assert!(thread.join().is_err());
        assert!(ledger.reserve(&user("bob")).is_ok());
    }
}
