//! Messages that tests start from, and ways to corrupt them.

use super::layout::STUN_HEADER;
use super::{Class, Encoder, Method, TransactionId};

pub(super) const ID: TransactionId = TransactionId(*b"test message");

/// A Binding request with the attributes that `build` adds.
pub(super) fn binding(build: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut message = Encoder::new(Class::Request, Method::Binding, ID);
    build(&mut message);
    message.finish()
}

/// Appends an attribute unchecked, even after integrity and FINGERPRINT, and updates the length field.
pub(super) fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let len = (bytes.len() - STUN_HEADER) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
}
