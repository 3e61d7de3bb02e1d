//! Clocks that differ: tokens and credentials expire early or late.

use super::Verdict;

/// Seconds that clocks may differ by. The header `Date` has whole seconds.
const ALLOWED: u64 = 5;

/// Judges by how many milliseconds another machine's clock is ahead of this one's.
pub fn judge(of: &str, ahead: i64) -> Verdict {
    let seconds = (ahead.unsigned_abs() + 500) / 1000;
    if seconds <= ALLOWED {
        return Verdict::Good(format!("the clock of {of} agrees with this machine's"));
    }
    let (way, effect) = match ahead > 0 {
        true => ("ahead of", "early"),
        false => ("behind", "late"),
    };
    Verdict::Wrong(format!(
        "the clock of {of} is {seconds} s {way} this machine's, so tokens and credentials expire {effect}; set both by NTP"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_few_seconds_are_wrong() {
        for agrees in [0, 900, -900, 5400, -5400] {
            assert!(matches!(judge("LiveKit", agrees), Verdict::Good(_)), "{agrees}");
        }
        let Verdict::Wrong(ahead) = judge("LiveKit", 37_000) else { panic!() };
        assert!(ahead.starts_with("the clock of LiveKit is 37 s ahead of this machine's"), "{ahead}");
        let Verdict::Wrong(behind) = judge("LiveKit", -37_000) else { panic!() };
        assert!(behind.contains("37 s behind") && behind.ends_with("set both by NTP"), "{behind}");
    }
}
