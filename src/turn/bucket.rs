//! The rate limit of responses to unauthenticated clients: a relay must not be a reflector for forged source addresses.
//!
//! Every response over UDP without MESSAGE-INTEGRITY, including Binding success, takes a token from the bucket of its IPv4
//! address or IPv6 /64, which all workers share. The table has a fixed size. Sources that collide share a bucket; the hash
//! is keyed, so that nobody can choose whom to collide with.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::FixedState;

use super::SECOND;

/// The size of the table: half a megabyte.
const SLOTS: usize = 1 << 16;

/// Token buckets by source, each stored as the time at which it will be full again.
#[derive(Debug)]
pub struct UnauthenticatedLimiter {
    /// Nanoseconds per token; 0 turns the limit off.
    cost: u64,
    /// The nanoseconds of a full bucket.
    depth: u64,
    hasher: FixedState,
    full_at: Box<[AtomicU64]>,
}

impl UnauthenticatedLimiter {
    /// `burst` responses at once, then `rate` per second; a rate or burst of 0 turns the limit off. `seed` keys the hash.
    pub fn new(burst: u32, rate: u32, seed: u64) -> UnauthenticatedLimiter {
        let cost = if burst == 0 { 0 } else { SECOND.checked_div(rate.into()).unwrap_or(0) };
        let slots = if cost == 0 { 0 } else { SLOTS };
        UnauthenticatedLimiter {
            cost,
            depth: cost * u64::from(burst),
            hasher: FixedState::with_seed(seed),
            full_at: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Takes a token from the bucket of `source`; false if it is empty. `now` is in monotonic nanoseconds.
    pub fn take(&self, now: u64, source: IpAddr) -> bool {
        if self.cost == 0 {
            return true;
        }
        let slot = &self.full_at[self.slot(source)];
        let take = |full_at| take(full_at, now, self.cost, self.depth);
        slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn slot(&self, source: IpAddr) -> usize {
        let mut hasher = self.hasher.build_hasher();
        match source {
            IpAddr::V4(v4) => hasher.write_u32(v4.to_bits()),
            IpAddr::V6(v6) => hasher.write_u64((v6.to_bits() >> 64) as u64),
        }
        hasher.finish() as usize % SLOTS
    }
}

/// Takes a token that costs `cost` nanoseconds from a bucket of `depth` nanoseconds that will be full again at `full_at`.
/// Returns when it will be full then, or `None` if it is empty.
pub(super) fn take(full_at: u64, now: u64, cost: u64, depth: u64) -> Option<u64> {
    let next = full_at.max(now) + cost;
    (next <= now + depth).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_a_rate() {
        let bucket = UnauthenticatedLimiter::new(1000, 200, 7);
        assert_eq!((0..2000).filter(|_| bucket.take(5, ip("192.0.2.1"))).count(), 1000);
        assert!(bucket.take(5, ip("192.0.2.2")), "another source is not affected");
        let later = 5 + SECOND;
        assert_eq!((0..2000).filter(|_| bucket.take(later, ip("192.0.2.1"))).count(), 200);
        let much_later = later + 3600 * SECOND;
        assert_eq!((0..2000).filter(|_| bucket.take(much_later, ip("192.0.2.1"))).count(), 1000);
    }

    #[test]
    fn a_64_is_one_source() {
        let bucket = UnauthenticatedLimiter::new(2, 1, 7);
        assert!(bucket.take(0, ip("2001:db8::1")));
        assert!(bucket.take(0, ip("2001:db8::2")));
        assert!(!bucket.take(0, ip("2001:db8::3")));
        assert!(bucket.take(0, ip("2001:db8:0:1::3")));
    }

    #[test]
    fn zero_turns_it_off() {
        for (burst, rate) in [(0, 200), (1000, 0)] {
            let bucket = UnauthenticatedLimiter::new(burst, rate, 7);
            assert!((0..100_000).all(|_| bucket.take(0, ip("192.0.2.1"))));
        }
    }
}
