//! Messages that tests start from, and the means to spoil them.

use super::message::HEADER;
use super::{Class, Encoder, Method, TransactionId};

/// A transaction id like any other.
pub(super) const ID: TransactionId = TransactionId(*b"test message");

/// A Binding request with what `build` adds.
pub(super) fn binding(build: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut message = Encoder::new(Class::Request, Method::Binding, ID);
    build(&mut message);
    message.finish()
}

/// Appends an attribute as it is, after integrity and FINGERPRINT too, and corrects the header's length.
pub(super) fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let len = (bytes.len() - HEADER) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
}
