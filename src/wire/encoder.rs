//! Encoding of responses into a `Vec` (RFC 8489 §5, §6.3.1.1, §14). This is for the control path only: the headers of
//! relayed data are written in place.

use std::net::SocketAddr;

use super::address::{AddressValue, Family};
use super::layout::{MAGIC_COOKIE, STUN_HEADER, TransactionId, padding};
use super::message::Message;
use super::method::{Class, Method, message_type};
use super::{attribute, integrity};

/// Builds one message. Attributes appear in the order in which they are added. Integrity attributes follow all others,
/// and FINGERPRINT is last.
pub struct Encoder {
    out: Vec<u8>,
    classic: bool,
    sealed: Sealed,
}

/// The last of the attributes that restrict what may follow (RFC 8489 §14.5-14.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sealed {
    Open,
    Sha1,
    Sha256,
    Fingerprint,
}

impl Encoder {
    /// Starts a message that is not a response.
    pub fn new(class: Class, method: Method, id: TransactionId) -> Encoder {
        let mut cookie_and_id = [0; 16];
        cookie_and_id[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        cookie_and_id[4..].copy_from_slice(&id.0);
        Encoder::start(class, method, &cookie_and_id, false)
    }

    /// Starts a response with the request's method and transaction ID (RFC 8489 §6.3.1.1). The transaction ID of a classic
    /// request has 16 bytes.
    pub fn response(request: &Message<'_>, class: Class) -> Encoder {
        Encoder::start(class, request.method(), &request.cookie_and_id(), request.is_classic())
    }

    /// Starts an error response with an ERROR-CODE.
    pub fn error_response(request: &Message<'_>, code: u16, reason: &str) -> Encoder {
        let mut response = Encoder::response(request, Class::Error);
        response.error_code(code, reason);
        response
    }

    fn start(class: Class, method: Method, cookie_and_id: &[u8; 16], classic: bool) -> Encoder {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&message_type(class, method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(cookie_and_id);
        Encoder { out, classic, sealed: Sealed::Open }
    }

    /// Adds an attribute, padded with zeros (RFC 8489 §14).
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        debug_assert!(self.sealed == Sealed::Open, "attributes come before integrity and FINGERPRINT");
        self.push(kind, value);
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len()).expect("an attribute has a 16-bit length");
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len() + padding(value.len()), 0);
    }

    /// Adds a 32-bit number such as LIFETIME.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Adds text such as REALM.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.prefixed_text(kind, &[], value);
    }

    /// Adds bytes followed by text. Classic STUN has no padding, so for classic clients spaces fill up the text
    /// (RFC 3489 §11.2.9).
    fn prefixed_text(&mut self, kind: u16, prefix: &[u8], text: &str) {
        let mut value = [prefix, text.as_bytes()].concat();
        if self.classic {
            value.resize(value.len() + padding(value.len()), b' ');
        }
        self.bytes(kind, &value);
    }

    /// Adds an address, XORed with the magic cookie and the transaction ID (RFC 8489 §14.2).
    pub fn xor_address(&mut self, kind: u16, addr: SocketAddr) {
        let mut id = [0; 12];
        id.copy_from_slice(&self.out[8..STUN_HEADER]);
        self.bytes(kind, AddressValue::xor(addr, TransactionId(id)).bytes());
    }

    /// Adds MAPPED-ADDRESS, which is plain and meant for classic clients (RFC 8489 §14.1).
    pub fn mapped_address(&mut self, addr: SocketAddr) {
        self.bytes(attribute::MAPPED_ADDRESS, AddressValue::plain(addr).bytes());
    }

    /// Adds ALTERNATE-SERVER, which is encoded in the same way (RFC 8489 §14.15).
    pub fn alternate_server(&mut self, addr: SocketAddr) {
        self.bytes(attribute::ALTERNATE_SERVER, AddressValue::plain(addr).bytes());
    }

    /// Adds UNKNOWN-ATTRIBUTES (RFC 8489 §14.13). A classic client gets an even number of types, with the last one repeated
    /// if necessary (RFC 3489 §11.2.10).
    pub fn unknown_attributes(&mut self, kinds: &[u16]) {
        let repeated = if self.classic && kinds.len() % 2 == 1 { kinds.last() } else { None };
        let value: Vec<u8> = kinds.iter().chain(repeated).flat_map(|kind| kind.to_be_bytes()).collect();
        self.bytes(attribute::UNKNOWN_ATTRIBUTES, &value);
    }

    /// Adds ERROR-CODE (RFC 8489 §14.8).
    pub fn error_code(&mut self, code: u16, reason: &str) {
        self.code_and_reason(attribute::ERROR_CODE, 0, code, reason);
    }

    /// Adds ICMP (RFC 8656 §18.13). Type and code take one byte each as they do in ICMP, which is also how clients decode
    /// them. The RFC's figure shows 7 and 9 bits.
    pub fn icmp(&mut self, kind: u8, code: u8, data: u32) {
        let [a, b, c, d] = data.to_be_bytes();
        self.bytes(attribute::ICMP, &[0, 0, kind, code, a, b, c, d]);
    }

    /// Adds ADDRESS-ERROR-CODE: why a dual allocation lacks an address of this family (RFC 8656 §18.12).
    pub fn address_error_code(&mut self, family: Family, code: u16, reason: &str) {
        self.code_and_reason(attribute::ADDRESS_ERROR_CODE, family.code(), code, reason);
    }

    fn code_and_reason(&mut self, kind: u16, first: u8, code: u16, reason: &str) {
        debug_assert!((300..700).contains(&code) && reason.chars().count() < 128);
        self.prefixed_text(kind, &[first, 0, (code / 100) as u8, (code % 100) as u8], reason);
    }

    /// Adds MESSAGE-INTEGRITY over everything added so far (RFC 8489 §14.5).
    pub fn integrity_sha1(&mut self, key: &[u8]) {
        self.seal(Sealed::Sha1);
        let (header, covered) = self.split_header();
        let mac = integrity::sha1(header, covered, key);
        self.push(attribute::MESSAGE_INTEGRITY, &mac);
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 over everything added so far (RFC 8489 §14.6).
    pub fn integrity_sha256(&mut self, key: &[u8]) {
        self.seal(Sealed::Sha256);
        let (header, covered) = self.split_header();
        let mac = integrity::sha256(header, covered, key);
        self.push(attribute::MESSAGE_INTEGRITY_SHA256, &mac);
    }

    /// Adds FINGERPRINT over everything added so far (RFC 8489 §14.7).
    pub fn fingerprint(&mut self) {
        self.seal(Sealed::Fingerprint);
        self.set_length(8);
        let (header, covered) = self.split_header();
        let crc = integrity::fingerprint(header, covered);
        self.push(attribute::FINGERPRINT, &crc);
    }

    /// Sets the length field and returns the message.
    pub fn finish(mut self) -> Vec<u8> {
        self.set_length(0);
        self.out
    }

    fn seal(&mut self, next: Sealed) {
        debug_assert!(
            self.sealed < next,
            "the order is MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT"
        );
        self.sealed = next;
    }

    fn split_header(&self) -> (&[u8; STUN_HEADER], &[u8]) {
        self.out.split_first_chunk().expect("an encoder starts with a header")
    }

    /// Sets the length field for the bytes so far and `remaining` more.
    fn set_length(&mut self, remaining: usize) {
        let len =
            u16::try_from(self.out.len() - STUN_HEADER + remaining).expect("a message has a 16-bit length");
        self.out[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

/// The recommended reason phrase of an error code (RFC 8489 §14.8, RFC 8656 §19), or an empty string for other codes.
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

    /// RFC 8489 §14: attributes are padded to 32 bits with zeros, which the length field does not include.
    #[test]
    fn attributes_are_padded_with_zeros() {
        for len in 0..9 {
            let mut message = Encoder::new(Class::Request, Method::Binding, ID);
            message.bytes(attribute::DATA, &[0xFF; 9][..len]);
            let bytes = message.finish();
            assert_eq!(bytes.len(), STUN_HEADER + 4 + len.next_multiple_of(4));
            assert_eq!(bytes[22..24], (len as u16).to_be_bytes());
            assert!(bytes[24 + len..].iter().all(|&byte| byte == 0));
        }
    }

    /// RFC 8489 §6.3.1.1: a response has the method and the transaction ID of its request.
    #[test]
    fn a_response_repeats_method_and_transaction_id() {
        let request = Encoder::new(Class::Request, Method::Refresh, ID).finish();
        let bytes =
            Encoder::error_response(&Message::parse(&request).unwrap(), 437, reason_phrase(437)).finish();
        let response = Message::parse(&bytes).unwrap();
        assert_eq!(
            (response.class(), response.method(), response.transaction_id()),
            (Class::Error, Method::Refresh, ID)
        );
        let error = response.attribute(attribute::ERROR_CODE).unwrap();
        assert_eq!(error.error_code(), Ok((437, "Allocation Mismatch")));
    }

    /// RFC 8489 §11 (RFC 5389 §12.2): a classic response repeats the 16-byte transaction ID and has a plain address.
    #[test]
    fn a_classic_response_repeats_sixteen_bytes() {
        let request = classic_binding();
        let mut response = Encoder::response(&Message::parse(&request).unwrap(), Class::Success);
        response.mapped_address("192.0.2.1:32853".parse().unwrap());
        let bytes = response.finish();
        assert_eq!(bytes[..4], [0x01, 0x01, 0x00, 0x0C]);
        assert_eq!(bytes[4..20], request[4..20]);
        assert_eq!(bytes[20..], [0x00, 0x01, 0x00, 0x08, 0x00, 0x01, 0x80, 0x55, 192, 0, 2, 1]);
    }

    /// RFC 8489 §14.13: UNKNOWN-ATTRIBUTES is padded like any attribute. For classic clients its last entry is repeated
    /// instead, and reason phrases end in spaces (RFC 3489 §11.2.9, §11.2.10).
    #[test]
    fn a_classic_response_has_no_padding() {
        let request = classic_binding();
        let mut response =
            Encoder::error_response(&Message::parse(&request).unwrap(), 420, reason_phrase(420));
        response.unknown_attributes(&[0x0003]);
        let bytes = response.finish();
        assert_eq!(bytes[20..44], *b"\x00\x09\x00\x18\x00\x00\x04\x14Unknown Attribut");
        assert_eq!(bytes[44..], *b"e   \x00\x0a\x00\x04\x00\x03\x00\x03");

        let mut response = Encoder::new(Class::Error, Method::Binding, ID);
        response.unknown_attributes(&[0x0003]);
        assert_eq!(response.finish()[20..], *b"\x00\x0a\x00\x02\x00\x03\x00\x00");
    }

    /// RFC 8489 §14.5, §14.6, §14.7: both integrity attributes and FINGERPRINT verify in the same message.
    #[test]
    fn integrity_attributes_and_fingerprint_combine() {
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

    /// RFC 8656 §18.12: ADDRESS-ERROR-CODE is an ERROR-CODE whose first byte is the family.
    #[test]
    fn an_address_error_code_names_the_family() {
        let mut message = Encoder::new(Class::Success, Method::Allocate, ID);
        message.address_error_code(Family::V6, 508, "no");
        assert_eq!(message.finish()[STUN_HEADER..], *b"\x80\x01\x00\x06\x02\x00\x05\x08no\0\0");
    }

    /// RFC 8489 §14.8: reason phrases are shorter than 128 characters.
    #[test]
    fn reason_phrases_are_short() {
        assert!((300..700).all(|code| reason_phrase(code).len() < 128));
    }
}
