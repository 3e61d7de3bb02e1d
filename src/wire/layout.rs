//! The fixed parts of the STUN message layout: header, transaction ID and attribute padding (RFC 8489 §5, §14).

use std::fmt;

/// The value that distinguishes RFC 5389 and later from classic STUN (RFC 8489 §5).
pub(super) const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Length of the STUN header in bytes (RFC 8489 §5).
pub const STUN_HEADER: usize = 20;

/// Matches a response to its request (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Number of padding bytes after a value of `len` bytes, which align the next one to 32 bits (RFC 8489 §14).
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}
