//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5-14.7): what is hashed, and with
//! which length in the header. The message is never copied for it: the header is hashed apart from the rest.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::message::HEADER;

/// Bytes of an HMAC-SHA1.
pub(super) const SHA1: usize = 20;
/// Bytes of an HMAC-SHA256.
pub(super) const SHA256: usize = 32;

/// An integrity attribute as it stands in a message.
#[derive(Clone, Copy)]
pub(super) struct Integrity<'a> {
    /// The attributes before it.
    pub covered: &'a [u8],
    /// The HMAC it claims, of whatever length.
    pub value: &'a [u8],
}

impl Integrity<'_> {
    /// RFC 8489 §14.5: a value that is not 20 bytes long is no HMAC-SHA1, so never right.
    pub fn verify_sha1(self, header: &[u8; HEADER], key: &[u8]) -> bool {
        self.value.len() == SHA1
            && hmac::<Hmac<Sha1>>(header, self.covered, SHA1, key).verify_slice(self.value).is_ok()
    }

    /// RFC 8489 §14.6: the full 32 bytes, as this usage allows no truncation.
    pub fn verify_sha256(self, header: &[u8; HEADER], key: &[u8]) -> bool {
        self.value.len() == SHA256
            && hmac::<Hmac<Sha256>>(header, self.covered, SHA256, key).verify_slice(self.value).is_ok()
    }
}

/// HMAC-SHA1 of a message whose attributes so far are `covered`.
pub(super) fn sha1(header: &[u8; HEADER], covered: &[u8], key: &[u8]) -> [u8; SHA1] {
    hmac::<Hmac<Sha1>>(header, covered, SHA1, key).finalize().into_bytes().into()
}

/// HMAC-SHA256 of a message whose attributes so far are `covered`.
pub(super) fn sha256(header: &[u8; HEADER], covered: &[u8], key: &[u8]) -> [u8; SHA256] {
    hmac::<Hmac<Sha256>>(header, covered, SHA256, key).finalize().into_bytes().into()
}

/// RFC 8489 §14.5, §14.6: the header's length points to the end of the integrity attribute itself, whatever follows.
fn hmac<M: Mac + KeyInit>(header: &[u8; HEADER], covered: &[u8], value: usize, key: &[u8]) -> M {
    let len =
        u16::try_from(covered.len() + 4 + value).expect("it stands in a message, whose length has 16 bits");
    let mut header = *header;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&header);
    mac.update(covered);
    mac
}

/// RFC 8489 §14.7: the value of the FINGERPRINT that follows the attributes `covered`. `header` has its final length.
pub(super) fn fingerprint(header: &[u8; HEADER], covered: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(covered);
    (crc.finalize() ^ 0x5354_554E).to_be_bytes()
}
