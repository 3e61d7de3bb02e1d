//! What a credential was made from: a shared secret, an API key of LiveKit or a user's password, as a keyed hash. It tells after a reload whether that
//! is still in the configuration, without keeping secrets and passwords, and whatever the realm was.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::config::Password;
use super::nonce::NonceKeys;

/// Bytes of the hash that are kept.
const LEN: usize = 16;

/// The keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin([u8; LEN]);

/// Makes them, with a key that lasts as long as that of the nonces.
pub(super) struct OriginKey(Hmac<Sha256>);

impl OriginKey {
    pub(super) fn new(keys: &NonceKeys) -> OriginKey {
        let keyed = Hmac::<Sha256>::new_from_slice(&keys.current).expect("HMAC takes keys of any length");
        let key = keyed.chain_update("hairpin origin of credentials").finalize().into_bytes();
        OriginKey(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"))
    }

    pub(super) fn of_secret(&self, secret: &[u8]) -> Origin {
        self.of(b"secret:", secret)
    }

    pub(super) fn of_password(&self, password: &Password) -> Origin {
        match password {
            Password::Plain(password) => self.of(b"password:", password.as_bytes()),
            Password::Md5Key(key) => self.of(b"key:", key),
        }
    }

    /// An API key with its secret. The length of the name tells where the secret begins.
    pub(super) fn of_livekit_key(&self, name: &str, secret: &[u8]) -> Origin {
        let length = (name.len() as u64).to_be_bytes();
        self.of(b"livekit:", &[&length, name.as_bytes(), secret].concat())
    }

    /// The keys of this process.
    pub(super) fn of_probes(&self) -> Origin {
        self.of(b"probe:", b"")
    }

    fn of(&self, kind: &[u8], bytes: &[u8]) -> Origin {
        let hash = self.0.clone().chain_update(kind).chain_update(bytes).finalize().into_bytes();
        let mut kept = [0; LEN];
        kept.copy_from_slice(&hash[..LEN]);
        Origin(kept)
    }
}
