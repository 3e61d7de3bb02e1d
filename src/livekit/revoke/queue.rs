//! The revocations of the last day, numbered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::livekit::rooms::{Order, UserKind};

/// The most revocations that are kept for relays that are restarted: those of a day in a deployment of some ten thousand participants.
pub const KEPT: usize = 100_000;

/// Revocations in the order in which they were made.
#[derive(Default)]
pub struct Queue {
    /// By number.
    pub revocations: BTreeMap<u64, Revocation>,
    /// The number of each user's revocation.
    pub users: HashMap<Arc<str>, u64>,
    /// The number of the next one.
    next: u64,
}

/// A user that is revoked.
#[derive(Clone)]
pub struct Revocation {
    /// The id of a session, or a tag.
    pub user: Arc<str>,
    /// Which of them.
    pub kind: UserKind,
    /// Up to which expiry, in Unix seconds.
    pub until: u64,
    /// When the event happened.
    pub since: Duration,
}

impl Queue {
    /// Adds one; returns the number of the one that was dropped for it.
    pub fn push(&mut self, order: Order, most: usize) -> Option<(u64, UserKind)> {
        let user: Arc<str> = order.user.into();
        let mut until = order.until;
        if let Some(known) = self.users.remove(&user).and_then(|number| self.revocations.remove(&number)) {
            until = until.max(known.until);
        }
        let dropped = match self.revocations.len() >= most {
            true => self.revocations.pop_first(),
            false => None,
        };
        if let Some((_, dropped)) = &dropped {
            self.users.remove(&dropped.user);
        }
        self.users.insert(user.clone(), self.next);
        self.revocations.insert(self.next, Revocation { user, kind: order.kind, until, since: order.since });
        self.next += 1;
        dropped.map(|(number, dropped)| (number, dropped.kind))
    }

    /// The number of the next one.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// The number of a user's revocation, if it is up to this time or an earlier one.
    pub fn number(&self, user: &str, until: u64) -> Option<u64> {
        let number = self.users.get(user)?;
        self.revocations.get(number).filter(|known| known.until <= until).map(|_| *number)
    }

    /// Forgets those that are over.
    pub fn prune(&mut self, unix: u64) {
        self.revocations.retain(|_, revocation| revocation.until > unix);
        self.users.retain(|_, number| self.revocations.contains_key(number));
    }
}
