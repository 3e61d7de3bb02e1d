//! LiveKit's own credentials, which it issues for the TURN server that it embeds. Whoever has its API keys can verify them.
//!
//! ```text
//! username = b62( apiKey "|" sid "|" expiry )          sid = PA_..., the participant; expiry in Unix seconds
//! password = b62( SHA-256( apiSecret "|" sid "|" expiry ) )
//!
//! username = b62( apiKey "|" sid )                     LiveKit up to 1.11: never expires
//! password = b62( SHA-256( apiSecret "|" sid ) )
//! ```
//!
//! LiveKit issues the first form since 1.12, valid for 300 seconds unless its `turn.ttl_seconds` says otherwise, and picks any of
//! its API keys. The key of a request is made from username, realm and password as for every user (RFC 8489 §9.2.2), so the
//! realm may be another one than LiveKit's.
//!
//! A static user of the same name comes first, then a time-limited username. Neither can be confused with these: a colon is no
//! digit of base62, and four or more decimal digits do not decode to ASCII.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use sha2::{Digest, Sha256};

use super::algorithms::PasswordAlgorithm;
use super::base62;
use super::config::LiveKitKey;
use super::credential::{Credential, Key};
use super::origin::{Origin, OriginKey};
use super::verdict::AuthReason;

/// The most bytes that a username of the longest allowed length can stand for.
const DECODED_MAX: usize = 576;

/// What the sid of a participant begins with. Credentials of anybody else would share names with other users.
const PARTICIPANT: &str = "PA_";

/// The username and the password that LiveKit gives a participant, made with an API key and its secret. Without an expiry it is the
/// form that never expires.
pub fn livekit_credential(api_key: &str, secret: &[u8], sid: &str, expires: Option<u64>) -> (String, String) {
    let end = expires.map(|expires| format!("|{expires}")).unwrap_or_default();
    let username = base62::encode(format!("{api_key}|{sid}{end}").as_bytes());
    (username, password(&keyed(secret), &format!("{sid}{end}")))
}

/// The API keys, with the hash of each secret as far as it can be computed in advance.
pub(super) struct LiveKitKeys {
    by_name: BTreeMap<Box<str>, ApiSecret>,
    origins: BTreeSet<Origin>,
    /// Takes the place of an unknown secret, so that response times do not reveal which API keys exist.
    unknown: Sha256,
    two_part: bool,
}

struct ApiSecret {
    /// Of the secret and the separator behind it.
    hash: Sha256,
    origin: Origin,
}

impl LiveKitKeys {
    /// Whether credentials without an expiry are accepted is `two_part`.
    pub(super) fn new(keys: &[LiveKitKey], two_part: bool, origins: &OriginKey) -> LiveKitKeys {
        let ready = |key: &LiveKitKey| {
            let origin = origins.of_livekit_key(&key.name, key.secret.as_bytes());
            (key.name.as_str().into(), ApiSecret { hash: keyed(key.secret.as_bytes()), origin })
        };
        let by_name: BTreeMap<_, _> = keys.iter().map(ready).collect();
        let origins = by_name.values().map(|secret| secret.origin).collect();
        LiveKitKeys { by_name, origins, unknown: keyed(&[b'x'; 44]), two_part }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether there is an API key of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether a credential was made from one of them.
    pub(super) fn include(&self, origin: Origin) -> bool {
        self.origins.contains(&origin)
    }

    /// Whether a credential of this form is accepted.
    pub(super) fn accept_form(&self, name: &LiveKitUsername<'_>) -> bool {
        self.two_part || name.expires.is_some()
    }

    /// Parses a username of LiveKit. Returns `None` if there is no API key to verify it with.
    pub(super) fn parse<'a>(&self, username: &'a str) -> Option<LiveKitUsername<'a>> {
        if self.is_empty() { None } else { LiveKitUsername::parse(username) }
    }

    /// The credential, if `verify_key` accepts its key.
    pub(super) fn verify(
        &self,
        name: &LiveKitUsername<'_>,
        realm: &str,
        algorithm: PasswordAlgorithm,
        verify_key: impl Fn(&[u8]) -> bool,
    ) -> Result<Credential, AuthReason> {
        let secret = self.by_name.get(name.api_key()).filter(|_| self.accept_form(name));
        let hash = secret.map_or(&self.unknown, |secret| &secret.hash);
        let password = password(hash, name.signed());
        let key = Key::derive(algorithm, name.username, realm, password.as_bytes());
        let is_verified = black_box(verify_key(key.as_bytes()));
        match secret {
            None => Err(AuthReason::UnknownUser),
            Some(_) if !is_verified => Err(AuthReason::WrongPassword),
            Some(secret) => {
                Ok(Credential::of_person(name.username, name.sid(), name.expires, secret.origin, key))
            }
        }
    }
}

/// A parsed username of LiveKit.
pub(super) struct LiveKitUsername<'a> {
    username: &'a str,
    /// What it stands for.
    decoded: Box<str>,
    expires: Option<u64>,
}

impl<'a> LiveKitUsername<'a> {
    pub(super) fn parse(username: &'a str) -> Option<LiveKitUsername<'a>> {
        let mut buffer = [0; DECODED_MAX];
        let decoded = str::from_utf8(base62::decode(username, &mut buffer)?).ok()?;
        let mut parts = decoded.split('|');
        let (api_key, sid, expiry) = (parts.next()?, parts.next()?, parts.next());
        if api_key.is_empty() || parts.next().is_some() || sid.strip_prefix(PARTICIPANT)?.is_empty() {
            return None;
        }
        let expires = match expiry {
            Some(expiry) => Some(seconds(expiry)?),
            None => None,
        };
        Some(LiveKitUsername { username, decoded: decoded.into(), expires })
    }

    /// The API key that it was made with.
    pub(super) fn api_key(&self) -> &str {
        self.decoded.split_once('|').map_or("", |(api_key, _)| api_key)
    }

    /// What the password is made from, beside the secret.
    fn signed(&self) -> &str {
        self.decoded.split_once('|').map_or("", |(_, signed)| signed)
    }

    /// When it expires, in Unix seconds.
    pub(super) fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The participant.
    pub(super) fn sid(&self) -> &str {
        self.signed().split('|').next().unwrap_or_default()
    }
}

/// An expiry as LiveKit writes it: positive, without a sign and leading zeros.
fn seconds(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse::<i64>().ok().filter(|seconds| is_plain && *seconds > 0).map(i64::unsigned_abs)
}

/// The password, from the hash of a secret and what is signed with it.
fn password(keyed: &Sha256, signed: &str) -> String {
    base62::encode(&keyed.clone().chain_update(signed).finalize())
}

/// The hash of a secret and the separator behind it.
fn keyed(secret: &[u8]) -> Sha256 {
    Sha256::new().chain_update(secret).chain_update(b"|")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{NonceKeys, Secret};

    type Parts = (String, String, Option<u64>);

    fn parse(decoded: &str) -> Option<Parts> {
        let username = base62::encode(decoded.as_bytes());
        let name = LiveKitUsername::parse(&username)?;
        Some((name.api_key().to_owned(), name.sid().to_owned(), name.expires))
    }

    #[test]
    fn a_username_has_two_parts_or_three() {
        let parts = |expires| Some(("key".to_owned(), "PA_x".to_owned(), expires));
        for (decoded, expected) in [
            ("key|PA_x|1800000000", parts(Some(1_800_000_000))),
            ("key|PA_x|1", parts(Some(1))),
            ("key|PA_x|9223372036854775807", parts(Some(i64::MAX.unsigned_abs()))),
            ("key|PA_x", parts(None)),
            ("key|PA_x|9223372036854775808", None),
            ("key|PA_x|0", None),
            ("key|PA_x|007", None),
            ("key|PA_x|+5", None),
            ("key|PA_x|-5", None),
            ("key|PA_x|5 ", None),
            ("key|PA_x|", None),
            ("key|PA_x|5|6", None),
            ("key|PA_", None),
            ("key|", None),
            ("key|alice|1800000000", None),
            ("|PA_x|1800000000", None),
            ("key", None),
            ("|", None),
            ("||", None),
        ] {
            assert_eq!(parse(decoded), expected, "{decoded}");
        }
        assert!(LiveKitUsername::parse(&base62::encode(b"key|PA_\xFF")).is_none(), "not UTF-8");
    }

    /// A time-limited username that is only an expiry is never taken for one of LiveKit's.
    #[test]
    fn digits_do_not_decode_to_ascii() {
        for n in (1000..20_000).chain(1_700_000_000..1_700_010_000) {
            let text = n.to_string();
            let decoded = base62::decode(&text, &mut [0; DECODED_MAX]).map(<[u8]>::to_vec);
            assert!(decoded.is_none_or(|bytes| !bytes.is_ascii()), "{n}");
        }
    }

    /// RFC 8489 §9.2.4 does not ask for it, but response times must not reveal which API keys exist: whoever sends a name of this
    /// form makes the relay derive one key and verify it once.
    #[test]
    fn known_and_unknown_api_keys_cost_the_same() {
        let origins = OriginKey::new(&NonceKeys { current: [7; 32], previous: None });
        let key = LiveKitKey { name: "known".into(), secret: Secret::new("a secret") };
        let keys = LiveKitKeys::new(&[key], false, &origins);
        for (decoded, expected) in [
            ("known|PA_x|1800000000", AuthReason::WrongPassword),
            ("unknown|PA_x|1800000000", AuthReason::UnknownUser),
            ("known|PA_x", AuthReason::UnknownUser),
        ] {
            let username = base62::encode(decoded.as_bytes());
            let (name, verified) = (keys.parse(&username).unwrap(), std::cell::Cell::new(0));
            let verify_key = |key: &[u8]| {
                verified.set(verified.get() + key.len());
                false
            };
            let refused = keys.verify(&name, "realm", PasswordAlgorithm::Md5, verify_key);
            assert_eq!((refused.err(), verified.get()), (Some(expected), 16), "{decoded}");
        }
        let accepted = LiveKitUsername::parse(&base62::encode(b"unknown|PA_x|1800000000"))
            .map(|name| keys.verify(&name, "realm", PasswordAlgorithm::Md5, |_| true).err());
        assert_eq!(accepted, Some(Some(AuthReason::UnknownUser)), "even if the placeholder were right");
    }

    proptest! {
        #[test]
        fn a_username_round_trips(key in "[^|]{1,20}", sid in "[^|]{1,20}", expiry in proptest::option::of(1..i64::MAX)) {
            let end = expiry.map(|expiry| format!("|{expiry}")).unwrap_or_default();
            let expected = (key.clone(), format!("PA_{sid}"), expiry.map(i64::unsigned_abs));
            prop_assert_eq!(parse(&format!("{key}|PA_{sid}{end}")), Some(expected));
        }

        /// Whatever a client sends: no panic, and what is parsed is in the form that LiveKit writes.
        #[test]
        fn hostile_names_are_parsed_or_refused(name in "\\PC{0,200}|[A-Za-z0-9]{0,763}", decoded in "\\PC{0,30}|[k|PA_0-9]{0,30}") {
            let _ = LiveKitUsername::parse(&name).map(|name| name.sid().len());
            if let Some((api_key, sid, expires)) = parse(&decoded) {
                let end = expires.map(|expires| format!("|{expires}")).unwrap_or_default();
                prop_assert_eq!(format!("{api_key}|{sid}{end}"), decoded);
            }
        }
    }
}
