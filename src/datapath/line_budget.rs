//! A bound on log lines that clients cause: each reason has a budget of its own, so that a common reason does not hide a rare
//! one, and what was suppressed is summed up.

use std::collections::BTreeMap;

use crate::turn::SECOND;

/// Lines per reason and second.
pub(super) const COMMON: LineRate = LineRate { lines: 10, period: SECOND };

/// The rate of lines that ordinary clients cause in every call.
pub(super) const EXPECTED: LineRate = LineRate { lines: 10, period: 10 * SECOND };

/// How long after the latest suppressed line a summary is due if no other line of that reason was written, in nanoseconds.
const SUMMARY_AFTER: u64 = 10 * SECOND;

/// How many lines may be written per period.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineRate {
    pub(super) lines: u32,
    /// In nanoseconds.
    pub(super) period: u64,
}

/// The log lines of one reason that may still be written in this period.
pub(super) struct LineBudget {
    rate: LineRate,
    /// When the period began.
    since: u64,
    written: u32,
    suppressed: u64,
    /// When the latest line was suppressed.
    suppressed_at: u64,
}

impl LineBudget {
    /// A budget of which nothing is used.
    pub(super) fn new(rate: LineRate) -> LineBudget {
        LineBudget { rate, since: 0, written: 0, suppressed: 0, suppressed_at: 0 }
    }

    /// Takes one line. Returns how many lines were suppressed before it, or `None` if this one is suppressed too. `now`
    /// is in monotonic nanoseconds.
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        if now >= self.since + self.rate.period {
            (self.since, self.written) = (now, 0);
        }
        if self.written == self.rate.lines {
            self.suppressed += 1;
            self.suppressed_at = now;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// How many lines were suppressed, once the last of them is so old that no other line will tell.
    pub(super) fn take_summary(&mut self, now: u64) -> Option<u64> {
        let due = self.is_behind() && now >= self.suppressed_at + SUMMARY_AFTER;
        due.then(|| std::mem::take(&mut self.suppressed))
    }

    /// Whether a summary waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.suppressed > 0
    }
}

impl Default for LineBudget {
    fn default() -> LineBudget {
        LineBudget::new(COMMON)
    }
}

/// A budget per reason. Reasons are literals of the program, which bounds their number.
#[derive(Default)]
pub(super) struct LineBudgets(BTreeMap<&'static str, LineBudget>);

impl LineBudgets {
    /// Takes one line of a reason; see [`LineBudget::take`]. The first call for a reason sets its rate.
    pub(super) fn take(&mut self, now: u64, reason: &'static str, rate: LineRate) -> Option<u64> {
        self.0.entry(reason).or_insert_with(|| LineBudget::new(rate)).take(now)
    }

    /// The summaries that are due, each with its reason and the number of suppressed lines.
    pub(super) fn take_summaries(&mut self, now: u64) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter_mut().filter_map(move |(reason, budget)| Some((*reason, budget.take_summary(now)?)))
    }

    /// Whether a summary waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.0.values().any(LineBudget::is_behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_per_period_are_bounded_and_suppressed_ones_counted() {
        let mut budget = LineBudget::default();
        let second = 5 * SECOND;
        assert_eq!((0..1000).filter(|_| budget.take(second) == Some(0)).count(), 10);
        assert_eq!(budget.take(second + SECOND - 1), None);
        assert_eq!(budget.take(second + SECOND), Some(991));
        assert_eq!(budget.take(second + SECOND), Some(0));
    }

    #[test]
    fn a_reason_does_not_use_the_budget_of_another() {
        let mut budgets = LineBudgets::default();
        let now = 5 * SECOND;
        let written = |reason, rate, budgets: &mut LineBudgets| {
            (0..1000).filter(|_| budgets.take(now, reason, rate).is_some()).count()
        };
        assert_eq!(written("private", EXPECTED, &mut budgets), 10);
        assert_eq!(written("wrong_password", COMMON, &mut budgets), 10);
        assert_eq!(budgets.take(now + 2 * SECOND, "private", EXPECTED), None);
        assert_eq!(budgets.take(now + 2 * SECOND, "wrong_password", COMMON), Some(990));
    }

    #[test]
    fn what_was_suppressed_is_summed_up() {
        let mut budgets = LineBudgets::default();
        let due = |budgets: &mut LineBudgets, now| budgets.take_summaries(now).collect::<Vec<_>>();
        assert_eq!((0..15).filter_map(|_| budgets.take(SECOND, "private", EXPECTED)).count(), 10);
        assert!(budgets.is_behind());
        assert_eq!(due(&mut budgets, 2 * SECOND), []);
        assert_eq!(due(&mut budgets, SECOND + SUMMARY_AFTER), [("private", 5)]);
        assert!(!budgets.is_behind());
        assert_eq!(due(&mut budgets, 99 * SECOND), []);
    }
}
