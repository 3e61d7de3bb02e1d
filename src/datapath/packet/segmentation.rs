//! Whether GSO is used for a destination.
//!
//! Some network devices and some path MTUs refuse it. The segments of a batch that fails are sent one by one; if those
//! succeed three times, the destination is remembered in a small table, where new entries replace older ones.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;

/// Destinations that are remembered at a time.
const MOST: usize = 64;

/// How often single packets must succeed where a batch failed.
const STRIKES: u8 = 3;

/// The destinations that refuse GSO.
pub(in crate::datapath) struct Segmentation {
    on: bool,
    /// Per hash, the last destination that refused a batch, and how often.
    trouble: [Option<(IpAddr, u8)>; MOST],
    any: bool,
}

impl Segmentation {
    /// `on`: the kernel has GSO, and the configuration allows it.
    pub(in crate::datapath) fn new(on: bool) -> Segmentation {
        Segmentation { on, trouble: [None; MOST], any: false }
    }

    /// Whether batches may be sent to this destination.
    pub(in crate::datapath) fn allows(&self, to: IpAddr) -> bool {
        self.on
            && !(self.any
                && self.trouble[place(to)].is_some_and(|(ip, strikes)| ip == to && strikes >= STRIKES))
    }

    /// A batch to this destination failed, and its segments were sent one by one.
    pub(in crate::datapath) fn strike(&mut self, to: IpAddr) {
        let entry = &mut self.trouble[place(to)];
        let strikes = entry.filter(|(ip, _)| *ip == to).map_or(0, |(_, strikes)| strikes);
        *entry = Some((to, strikes.saturating_add(1)));
        self.any = true;
    }
}

fn place(ip: IpAddr) -> usize {
    FixedState::with_seed(0).hash_one(ip) as usize % MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_strikes() {
        let mut segmentation = Segmentation::new(true);
        let (bad, good) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..STRIKES {
            assert!(segmentation.allows(bad));
            segmentation.strike(bad);
        }
        assert!(!segmentation.allows(bad));
        assert!(segmentation.allows(good));
        assert!(!Segmentation::new(false).allows(good));
    }

    #[test]
    fn the_table_stays_small() {
        let mut segmentation = Segmentation::new(true);
        for n in 0..100_000u32 {
            let ip = IpAddr::V4(n.into());
            (0..STRIKES).for_each(|_| segmentation.strike(ip));
            assert!(!segmentation.allows(ip));
        }
        let off = (0..100_000u32).filter(|&n| !segmentation.allows(IpAddr::V4(n.into()))).count();
        assert!(off <= MOST, "{off}");
    }
}
