//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5-14.7): which bytes are hashed, and with
//! which value of the length field. Only the header is copied for this, not the message.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::layout::STUN_HEADER;

/// Length of an HMAC-SHA1 in bytes.
pub(super) const SHA1: usize = 20;
/// Length of an HMAC-SHA256 in bytes.
pub(super) const SHA256: usize = 32;

/// An integrity attribute of a received message.
#[derive(Clone, Copy)]
pub(super) struct Integrity<'a> {
    /// The attributes before it, which the HMAC covers.
    pub covered: &'a [u8],
    /// The received HMAC, of any length.
    pub value: &'a [u8],
}

impl Integrity<'_> {
    /// RFC 8489 §14.5: the value is exactly 20 bytes long.
    pub fn verify_sha1(self, header: &[u8; STUN_HEADER], key: &[u8]) -> bool {
        self.value.len() == SHA1
            && hmac::<Hmac<Sha1>>(header, self.covered, SHA1, key).verify_slice(self.value).is_ok()
    }

    /// RFC 8489 §14.6: the value is the full 32 bytes, because TURN does not allow truncation.
    pub fn verify_sha256(self, header: &[u8; STUN_HEADER], key: &[u8]) -> bool {
        self.value.len() == SHA256
            && hmac::<Hmac<Sha256>>(header, self.covered, SHA256, key).verify_slice(self.value).is_ok()
    }
}

/// The HMAC-SHA1 of a message whose attributes so far are `covered`.
pub(super) fn sha1(header: &[u8; STUN_HEADER], covered: &[u8], key: &[u8]) -> [u8; SHA1] {
    hmac::<Hmac<Sha1>>(header, covered, SHA1, key).finalize().into_bytes().into()
}

/// The HMAC-SHA256 of a message whose attributes so far are `covered`.
pub(super) fn sha256(header: &[u8; STUN_HEADER], covered: &[u8], key: &[u8]) -> [u8; SHA256] {
    hmac::<Hmac<Sha256>>(header, covered, SHA256, key).finalize().into_bytes().into()
}

/// RFC 8489 §14.5, §14.6: the length field is hashed as if the message ended with the integrity attribute.
fn hmac<M: Mac + KeyInit>(header: &[u8; STUN_HEADER], covered: &[u8], value: usize, key: &[u8]) -> M {
    let len = u16::try_from(covered.len() + 4 + value).expect("a message has a 16-bit length");
    let mut header = *header;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&header);
    mac.update(covered);
    mac
}

/// RFC 8489 §14.7: the value of a FINGERPRINT after the attributes `covered`. The length field of `header` is final.
pub(super) fn fingerprint(header: &[u8; STUN_HEADER], covered: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(covered);
    (crc.finalize() ^ 0x5354_554E).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use crate::wire::samples::{ID, append, binding};
    use crate::wire::{Class, Encoder, Malformed, Message, Method, attribute};

    use super::*;

    /// RFC 8489 §14.5, §14.6: after MESSAGE-INTEGRITY every attribute but MESSAGE-INTEGRITY-SHA256 is ignored, although the
    /// HMAC of the latter covers them.
    #[test]
    fn attributes_after_integrity_are_ignored() {
        let mut signed = Encoder::new(Class::Request, Method::Allocate, ID);
        signed.text(attribute::USERNAME, "alice");
        signed.integrity_sha1(b"key");
        let mut bytes = signed.finish();
        append(&mut bytes, attribute::USERNAME, b"bob");
        append(&mut bytes, attribute::LIFETIME, &[0; 4]);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_sha1(b"key") && !message.has_integrity_sha256());
        assert_eq!(message.attributes().map(|attribute| attribute.value).collect::<Vec<_>>(), [b"alice"]);
        assert!(message.attribute(attribute::LIFETIME).is_none());

        let header = *bytes.first_chunk().unwrap();
        let mac = sha256(&header, &bytes[STUN_HEADER..], b"other key");
        append(&mut bytes, attribute::MESSAGE_INTEGRITY_SHA256, &mac);
        append(&mut bytes, attribute::REALM, b"ignored");
        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_sha1(b"key") && message.verify_sha256(b"other key"));
        assert_eq!(message.attributes().count(), 1);
    }

    /// RFC 8489 §14.6: a MESSAGE-INTEGRITY after MESSAGE-INTEGRITY-SHA256 is ignored.
    #[test]
    fn sha1_after_sha256_is_ignored() {
        let mut bytes = binding(|message| message.integrity_sha256(b"key"));
        let mac = sha1(bytes.first_chunk().unwrap(), &bytes[STUN_HEADER..], b"key");
        append(&mut bytes, attribute::MESSAGE_INTEGRITY, &mac);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_sha256(b"key"));
        assert!(!message.has_integrity_sha1() && !message.verify_sha1(b"key"));
    }

    /// RFC 8489 §14: duplicates of an integrity attribute are ignored, even if only the second verifies.
    #[test]
    fn a_second_integrity_attribute_is_ignored() {
        for first_is_right in [true, false] {
            let mut bytes = binding(|_| ());
            for right in [first_is_right, !first_is_right] {
                let key: &[u8] = if right { b"key" } else { b"other" };
                let mac = sha1(bytes.first_chunk().unwrap(), &bytes[STUN_HEADER..], key);
                append(&mut bytes, attribute::MESSAGE_INTEGRITY, &mac);
            }
            for right in [first_is_right, !first_is_right] {
                let key: &[u8] = if right { b"key" } else { b"other" };
                let mac = sha256(bytes.first_chunk().unwrap(), &bytes[STUN_HEADER..], key);
                append(&mut bytes, attribute::MESSAGE_INTEGRITY_SHA256, &mac);
            }
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.verify_sha1(b"key"), first_is_right);
            assert_eq!(message.verify_sha256(b"key"), first_is_right);
        }
    }

    /// RFC 8489 §14.5, §14.6: an HMAC of another length, such as a truncated one, is present but never verifies.
    #[test]
    fn integrity_of_another_length_never_verifies() {
        let empty = binding(|_| ());
        let header = empty.first_chunk().unwrap();
        let macs = [sha1(header, &[], b"key").to_vec(), sha256(header, &[], b"key").to_vec()];
        for len in 0..=40 {
            let [short, long] = macs.clone().map(|mut value| {
                value.resize(len, 0);
                value
            });
            let mut bytes = empty.clone();
            append(&mut bytes, attribute::MESSAGE_INTEGRITY, &short);
            let message = Message::parse(&bytes).unwrap();
            assert!(message.has_integrity_sha1() && !message.has_integrity_sha256());
            assert_eq!(message.verify_sha1(b"key"), len == SHA1);

            let mut bytes = empty.clone();
            append(&mut bytes, attribute::MESSAGE_INTEGRITY_SHA256, &long);
            let message = Message::parse(&bytes).unwrap();
            assert!(message.has_integrity_sha256() && !message.has_integrity_sha1());
            assert_eq!(message.verify_sha256(b"key"), len == SHA256);
        }
    }

    /// RFC 8489 §14.5: the HMAC covers everything before it, and all of its own bits are compared.
    #[test]
    fn any_flipped_bit_breaks_integrity() {
        let good = binding(|message| {
            message.text(attribute::USERNAME, "alice");
            message.integrity_sha1(b"key");
        });
        for place in (8..28).chain(32..good.len()) {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << bit;
                if let Ok(message) = Message::parse(&bytes) {
                    assert!(!message.verify_sha1(b"key"), "byte {place}, bit {bit}");
                }
            }
        }
        assert!(Message::parse(&good).unwrap().verify_sha1(b"key"));
        assert!(!Message::parse(&good).unwrap().verify_sha1(b""));
    }

    /// RFC 8489 §7, §14.7: a message is malformed unless its FINGERPRINT is last, four bytes long and correct.
    #[test]
    fn fingerprints_are_checked() {
        let good = binding(|message| {
            message.integrity_sha1(b"key");
            message.fingerprint();
        });
        let message = Message::parse(&good).unwrap();
        assert!(message.has_fingerprint() && message.verify_sha1(b"key"));
        assert_eq!(message.attributes().count(), 0);

        for place in (8..20).chain(24..44).chain(48..52) {
            let mut bytes = good.clone();
            bytes[place] ^= 0x10;
            assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Fingerprint, "byte {place}");
        }
        let mut followed = good.clone();
        append(&mut followed, attribute::SOFTWARE, b"");
        assert_eq!(Message::parse(&followed).unwrap_err(), Malformed::Fingerprint);
        let mut short = binding(|_| ());
        append(&mut short, attribute::FINGERPRINT, &[0; 3]);
        assert_eq!(Message::parse(&short).unwrap_err(), Malformed::Fingerprint);
        assert!(!Message::parse(&binding(|_| ())).unwrap().has_fingerprint());
    }
}
