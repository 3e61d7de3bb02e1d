//! Durations and times as people write them.

use std::time::Duration;

/// The longest duration: ten years.
const LONGEST: u64 = 10 * 365 * 86_400;

/// `90`, `90s`, `30m`, `12h`, `7d`.
///
/// # Errors
/// How to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a number of seconds, or a number with s, m, h or d, like 12h".into()),
    };
    let seconds = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    match seconds {
        Some(1..=LONGEST) => Ok(Duration::from_secs(seconds.unwrap_or_default())),
        _ => Err("write a time from 1s to 3650d".into()),
    }
}

/// Unix seconds, or a time of RFC 3339 like `2026-12-01T08:00:00Z`, as Unix seconds.
///
/// # Errors
/// How to write it.
pub fn unix_time(text: &str) -> Result<u64, String> {
    let how = || "write Unix seconds, or a time like 2026-12-01T08:00:00Z".to_owned();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| how());
    }
    rfc3339(text).ok_or_else(how)
}

/// RFC 3339 section 5.6, with a `T` or a space, and from 1970 on.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    if !text.is_ascii() || separators.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(*mark)) {
        return None;
    }
    if !["T", "t", " "].contains(&text.get(10..11)?) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let is_leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second counts as the one after it.
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 || year < 1970 {
        return None;
    }
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        rest = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone[2] == b':' => {
            let at = text.len() - 5;
            let (hours, minutes) = (number(at..at + 2)?, number(at + 3..at + 5)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day that leap years add is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

/// Unix seconds as `2026-12-01T08:00:00Z`.
pub fn rfc3339_of(unix: u64) -> String {
    let (days, seconds) = ((unix / 86_400) as i64 + 719_468, unix % 86_400);
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A duration as people read it: `3d 4h`, `12m 5s`.
pub fn shown(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).filter(|(n, unit)| *n > 0 || *unit == 's' && first == 3);
    shown.map(|(n, unit)| format!("{n}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, unix) in [
            ("0", 0),
            ("1795354424", 1_795_354_424),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("2026-12-01T08:00:00+01:00", 1_796_108_400),
            ("2026-12-01 07:00:00.25Z", 1_796_108_400),
            ("2026-11-30t22:30:00-08:30", 1_796_108_400),
        ] {
            assert_eq!(unix_time(text), Ok(unix), "{text}");
        }
        for unix in [0, 951_827_696, 1_735_689_599, 1_796_108_400, 4_102_444_800, 253_402_300_799] {
            assert_eq!(unix_time(&rfc3339_of(unix)), Ok(unix));
        }
        for text in [
            "",
            "tomorrow",
            "-1",
            "2026-12-01",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T08:00:00",
            "2026-12-01T08:00:00.Z",
            "2026-12-01T08:00:00+1:00",
            "1969-12-31T23:59:59Z",
            "2026-12-01T08:00:0\u{660}Z",
        ] {
            assert!(unix_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (725, "12m 5s"),
            (3600, "1h"),
            (273_600, "3d 4h"),
            (86_400, "1d"),
        ] {
            assert_eq!(shown(seconds), text);
        }
    }
}
