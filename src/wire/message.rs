//! A received STUN message, validated once (RFC 8489 §5, §6.3 and §14) and then read without further checks.
//!
//! Parsing also drops the attributes after an integrity attribute, except MESSAGE-INTEGRITY-SHA256 and FINGERPRINT
//! (RFC 8489 §14.5-14.7). Deliberately not here: whether an attribute is understood and allowed in the method, which the
//! server decides because it sends an error response.

use std::fmt;

use super::attribute::{self, Attribute};
use super::integrity::{self, Integrity};
use super::layout::{MAGIC_COOKIE, STUN_HEADER, TransactionId, padding};
use super::malformed::Malformed;
use super::method::{Class, Method, split_type};

/// A validated STUN message, borrowed from the received bytes.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    header: &'a [u8; STUN_HEADER],
    class: Class,
    method: Method,
    classic: bool,
    fingerprint: bool,
    /// The attributes before the first integrity attribute or FINGERPRINT.
    attributes: &'a [u8],
    sha1: Option<Integrity<'a>>,
    sha256: Option<Integrity<'a>>,
}

impl<'a> Message<'a> {
    /// Validates `bytes` as exactly one message: a datagram, or one frame of a stream.
    ///
    /// # Errors
    ///
    /// Returns a [`Malformed`] that says why the bytes are not a STUN message that this server understands.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let Some((header, body)) = bytes.split_first_chunk::<STUN_HEADER>() else {
            return Err(Malformed::Short);
        };
        // RFC 8489 §5: the first two bits are zero.
        if header[0] & 0xC0 != 0 {
            return Err(Malformed::NotStun);
        }
        // RFC 8489 §5: the length field excludes the header and is a multiple of four.
        if usize::from(u16::from_be_bytes([header[2], header[3]])) != body.len() || body.len() % 4 != 0 {
            return Err(Malformed::Length);
        }
        let (class, method) = split_type(u16::from_be_bytes([header[0], header[1]]));
        // RFC 8489 §11, §12: classic STUN has no magic cookie, and only its Binding requests are supported.
        let classic = header[4..8] != MAGIC_COOKIE.to_be_bytes();
        if classic && (class, method) != (Class::Request, Some(Method::Binding)) {
            return Err(Malformed::NotStun);
        }
        // RFC 8489 §6.3: the method is supported and the class allowed for it.
        let method = method.ok_or(Malformed::Method)?;
        if !method.allows(class) {
            return Err(Malformed::Class);
        }
        let mut message = Message {
            header,
            class,
            method,
            classic,
            fingerprint: false,
            attributes: body,
            sha1: None,
            sha256: None,
        };
        message.walk(body)?;
        Ok(message)
    }

    /// Checks the bounds of all attributes and finds integrity and FINGERPRINT, in a single pass.
    fn walk(&mut self, body: &'a [u8]) -> Result<(), Malformed> {
        let mut rest = body;
        let mut sealed = false;
        while !rest.is_empty() {
            let before = &body[..body.len() - rest.len()];
            let (kind, value, after) = split_attribute(rest).ok_or(Malformed::Attribute)?;
            rest = after;
            let found = Integrity { covered: before, value };
            match kind {
                // RFC 8489 §14.5, §14.6: MESSAGE-INTEGRITY-SHA256 is processed after MESSAGE-INTEGRITY, but not the
                // other way round.
                attribute::MESSAGE_INTEGRITY if !sealed => self.sha1 = Some(found),
                attribute::MESSAGE_INTEGRITY_SHA256 if self.sha256.is_none() => self.sha256 = Some(found),
                attribute::FINGERPRINT => {
                    // RFC 8489 §14.7: FINGERPRINT is last, so the CRC covers the header as it is.
                    if !rest.is_empty() || value != integrity::fingerprint(self.header, before) {
                        return Err(Malformed::Fingerprint);
                    }
                    self.fingerprint = true;
                }
                _ => continue,
            }
            if !sealed {
                self.attributes = before;
                sealed = true;
            }
        }
        Ok(())
    }

    /// The class: request, indication, success response or error response.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The transaction ID. For a classic message these are the last 96 of its 128 bits.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.header[8..]);
        TransactionId(id)
    }

    /// The header bytes that a response repeats: the magic cookie, or its place in a classic message, and transaction ID.
    pub(super) fn cookie_and_id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.header[4..]);
        bytes
    }

    /// Whether this is a message of classic STUN (RFC 3489), which has no magic cookie.
    pub fn is_classic(&self) -> bool {
        self.classic
    }

    /// Whether the message has a FINGERPRINT. A wrong one is malformed.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether the message has a MESSAGE-INTEGRITY, verified or not.
    pub fn has_integrity_sha1(&self) -> bool {
        self.sha1.is_some()
    }

    /// Whether the message has a MESSAGE-INTEGRITY-SHA256, verified or not.
    pub fn has_integrity_sha256(&self) -> bool {
        self.sha256.is_some()
    }

    /// Whether the message has a MESSAGE-INTEGRITY made with `key` (RFC 8489 §14.5). Compares in constant time.
    pub fn verify_sha1(&self, key: &[u8]) -> bool {
        self.sha1.is_some_and(|integrity| integrity.verify_sha1(self.header, key))
    }

    /// Whether the message has a MESSAGE-INTEGRITY-SHA256 made with `key` (RFC 8489 §14.6) and not truncated, which TURN
    /// does not allow. Compares in constant time.
    pub fn verify_sha256(&self, key: &[u8]) -> bool {
        self.sha256.is_some_and(|integrity| integrity.verify_sha256(self.header, key))
    }

    /// The attributes in order, up to the first integrity attribute or FINGERPRINT.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attributes, id: self.transaction_id() }
    }

    /// The first of the [`attributes`](Self::attributes) of this type. Duplicates are ignored (RFC 8489 §14).
    pub fn attribute(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.method, self.class, self.transaction_id())
    }
}

/// Iterator over the attributes of a message.
#[derive(Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    id: TransactionId,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (kind, value, rest) = split_attribute(self.rest)?;
        self.rest = rest;
        Some(Attribute::new(kind, value, self.id))
    }
}

/// Splits off the first attribute and its padding, whose content is ignored (RFC 8489 §14).
fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[k0, k1, l0, l1], rest) = bytes.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    let rest = rest.get(padding(value.len())..)?;
    Some((u16::from_be_bytes([k0, k1]), value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Encoder;
    use crate::wire::samples::{ID, append, binding};

    /// RFC 8489 §5, §6.3: every field of the header is checked.
    #[test]
    fn the_header_is_checked() {
        let good = binding(|message| message.u32(attribute::LIFETIME, 1));
        assert!(Message::parse(&good).is_ok());
        for len in 0..STUN_HEADER {
            assert_eq!(Message::parse(&good[..len]).unwrap_err(), Malformed::Short);
        }
        for len in STUN_HEADER..good.len() {
            assert_eq!(Message::parse(&good[..len]).unwrap_err(), Malformed::Length);
        }
        let with = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            Message::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 0x40), Malformed::NotStun);
        assert_eq!(with(0, 0x80), Malformed::NotStun);
        assert_eq!(with(3, 4), Malformed::Length);
        assert_eq!(with(3, 9), Malformed::Length);
        assert_eq!(with(1, 0x02), Malformed::Method);
        assert_eq!(with(0, 0x3E), Malformed::Method);
        let longer = [&good[..], &[0]].concat();
        assert_eq!(Message::parse(&longer).unwrap_err(), Malformed::Length);
        let odd = [&[0, 1, 0, 1], &good[4..20], &[0]].concat();
        assert_eq!(Message::parse(&odd).unwrap_err(), Malformed::Length);
    }

    /// RFC 8656 §17, RFC 8489 §6.3: the class must be allowed for the method.
    #[test]
    fn the_class_is_checked() {
        use Method::{Allocate, Binding, ChannelBind, CreatePermission, Data, Refresh, Send};
        for method in [Binding, Allocate, Refresh, Send, Data, CreatePermission, ChannelBind] {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let allowed = match class {
                    Class::Indication => matches!(method, Binding | Send | Data),
                    Class::Request | Class::Success | Class::Error => !matches!(method, Send | Data),
                };
                let bytes = Encoder::new(class, method, ID).finish();
                let error = Message::parse(&bytes).err();
                assert_eq!(error, (!allowed).then_some(Malformed::Class), "{method:?} {class:?}");
            }
        }
    }

    /// RFC 8489 §5: all twelve method bits are compared, so only the message types of the seven methods are known.
    #[test]
    fn other_methods_are_rejected() {
        let mut bytes = binding(|_| ());
        let known = (0..0x4000_u16).filter(|message_type| {
            bytes[..2].copy_from_slice(&message_type.to_be_bytes());
            Message::parse(&bytes).err() != Some(Malformed::Method)
        });
        assert_eq!(known.count(), 7 * 4);
    }

    /// RFC 8489 §11, §12: without the magic cookie, only a Binding request is accepted, as a classic message.
    #[test]
    fn only_binding_requests_may_be_classic() {
        for (class, method, classic) in [
            (Class::Request, Method::Binding, true),
            (Class::Indication, Method::Binding, false),
            (Class::Success, Method::Binding, false),
            (Class::Request, Method::Allocate, false),
            (Class::Indication, Method::Send, false),
        ] {
            let mut bytes = Encoder::new(class, method, ID).finish();
            assert!(!Message::parse(&bytes).unwrap().is_classic());
            bytes[4] ^= 1;
            match Message::parse(&bytes) {
                Ok(message) => assert!(classic && message.is_classic()),
                Err(reason) => assert!(!classic && reason == Malformed::NotStun),
            }
        }
    }

    /// RFC 8489 §14: an attribute beyond the end of the message is malformed, also after MESSAGE-INTEGRITY.
    #[test]
    fn attributes_must_not_exceed_the_message() {
        for sealed in [false, true] {
            let mut bytes = binding(|message| {
                message.text(attribute::SOFTWARE, "sixteen letters!");
                if sealed {
                    message.integrity_sha1(b"key");
                }
            });
            append(&mut bytes, attribute::REALM, b"12345678");
            assert!(Message::parse(&bytes).is_ok());
            let length = bytes.len() - 9;
            for len in [9, 12, 0xFF] {
                bytes[length] = len;
                assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Attribute, "{len} of 8");
            }
            bytes[length] = 7;
            assert!(Message::parse(&bytes).is_ok(), "the eighth byte is padding, whose content is ignored");
        }
    }

    /// RFC 8489 §14: duplicates of an attribute are ignored.
    #[test]
    fn the_first_of_several_attributes_is_used() {
        let bytes = binding(|message| {
            message.u32(attribute::LIFETIME, 1);
            message.text(attribute::REALM, "example.org");
            message.u32(attribute::LIFETIME, 2);
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.attribute(attribute::LIFETIME).unwrap().u32(), Ok(1));
        assert_eq!(message.attributes().count(), 3);
        assert!(message.attribute(attribute::NONCE).is_none());
    }

    /// RFC 8489 §5: the transaction ID is shown as hex.
    #[test]
    fn debug_output_shows_the_transaction_id_as_hex() {
        let bytes = binding(|_| ());
        let shown = format!("{:?}", Message::parse(&bytes).unwrap());
        assert_eq!(shown, "Binding Request 74657374206d657373616765");
    }
}
