//! The user of every measured server, and long-term credentials (RFC 8489 §9.2) on the client's side.

use anyhow::{Context, Result};
use hairpin::wire::{Encoder, Message, attribute};
use md5::{Digest, Md5};

pub const USER: &str = "bench";
pub const PASSWORD: &str = "correct-horse";
pub const REALM: &str = "bench";

/// Realm, nonce and key, with which a client authenticates its requests.
pub struct Challenge {
    realm: String,
    nonce: String,
    key: [u8; 16],
}

impl Challenge {
    /// Reads the realm and nonce of an error response. Without PASSWORD-ALGORITHM the key is an MD5 hash
    /// (RFC 8489 §9.2.2).
    pub fn read(response: &Message<'_>, password: &str) -> Result<Challenge> {
        let realm = response.attribute(attribute::REALM).context("a challenge without realm")?.utf8()?;
        let nonce = response.attribute(attribute::NONCE).context("a challenge without nonce")?.utf8()?;
        let key = Md5::digest(format!("{USER}:{realm}:{password}")).into();
        Ok(Challenge { realm: realm.to_owned(), nonce: nonce.to_owned(), key })
    }

    /// Adds the credentials; only FINGERPRINT may follow.
    pub fn sign(&self, request: &mut Encoder) {
        request.text(attribute::USERNAME, USER);
        request.text(attribute::REALM, &self.realm);
        request.text(attribute::NONCE, &self.nonce);
        request.integrity_sha1(&self.key);
    }
}
