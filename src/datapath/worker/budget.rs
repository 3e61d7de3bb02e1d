//! What one pass of a worker may spend on one kind of work before it turns to the next.
//!
//! Work is bounded in time, because the number of messages or bytes does not say what they cost: a TLS record of one byte
//! costs as much as a packet, and a CreatePermission request may name thousands of peers. Reading the clock costs a fiftieth of a
//! packet, so cheap work is counted in bytes and the clock is read only after a certain number of them.

use crate::datapath::clock;

/// Bytes after which the clock is read: some hundred small packets, or two GRO batches.
const UNCHECKED_BYTES: usize = 128 << 10;

/// What one message costs at least, as bytes.
const MESSAGE_BYTES: usize = 512;

/// The rest of a time slice.
pub(super) struct Budget {
    /// When the slice ends, in monotonic nanoseconds.
    until: u64,
    /// Bytes since the clock was read.
    unchecked: usize,
    exhausted: bool,
}

impl Budget {
    /// A slice of `nanoseconds` that starts now.
    pub(super) fn new(nanoseconds: u64) -> Budget {
        Budget { until: clock::mono() + nanoseconds, unchecked: 0, exhausted: false }
    }

    /// Accounts for messages that cost about what their bytes say.
    pub(super) fn spend(&mut self, messages: usize, bytes: usize) {
        self.unchecked += bytes.max(messages * MESSAGE_BYTES);
        if self.unchecked >= UNCHECKED_BYTES {
            self.check(clock::mono());
        }
    }

    /// Accounts for work of unknown cost that has ended at `now`.
    pub(super) fn check(&mut self, now: u64) {
        self.unchecked = 0;
        self.exhausted |= now >= self.until;
    }

    /// Whether the slice has ended.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_with_its_time_however_little_was_counted() {
        let mut budget = Budget::new(1_000_000_000);
        budget.check(clock::mono());
        assert!(!budget.is_exhausted());
        budget.check(clock::mono() + 1_000_000_000);
        assert!(budget.is_exhausted());
    }

    #[test]
    fn the_clock_is_read_after_enough_bytes_or_enough_messages() {
        for (messages, bytes) in [(1, UNCHECKED_BYTES), (UNCHECKED_BYTES / MESSAGE_BYTES, 1)] {
            let mut budget = Budget::new(0);
            budget.spend(1, 1);
            assert!(!budget.is_exhausted(), "the clock is not read for each message");
            budget.spend(messages, bytes);
            assert!(budget.is_exhausted());
        }
    }
}
