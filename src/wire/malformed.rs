//! Why bytes are not what they should be (RFC 8489 §6.3). A message that fails to parse is discarded in silence;
//! a value that fails to parse is the client's mistake, and the layers above answer it.

/// What is wrong with a message, or with a value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than a STUN header.
    #[error("shorter than a STUN header")]
    Short,
    /// The first two bits are not zero, or there is no magic cookie and it is no classic Binding request.
    #[error("not STUN")]
    NotStun,
    /// The header's length is not that of the message, or no multiple of four.
    #[error("wrong message length")]
    Length,
    /// A method that this server does not speak.
    #[error("unknown method")]
    Method,
    /// A class that the method does not have.
    #[error("class not allowed for the method")]
    Class,
    /// An attribute passes the end of the message.
    #[error("attribute passes the end of the message")]
    Attribute,
    /// FINGERPRINT is wrong, or not the last attribute.
    #[error("wrong FINGERPRINT")]
    Fingerprint,
    /// A value that its attribute does not allow. Only the readers of [`Attribute`](super::Attribute) say this.
    #[error("invalid attribute value")]
    Value,
    /// An address family that is neither IPv4 nor IPv6. Only the readers of [`Attribute`](super::Attribute) say this.
    #[error("unknown address family")]
    Family,
}

impl Malformed {
    /// All of them, in the order of [`index`](Self::index).
    pub const ALL: [Malformed; 9] = [
        Malformed::Short,
        Malformed::NotStun,
        Malformed::Length,
        Malformed::Method,
        Malformed::Class,
        Malformed::Attribute,
        Malformed::Fingerprint,
        Malformed::Value,
        Malformed::Family,
    ];

    /// How many there are: the size of an array of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// This one's place in an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A short name for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Malformed::Short => "short",
            Malformed::NotStun => "not_stun",
            Malformed::Length => "length",
            Malformed::Method => "method",
            Malformed::Class => "class",
            Malformed::Attribute => "attribute",
            Malformed::Fingerprint => "fingerprint",
            Malformed::Value => "value",
            Malformed::Family => "family",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §6.3: each reason for a discard is counted in a place of its own.
    #[test]
    fn every_reason_has_its_own_counter() {
        for (place, reason) in Malformed::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(Malformed::ALL[..place].iter().all(|other| other.as_str() != reason.as_str()));
        }
    }
}
