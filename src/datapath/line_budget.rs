//! A bound on log lines that clients cause.

/// Lines of one kind per second.
const LINES_PER_SECOND: u32 = 10;

/// The log lines of one kind that may still be written in this second.
#[derive(Default)]
pub(super) struct LineBudget {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl LineBudget {
    /// Takes one line. Returns how many lines were suppressed before it, or `None` if this one is suppressed too. `now`
    /// is in monotonic nanoseconds.
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let second = now / 1_000_000_000;
        if second != self.second {
            *self = LineBudget { second, written: 0, suppressed: self.suppressed };
        }
        if self.written == LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_per_second_are_bounded_and_suppressed_ones_counted() {
        let mut budget = LineBudget::default();
        let second = 5_000_000_000;
        assert_eq!((0..1000).filter(|_| budget.take(second) == Some(0)).count(), 10);
        assert_eq!(budget.take(second + 999_999_999), None);
        assert_eq!(budget.take(second + 1_000_000_000), Some(991));
        assert_eq!(budget.take(second + 1_000_000_000), Some(0));
    }
}
