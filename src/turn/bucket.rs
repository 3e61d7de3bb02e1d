//! Rate limits that all workers share: token buckets in tables of a fixed size, without a lock.
//!
//! - Responses over UDP without MESSAGE-INTEGRITY, because a relay must not be a reflector for forged source addresses. They
//!   are limited per source, which is an IPv4 address or an IPv6 /64. Binding responses and challenges have buckets of their
//!   own, so that neither keepalives nor a flood of Bindings in the name of a source keeps its clients from authenticating.
//! - New allocations per user. Where many clients share a name, they are limited per name and source.
//!
//! Keys that collide share a bucket; the hash is keyed, so that nobody can choose whom to collide with.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;

use super::{ExemptSources, SECOND};
use crate::auth::Account;
use crate::keyed::KeyedState;

/// The size of a table: half a megabyte.
const SLOTS: usize = 1 << 16;

/// How far apart the clocks of two workers may be, since each reads the time once per pass. A bucket that needs longer than this
/// beside its depth to be full again has been used with a lower rate.
const SKEW: u64 = SECOND / 10;

/// So many tokens at once, then so many per second. 0 in either is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Tokens that it gains per second.
    pub per_second: u32,
}

/// What is limited, and how.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Challenges and every other response without MESSAGE-INTEGRITY that has no rate of its own, per source.
    pub challenges: Rate,
    /// Responses to Binding requests, per source.
    pub bindings: Rate,
    /// New allocations per user, or per shared name and source.
    pub new_allocations: Rate,
    /// Sources whose rates are [`ExemptSources::FACTOR`] times as large.
    pub exempt: ExemptSources,
}

/// A response without MESSAGE-INTEGRITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsignedResponse {
    /// To a Binding request.
    Binding,
    /// To any other request: 400, 401 or 438.
    Challenge,
}

/// The token buckets of a process. The rates come with each call, since they are part of the snapshot.
#[derive(Debug)]
pub struct RateLimiter {
    challenges: Buckets,
    bindings: Buckets,
    new_allocations: Buckets,
    hash: KeyedState,
}

impl RateLimiter {
    /// Full buckets; `rng` keys their hash.
    pub fn new(rng: &mut impl Rng) -> RateLimiter {
        RateLimiter {
            challenges: Buckets::default(),
            bindings: Buckets::default(),
            new_allocations: Buckets::default(),
            hash: KeyedState::from_rng(rng),
        }
    }

    /// Takes a token for a response to `source`; false if its bucket is empty. `now` is in monotonic nanoseconds.
    pub fn take_response(&self, rates: &Rates, now: u64, response: UnsignedResponse, source: IpAddr) -> bool {
        let (buckets, rate) = match response {
            UnsignedResponse::Binding => (&self.bindings, rates.bindings),
            UnsignedResponse::Challenge => (&self.challenges, rates.challenges),
        };
        let factor = rates.exempt.factor(source);
        buckets.take(rate, now, factor, || {
            let mut key = self.hash.build_hasher();
            write_source(&mut key, source, factor);
            key.finish()
        })
    }

    /// Takes a token for a new allocation of `user` from `source`; false if the bucket is empty.
    pub fn take_allocation(&self, rates: &Rates, now: u64, user: &Account, source: IpAddr) -> bool {
        let factor = if user.is_shared() { rates.exempt.factor(source) } else { 1 };
        self.new_allocations.take(rates.new_allocations, now, factor, || {
            let mut key = self.hash.build_hasher();
            key.write_u64(user.kind() as u64);
            key.write_usize(user.name().len());
            key.write(user.name().as_bytes());
            if user.is_shared() {
                write_source(&mut key, source, factor);
            }
            key.finish()
        })
    }
}

/// An IPv4 address or IPv6 /64. An exempt address does not share the bucket of its /64.
fn write_source(key: &mut impl Hasher, source: IpAddr, factor: u32) {
    match source {
        IpAddr::V4(v4) => key.write_u64(v4.to_bits().into()),
        IpAddr::V6(v6) => key.write_u64((v6.to_bits() >> 64) as u64),
    }
    key.write_u64(u64::from(source.is_ipv6()) << 32 | u64::from(factor));
}

/// Token buckets, each stored as the time at which it will be full again. The table exists once a token was taken.
#[derive(Debug, Default)]
struct Buckets(OnceLock<Box<[AtomicU64]>>);

impl Buckets {
    /// Takes a token from the bucket that `hash` selects, at `factor` times the rate and the burst.
    fn take(&self, rate: Rate, now: u64, factor: u32, hash: impl FnOnce() -> u64) -> bool {
        let Some(cost) = SECOND.checked_div(rate.per_second.into()).filter(|_| rate.burst > 0) else {
            return true;
        };
        let depth = cost * u64::from(rate.burst);
        let cost = (cost / u64::from(factor)).max(1);
        let full_at = self.0.get_or_init(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect());
        let slot = &full_at[hash() as usize % SLOTS];
        let latest = now + depth;
        if slot.load(Ordering::Relaxed) > latest + SKEW {
            slot.fetch_min(latest, Ordering::Relaxed);
        }
        let take = |full_at| take(full_at, now, cost, depth);
        slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
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
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::UnsignedResponse::{Binding, Challenge};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Buckets, and the rates that they are used with.
    struct Limiter(RateLimiter, Rates);

    impl Limiter {
        fn take_response(&self, now: u64, response: UnsignedResponse, source: IpAddr) -> bool {
            self.0.take_response(&self.1, now, response, source)
        }
    }

    fn limiter(rates: Rates) -> Limiter {
        Limiter(RateLimiter::new(&mut StdRng::seed_from_u64(7)), rates)
    }

    fn rates(challenges: (u32, u32), bindings: (u32, u32)) -> Rates {
        let rate = |(burst, per_second)| Rate { burst, per_second };
        Rates { challenges: rate(challenges), bindings: rate(bindings), ..Rates::default() }
    }

    fn taken(limiter: &Limiter, now: u64, response: UnsignedResponse, source: &str) -> usize {
        (0..300_000).filter(|_| limiter.take_response(now, response, ip(source))).count()
    }

    #[test]
    fn a_burst_then_a_rate() {
        let limiter = limiter(rates((1000, 200), (2000, 2000)));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 1000);
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.2"), 1000, "another source is not affected");
        let later = 5 + SECOND;
        assert_eq!(taken(&limiter, later, Challenge, "192.0.2.1"), 200);
        let much_later = later + 3600 * SECOND;
        assert_eq!(taken(&limiter, much_later, Challenge, "192.0.2.1"), 1000);
    }

    /// RFC 8489 §16.2.1: a flood of Bindings in the name of a source does not keep its clients from authenticating, nor the
    /// other way round.
    #[test]
    fn bindings_and_challenges_have_buckets_of_their_own() {
        let limiter = limiter(rates((10, 1), (20, 1)));
        assert_eq!(taken(&limiter, 0, Binding, "192.0.2.1"), 20);
        assert_eq!(taken(&limiter, 0, Challenge, "192.0.2.1"), 10);
        assert_eq!(taken(&limiter, 0, Challenge, "192.0.2.2"), 10);
        assert_eq!(taken(&limiter, 0, Binding, "192.0.2.2"), 20);
    }

    #[test]
    fn a_64_is_one_source() {
        let limiter = limiter(rates((2, 1), (0, 0)));
        let take = |source| limiter.take_response(0, Challenge, ip(source));
        assert!(take("2001:db8::1") && take("2001:db8::2") && !take("2001:db8::3"));
        assert!(take("2001:db8:0:1::3"));
    }

    /// Exempt sources have a hundred times as much, and are never without a limit.
    #[test]
    fn exempt_sources_have_larger_buckets() {
        let exempt = ExemptSources::new(&["10.0.0.0/24", "2001:db8::7"].map(|range| range.parse().unwrap()));
        let limiter = limiter(Rates { exempt, ..rates((1000, 200), (2000, 2000)) });
        for source in ["10.0.0.9", "2001:db8::7"] {
            assert_eq!(taken(&limiter, 5, Challenge, source), 100_000);
            assert_eq!(taken(&limiter, 5 + SECOND, Challenge, source), 20_000);
            assert_eq!(taken(&limiter, 5, Binding, source), 200_000);
        }
        assert_eq!(taken(&limiter, 5, Challenge, "10.0.1.9"), 1000);
        assert_eq!(taken(&limiter, 5, Challenge, "2001:db8::8"), 1000, "a neighbour in the same /64");
    }

    #[test]
    fn zero_is_no_limit() {
        for rate in [(0, 200), (1000, 0), (0, 0)] {
            let limiter = limiter(rates(rate, (1, 1)));
            assert_eq!(taken(&limiter, 0, Challenge, "192.0.2.1"), 300_000);
            assert_eq!(taken(&limiter, 0, Binding, "192.0.2.1"), 1);
        }
    }

    /// Other rates hold at once, for sources that have used up their tokens, too.
    #[test]
    fn rates_change_while_buckets_are_in_use() {
        let mut limiter = limiter(rates((10, 1), (0, 0)));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 10);
        limiter.1 = rates((15, 1), (3, 1));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 5, "what a larger burst adds");
        assert_eq!(taken(&limiter, 5, Binding, "192.0.2.1"), 3);
        limiter.1 = rates((2, 1), (0, 0));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 0);
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.2"), 2);
        assert_eq!(taken(&limiter, 5, Binding, "192.0.2.1"), 300_000, "without a limit");
    }

    /// A source that has used up its tokens at a low rate gets new ones at the higher rate from now on.
    #[test]
    fn a_higher_rate_holds_at_once_for_empty_buckets() {
        let mut limiter = limiter(rates((1000, 1), (0, 0)));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 1000);
        limiter.1 = rates((1000, 200), (0, 0));
        assert_eq!(taken(&limiter, 5, Challenge, "192.0.2.1"), 0);
        assert_eq!(taken(&limiter, 5 + SECOND, Challenge, "192.0.2.1"), 200);
        assert_eq!(taken(&limiter, 5 + 2 * SECOND, Challenge, "192.0.2.1"), 200);
    }

    /// A worker whose clock is a pass behind adds no tokens.
    #[test]
    fn clocks_of_workers_that_differ_add_no_tokens() {
        let limiter = limiter(rates((1000, 200), (0, 0)));
        assert_eq!(taken(&limiter, SECOND, Challenge, "192.0.2.1"), 1000);
        assert_eq!(taken(&limiter, SECOND - SKEW, Challenge, "192.0.2.1"), 0);
        assert_eq!(taken(&limiter, SECOND, Challenge, "192.0.2.1"), 0);
    }
}
