//! One STUN message, checked once (RFC 8489 §5, §6.3 and §14) and then read without further checks.
//!
//! Which attributes count is settled here too (RFC 8489 §14.5-14.7): what follows an integrity attribute is
//! ignored, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT aside. Left out: whether an attribute may stand in this
//! method, and whether it is understood at all; that is for the server to answer.

use std::fmt;

use super::attribute::{self, Attribute};
use super::integrity::{self, Integrity};
use super::method::{Class, Method, split_type};
use super::{Malformed, padding};

/// The fixed value that tells RFC 5389 and later from classic STUN (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The 20 bytes that begin every STUN message (RFC 8489 §5).
pub(super) const HEADER: usize = 20;

/// One validated STUN message, borrowed from the bytes it came in.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    header: &'a [u8; HEADER],
    class: Class,
    method: Method,
    classic: bool,
    fingerprint: bool,
    /// The attributes that count: those before the first of the integrity attributes and FINGERPRINT.
    attributes: &'a [u8],
    sha1: Option<Integrity<'a>>,
    sha256: Option<Integrity<'a>>,
}

impl<'a> Message<'a> {
    /// Checks bytes that are exactly one message: a datagram, or what framing cut out of a stream.
    ///
    /// # Errors
    ///
    /// Returns a [`Malformed`] that says why the bytes are not a STUN message that this server understands.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Malformed::Short);
        };
        // RFC 8489 §5: the first two bits are zero.
        if header[0] & 0xC0 != 0 {
            return Err(Malformed::NotStun);
        }
        // RFC 8489 §5: the length is that of what follows the header, a multiple of four.
        if usize::from(u16::from_be_bytes([header[2], header[3]])) != body.len() || body.len() % 4 != 0 {
            return Err(Malformed::Length);
        }
        let (class, method) = split_type(u16::from_be_bytes([header[0], header[1]]));
        // RFC 8489 §11: classic STUN has no cookie. Of its methods only Binding is served (§12).
        let classic = header[4..8] != MAGIC_COOKIE.to_be_bytes();
        if classic && (class, method) != (Class::Request, Some(Method::Binding)) {
            return Err(Malformed::NotStun);
        }
        // RFC 8489 §6.3: a supported method, in a class allowed for it.
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

    /// The one pass over all attributes: their bounds, and where integrity and fingerprint stand.
    fn walk(&mut self, body: &'a [u8]) -> Result<(), Malformed> {
        let mut rest = body;
        let mut counts = true;
        while !rest.is_empty() {
            let before = &body[..body.len() - rest.len()];
            let (kind, value, after) = split_attribute(rest).ok_or(Malformed::Attribute)?;
            rest = after;
            let found = Integrity { covered: before, value };
            match kind {
                // RFC 8489 §14.5, §14.6: after MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 counts, and after
                // that nothing, so a MESSAGE-INTEGRITY behind it does not either.
                attribute::MESSAGE_INTEGRITY if counts => self.sha1 = Some(found),
                attribute::MESSAGE_INTEGRITY_SHA256 if self.sha256.is_none() => self.sha256 = Some(found),
                attribute::FINGERPRINT => {
                    // RFC 8489 §14.7: the last attribute. The length field that the CRC covers is the message's.
                    if !rest.is_empty() || value != integrity::fingerprint(self.header, before) {
                        return Err(Malformed::Fingerprint);
                    }
                    self.fingerprint = true;
                }
                _ => continue,
            }
            if counts {
                self.attributes = before;
                counts = false;
            }
        }
        Ok(())
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What is asked for or answered.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The 96 bits that join an answer to its request. Of a classic message these are the last 96 of its 128.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.header[8..]);
        TransactionId(id)
    }

    /// All that an answer repeats of the header: the cookie, or what stands in its place, and the transaction id.
    pub(super) fn cookie_and_id(&self) -> [u8; 16] {
        let mut echo = [0; 16];
        echo.copy_from_slice(&self.header[4..]);
        echo
    }

    /// Whether this is a message of RFC 3489: it has no magic cookie.
    pub fn is_classic(&self) -> bool {
        self.classic
    }

    /// Whether a FINGERPRINT was there, and right.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether a MESSAGE-INTEGRITY counts here, right or wrong, of whatever length.
    pub fn has_integrity_sha1(&self) -> bool {
        self.sha1.is_some()
    }

    /// Whether a MESSAGE-INTEGRITY-SHA256 counts here, right or wrong, of whatever length.
    pub fn has_integrity_sha256(&self) -> bool {
        self.sha256.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there and made with this key (RFC 8489 §14.5), compared in constant time.
    pub fn verify_sha1(&self, key: &[u8]) -> bool {
        self.sha1.is_some_and(|integrity| integrity.verify_sha1(self.header, key))
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, whole, and made with this key (RFC 8489 §14.6), compared in
    /// constant time. TURN allows no truncation, so anything but 32 bytes is wrong.
    pub fn verify_sha256(&self, key: &[u8]) -> bool {
        self.sha256.is_some_and(|integrity| integrity.verify_sha256(self.header, key))
    }

    /// The attributes that count, in order, without the integrity attributes and FINGERPRINT.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attributes, id: self.transaction_id() }
    }

    /// The first attribute of this kind among [`attributes`](Self::attributes): duplicates are ignored (RFC 8489 §14).
    pub fn attribute(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.method, self.class, self.transaction_id())
    }
}

/// The attributes of a message, in their order.
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

/// The first attribute and what follows its padding (RFC 8489 §14). What the padding holds does not matter.
fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[k0, k1, l0, l1], rest) = bytes.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    let rest = rest.get(padding(value.len())..)?;
    Some((u16::from_be_bytes([k0, k1]), value, rest))
}

/// What joins an answer to its request (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Encoder;
    use crate::wire::samples::{ID, append, binding};

    /// RFC 8489 §5, §6.3: every part of the header is checked.
    #[test]
    fn headers_are_checked() {
        let good = binding(|message| message.u32(attribute::LIFETIME, 1));
        assert!(Message::parse(&good).is_ok());
        for len in 0..HEADER {
            assert_eq!(Message::parse(&good[..len]).unwrap_err(), Malformed::Short);
        }
        for len in HEADER..good.len() {
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

    /// RFC 8656 §17, RFC 8489 §6.3: a class that the method does not have is refused.
    #[test]
    fn classes_are_checked() {
        for (class, method) in [
            (Class::Request, Method::Send),
            (Class::Success, Method::Data),
            (Class::Error, Method::Send),
            (Class::Indication, Method::Allocate),
            (Class::Indication, Method::ChannelBind),
        ] {
            let bytes = Encoder::new(class, method, ID).finish();
            assert_eq!(Message::parse(&bytes).unwrap_err(), Malformed::Class);
        }
        let bytes = Encoder::new(Class::Indication, Method::Binding, ID).finish();
        assert!(Message::parse(&bytes).is_ok());
    }

    /// RFC 8489 §11, §12: without the cookie only a Binding request is a message, and a classic one.
    #[test]
    fn classic_messages_are_binding_requests() {
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

    /// RFC 8489 §14: an attribute that passes the end spoils the message, also behind MESSAGE-INTEGRITY.
    #[test]
    fn attributes_stay_inside() {
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
            assert!(Message::parse(&bytes).is_ok(), "the eighth is padding, whatever it holds");
        }
    }

    /// RFC 8489 §14: only the first of several attributes of a kind counts.
    #[test]
    fn the_first_of_a_kind_counts() {
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

    /// RFC 8489 §5: a transaction id shows as hex.
    #[test]
    fn ids_show_as_hex() {
        assert_eq!(format!("{:?}", TransactionId([0xA5; 12])), "a5a5a5a5a5a5a5a5a5a5a5a5");
        let bytes = binding(|_| ());
        let shown = format!("{:?}", Message::parse(&bytes).unwrap());
        assert_eq!(shown, "Binding Request 74657374206d657373616765");
    }
}
