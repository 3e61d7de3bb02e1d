//! Message boundaries in a stream (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! A stream is framed by the length fields of its messages alone, so it cannot be resynchronised after an error. What
//! can never become a message is an error as soon as the bytes show it, at best with the first one: waiting for the rest
//! of it would only keep a connection open that is of no use.

use super::channel::{CHANNEL_HEADER, ChannelRange};
use super::layout::{MAGIC_COOKIE, STUN_HEADER, padding};

/// The longest message in a stream. It is a STUN message, because ChannelData has a shorter header.
pub const FRAME_MAX: usize = STUN_HEADER + 0xFFFC;

/// How many bytes of a message show whether it can be one: those before the transaction ID.
pub const FRAME_CHECKED: usize = 8;

/// The type of a Binding request, the only message of classic STUN (RFC 3489) that is supported.
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// The stream holds something that is neither STUN nor ChannelData.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// No message begins with this byte (RFC 7983 §7).
    #[error("neither STUN nor ChannelData begins with this byte")]
    FirstByte,
    /// The length of a STUN message is not a multiple of four (RFC 8489 §5).
    #[error("the length of a STUN message is not a multiple of four")]
    Length,
    /// The magic cookie of a STUN message is wrong (RFC 8489 §5).
    #[error("a STUN message has no magic cookie")]
    Cookie,
}

/// Length of the message at the start of `bytes`, for ChannelData with padding. `Ok(None)` means that more bytes are
/// needed to tell. The message itself may still be incomplete. `channels` is what ChannelData begins with.
///
/// # Errors
///
/// Returns a [`FramingError`] if `bytes` cannot be the start of a message. The connection has to be closed.
pub fn frame_len(bytes: &[u8], channels: ChannelRange) -> Result<Option<usize>, FramingError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    // RFC 7983 §7
    let is_stun = first <= 3;
    if is_stun {
        check_stun(bytes)?;
    } else if !channels.is_channel_data(bytes) {
        return Err(FramingError::FirstByte);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    Ok(Some(if is_stun { STUN_HEADER + len } else { CHANNEL_HEADER + len + padding(len) }))
}

/// Checks as much of the header of a STUN message as there is.
fn check_stun(bytes: &[u8]) -> Result<(), FramingError> {
    // RFC 8489 §5
    if bytes.get(3).is_some_and(|low| low % 4 != 0) {
        return Err(FramingError::Length);
    }
    // RFC 8489 §11: only a classic Binding request has no magic cookie.
    let cookie = bytes.get(4..).map_or(&[][..], |rest| &rest[..rest.len().min(4)]);
    if !MAGIC_COOKIE.to_be_bytes().starts_with(cookie) && !bytes.starts_with(&BINDING_REQUEST) {
        return Err(FramingError::Cookie);
    }
    Ok(())
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
            assert_eq!(frame_len(&[0x40, 0, high, low], ChannelRange::Rfc8656), Ok(Some(framed)));
        }
    }

    /// RFC 7983 §7, RFC 8656 §12, Table 2: 0x04 to 0x3F and 0x50 to 0xFF begin no message.
    #[test]
    fn other_protocols_are_a_framing_error() {
        for first in 0..=0xFF {
            let expected = match first {
                0..=3 | 0x40..=0x4F => Ok(None),
                _ => Err(FramingError::FirstByte),
            };
            assert_eq!(frame_len(&[first], ChannelRange::Rfc8656), expected);
            assert_eq!(frame_len(&[first, 0, 0], ChannelRange::Rfc8656), expected);
        }
        assert_eq!(frame_len(&[], ChannelRange::Rfc8656), Ok(None));
        // RFC 5766 §11
        for first in 0x40..=0xFF {
            let is_framed = frame_len(&[first, 0, 0, 1], ChannelRange::Rfc5766) == Ok(Some(8));
            assert_eq!(is_framed, first <= 0x7F, "{first:#x}");
        }
        assert_eq!(frame_len(&[0x03, 0, 0xFF, 0xFC], ChannelRange::Rfc8656), Ok(Some(FRAME_MAX)));
    }

    /// RFC 8489 §5: the length of a STUN message is a multiple of four. That of ChannelData need not be.
    #[test]
    fn an_unaligned_length_is_a_framing_error() {
        for low in 0..=0xFF {
            let expected =
                if low % 4 == 0 { Ok(Some(20 + usize::from(low))) } else { Err(FramingError::Length) };
            assert_eq!(frame_len(&[0x00, 0x01, 0, low], ChannelRange::Rfc8656), expected);
            assert!(frame_len(&[0x40, 0x01, 0, low], ChannelRange::Rfc8656).is_ok());
        }
    }

    /// RFC 8489 §5, §11: a wrong cookie is an error from its first wrong byte on, except in a classic Binding request.
    #[test]
    fn a_wrong_cookie_is_a_framing_error() {
        let header = |kind: [u8; 2], cookie: [u8; 4]| [&kind[..], &[0, 8], &cookie].concat();
        for kind in [[0, 1], [0, 3], [0, 0x11], [0x01, 0x01], [0x03, 0xFF]] {
            let right = header(kind, MAGIC_COOKIE.to_be_bytes());
            assert!((0..=8).all(|len| frame_len(&right[..len], ChannelRange::Rfc8656).is_ok()), "{kind:?}");
            for wrong in 4..8 {
                let mut bytes = right.clone();
                bytes[wrong] ^= 1;
                for len in 0..=8 {
                    let is_error = len > wrong && kind != BINDING_REQUEST;
                    assert_eq!(
                        frame_len(&bytes[..len], ChannelRange::Rfc8656).is_err(),
                        is_error,
                        "{kind:?} {wrong} {len}"
                    );
                }
            }
        }
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
                prop_assert_eq!(frame_len(&stream[at..at + 4], ChannelRange::Rfc8656), Ok(Some(end - at)));
                at = end;
            }
        }

        /// What is an error stays one, whatever follows, and what is the start of a message stays one until it is whole.
        #[test]
        fn more_bytes_do_not_mend_an_error(bytes in prop::collection::vec(prop_oneof![0u8..4, Just(0x21), any::<u8>()], 0..12)) {
            let verdicts: Vec<_> = (0..=bytes.len()).map(|len| frame_len(&bytes[..len], ChannelRange::Rfc8656)).collect();
            prop_assert!(verdicts.windows(2).all(|pair| pair[0].is_ok() || pair[1].is_err()));
            if bytes.len() > FRAME_CHECKED {
                prop_assert_eq!(verdicts[FRAME_CHECKED].is_err(), verdicts[bytes.len()].is_err());
            }
        }
    }
}
