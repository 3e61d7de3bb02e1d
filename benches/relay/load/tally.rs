//! What came through: counts, and distributions of times.

/// The generator's books; times are those of its clock.
pub struct Tally {
    /// Packets that left in the window.
    pub sent: u64,
    /// Packets that arrived in the window.
    pub arrived: u64,
    /// Packets that left in the window and arrived at some time.
    pub returned: u64,
    /// Packets that arrived after one that left later on the same flow.
    pub reordered: u64,
    /// Packets that should not have arrived there, or not like that.
    pub wrong: u64,
    /// One-way delays, from the system call that sent to the one that received.
    pub delay: Histogram,
    /// How long after its time a packet left.
    pub late: Histogram,
    latest: Vec<u32>,
    window: std::ops::Range<u64>,
}

impl Tally {
    /// For so many one-way flows, over a window still to come.
    pub fn new(flows: usize, window: std::ops::Range<u64>) -> Tally {
        Tally {
            sent: 0,
            arrived: 0,
            returned: 0,
            reordered: 0,
            wrong: 0,
            delay: Histogram::new(),
            late: Histogram::new(),
            latest: vec![0; flows],
            window,
        }
    }

    /// So many packets left.
    pub fn left(&mut self, now: u64, due: u64, packets: u64) {
        if self.window.contains(&now) {
            self.sent += packets;
            self.late.add(now.saturating_sub(due), packets);
        }
    }

    /// A packet arrived where it should.
    pub fn came(&mut self, now: u64, flow: usize, sequence: u32, stamp: u64) {
        if self.window.contains(&now) {
            self.arrived += 1;
        }
        if self.window.contains(&stamp) {
            self.returned += 1;
            self.delay.add(now.saturating_sub(stamp), 1);
            let latest = &mut self.latest[flow];
            self.reordered += u64::from(sequence < *latest);
            *latest = sequence.max(*latest);
        }
    }
}

/// Counts in buckets of about 3 % width.
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
    max: u64,
}

const PRECISION: u32 = 5;
const SUB: u64 = 1 << PRECISION;

impl Histogram {
    /// Nothing yet.
    pub fn new() -> Histogram {
        Histogram { buckets: vec![0; bucket(u64::MAX) + 1], total: 0, max: 0 }
    }

    /// So many times this value.
    pub fn add(&mut self, value: u64, count: u64) {
        self.buckets[bucket(value)] += count;
        self.total += count;
        self.max = self.max.max(value);
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that this part of all values does not exceed, 3 % at most above the truth.
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen != 0 {
                return upper(index).min(self.max);
            }
        }
        self.max
    }

    /// The greatest value.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// Small values have a bucket each; above, every doubling is cut into as many parts.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - PRECISION;
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let start = u128::from(bucket - shift * SUB) << shift;
    u64::try_from(start + (1 << shift) - 1).unwrap_or(u64::MAX)
}
