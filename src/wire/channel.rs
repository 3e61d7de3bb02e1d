//! The ChannelData header (RFC 8656 §12.4) and how the first byte distinguishes it from STUN (RFC 7983 §7).
//!
//! Deliberately not here: comparing the length field with the data received, which differs between UDP and streams
//! (RFC 8656 §12.6).

use std::ops::RangeInclusive;

/// Length of the ChannelData header in bytes.
pub const CHANNEL_HEADER: usize = 4;

/// The channel numbers that a client may bind (RFC 8656 §12).
pub const CHANNEL_NUMBERS: RangeInclusive<u16> = 0x4000..=0x4FFF;

/// Whether `bytes` begin like ChannelData, with a first byte of 64 to 79 (RFC 7983 §7).
pub fn is_channel_data(bytes: &[u8]) -> bool {
    matches!(bytes, [0x40..=0x4F, ..])
}

/// The header of a ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelHeader {
    /// The channel number, one of [`CHANNEL_NUMBERS`].
    pub number: u16,
    /// Length of the application data in bytes, without padding.
    pub len: u16,
}

impl ChannelHeader {
    /// Decodes the header. Returns `None` for fewer than four bytes or a reserved channel number (RFC 8656 §12.6).
    pub fn parse(bytes: &[u8]) -> Option<ChannelHeader> {
        let &[n0, n1, l0, l1] = bytes.first_chunk::<CHANNEL_HEADER>()?;
        let number = u16::from_be_bytes([n0, n1]);
        CHANNEL_NUMBERS
            .contains(&number)
            .then_some(ChannelHeader { number, len: u16::from_be_bytes([l0, l1]) })
    }

    /// Encodes the header into the four bytes before the application data.
    pub fn write(self, out: &mut [u8; CHANNEL_HEADER]) {
        out[..2].copy_from_slice(&self.number.to_be_bytes());
        out[2..].copy_from_slice(&self.len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8656 §12.4: the header is the channel number followed by the length.
    #[test]
    fn a_header_round_trips() {
        let header = ChannelHeader { number: 0x4ABC, len: 0x0102 };
        let mut out = [0; CHANNEL_HEADER];
        header.write(&mut out);
        assert_eq!(out, [0x4A, 0xBC, 0x01, 0x02]);
        assert_eq!(ChannelHeader::parse(&out), Some(header));
        assert_eq!(ChannelHeader::parse(&[0x4A, 0xBC, 0x01, 0x02, 0xFF]), Some(header));
    }

    /// RFC 8656 §12.6: numbers outside 0x4000 to 0x4FFF and truncated headers are rejected.
    #[test]
    fn reserved_channel_numbers_are_rejected() {
        for number in 0..=u16::MAX {
            let [n0, n1] = number.to_be_bytes();
            let bytes = [n0, n1, 0, 0];
            assert_eq!(ChannelHeader::parse(&bytes).is_some(), CHANNEL_NUMBERS.contains(&number));
            assert_eq!(is_channel_data(&bytes), CHANNEL_NUMBERS.contains(&number));
        }
        assert_eq!(ChannelHeader::parse(&[0x40, 0x00, 0x00]), None);
    }

    /// RFC 7983 §7, RFC 8656 §12: the first byte alone identifies ChannelData.
    #[test]
    fn the_first_byte_identifies_channel_data() {
        for first in 0..=u8::MAX {
            assert_eq!(is_channel_data(&[first]), (64..=79).contains(&first));
        }
        assert!(!is_channel_data(&[]));
    }
}
