//! How far LiveKit's clock is ahead of this machine's, from the header `Date` of its responses. It has whole seconds, but each
//! response bounds the offset from both sides, and many of them leave little in between.

use std::collections::VecDeque;

/// How many responses are remembered. A clock that is set meanwhile is noticed with the first response that contradicts them.
const KEPT: usize = 16;

/// What the responses of LiveKit tell of its clock. Times are in Unix milliseconds.
#[derive(Clone, Debug, Default)]
pub struct ClockOffset {
    /// The least and the most that the offset can be, the newest response last.
    ranges: VecDeque<(i64, i64)>,
}

impl ClockOffset {
    /// LiveKit has answered with this date, in Unix seconds, between two times of this machine's clock.
    pub fn observe(&mut self, sent: i64, received: i64, date: u64) {
        // This machine's clock may have been set in between.
        if received < sent {
            return;
        }
        let date = date as i64 * 1000;
        if self.ranges.len() == KEPT {
            self.ranges.pop_front();
        }
        self.ranges.push_back((date - received, date + 1000 - sent));
    }

    /// By how many milliseconds LiveKit's clock is ahead; `None` before the first response. 0 if no difference can be told.
    pub fn millis(&self) -> Option<i64> {
        let mut newest_first = self.ranges.iter().rev();
        let (mut least, mut most) = *newest_first.next()?;
        for (low, high) in newest_first {
            let (low, high) = (least.max(*low), most.min(*high));
            // An older response from before one of the clocks was set.
            if low > high {
                break;
            }
            (least, most) = (low, high);
        }
        match least <= 0 && most >= 0 {
            true => Some(0),
            false => Some((least + most) / 2),
        }
    }
}

/// The time of a header `Date`, in Unix seconds: `Mon, 30 Nov 2026 08:00:00 GMT` (RFC 9110 §5.6.7).
pub fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if parts.next() != Some("GMT") || parts.next().is_some() {
        return None;
    }
    crate::admin::times::unix_time(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_headers_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Mon, 30 Nov 2026 08:00:00 GMT"), Some(1_796_025_600));
        for text in ["", "now", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 6 Now 1994 08:49:37 GMT", "1796025600"]
        {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    /// Requests at several moments of a second, answered in 4 ms, by a clock that is `ahead`.
    fn observed(offset: &mut ClockOffset, ahead: i64) {
        for n in 0..20 {
            let sent = 1_800_000_000_000 + n * 1230;
            offset.observe(sent, sent + 4, ((sent + 2 + ahead) / 1000) as u64);
        }
    }

    #[test]
    fn whole_seconds_tell_the_offset_in_the_long_run() {
        for ahead in [-86_400_000, -3400, -900, 900, 7777, 3_600_000] {
            let mut offset = ClockOffset::default();
            assert_eq!(offset.millis(), None);
            observed(&mut offset, ahead);
            let found = offset.millis().unwrap();
            assert!((found - ahead).abs() < 200, "{ahead}: {found}");
        }
    }

    #[test]
    fn clocks_that_agree_have_no_offset() {
        let mut offset = ClockOffset::default();
        observed(&mut offset, 0);
        assert_eq!(offset.millis(), Some(0));
        offset.observe(1_800_000_000_000, 1_800_000_009_000, 1_800_000_001);
        assert_eq!(offset.millis(), Some(0), "a slow answer says less");
        offset.observe(1_800_000_000_000, 1_799_000_000_000, 5);
        assert_eq!(offset.millis(), Some(0), "the clock was set during the request");
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_at_once() {
        let mut offset = ClockOffset::default();
        observed(&mut offset, 60_000);
        offset.observe(1_800_000_100_000, 1_800_000_100_004, 1_800_000_100);
        assert_eq!(offset.millis(), Some(0));
    }
}
