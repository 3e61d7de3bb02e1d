//! How often a participant gets ICE servers: a burst, then so many per minute (GCRA, which needs one time per tag).
//!
//! The table has a fixed size and nothing is ever evicted, so a flood of tags neither makes it grow nor gives anybody a fresh start.
//! Each tag has two cells, chosen by a hash with random keys, and is limited by the emptier one: a flood has to fill both to hold
//! somebody up.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Cells, half a megabyte.
const CELLS: usize = 1 << 16;

/// Answers per tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once; 0 is no limit.
    pub burst: u32,
    /// How many per minute afterwards; 0 is no limit.
    pub per_minute: u32,
}

/// What every tag has used up.
pub struct RateLimit {
    hash: RandomState,
    /// When the tags of a cell have their whole burst again, in microseconds.
    cells: Mutex<Box<[u64]>>,
}

impl RateLimit {
    /// Nothing is used up.
    pub fn new() -> RateLimit {
        RateLimit { hash: RandomState::new(), cells: Mutex::new(vec![0; CELLS].into()) }
    }

    /// Takes an answer for a tag; `now` is the time since some moment.
    ///
    /// # Errors
    /// How long it takes until there is another one.
    pub fn take(&self, tag: &str, rate: Rate, now: Duration) -> Result<(), Duration> {
        let Some(interval) = 60_000_000_u64.checked_div(rate.per_minute.into()) else { return Ok(()) };
        let Some(more) = rate.burst.checked_sub(1) else { return Ok(()) };
        let now = now.as_micros() as u64;
        let hash = self.hash.hash_one(tag) as usize;
        let pair = [hash % CELLS, hash / CELLS % CELLS];
        // Every change is a single assignment, so a panic cannot leave an inconsistent state.
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let full = pair.map(|cell| cells[cell]).into_iter().min().unwrap_or(0).max(now);
        let wait = (full - now).saturating_sub(u64::from(more) * interval);
        if wait > 0 {
            return Err(Duration::from_micros(wait));
        }
        for cell in pair {
            cells[cell] = cells[cell].max(full + interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_minute: 6 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_tag_gets_a_burst_and_then_so_many_per_minute() {
        let limit = RateLimit::new();
        for _ in 0..3 {
            assert_eq!(limit.take("one", RATE, seconds(100)), Ok(()));
        }
        assert_eq!(limit.take("one", RATE, seconds(100)), Err(seconds(10)));
        assert_eq!(limit.take("one", RATE, seconds(107)), Err(seconds(3)), "a refusal uses nothing up");
        assert_eq!(limit.take("other", RATE, seconds(107)), Ok(()));
        assert_eq!(limit.take("one", RATE, seconds(110)), Ok(()));
        assert_eq!(limit.take("one", RATE, seconds(110)), Err(seconds(10)));
        for _ in 0..3 {
            assert_eq!(limit.take("one", RATE, seconds(1000)), Ok(()), "no more than a burst is saved");
        }
        assert_eq!(limit.take("one", RATE, seconds(1000)), Err(seconds(10)));
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = RateLimit::new();
        for rate in [Rate { burst: 0, per_minute: 6 }, Rate { burst: 3, per_minute: 0 }] {
            assert!((0..100).all(|_| limit.take("one", rate, seconds(1)).is_ok()));
        }
    }

    /// A flood of ten thousand tags neither frees one that is limited nor holds up the others.
    #[test]
    fn a_flood_of_tags_changes_nothing_for_others() {
        let limit = RateLimit::new();
        while limit.take("limited", RATE, seconds(1)).is_ok() {}
        for n in 0..10_000 {
            while limit.take(&format!("flood {n}"), RATE, seconds(1)).is_ok() {}
        }
        assert!(limit.take("limited", RATE, seconds(1)).is_err());
        let held_up =
            (0..1000).filter(|n| limit.take(&format!("honest {n}"), RATE, seconds(1)).is_err()).count();
        assert!(held_up < 150, "{held_up} of 1000");
        assert_eq!(limit.cells.lock().unwrap().len(), CELLS);
    }
}
