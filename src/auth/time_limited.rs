//! Time-limited credentials (draft-uberti-behave-turn-rest): the username is `expiry:user` or just the expiry, and the holders
//! of a shared secret compute the password from it, so nothing is stored per user.
//!
//! The username is not prepared with OpaqueString, because only a holder of the secret can have made it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::algorithms::PasswordAlgorithm;
use super::config::Secret;
use super::credential::{Credential, Key};
use super::origin::{Origin, OriginKey};

/// Length of 20 bytes in base64.
const PASSWORD_LEN: usize = 28;

/// The password of a time-limited username: `base64(HMAC-SHA1(secret, username))`.
pub fn time_limited_password(secret: &[u8], username: &str) -> String {
    password_text(&password(&hmac(secret), username)).to_owned()
}

/// The shared secrets, as HMACs that are ready to use.
pub(super) struct SharedSecrets {
    hmacs: Vec<(Hmac<Sha1>, Origin)>,
    user_before_expiry: bool,
}

impl SharedSecrets {
    pub(super) fn new(secrets: &[Secret], user_before_expiry: bool, origins: &OriginKey) -> SharedSecrets {
        let ready = |secret: &Secret| (hmac(secret.as_bytes()), origins.of_secret(secret.as_bytes()));
        SharedSecrets { hmacs: secrets.iter().map(ready).collect(), user_before_expiry }
    }

    /// Whether a credential was made from one of them.
    pub(super) fn include(&self, origin: Origin) -> bool {
        self.hmacs.iter().any(|(_, known)| *known == origin)
    }

    /// Whether a name that ends with its expiry would be known by another setting.
    pub(super) fn lack_user_before_expiry(&self) -> bool {
        !self.hmacs.is_empty() && !self.user_before_expiry
    }

    /// Parses a time-limited username. Returns `None` if there is no secret to verify it with.
    pub(super) fn parse<'a>(&self, username: &'a str) -> Option<TimeLimitedUsername<'a>> {
        if self.hmacs.is_empty() {
            return None;
        }
        TimeLimitedUsername::expiry_first(username).or_else(|| {
            if self.user_before_expiry { TimeLimitedUsername::expiry_last(username) } else { None }
        })
    }

    /// The credential of the first secret whose key is accepted by `verify_key`.
    pub(super) fn verify(
        &self,
        name: &TimeLimitedUsername<'_>,
        realm: &str,
        algorithm: PasswordAlgorithm,
        verify_key: impl Fn(&[u8]) -> bool,
    ) -> Option<Credential> {
        self.hmacs
            .iter()
            .map(|(hmac, origin)| {
                (Key::derive(algorithm, name.username, realm, &password(hmac, name.username)), *origin)
            })
            .find(|(key, _)| verify_key(key.as_bytes()))
            .map(|(key, origin)| {
                Credential::time_limited(name.username, name.user, name.expires, origin, key)
            })
    }
}

/// A parsed time-limited username.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TimeLimitedUsername<'a> {
    username: &'a str,
    /// `None` if the username is an expiry and nothing else.
    user: Option<&'a str>,
    expires: u64,
}

impl<'a> TimeLimitedUsername<'a> {
    /// Parses `expiry:user` or just the expiry. The user may contain colons.
    fn expiry_first(username: &'a str) -> Option<TimeLimitedUsername<'a>> {
        let (time, user) = username.split_once(':').unwrap_or((username, ""));
        TimeLimitedUsername::new(username, time, user)
    }

    /// Parses `user:expiry`. The user may contain colons.
    fn expiry_last(username: &'a str) -> Option<TimeLimitedUsername<'a>> {
        let (user, time) = username.rsplit_once(':')?;
        TimeLimitedUsername::new(username, time, user)
    }

    /// A name of either form, whatever is configured, whose expiry can be one: for the log.
    pub(super) fn recognize(username: &'a str) -> Option<TimeLimitedUsername<'a>> {
        /// September 2001: no smaller number of seconds has ten digits.
        const FIRST: u64 = 1_000_000_000;
        let of_either = TimeLimitedUsername::expiry_first(username)
            .or_else(|| TimeLimitedUsername::expiry_last(username));
        of_either.filter(|name| name.expires >= FIRST)
    }

    /// When it expires, in Unix seconds.
    pub(super) fn expires(&self) -> u64 {
        self.expires
    }

    fn new(username: &'a str, time: &'a str, user: &'a str) -> Option<TimeLimitedUsername<'a>> {
        // Only digits, because `parse` accepts a leading plus sign.
        if !time.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let expires = time.parse().ok()?;
        Some(TimeLimitedUsername { username, user: Some(user).filter(|user| !user.is_empty()), expires })
    }
}

fn hmac(secret: &[u8]) -> Hmac<Sha1> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

fn password(hmac: &Hmac<Sha1>, username: &str) -> [u8; PASSWORD_LEN] {
    let tag = hmac.clone().chain_update(username).finalize().into_bytes();
    let mut text = [0; PASSWORD_LEN];
    let written = STANDARD.encode_slice(tag, &mut text);
    debug_assert_eq!(written, Ok(PASSWORD_LEN), "20 bytes take 28 characters");
    text
}

fn password_text(password: &[u8; PASSWORD_LEN]) -> &str {
    str::from_utf8(password).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::nonce::NonceKeys;

    fn secrets(user_before_expiry: bool) -> SharedSecrets {
        SharedSecrets::new(&[Secret::new("north")], user_before_expiry, &origins())
    }

    fn origins() -> OriginKey {
        OriginKey::new(&NonceKeys { current: [7; 32], previous: None })
    }

    fn parse(username: &str, user_before_expiry: bool) -> Option<(u64, &str)> {
        secrets(user_before_expiry).parse(username).map(|name| (name.expires, name.user.unwrap_or("")))
    }

    /// draft-uberti-behave-turn-rest: a test vector of other implementations.
    #[test]
    fn the_password_matches_the_test_vector() {
        assert_eq!(time_limited_password(b"north", "12334939:mbzrxpgjys"), "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=");
    }

    /// draft-uberti-behave-turn-rest: `expiry:user` or just the expiry, which consists of digits.
    #[test]
    fn the_expiry_ends_at_the_first_colon() {
        for (name, expected) in [
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("1700000000:@alice:example.org", Some((1_700_000_000, "@alice:example.org"))),
            ("1700000000:42", Some((1_700_000_000, "42"))),
            ("1700000000", Some((1_700_000_000, ""))),
            ("1700000000:", Some((1_700_000_000, ""))),
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
            assert_eq!(parse(name, false), expected, "{name:?}");
        }
    }

    /// draft-uberti-behave-turn-rest: some implementations use `user:expiry` instead.
    #[test]
    fn the_expiry_may_follow_the_user() {
        for (name, expected) in [
            ("alice:1700000000", Some((1_700_000_000, "alice"))),
            ("@alice:example.org:1700000000", Some((1_700_000_000, "@alice:example.org"))),
            (":1700000000", Some((1_700_000_000, ""))),
            // A leading number is the expiry.
            ("1700000000:42", Some((1_700_000_000, "42"))),
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("1700000000", Some((1_700_000_000, ""))),
            // A leading number that is out of range is not.
            ("18446744073709551616:5", Some((5, "18446744073709551616"))),
            ("alice:+5", None),
            ("alice: 5", None),
            ("alice:", None),
            ("alice", None),
        ] {
            assert_eq!(parse(name, true), expected, "{name:?}");
        }
    }

    /// draft-uberti-behave-turn-rest: without a shared secret no username is time-limited.
    #[test]
    fn time_limited_usernames_need_a_secret() {
        assert_eq!(SharedSecrets::new(&[], true, &origins()).parse("1700000000:alice"), None);
    }

    proptest! {
        /// draft-uberti-behave-turn-rest: a parsed username starts or ends with digits.
        #[test]
        fn an_expiry_consists_of_digits(name in ".*", setting: bool) {
            if let Some(parsed) = secrets(setting).parse(&name) {
                let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                let (first, last) = (name.split(':').next().unwrap(), name.rsplit(':').next().unwrap());
                prop_assert!(digits(first) || setting && digits(last));
                prop_assert_ne!(parsed.user, Some(""));
            }
        }

        /// draft-uberti-behave-turn-rest: any user round-trips.
        #[test]
        fn a_username_round_trips(expiry: u64, user in ".+") {
            let name = format!("{expiry}:{user}");
            prop_assert_eq!(parse(&name, false), Some((expiry, &user[..])));
        }
    }
}
