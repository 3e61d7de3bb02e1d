//! Parsers of arguments: times, domains, user names.

use std::ops::RangeInclusive;

use crate::config::port_range;
use crate::turn::peers::{PeerRule, PeerRuleError};

pub use crate::admin::times::duration;

/// A host name or an IPv4 address. It becomes part of URLs, and the realm.
pub fn domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 127 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("write a host name like turn.example.org".into())
    }
}

/// An entry of `peers.allow`.
pub fn peer(text: &str) -> Result<PeerRule, String> {
    text.parse().map_err(|error: PeerRuleError| format!("{error}; {}", error.fix()))
}

/// The relay's ports, `first-last`.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    port_range(text).map_err(|(what, fix)| format!("{what}; {fix}"))
}

/// The user part of a time-limited name.
pub fn user(text: &str) -> Result<String, String> {
    // Together with the expiry it must stay below the 509 bytes of RFC 8489 section 14.3.
    if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
        return Err("write 1 to 256 bytes of text without control characters".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "0", "h", "-1h", "1w", "1 h", "1.5h", "3651d", "99999999999999999999d", "1é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn domains_are_valid_in_urls() {
        for text in ["turn.example.org", "localhost", "203.0.113.7", "xn--bcher-kva.example"] {
            assert!(domain(text).is_ok(), "{text}");
        }
        for text in ["", "a b", "a/b", "turn:3478", "-a", "a..b", "[2001:db8::1]", "bücher.example"] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_have_no_control_characters() {
        assert!(user("@alice:example.org").is_ok() && user("Zoë").is_ok());
        assert!(user("").is_err() && user("a\nb").is_err() && user(&"x".repeat(257)).is_err());
    }
}
