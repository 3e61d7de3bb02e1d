//! User names and the keys derived from passwords: RFC 8489 §9.2.2 and §18.5.1.
//!
//! Keys are derived once, passwords are not kept, and keys are never printed.

use std::fmt;
use std::sync::Arc;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::account::Account;
use super::algorithms::PasswordAlgorithm;
use super::origin::Origin;

/// A user and one of the user's keys. An allocation keeps the credential that created it.
pub struct Credential {
    username: Arc<str>,
    account: Account,
    expires: Option<u64>,
    origin: Origin,
    key: Key,
}

impl Credential {
    /// The credential of a static user.
    pub(super) fn of_static_user(account: &Account, origin: Origin, key: Key) -> Credential {
        Credential { username: account.name().clone(), account: account.clone(), expires: None, origin, key }
    }

    /// A time-limited credential. `user` is the part of its username beside the expiry, if there is one.
    pub(super) fn time_limited(
        username: &str,
        user: Option<&str>,
        expires: u64,
        origin: Origin,
        key: Key,
    ) -> Credential {
        match user {
            Some(user) => Credential::of_person(username, user, Some(expires), origin, key),
            None => {
                let account = Account::expiry_only(username.trim_matches(':'));
                Credential { username: username.into(), account, expires: Some(expires), origin, key }
            }
        }
    }

    /// A credential of a user whom its username names.
    pub(super) fn of_person(
        username: &str,
        user: &str,
        expires: Option<u64>,
        origin: Origin,
        key: Key,
    ) -> Credential {
        Credential { username: username.into(), account: Account::person(user), expires, origin, key }
    }

    /// The credential of a probe.
    pub(super) fn of_probe(username: &str, expires: u64, origin: Origin, key: Key) -> Credential {
        Credential {
            username: username.into(),
            account: Account::probe(),
            expires: Some(expires),
            origin,
            key,
        }
    }

    /// The full USERNAME as sent by the client, which RFC 8656 §5 (441) compares.
    pub(super) fn username(&self) -> &Arc<str> {
        &self.username
    }

    /// Whom quotas and rates count: the user in a time-limited username, a participant of LiveKit, or a name that many clients
    /// share.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The user for logs: a time-limited username without its expiry unless that is all of it, the sid of a participant of LiveKit,
    /// or the name of a static user.
    pub fn user(&self) -> &Arc<str> {
        self.account.name()
    }

    /// The algorithm that derived the key.
    pub(super) fn algorithm(&self) -> PasswordAlgorithm {
        match self.key {
            Key::Md5(_) => PasswordAlgorithm::Md5,
            Key::Sha256(_) => PasswordAlgorithm::Sha256,
        }
    }

    /// Unix time in seconds after which a credential creates no more allocations. That of a static user has none, nor has one of
    /// the older form of LiveKit.
    pub(super) fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Whether it expires up to this time, in Unix seconds, or has no expiry.
    pub(crate) fn expires_by(&self, unix: u64) -> bool {
        self.expires.is_none_or(|expires| expires <= unix)
    }

    /// What it was made from.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("user", self.user())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// The key of RFC 8489 §9.2.2.
pub(super) enum Key {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

impl Key {
    /// Derives a key from parts already prepared with OpaqueString.
    pub(super) fn derive(algorithm: PasswordAlgorithm, username: &str, realm: &str, password: &[u8]) -> Key {
        match algorithm {
            // RFC 8489 §18.5.1.1
            PasswordAlgorithm::Md5 => Key::Md5(hash_parts::<Md5>(username, realm, password).into()),
            // RFC 8489 §18.5.1.2
            PasswordAlgorithm::Sha256 => Key::Sha256(hash_parts::<Sha256>(username, realm, password).into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Md5(key) => key,
            Key::Sha256(key) => key,
        }
    }
}

/// Derives the MD5 key of RFC 8489 §9.2.2 from parts already prepared with OpaqueString. It is SIP's H(A1), and may be stored
/// instead of a password as [`Password::Md5Key`](super::Password::Md5Key).
pub fn md5_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    hash_parts::<Md5>(username, realm, password.as_bytes()).into()
}

fn hash_parts<D: Digest>(username: &str, realm: &str, password: &[u8]) -> md5::digest::Output<D> {
    D::new()
        .chain_update(username)
        .chain_update(":")
        .chain_update(realm)
        .chain_update(":")
        .chain_update(password)
        .finalize()
}

/// The value of USERHASH (RFC 8489 §14.4), from parts already prepared with OpaqueString.
pub(super) fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(username).chain_update(":").chain_update(realm).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::nonce::NonceKeys;
    use crate::auth::origin::OriginKey;

    /// RFC 8489 §9.2.2: the example in that section.
    #[test]
    fn md5_key_matches_the_rfc() {
        assert_eq!(md5_key("user", "realm", "pass"), 0x8493fbc53ba582fb4c044c456bdc40eb_u128.to_be_bytes());
    }

    /// RFC 8489 §9.2.2: a key does not appear in debug output, because it is as good as the password.
    #[test]
    fn debug_output_hides_the_key() {
        let key = Key::Md5([0xAB; 16]);
        let origin = OriginKey::new(&NonceKeys { current: [7; 32], previous: None }).of_secret(b"north");
        let printed = format!("{:?}", Credential::time_limited("1:bob", Some("bob"), 1, origin, key));
        assert_eq!(printed, r#"Credential { username: "1:bob", user: "bob", algorithm: Md5, .. }"#);
    }
}
