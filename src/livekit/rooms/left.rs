//! Sessions that have left. LiveKit never uses an id again, so whatever says that one of them is there is old.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The most that are remembered; the oldest ones make room.
const MOST: usize = 200_000;

/// For how long: longer than events and lists are late.
const FOR: Duration = Duration::from_secs(3600);

/// Sessions that have left.
#[derive(Default)]
pub struct Left {
    hasher: RandomState,
    /// Hashes of their ids, which are as long as their sender likes.
    sids: HashSet<u64>,
    /// When they left, the oldest one first.
    order: VecDeque<(Duration, u64)>,
}

impl Left {
    /// Whether a session has left.
    pub fn contains(&self, sid: &str) -> bool {
        self.sids.contains(&self.hasher.hash_one(sid))
    }

    /// A session has left; false if that is known.
    pub fn insert(&mut self, now: Duration, sid: &str) -> bool {
        let hash = self.hasher.hash_one(sid);
        if !self.sids.insert(hash) {
            return false;
        }
        if self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.sids.remove(&oldest);
        }
        self.order.push_back((now, hash));
        true
    }

    /// Forgets those that left long ago.
    pub fn prune(&mut self, now: Duration) {
        while let Some((left, hash)) = self.order.front()
            && *left + FOR < now
        {
            self.sids.remove(hash);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_time_forgets_them() {
        let mut left = Left::default();
        for n in 0..=MOST as u64 {
            assert!(left.insert(Duration::from_secs(n / 100), &n.to_string()));
        }
        assert_eq!((left.contains("0"), left.contains("1"), left.sids.len()), (false, true, MOST));
        assert!(!left.insert(Duration::ZERO, "1"));
        left.prune(FOR + Duration::from_secs(11));
        assert_eq!((left.contains("1099"), left.contains("1100")), (false, true));
        assert_eq!(left.sids.len(), left.order.len());
    }
}
