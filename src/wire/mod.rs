//! Bytes to values and back: STUN messages (RFC 8489 §5 and §14, with the attributes of RFC 8656 §18) and
//! ChannelData (RFC 8656 §12.4).
//!
//! Reading borrows from the packet: it never allocates and no bytes make it panic. What a value *means* to the
//! server is decided above, in `auth` and `turn`.
//!
//! - [`Message`], [`Attribute`]: one validated STUN message, and a value inside it.
//! - [`Encoder`]: answers, built in a `Vec`.
//! - [`frame_len`]: where messages end in a stream.
//! - [`ChannelHeader`], [`data_indication_header`]: what stands before relayed data, written in place.
//!
//! Left out on purpose: short-term credentials (RFC 8489 §9.1) and the padded HMAC of RFC 3489 §11.2.8, since
//! classic clients are served Binding alone, which needs no credentials.

mod address;
pub mod attribute;
mod channel;
mod data;
mod encoder;
mod frame;
mod integrity;
mod malformed;
mod message;
mod method;

pub use address::Family;
pub use attribute::{Attribute, PasswordAlgorithms};
pub use channel::{CHANNEL_HEADER, CHANNEL_NUMBERS, ChannelHeader, is_channel_data};
pub use data::{DATA_INDICATION_HEADER_MAX, data_indication_header, data_indication_header_len};
pub use encoder::{Encoder, reason_phrase};
pub use frame::{FRAME_MAX, FramingError, frame_len};
pub use malformed::Malformed;
pub use message::{Attributes, MAGIC_COOKIE, Message, TransactionId};
pub use method::{Class, Method};

/// Zero bytes that follow a value of `len` bytes, so that the next begins on a 32-bit boundary (RFC 8489 §14).
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod vectors;
