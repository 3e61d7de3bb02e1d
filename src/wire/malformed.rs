//! The ways in which received bytes can be malformed (RFC 8489 §6.3). A malformed message is dropped silently; for a
//! malformed attribute value the layers above send an error response.

/// Why a message or an attribute value cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than a STUN header.
    #[error("shorter than a STUN header")]
    Short,
    /// The first two bits are not zero, or the magic cookie is missing and it is not a classic Binding request.
    #[error("not STUN")]
    NotStun,
    /// The length field does not match the message or is not a multiple of four.
    #[error("wrong message length")]
    Length,
    /// A method that this server does not implement.
    #[error("unknown method")]
    Method,
    /// A class that is not defined for the method.
    #[error("class not allowed for the method")]
    Class,
    /// An attribute extends beyond the end of the message.
    #[error("attribute extends beyond the end of the message")]
    Attribute,
    /// FINGERPRINT is wrong or is not the last attribute.
    #[error("wrong FINGERPRINT")]
    Fingerprint,
    /// An attribute value is invalid. Returned by the methods of [`Attribute`](super::Attribute) only.
    #[error("invalid attribute value")]
    Value,
    /// An address family is neither IPv4 nor IPv6. Returned by the methods of [`Attribute`](super::Attribute) only.
    #[error("unknown address family")]
    Family,
}
