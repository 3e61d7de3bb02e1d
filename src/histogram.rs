//! Histograms of durations: plain integers that their owner counts in, with the bounds as a constant beside them.

use std::time::Duration;

/// Durations by upper bound. Every method that takes bounds wants the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// For each bound the durations up to it that are longer than the bound before.
    counts: [u64; N],
    /// All durations, with those beyond the last bound.
    total: u64,
    sum: Duration,
}

/// Bounds in seconds.
pub const fn seconds<const N: usize>(seconds: [u64; N]) -> [Duration; N] {
    let (mut bounds, mut n) = ([Duration::ZERO; N], 0);
    while n < N {
        bounds[n] = Duration::from_secs(seconds[n]);
        n += 1;
    }
    bounds
}

/// Bounds in microseconds.
pub const fn microseconds<const N: usize>(microseconds: [u64; N]) -> [Duration; N] {
    let (mut bounds, mut n) = ([Duration::ZERO; N], 0);
    while n < N {
        bounds[n] = Duration::from_micros(microseconds[n]);
        n += 1;
    }
    bounds
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram { counts: [0; N], total: 0, sum: Duration::ZERO }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a duration.
    pub fn observe(&mut self, bounds: &[Duration; N], duration: Duration) {
        let at = bounds.partition_point(|bound| *bound < duration);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.total += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds each count of `other`.
    pub fn add(&mut self, other: &Histogram<N>) {
        for (sum, part) in self.counts.iter_mut().zip(other.counts) {
            *sum += part;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// For each bound, how many durations are no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Duration; 3] = [Duration::from_millis(5), Duration::from_secs(1), Duration::from_secs(60)];

    /// A bucket has the durations up to its bound, the bound included; what is beyond the last one counts in the total.
    #[test]
    fn durations_count_up_to_the_bound() {
        let mut histogram = Histogram::default();
        for millis in [0, 5, 6, 1000, 1001, 60_000, 60_001, 86_400_000] {
            histogram.observe(&BOUNDS, Duration::from_millis(millis));
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [2, 4, 6]);
        assert_eq!((histogram.total(), histogram.sum()), (8, Duration::from_millis(86_522_013)));
        let mut sum = histogram;
        sum.add(&histogram);
        assert_eq!(sum.cumulative().collect::<Vec<_>>(), [4, 8, 12]);
        assert_eq!((sum.total(), sum.sum()), (16, 2 * histogram.sum()));
    }
}
