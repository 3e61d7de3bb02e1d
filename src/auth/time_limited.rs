//! Time-limited names: `expiry:user` or a bare expiry, whose password anyone who holds a shared secret can compute
//! (draft-uberti-behave-turn-rest). The name carries all there is to know, so nothing is stored for it.
//!
//! The name is used as it came on the wire: only a holder of the secret can have made it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::config::Secret;
use super::credential::{Credential, Key, PasswordAlgorithm};

/// Characters of base64 that 20 bytes take.
const PASSWORD: usize = 28;

/// The password of a time-limited name: `base64(HMAC-SHA1(secret, username))`.
pub fn time_limited_password(secret: &[u8], username: &str) -> String {
    password_text(&password(&keyed(secret), username)).to_owned()
}

/// The configured secrets, as keyed HMACs.
pub(super) struct Secrets {
    keyed: Vec<Hmac<Sha1>>,
    user_before_expiry: bool,
}

impl Secrets {
    pub(super) fn new(secrets: &[Secret], user_before_expiry: bool) -> Secrets {
        Secrets { keyed: secrets.iter().map(|secret| keyed(secret.as_bytes())).collect(), user_before_expiry }
    }

    /// Reads a name, if there is a secret that could verify it.
    pub(super) fn parse<'a>(&self, username: &'a str) -> Option<TimeLimitedName<'a>> {
        if self.keyed.is_empty() {
            return None;
        }
        TimeLimitedName::expiry_first(username)
            .or_else(|| if self.user_before_expiry { TimeLimitedName::expiry_last(username) } else { None })
    }

    /// The credential under the first secret whose key `holds`.
    pub(super) fn verify(
        &self,
        name: &TimeLimitedName<'_>,
        realm: &str,
        algorithm: PasswordAlgorithm,
        holds: impl Fn(&[u8]) -> bool,
    ) -> Option<Credential> {
        self.keyed
            .iter()
            .map(|secret| Key::derive(algorithm, name.whole, realm, &password(secret, name.whole)))
            .find(|key| holds(key.as_bytes()))
            .map(|key| Credential::new(name.whole, name.user, Some(name.expires), key))
    }
}

/// A name that reads as a time-limited one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TimeLimitedName<'a> {
    whole: &'a str,
    user: &'a str,
    expires: u64,
}

impl<'a> TimeLimitedName<'a> {
    /// `expiry:user`, split at the first separator since users may contain it, or the expiry alone.
    fn expiry_first(whole: &'a str) -> Option<TimeLimitedName<'a>> {
        let (time, user) = whole.split_once(':').unwrap_or((whole, ""));
        TimeLimitedName::new(whole, time, user)
    }

    /// `user:expiry`, split at the last separator.
    fn expiry_last(whole: &'a str) -> Option<TimeLimitedName<'a>> {
        let (user, time) = whole.rsplit_once(':')?;
        TimeLimitedName::new(whole, time, user)
    }

    fn new(whole: &'a str, time: &'a str, user: &'a str) -> Option<TimeLimitedName<'a>> {
        // Digits alone: a sign or a space would be a second way to write the same number.
        if !time.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let expires = time.parse().ok()?;
        Some(TimeLimitedName { whole, user: if user.is_empty() { time } else { user }, expires })
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha1> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

fn password(secret: &Hmac<Sha1>, username: &str) -> [u8; PASSWORD] {
    let tag = secret.clone().chain_update(username).finalize().into_bytes();
    let mut text = [0; PASSWORD];
    let written = STANDARD.encode_slice(tag, &mut text);
    debug_assert_eq!(written, Ok(PASSWORD), "20 bytes are 28 characters");
    text
}

fn password_text(password: &[u8; PASSWORD]) -> &str {
    str::from_utf8(password).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(user_before_expiry: bool) -> Secrets {
        Secrets::new(&[Secret::new("north")], user_before_expiry)
    }

    fn read(username: &str, user_before_expiry: bool) -> Option<(u64, &str)> {
        secrets(user_before_expiry).parse(username).map(|name| (name.expires, name.user))
    }

    /// draft-uberti-behave-turn-rest, as its users compute it.
    #[test]
    fn the_password_of_the_vector() {
        assert_eq!(time_limited_password(b"north", "12334939:mbzrxpgjys"), "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=");
    }

    /// draft-uberti-behave-turn-rest: `expiry:user`, or the expiry alone, which is digits alone.
    #[test]
    fn names_are_split_at_the_first_separator() {
        for (name, expected) in [
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("1700000000:@alice:example.org", Some((1_700_000_000, "@alice:example.org"))),
            ("1700000000:42", Some((1_700_000_000, "42"))),
            ("1700000000", Some((1_700_000_000, "1700000000"))),
            ("1700000000:", Some((1_700_000_000, "1700000000"))),
            ("0:a", Some((0, "a"))),
            ("007:a", Some((7, "a"))),
            ("18446744073709551615:a", Some((u64::MAX, "a"))),
            ("18446744073709551616:a", None),
            ("99999999999999999999999999999999:a", None),
            ("+1700000000:a", None),
            ("-1:a", None),
            (" 1700000000:a", None),
            ("1700000000 :a", None),
            ("1_700:a", None),
            ("0x10:a", None),
            ("1.5:a", None),
            ("١٢٣:a", None),
            (":1700000000", None),
            ("alice:1700000000", None),
            ("alice", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(read(name, false), expected, "{name:?}");
        }
    }

    /// draft-uberti-behave-turn-rest, as some of its users write it: `user:expiry`.
    #[test]
    fn the_other_order_is_a_setting() {
        for (name, expected) in [
            ("alice:1700000000", Some((1_700_000_000, "alice"))),
            ("@alice:example.org:1700000000", Some((1_700_000_000, "@alice:example.org"))),
            (":1700000000", Some((1_700_000_000, "1700000000"))),
            // Both parts are numbers: still the expiry first.
            ("1700000000:42", Some((1_700_000_000, "42"))),
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("1700000000", Some((1_700_000_000, "1700000000"))),
            // The first is no expiry, so the last is read.
            ("18446744073709551616:5", Some((5, "18446744073709551616"))),
            ("alice:+5", None),
            ("alice: 5", None),
            ("alice:", None),
            ("alice", None),
        ] {
            assert_eq!(read(name, true), expected, "{name:?}");
        }
    }

    /// draft-uberti-behave-turn-rest: it takes a shared secret.
    #[test]
    fn without_a_secret_no_name_is_time_limited() {
        assert_eq!(Secrets::new(&[], true).parse("1700000000:alice"), None);
    }

    proptest! {
        /// draft-uberti-behave-turn-rest: whatever the name, an expiry is digits.
        #[test]
        fn an_expiry_is_digits(name in ".*", setting: bool) {
            if let Some(read) = secrets(setting).parse(&name) {
                let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                let (first, last) = (name.split(':').next().unwrap(), name.rsplit(':').next().unwrap());
                prop_assert!(digits(first) || setting && digits(last));
                prop_assert!(!read.user.is_empty());
            }
        }

        /// draft-uberti-behave-turn-rest: a name reads as it was written.
        #[test]
        fn a_written_name_is_read(expiry: u64, user in ".+") {
            let name = format!("{expiry}:{user}");
            prop_assert_eq!(read(&name, false), Some((expiry, &user[..])));
        }
    }
}
