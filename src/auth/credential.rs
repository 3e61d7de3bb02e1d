//! A user's name and the key that proves it: RFC 8489 §9.2.2 and §18.5.1.
//!
//! Passwords do not live here: a key is derived once and kept. Fields are private and nothing prints a key.

use std::fmt;
use std::sync::Arc;

use md5::{Digest, Md5};
use sha2::Sha256;

/// One user as proved by one key. An allocation keeps the credential that opened it.
pub struct Credential {
    username: Arc<str>,
    user: Arc<str>,
    expires: Option<u64>,
    key: Key,
}

impl Credential {
    pub(super) fn new(username: &str, user: &str, expires: Option<u64>, key: Key) -> Credential {
        let username: Arc<str> = username.into();
        let user = if *user == *username { Arc::clone(&username) } else { user.into() };
        Credential { username, user, expires, key }
    }

    /// The full name as it came on the wire. RFC 8656 §5 (441) compares this one.
    pub fn username(&self) -> &Arc<str> {
        &self.username
    }

    /// The user for quota and logs: a static name, the part beside a time-limited name's expiry, or a bare expiry.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// The algorithm that derived the key.
    pub fn algorithm(&self) -> PasswordAlgorithm {
        match self.key {
            Key::Md5(_) => PasswordAlgorithm::Md5,
            Key::Sha256(_) => PasswordAlgorithm::Sha256,
        }
    }

    /// Unix seconds after which a time-limited name opens no more allocations.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("user", &self.user)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// RFC 8489 §18.5: what derives a key from a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// 0x0001, every client's before RFC 8489.
    Md5,
    /// 0x0002.
    Sha256,
}

/// The key of RFC 8489 §9.2.2. All parts are already prepared.
pub(super) enum Key {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

impl Key {
    pub(super) fn derive(algorithm: PasswordAlgorithm, username: &str, realm: &str, password: &[u8]) -> Key {
        match algorithm {
            // RFC 8489 §18.5.1.1
            PasswordAlgorithm::Md5 => Key::Md5(joined::<Md5>(username, realm, password).into()),
            // RFC 8489 §18.5.1.2
            PasswordAlgorithm::Sha256 => Key::Sha256(joined::<Sha256>(username, realm, password).into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Md5(key) => key,
            Key::Sha256(key) => key,
        }
    }
}

/// The key of RFC 8489 §9.2.2 that may be stored in a password's place, from parts already prepared with OpaqueString:
/// SIP's H(A1), and what [`Password::Md5Key`](super::Password::Md5Key) holds.
pub fn md5_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    joined::<Md5>(username, realm, password.as_bytes()).into()
}

fn joined<D: Digest>(username: &str, realm: &str, password: &[u8]) -> md5::digest::Output<D> {
    D::new()
        .chain_update(username)
        .chain_update(":")
        .chain_update(realm)
        .chain_update(":")
        .chain_update(password)
        .finalize()
}

/// RFC 8489 §14.4, from parts already prepared.
pub(super) fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(username).chain_update(":").chain_update(realm).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2.2: the example of the section.
    #[test]
    fn md5_key_of_the_rfc() {
        assert_eq!(md5_key("user", "realm", "pass"), 0x8493fbc53ba582fb4c044c456bdc40eb_u128.to_be_bytes());
    }

    /// RFC 8489 §14.4: Appendix B.1's USERHASH.
    #[test]
    fn userhash_of_the_rfc() {
        assert_eq!(
            userhash("マトリックス".as_bytes(), b"example.org"),
            [
                0x4a, 0x3c, 0xf3, 0x8f, 0xef, 0x69, 0x92, 0xbd, 0xa9, 0x52, 0xc6, 0x78, 0x04, 0x17, 0xda,
                0x0f, 0x24, 0x81, 0x94, 0x15, 0x56, 0x9e, 0x60, 0xb2, 0x05, 0xc4, 0x6e, 0x41, 0x40, 0x7f,
                0x17, 0x04,
            ]
        );
    }

    /// RFC 8489 §9.2.2: a key is as good as its password, so it stays out of every log.
    #[test]
    fn a_key_is_never_printed() {
        let key = Key::Md5([0xAB; 16]);
        let printed = format!("{:?}", Credential::new("1:bob", "bob", Some(1), key));
        assert_eq!(printed, r#"Credential { username: "1:bob", user: "bob", algorithm: Md5, .. }"#);
    }
}
