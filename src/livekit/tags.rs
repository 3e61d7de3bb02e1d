//! What the sidecar calls participants in user names of TURN, which travel in clear: an opaque tag of room and identity, the same at
//! every sidecar of a deployment, because it is made with the relays' shared secret.
//!
//! A tag is revoked up to a time T when its participant has left. Credentials that are issued afterwards expire later than T, so
//! a page that is loaded again works at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::auth::Secret;

/// Bytes of the HMAC that are kept.
const LEN: usize = 16;

/// What every tag begins with, so that logs of the relay show what it is.
pub const PREFIX: &str = "lk-";

/// The most revoked tags that are remembered. A relay remembers as many.
const REVOKED: usize = 1_000_000;

/// The most tags of a participant that are remembered: of that many shared secrets.
const SECRETS: usize = 4;

/// Makes tags, and knows until when they are revoked.
pub struct Tags {
    /// One for each shared secret. The first one makes the tags of credentials.
    keys: Vec<Hmac<Sha256>>,
    /// The latest T of each revoked tag, in Unix seconds.
    revoked: Arc<Mutex<HashMap<String, u64>>>,
}

impl Tags {
    /// Tags of relays with this shared secret.
    pub fn new(secret: &Secret) -> Tags {
        Tags { keys: vec![key(secret)], revoked: Arc::default() }
    }

    /// Tags of relays with these shared secrets, at least one. What is revoked stays known.
    pub fn with_secrets(&self, secrets: &[Secret]) -> Tags {
        Tags { keys: secrets.iter().take(SECRETS).map(key).collect(), revoked: self.revoked.clone() }
    }

    /// The tag of a participant in credentials that are issued now.
    pub fn tag(&self, room: &str, identity: &str) -> String {
        self.keys.first().map(|key| tag(key, room, identity)).unwrap_or_default()
    }

    /// All tags that a participant may have, separated by spaces: one for each shared secret, that of the first secret first.
    /// Credentials that were issued before the first secret was replaced have another one.
    pub fn all(&self, room: &str, identity: &str) -> String {
        let tags: Vec<_> = self.keys.iter().map(|key| tag(key, room, identity)).collect();
        tags.join(" ")
    }

    /// When a credential that is issued now expires: after `ttl` seconds, and later than any revocation of its tag. One more second
    /// keeps it apart from a revocation of this very second.
    pub fn expiry(&self, tag: &str, now: u64, ttl: u64) -> u64 {
        let revoked = self.revoked().get(tag).copied().unwrap_or(0);
        (now + ttl).max(revoked) + 1
    }

    /// Notes that a tag is revoked up to this time. Returns false if there is no room for it: what is issued afterwards might expire
    /// earlier, so it must not be revoked.
    #[must_use]
    pub fn revoke(&self, tag: &str, until: u64) -> bool {
        let mut revoked = self.revoked();
        if revoked.len() >= REVOKED && !revoked.contains_key(tag) {
            return false;
        }
        let known = revoked.entry(tag.to_owned()).or_default();
        *known = until.max(*known);
        true
    }

    /// Forgets revocations that are over.
    pub fn prune(&self, now: u64) {
        self.revoked().retain(|_, until| *until >= now);
    }

    fn revoked(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each of the tags of a participant.
pub fn each(tags: &str) -> impl Iterator<Item = &str> {
    tags.split(' ').filter(|tag| !tag.is_empty())
}

/// Whether these are tags of the same participant.
pub fn shares(some: &str, others: &str) -> bool {
    each(some).any(|tag| each(others).any(|other| other == tag))
}

/// The tags that are in one or the other. The oldest ones, at the end, make room.
pub fn union(some: &str, others: &str) -> String {
    let more = each(others).filter(|tag| !shares(some, tag));
    let all: Vec<_> = each(some).chain(more).take(SECRETS).collect();
    all.join(" ")
}

fn key(secret: &Secret) -> Hmac<Sha256> {
    let hmac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    let key = hmac(secret.as_bytes()).chain_update("hairpin-livekit participant tags");
    hmac(&key.finalize().into_bytes())
}

fn tag(key: &Hmac<Sha256>, room: &str, identity: &str) -> String {
    // The length keeps a room `a` with `bc` apart from a room `ab` with `c`.
    let hash = key.clone().chain_update((room.len() as u64).to_be_bytes());
    let hash = hash.chain_update(room).chain_update(identity).finalize().into_bytes();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&hash[..LEN]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags::new(&Secret::new("a shared secret for these tests"))
    }

    #[test]
    fn a_tag_tells_neither_room_nor_identity() {
        let tag = tags().tag("a-room", "an-identity");
        assert_eq!(tag, tags().tag("a-room", "an-identity"), "another sidecar makes the same");
        assert!(
            tag.starts_with(PREFIX)
                && !tag.contains("room")
                && !tag.contains("identity")
                && !tag.contains(':')
        );
        let others = [
            tags().tag("a-room", "another"),
            tags().tag("another", "an-identity"),
            tags().tag("a-rooma", "n-identity"),
        ];
        assert!(!others.contains(&tag));
        assert_ne!(Tags::new(&Secret::new("another secret")).tag("a-room", "an-identity"), tag);
    }

    #[test]
    fn each_secret_has_its_tag_and_a_new_first_secret_forgets_no_revocation() {
        let (old, new) = (Secret::new("the former secret"), Secret::new("the new secret"));
        let before = Tags::new(&old);
        let tag = before.tag("a-room", "alice");
        assert!(before.revoke(&tag, 9000));
        let after = before.with_secrets(&[new, old]);
        let all = after.all("a-room", "alice");
        assert_eq!(each(&all).collect::<Vec<_>>(), [&after.tag("a-room", "alice"), &tag]);
        assert_eq!((tag != after.tag("a-room", "alice"), after.expiry(&tag, 1000, 60)), (true, 9001));
        assert!(shares(&all, &tag) && !shares(&all, "") && !shares("", "") && !shares("lk-a", "lk-b lk-c"));
        assert_eq!(union("b a", "a c"), "b a c");
        assert_eq!((union("", "a"), union("a b c d", "e")), ("a".into(), "a b c d".into()));
    }

    #[test]
    fn what_is_issued_after_a_revocation_outlives_it() {
        let tags = tags();
        assert_eq!(tags.expiry("one", 1000, 60), 1061);
        // Left and came back in the same second
        assert!(tags.revoke("one", 1060));
        assert!(tags.expiry("one", 1000, 60) > 1060);
        // A clock that is ahead has revoked it
        assert!(tags.revoke("one", 9000));
        assert!(tags.revoke("one", 2000));
        assert_eq!(tags.expiry("one", 1001, 60), 9001);
        assert_eq!(tags.expiry("other", 1001, 60), 1062);
        tags.prune(9000);
        assert_eq!(tags.expiry("one", 1001, 60), 9001);
        tags.prune(9001);
        assert_eq!(tags.expiry("one", 1001, 60), 1062);
    }
}
