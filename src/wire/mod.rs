//! Encoding and decoding of STUN messages (RFC 8489 §5 and §14, with the attributes of RFC 8656 §18) and ChannelData
//! (RFC 8656 §12.4).
//!
//! Decoding borrows from the packet, never allocates and never panics. What a value means to the server is decided by
//! the layers above, `auth` and `turn`.
//!
//! - [`Message`], [`Attribute`]: a validated STUN message and one of its attributes.
//! - [`Encoder`]: builds responses in a `Vec`.
//! - [`frame_len`]: finds message boundaries in a stream; [`sniff()`] tells what a stream is at its beginning.
//! - [`ProxyHeader`]: the header that a proxy sends before a connection's own bytes.
//! - [`ChannelHeader`], [`data_indication_header`]: headers written in place, in front of relayed data.
//!
//! Deliberately not here: short-term credentials (RFC 8489 §9.1), and the padded HMAC of RFC 3489 §11.2.8, because
//! classic clients may only send Binding requests, which need no credentials.

mod address;
pub mod attribute;
mod channel;
mod data_indication;
mod encoder;
mod framing;
mod integrity;
mod layout;
mod malformed;
mod message;
mod method;
mod proxy_header;
mod sniff;

pub use address::Family;
pub use attribute::Attribute;
pub use channel::{CHANNEL_HEADER, ChannelHeader, ChannelRange};
pub use data_indication::{
    DATA_INDICATION_HEADER_MAX, data_indication_header, data_indication_header_len, relayed_payload,
};
pub use encoder::{Encoder, reason_phrase};
pub use framing::{FRAME_CHECKED, FRAME_MAX, FramingError, frame_len};
pub use layout::{STUN_HEADER, TransactionId, padding};
pub use malformed::Malformed;
pub use message::{Attributes, Message};
pub use method::{Class, Method};
pub use proxy_header::{PROXY_HEADER_MAX, ProxyError, ProxyHeader};
pub use sniff::{SNIFF_MAX, Sniffed, sniff};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod vectors;
