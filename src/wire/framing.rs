//! Message boundaries in a stream (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! A stream is framed by the length fields of its messages alone, so it cannot be resynchronised after an error.

use super::channel::{CHANNEL_HEADER, is_channel_data};
use super::layout::{STUN_HEADER, padding};

/// The longest message in a stream. It is a STUN message, because ChannelData has a shorter header.
pub const FRAME_MAX: usize = STUN_HEADER + u16::MAX as usize;

/// The stream holds something that is neither STUN nor ChannelData.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a STUN message nor ChannelData")]
pub struct FramingError;

/// Length of the message at the start of `bytes`, for ChannelData with padding. `Ok(None)` means that more bytes are
/// needed to tell. The message itself may still be incomplete.
///
/// # Errors
///
/// Returns [`FramingError`] if the first byte is neither that of a STUN message nor that of ChannelData (RFC 7983 §7). The
/// connection has to be closed.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let is_stun = first & 0xC0 == 0;
    if !is_stun && !is_channel_data(bytes) {
        return Err(FramingError);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    Ok(Some(if is_stun { STUN_HEADER + len } else { CHANNEL_HEADER + len + padding(len) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Class, Encoder, Method, TransactionId};

    /// RFC 8656 §12.5: over a stream, ChannelData is padded to four bytes, which the length field does not include.
    #[test]
    fn channel_data_is_padded() {
        for (len, framed) in [(0, 4), (1, 8), (4, 8), (5, 12), (0xFFFF, 65_540)] {
            let [high, low] = u16::to_be_bytes(len);
            assert_eq!(frame_len(&[0x40, 0, high, low]), Ok(Some(framed)));
        }
    }

    /// RFC 8656 §12, Table 2: 0x5000 to 0xFFFF are not channel numbers.
    #[test]
    fn other_protocols_are_a_framing_error() {
        for first in 0x50..=0xFF {
            assert_eq!(frame_len(&[first]), Err(FramingError));
        }
        for first in 0..=0x4F {
            assert_eq!(frame_len(&[first, 0, 0]), Ok(None));
        }
        assert_eq!(frame_len(&[]), Ok(None));
        assert_eq!(frame_len(&[0x3F, 0, 0xFF, 0xFF]), Ok(Some(FRAME_MAX)));
    }

    proptest! {
        /// RFC 8489 §6.2.2: four bytes are enough to find the end of each message in a stream.
        #[test]
        fn messages_in_a_stream_are_framed(payloads in prop::collection::vec((any::<bool>(), 0usize..50), 1..20)) {
            let mut stream = Vec::new();
            let mut ends = Vec::new();
            for (stun, len) in payloads {
                if stun {
                    let mut message = Encoder::new(Class::Indication, Method::Send, TransactionId([1; 12]));
                    message.bytes(0x0013, &vec![7; len]);
                    stream.extend(message.finish());
                } else {
                    stream.extend([0x40, 1, 0, len as u8]);
                    stream.extend(vec![7; len + padding(len)]);
                }
                ends.push(stream.len());
            }
            let mut at = 0;
            for end in ends {
                prop_assert_eq!(frame_len(&stream[at..at + 4]), Ok(Some(end - at)));
                at = end;
            }
        }
    }
}
