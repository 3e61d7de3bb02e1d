//! ChannelData messages (RFC 8656 §12.4) and how their first byte tells them from STUN (RFC 7983 §7).
//!
//! Left out: whether a datagram holds as much as the header claims. Over UDP and in a stream that is asked
//! differently (RFC 8656 §12.6).

use std::ops::RangeInclusive;

/// Bytes before the application data.
pub const CHANNEL_HEADER: usize = 4;

/// The channel numbers that may be bound (RFC 8656 §12).
pub const CHANNEL_NUMBERS: RangeInclusive<u16> = 0x4000..=0x4FFF;

/// Whether these bytes begin as ChannelData does (RFC 7983 §7: a first byte of 64 to 79).
pub fn is_channel_data(bytes: &[u8]) -> bool {
    matches!(bytes, [0x40..=0x4F, ..])
}

/// The header of a ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelHeader {
    /// The channel, one of [`CHANNEL_NUMBERS`].
    pub number: u16,
    /// Bytes of application data, padding not counted.
    pub len: u16,
}

impl ChannelHeader {
    /// Reads the header alone. `None` when there are no four bytes of it, or the number is no channel's
    /// (RFC 8656 §12.6: reserved values are discarded).
    pub fn parse(bytes: &[u8]) -> Option<ChannelHeader> {
        let &[n0, n1, l0, l1] = bytes.first_chunk::<CHANNEL_HEADER>()?;
        let number = u16::from_be_bytes([n0, n1]);
        CHANNEL_NUMBERS
            .contains(&number)
            .then_some(ChannelHeader { number, len: u16::from_be_bytes([l0, l1]) })
    }

    /// Writes the header where it goes, right before the application data.
    pub fn write(self, out: &mut [u8; CHANNEL_HEADER]) {
        out[..2].copy_from_slice(&self.number.to_be_bytes());
        out[2..].copy_from_slice(&self.len.to_be_bytes());
    }
}
