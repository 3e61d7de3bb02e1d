//! The ChannelData header (RFC 8656 §12.4) and how the first byte distinguishes it from STUN (RFC 7983 §7).
//!
//! Deliberately not here: comparing the length field with the data received, which differs between UDP and streams
//! (RFC 8656 §12.6).

use std::ops::RangeInclusive;

/// Length of the ChannelData header in bytes.
pub const CHANNEL_HEADER: usize = 4;

/// The channel numbers that a client may bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelRange {
    /// RFC 8656 §12: 0x4000 to 0x4FFF. The rest of the older range is left to other protocols on the same port.
    #[default]
    Rfc8656,
    /// RFC 5766 §11: 0x4000 to 0x7FFE.
    Rfc5766,
}

impl ChannelRange {
    /// The numbers.
    pub const fn numbers(self) -> RangeInclusive<u16> {
        match self {
            ChannelRange::Rfc8656 => 0x4000..=0x4FFF,
            ChannelRange::Rfc5766 => 0x4000..=0x7FFE,
        }
    }

    /// Whether `bytes` begin like ChannelData: with a first byte of 64 to 79 (RFC 7983 §7), or up to 127.
    pub fn is_channel_data(self, bytes: &[u8]) -> bool {
        match self {
            ChannelRange::Rfc8656 => matches!(bytes, [0x40..=0x4F, ..]),
            ChannelRange::Rfc5766 => matches!(bytes, [0x40..=0x7F, ..]),
        }
    }
}

/// The header of a ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelHeader {
    /// The channel number, one of the widest [`ChannelRange`].
    pub number: u16,
    /// Length of the application data in bytes, without padding.
    pub len: u16,
}

impl ChannelHeader {
    /// Decodes the header. Returns `None` for fewer than four bytes or a reserved channel number (RFC 8656 §12.6). A number
    /// that clients may not bind is not bound to anything.
    pub fn parse(bytes: &[u8]) -> Option<ChannelHeader> {
        let &[n0, n1, l0, l1] = bytes.first_chunk::<CHANNEL_HEADER>()?;
        let number = u16::from_be_bytes([n0, n1]);
        ChannelRange::Rfc5766
            .numbers()
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

    /// RFC 8656 §12.6, RFC 5766 §11: reserved numbers and truncated headers are rejected. The first byte tells which numbers
    /// may be bound, but for 0x7FFF.
    #[test]
    fn reserved_channel_numbers_are_rejected() {
        for number in 0..=u16::MAX {
            let [n0, n1] = number.to_be_bytes();
            let bytes = [n0, n1, 0, 0];
            assert_eq!(ChannelHeader::parse(&bytes).is_some(), (0x4000..0x7FFF).contains(&number));
            for range in [ChannelRange::Rfc8656, ChannelRange::Rfc5766] {
                let is_bindable = range.numbers().contains(&number);
                assert_eq!(range.is_channel_data(&bytes) && number != 0x7FFF, is_bindable, "{number:#x}");
            }
        }
        assert_eq!(ChannelHeader::parse(&[0x40, 0x00, 0x00]), None);
    }

    /// RFC 7983 §7, RFC 8656 §12, RFC 5766 §11: the first byte alone identifies ChannelData.
    #[test]
    fn the_first_byte_identifies_channel_data() {
        let (new, old) = (ChannelRange::Rfc8656, ChannelRange::Rfc5766);
        for first in 0..=u8::MAX {
            assert_eq!(new.is_channel_data(&[first]), (64..=79).contains(&first));
            assert_eq!(old.is_channel_data(&[first]), (64..=127).contains(&first));
        }
        assert!(!new.is_channel_data(&[]) && !old.is_channel_data(&[]));
    }
}
