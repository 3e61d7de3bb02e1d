//! Counts and time distributions of the packets.

use std::ops::Range;

/// What was sent and received. Times are nanoseconds of the generator's clock.
pub struct Tally {
    /// Packets sent in the window.
    pub sent: u64,
    /// Packets received in the window.
    pub arrived: u64,
    /// Packets sent in the window and received at any time.
    pub returned: u64,
    /// Packets received after a later packet of the same path.
    pub reordered: u64,
    /// Packets received with wrong contents or at the wrong socket.
    pub wrong: u64,
    /// One-way delays, from the system call that sent to the one that received.
    pub delay: Histogram,
    /// Delays between the planned and the real time of sending.
    pub late: Histogram,
    /// The highest sequence number received on each path.
    latest: Vec<u32>,
    window: Range<u64>,
}

impl Tally {
    /// Counts over a time window.
    pub fn new(paths: usize, window: Range<u64>) -> Tally {
        Tally {
            sent: 0,
            arrived: 0,
            returned: 0,
            reordered: 0,
            wrong: 0,
            delay: Histogram::new(),
            late: Histogram::new(),
            latest: vec![0; paths],
            window,
        }
    }

    /// Records packets that were sent.
    pub fn sent(&mut self, now: u64, due: u64, packets: u64) {
        if self.window.contains(&now) {
            self.sent += packets;
            self.late.add(now.saturating_sub(due), packets);
        }
    }

    /// Records a correct packet.
    pub fn received(&mut self, now: u64, path: usize, sequence: u32, sent: u64) {
        if self.window.contains(&now) {
            self.arrived += 1;
        }
        if self.window.contains(&sent) {
            self.returned += 1;
            self.delay.add(now.saturating_sub(sent), 1);
            let latest = &mut self.latest[path];
            self.reordered += u64::from(sequence < *latest);
            *latest = sequence.max(*latest);
        }
    }
}

/// A histogram whose buckets are about 3 % wide.
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
    max: u64,
}

const PRECISION: u32 = 5;
const SUB: u64 = 1 << PRECISION;

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { buckets: vec![0; bucket(u64::MAX) + 1], total: 0, max: 0 }
    }

    /// Adds a value `count` times.
    pub fn add(&mut self, value: u64, count: u64) {
        self.buckets[bucket(value)] += count;
        self.total += count;
        self.max = self.max.max(value);
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A quantile, at most 3 % too high.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (self.total as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen != 0 {
                return upper(index).min(self.max);
            }
        }
        self.max
    }

    /// The highest value.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// Small values have a bucket each. Above, each power of two is divided into [`SUB`] buckets.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - PRECISION;
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// The highest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let start = u128::from(bucket - shift * SUB) << shift;
    u64::try_from(start + (1 << shift) - 1).unwrap_or(u64::MAX)
}
