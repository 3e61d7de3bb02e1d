//! Where one message ends and the next begins in a stream (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! A stream has nothing but lengths to go by: once they are lost it cannot be read any further.

use super::channel::{CHANNEL_HEADER, is_channel_data};
use super::message::HEADER;
use super::padding;

/// The longest message of a stream: a STUN message, since ChannelData has the shorter header.
pub const FRAME_MAX: usize = HEADER + u16::MAX as usize;

/// What begins no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a STUN message nor ChannelData")]
pub struct FramingError;

/// How long the message is that `bytes` begin with, ChannelData with its padding; `None` if it takes more bytes to tell.
/// The message itself may not be there in whole yet.
///
/// # Errors
/// The first byte belongs to neither STUN nor a channel (RFC 7983 §7): the stream is of no use any more.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let is_stun = first & 0xC0 == 0;
    if !is_stun && !is_channel_data(bytes) {
        return Err(FramingError);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    Ok(Some(if is_stun { HEADER + len } else { CHANNEL_HEADER + len + padding(len) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Class, Encoder, Method, TransactionId};

    /// RFC 8656 §12.5: over a stream, ChannelData is padded to four bytes, and its length does not say so.
    #[test]
    fn channel_data_is_padded() {
        for (len, framed) in [(0, 4), (1, 8), (4, 8), (5, 12), (0xFFFF, 65_540)] {
            let [high, low] = u16::to_be_bytes(len);
            assert_eq!(frame_len(&[0x40, 0, high, low]), Ok(Some(framed)));
        }
    }

    /// RFC 8656 §12, Table 2: 0x5000 to 0xFFFF is no channel, and the stream is lost.
    #[test]
    fn what_is_no_message() {
        for first in (0x50..=0xFF).step_by(1) {
            assert_eq!(frame_len(&[first]), Err(FramingError));
        }
        for first in 0..=0x4F {
            assert_eq!(frame_len(&[first, 0, 0]), Ok(None));
        }
        assert_eq!(frame_len(&[]), Ok(None));
        assert_eq!(frame_len(&[0x3F, 0, 0xFF, 0xFF]), Ok(Some(FRAME_MAX)));
    }

    proptest! {
        /// RFC 8489 §6.2.2: messages in a stream are found again, wherever it is cut.
        #[test]
        fn messages_are_found_again(payloads in prop::collection::vec((any::<bool>(), 0usize..50), 1..20)) {
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
