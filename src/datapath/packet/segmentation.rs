//! Decides whether GSO is used for a destination.
//!
//! Sending a GSO batch fails with some network devices and path MTUs, and its segments are then sent one by one. After that
//! has happened three times for a destination, GSO is not used for it any more. Destinations are remembered in a small
//! table, where new entries replace older ones.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// The size of the table.
const TABLE_SIZE: usize = 64;

/// The number of failed batches after which GSO is not used for a destination.
const MAX_FAILURES: u8 = 3;

/// The destinations for which GSO failed.
pub(in crate::datapath) struct Segmentation {
    enabled: bool,
    /// Keyed, so that nobody can choose peers that replace the entries of others.
    hash: RandomState,
    /// By hash of the destination: the last destination for which a batch failed, and how often.
    failures: [Option<(IpAddr, u8)>; TABLE_SIZE],
    /// The table is not empty.
    any_failure: bool,
}

impl Segmentation {
    /// `enabled`: the kernel supports GSO, and the configuration allows it.
    pub(in crate::datapath) fn new(enabled: bool) -> Segmentation {
        Segmentation { enabled, hash: RandomState::new(), failures: [None; TABLE_SIZE], any_failure: false }
    }

    /// Whether batches may be sent to this destination.
    pub(in crate::datapath) fn allows(&self, to: IpAddr) -> bool {
        // The hash is only computed if there was a failure.
        self.enabled
            && !(self.any_failure
                && self.failures[self.slot(to)].is_some_and(|(ip, count)| ip == to && count >= MAX_FAILURES))
    }

    /// Records that a batch to this destination failed, while its segments could be sent one by one.
    pub(in crate::datapath) fn record_failure(&mut self, to: IpAddr) {
        let slot = self.slot(to);
        let entry = &mut self.failures[slot];
        let count = entry.filter(|(ip, _)| *ip == to).map_or(0, |(_, count)| count);
        *entry = Some((to, count.saturating_add(1)));
        self.any_failure = true;
    }

    fn slot(&self, ip: IpAddr) -> usize {
        self.hash.hash_one(ip) as usize % TABLE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gso_is_disabled_after_three_failures() {
        let mut segmentation = Segmentation::new(true);
        let (bad, good) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..MAX_FAILURES {
            assert!(segmentation.allows(bad));
            segmentation.record_failure(bad);
        }
        assert!(!segmentation.allows(bad));
        assert!(segmentation.allows(good));
        assert!(!Segmentation::new(false).allows(good));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut segmentation = Segmentation::new(true);
        for n in 0..100_000u32 {
            let ip = IpAddr::V4(n.into());
            (0..MAX_FAILURES).for_each(|_| segmentation.record_failure(ip));
            assert!(!segmentation.allows(ip));
        }
        let disabled = (0..100_000u32).filter(|&n| !segmentation.allows(IpAddr::V4(n.into()))).count();
        assert!(disabled <= TABLE_SIZE, "{disabled}");
    }
}
