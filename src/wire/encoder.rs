//! Answers and indications, encoded into a `Vec` (RFC 8489 §5, §6.3.1.1, §14). For the control path only: relayed
//! data has its headers written in place.

use std::net::SocketAddr;

use super::attribute::{self, AddressValue, Family};
use super::integrity;
use super::message::{HEADER, message_type};
use super::{Class, MAGIC_COOKIE, Message, Method, TransactionId, padding};

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
    pub fn answer(request: &Message<'_>, class: Class) -> Encoder {
        Encoder::start(class, request.method(), &request.cookie_and_id(), request.is_classic())
    }

    /// An error answer with its ERROR-CODE.
    pub fn error(request: &Message<'_>, code: u16, reason: &str) -> Encoder {
        let mut answer = Encoder::answer(request, Class::Error);
        answer.error_code(attribute::ERROR_CODE, 0, code, reason);
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
        self.bytes(kind, value.as_bytes());
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
    /// of them, the last one twice if need be, since RFC 3489 knows no padding.
    pub fn unknown_attributes(&mut self, kinds: &[u16]) {
        let repeated = if self.classic && kinds.len() % 2 == 1 { kinds.last() } else { None };
        let value: Vec<u8> = kinds.iter().chain(repeated).flat_map(|kind| kind.to_be_bytes()).collect();
        self.bytes(attribute::UNKNOWN_ATTRIBUTES, &value);
    }

    /// ADDRESS-ERROR-CODE: why one family of a dual allocation was not given (RFC 8656 §18.12).
    pub fn address_error_code(&mut self, family: Family, code: u16, reason: &str) {
        self.error_code(attribute::ADDRESS_ERROR_CODE, family.code(), code, reason);
    }

    /// The shape that ERROR-CODE (RFC 8489 §14.8) and ADDRESS-ERROR-CODE share.
    fn error_code(&mut self, kind: u16, first: u8, code: u16, reason: &str) {
        debug_assert!((300..700).contains(&code) && reason.chars().count() < 128);
        let mut value = vec![first, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend_from_slice(reason.as_bytes());
        self.bytes(kind, &value);
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
pub const fn reason(code: u16) -> &'static str {
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
