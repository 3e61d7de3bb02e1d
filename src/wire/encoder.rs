//! Answers and indications, encoded into a `Vec` (RFC 8489 §5, §6.3.1.1, §14). For the control path only: relayed
//! data has its headers written in place.

use std::net::SocketAddr;

use super::address::AddressValue;
use super::message::HEADER;
use super::method::message_type;
use super::{Class, Family, MAGIC_COOKIE, Message, Method, TransactionId, attribute, integrity, padding};

/// One message in the making. Attributes stand in the order they are added; integrity comes after all others, and
/// FINGERPRINT last.
pub struct Encoder {
    out: Vec<u8>,
    classic: bool,
    sealed: Sealed,
}

/// What may still be added (RFC 8489 §14.5-14.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sealed {
    Open,
    Sha1,
    Sha256,
    Fingerprint,
}

impl Encoder {
    /// A message of its own.
    pub fn new(class: Class, method: Method, id: TransactionId) -> Encoder {
        let mut echo = [0; 16];
        echo[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        echo[4..].copy_from_slice(&id.0);
        Encoder::start(class, method, &echo, false)
    }

    /// An answer: the request's method and transaction id (RFC 8489 §6.3.1.1), of a classic request all 16 bytes.
    pub fn response(request: &Message<'_>, class: Class) -> Encoder {
        Encoder::start(class, request.method(), &request.cookie_and_id(), request.is_classic())
    }

    /// An error answer with its ERROR-CODE.
    pub fn error_response(request: &Message<'_>, code: u16, reason: &str) -> Encoder {
        let mut answer = Encoder::response(request, Class::Error);
        answer.error_code(code, reason);
        answer
    }

    fn start(class: Class, method: Method, echo: &[u8; 16], classic: bool) -> Encoder {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&message_type(class, method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(echo);
        Encoder { out, classic, sealed: Sealed::Open }
    }

    /// An attribute with this value, padded with zeros (RFC 8489 §14).
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        debug_assert!(self.sealed == Sealed::Open, "attributes come before integrity and FINGERPRINT");
        self.push(kind, value);
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len()).expect("an attribute's length has 16 bits");
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len() + padding(value.len()), 0);
    }

    /// A 32-bit number, such as LIFETIME.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text, such as REALM.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.prefixed_text(kind, &[], value);
    }

    /// Text behind some bytes. For classic clients, who know no padding, it is filled up with spaces (RFC 3489 §11.2.9).
    fn prefixed_text(&mut self, kind: u16, prefix: &[u8], text: &str) {
        let mut value = [prefix, text.as_bytes()].concat();
        if self.classic {
            value.resize(value.len() + padding(value.len()), b' ');
        }
        self.bytes(kind, &value);
    }

    /// An address, XORed with the magic cookie and the transaction id (RFC 8489 §14.2).
    pub fn xor_address(&mut self, kind: u16, addr: SocketAddr) {
        let mut id = [0; 12];
        id.copy_from_slice(&self.out[8..HEADER]);
        self.bytes(kind, AddressValue::xor(addr, TransactionId(id)).bytes());
    }

    /// MAPPED-ADDRESS, the plain address that classic clients read (RFC 8489 §14.1).
    pub fn mapped_address(&mut self, addr: SocketAddr) {
        self.bytes(attribute::MAPPED_ADDRESS, AddressValue::plain(addr).bytes());
    }

    /// UNKNOWN-ATTRIBUTES, of an answer with code 420 (RFC 8489 §14.13). A classic client is told an even number
    /// of them, the last one twice if need be (RFC 3489 §11.2.10).
    pub fn unknown_attributes(&mut self, kinds: &[u16]) {
        let repeated = if self.classic && kinds.len() % 2 == 1 { kinds.last() } else { None };
        let value: Vec<u8> = kinds.iter().chain(repeated).flat_map(|kind| kind.to_be_bytes()).collect();
        self.bytes(attribute::UNKNOWN_ATTRIBUTES, &value);
    }

    /// ERROR-CODE (RFC 8489 §14.8).
    pub fn error_code(&mut self, code: u16, reason: &str) {
        self.code(attribute::ERROR_CODE, 0, code, reason);
    }

    /// ICMP (RFC 8656 §18.13). Type and code take a byte each, as they do in ICMP and as clients read them; the figure
    /// there draws 7 and 9 bits.
    pub fn icmp(&mut self, kind: u8, code: u8, data: u32) {
        let [a, b, c, d] = data.to_be_bytes();
        self.bytes(attribute::ICMP, &[0, 0, kind, code, a, b, c, d]);
    }

    /// ADDRESS-ERROR-CODE: why one family of a dual allocation was not given (RFC 8656 §18.12).
    pub fn address_error_code(&mut self, family: Family, code: u16, reason: &str) {
        self.code(attribute::ADDRESS_ERROR_CODE, family.code(), code, reason);
    }

    /// The shape that ERROR-CODE (RFC 8489 §14.8) and ADDRESS-ERROR-CODE share.
    fn code(&mut self, kind: u16, first: u8, code: u16, reason: &str) {
        debug_assert!((300..700).contains(&code) && reason.chars().count() < 128);
        self.prefixed_text(kind, &[first, 0, (code / 100) as u8, (code % 100) as u8], reason);
    }

    /// MESSAGE-INTEGRITY over all so far (RFC 8489 §14.5).
    pub fn integrity_sha1(&mut self, key: &[u8]) {
        self.seal(Sealed::Sha1);
        let (header, covered) = self.split();
        let mac = integrity::sha1(header, covered, key);
        self.push(attribute::MESSAGE_INTEGRITY, &mac);
    }

    /// MESSAGE-INTEGRITY-SHA256 over all so far (RFC 8489 §14.6).
    pub fn integrity_sha256(&mut self, key: &[u8]) {
        self.seal(Sealed::Sha256);
        let (header, covered) = self.split();
        let mac = integrity::sha256(header, covered, key);
        self.push(attribute::MESSAGE_INTEGRITY_SHA256, &mac);
    }

    /// FINGERPRINT over all so far (RFC 8489 §14.7).
    pub fn fingerprint(&mut self) {
        self.seal(Sealed::Fingerprint);
        self.set_length(8);
        let (header, covered) = self.split();
        let crc = integrity::fingerprint(header, covered);
        self.push(attribute::FINGERPRINT, &crc);
    }

    /// The message, with its length.
    pub fn finish(mut self) -> Vec<u8> {
        self.set_length(0);
        self.out
    }

    fn seal(&mut self, next: Sealed) {
        debug_assert!(
            self.sealed < next,
            "MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT, in this order"
        );
        self.sealed = next;
    }

    fn split(&self) -> (&[u8; HEADER], &[u8]) {
        self.out.split_first_chunk().expect("an encoder begins with a header")
    }

    /// Sets the header's length, with so many bytes still to come.
    fn set_length(&mut self, more: usize) {
        let len = u16::try_from(self.out.len() - HEADER + more).expect("a message's length has 16 bits");
        self.out[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

/// The recommended reason phrase of an error code (RFC 8489 §14.8, RFC 8656 §19); empty for others.
pub const fn reason_phrase(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthenticated",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        486 => "Allocation Quota Reached",
        500 => "Server Error",
        508 => "Insufficient Capacity",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::{ID, binding};

    fn classic_binding() -> Vec<u8> {
        let mut bytes = binding(|_| ());
        bytes[4..8].copy_from_slice(b"3489");
        bytes
    }

    /// RFC 8489 §14: an attribute ends on a 32-bit boundary, its padding is zero and not in its length.
    #[test]
    fn padding_is_zero() {
        for len in 0..9 {
            let mut message = Encoder::new(Class::Request, Method::Binding, ID);
            message.bytes(attribute::DATA, &[0xFF; 9][..len]);
            let bytes = message.finish();
            assert_eq!(bytes.len(), HEADER + 4 + len.next_multiple_of(4));
            assert_eq!(bytes[22..24], (len as u16).to_be_bytes());
            assert!(bytes[24 + len..].iter().all(|&byte| byte == 0));
        }
    }

    /// RFC 8489 §6.3.1.1: an answer has the method and the transaction id of its request.
    #[test]
    fn an_answer_repeats_its_request() {
        let request = Encoder::new(Class::Request, Method::Refresh, ID).finish();
        let bytes =
            Encoder::error_response(&Message::parse(&request).unwrap(), 437, reason_phrase(437)).finish();
        let answer = Message::parse(&bytes).unwrap();
        assert_eq!(
            (answer.class(), answer.method(), answer.transaction_id()),
            (Class::Error, Method::Refresh, ID)
        );
        let error = answer.attribute(attribute::ERROR_CODE).unwrap();
        assert_eq!(error.error_code(), Ok((437, "Allocation Mismatch")));
    }

    /// RFC 8489 §11 (RFC 5389 §12.2): all 16 bytes of a classic transaction id come back, and the address is plain.
    #[test]
    fn a_classic_answer_repeats_sixteen_bytes() {
        let request = classic_binding();
        let mut answer = Encoder::response(&Message::parse(&request).unwrap(), Class::Success);
        answer.mapped_address("192.0.2.1:32853".parse().unwrap());
        let bytes = answer.finish();
        assert_eq!(bytes[..4], [0x01, 0x01, 0x00, 0x0C]);
        assert_eq!(bytes[4..20], request[4..20]);
        assert_eq!(bytes[20..], [0x00, 0x01, 0x00, 0x08, 0x00, 0x01, 0x80, 0x55, 192, 0, 2, 1]);
    }

    /// RFC 8489 §14.13: the list is padded as any attribute; of old it was filled up with its last entry, and reason
    /// phrases with spaces (RFC 3489 §11.2.9, §11.2.10).
    #[test]
    fn a_classic_answer_needs_no_padding() {
        let request = classic_binding();
        let mut answer = Encoder::error_response(&Message::parse(&request).unwrap(), 420, reason_phrase(420));
        answer.unknown_attributes(&[0x0003]);
        let bytes = answer.finish();
        assert_eq!(bytes[20..44], *b"\x00\x09\x00\x18\x00\x00\x04\x14Unknown Attribut");
        assert_eq!(bytes[44..], *b"e   \x00\x0a\x00\x04\x00\x03\x00\x03");

        let mut answer = Encoder::new(Class::Error, Method::Binding, ID);
        answer.unknown_attributes(&[0x0003]);
        assert_eq!(answer.finish()[20..], *b"\x00\x0a\x00\x02\x00\x03\x00\x00");
    }

    /// RFC 8489 §14.5-14.7: all three, in order, each with the length that its reader expects.
    #[test]
    fn integrity_and_fingerprint_stand_together() {
        let mut message = Encoder::new(Class::Request, Method::Allocate, ID);
        message.text(attribute::USERNAME, "alice");
        message.integrity_sha1(b"old key");
        message.integrity_sha256(b"new key");
        message.fingerprint();
        let bytes = message.finish();
        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_sha1(b"old key") && !message.verify_sha1(b"new key"));
        assert!(message.verify_sha256(b"new key") && !message.verify_sha256(b"old key"));
        assert!(message.has_fingerprint());
        assert_eq!(message.attributes().count(), 1);
    }

    /// RFC 8656 §18.12: ADDRESS-ERROR-CODE as its reader expects it.
    #[test]
    fn address_error_codes_come_back() {
        let mut message = Encoder::new(Class::Success, Method::Allocate, ID);
        message.address_error_code(Family::V6, 508, reason_phrase(508));
        let bytes = message.finish();
        let attribute = Message::parse(&bytes).unwrap().attribute(attribute::ADDRESS_ERROR_CODE).unwrap();
        assert_eq!(attribute.address_error_code(), Ok((Family::V6, 508, "Insufficient Capacity")));
    }

    /// RFC 8489 §14.8: the codes have phrases, shorter than 128 characters.
    #[test]
    fn codes_have_phrases() {
        let with = (300..700).filter(|&code| !reason_phrase(code).is_empty()).count();
        assert_eq!(with, 14);
        assert!((300..700).all(|code| reason_phrase(code).len() < 128));
    }
}
