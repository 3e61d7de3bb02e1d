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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8656 §12.4: number, then length, then data.
    #[test]
    fn headers_come_back() {
        let header = ChannelHeader { number: 0x4ABC, len: 0x0102 };
        let mut out = [0; CHANNEL_HEADER];
        header.write(&mut out);
        assert_eq!(out, [0x4A, 0xBC, 0x01, 0x02]);
        assert_eq!(ChannelHeader::parse(&out), Some(header));
        assert_eq!(ChannelHeader::parse(&[0x4A, 0xBC, 0x01, 0x02, 0xFF]), Some(header));
    }

    /// RFC 8656 §12.6: a number outside 0x4000 to 0x4FFF is no channel; nor are three bytes a header.
    #[test]
    fn only_channel_numbers_are_channels() {
        for number in 0..=u16::MAX {
            let [n0, n1] = number.to_be_bytes();
            let bytes = [n0, n1, 0, 0];
            assert_eq!(ChannelHeader::parse(&bytes).is_some(), CHANNEL_NUMBERS.contains(&number));
            assert_eq!(is_channel_data(&bytes), CHANNEL_NUMBERS.contains(&number));
        }
        assert_eq!(ChannelHeader::parse(&[0x40, 0x00, 0x00]), None);
    }

    /// RFC 7983 §7, RFC 8656 §12: the first byte alone tells ChannelData from all else.
    #[test]
    fn one_byte_tells_channel_data() {
        for first in 0..=u8::MAX {
            assert_eq!(is_channel_data(&[first]), (64..=79).contains(&first));
        }
        assert!(!is_channel_data(&[]));
    }
}
