//! Splits a stream into messages (RFC 8489 section 6.2.2, RFC 8656 section 12.5).
//!
//! Messages are split in the buffer that they were read into; a connection stores bytes of its own only while a message is
//! unfinished. When the rest arrives, they are copied to the start of the buffer, so that every message is contiguous. No
//! byte is copied more than twice, however small the reads are; only the first few bytes of a message, which show whether
//! it can be one, are looked at again with each read.

use super::pool::Pool;
use crate::wire::{self, ChannelRange, FramingError};

/// A connection's unfinished message.
#[derive(Default)]
pub struct Reassembly {
    /// The start of a message, so shorter than [`wire::FRAME_MAX`].
    partial: Vec<u8>,
}

/// Messages at the start of a buffer that the core handles together: one STUN message, or ChannelData messages with the same
/// channel and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRun {
    /// The length of each message with its padding.
    pub segment_size: usize,
    /// The length of all messages.
    pub len: usize,
}

/// Why the rest of a stream is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It cannot be framed.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// There can be no channel yet.
    #[error("ChannelData on a connection that never had an allocation")]
    TooEarly,
}

/// The maximum number of messages in a run, which is what the outbox can add at a time.
const MAX_RUN: usize = 128;

impl Reassembly {
    /// The number of bytes of the unfinished message. A reader leaves that much room at the start of its buffer.
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }

    /// Accepts `read` bytes that were read into `buffer` after the room for the buffered ones. Returns how many bytes, from
    /// the start of the buffer, can be split now: 0 while the message is still unfinished.
    ///
    /// # Panics
    /// If the buffer is shorter than the buffered and the new bytes.
    pub fn complete(&mut self, buffer: &mut [u8], read: usize, pool: &mut Pool) -> usize {
        let buffered = self.partial.len();
        let end = buffered + read;
        if buffered == 0 || read == 0 {
            return read;
        }
        // The buffered bytes are the valid start of a message, as `next` found when they were read. While they are fewer
        // than show that, each further byte may show that they are not.
        let needed = wire::frame_len(&self.partial, ChannelRange::Rfc5766).ok().flatten().unwrap_or(0);
        if buffered >= wire::FRAME_CHECKED.min(needed) && end < needed {
            self.partial.extend_from_slice(&buffer[buffered..end]);
            return 0;
        }
        buffer[..buffered].copy_from_slice(&self.partial);
        pool.put(std::mem::take(&mut self.partial));
        end
    }

    /// Buffers the bytes after the last complete message.
    pub fn buffer_rest(&mut self, rest: &[u8], pool: &mut Pool) {
        if !rest.is_empty() {
            self.partial = pool.take();
            self.partial.extend_from_slice(rest);
        }
    }
}

/// The messages at the start of `bytes`; `None` if the first one is unfinished. `channels` is what ChannelData begins with;
/// `allocated`: the connection has or had an allocation, so there may be some.
///
/// # Errors
/// If the bytes are not the start of a message. The rest of the stream cannot be framed either.
pub fn next(
    bytes: &[u8],
    channels: ChannelRange,
    allocated: bool,
) -> Result<Option<MessageRun>, StreamError> {
    if !allocated && channels.is_channel_data(bytes) {
        return Err(StreamError::TooEarly);
    }
    let Some(segment_size) = wire::frame_len(bytes, channels)?.filter(|&len| len <= bytes.len()) else {
        return Ok(None);
    };
    let more = if channels.is_channel_data(bytes) {
        let header = &bytes[..wire::CHANNEL_HEADER];
        let following = bytes[segment_size..].chunks_exact(segment_size).take(MAX_RUN - 1);
        following.take_while(|next| next.starts_with(header)).count()
    } else {
        0
    };
    Ok(Some(MessageRun { segment_size, len: segment_size * (1 + more) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Class, Encoder, Method, TransactionId};

    /// Feeds pieces of a stream. Returns the messages, whether there was no framing error, and how many bytes are buffered.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool, usize) {
        let (mut reassembly, mut pool) = (Reassembly::default(), Pool::default());
        let mut messages = Vec::new();
        for piece in pieces {
            let mut buffer = vec![0xEE; reassembly.buffered()];
            buffer.extend_from_slice(piece);
            let end = reassembly.complete(&mut buffer, piece.len(), &mut pool);
            if piece.is_empty() {
                assert_eq!(end, 0);
                continue;
            }
            let mut at = 0;
            loop {
                match next(&buffer[at..end], ChannelRange::Rfc8656, true) {
                    Ok(Some(run)) => {
                        messages
                            .extend(buffer[at..at + run.len].chunks(run.segment_size).map(<[u8]>::to_vec));
                        at += run.len;
                    }
                    Ok(None) => break reassembly.buffer_rest(&buffer[at..end], &mut pool),
                    Err(_) => return (messages, false, 0),
                }
            }
            assert!(reassembly.buffered() < wire::FRAME_MAX);
        }
        (messages, true, reassembly.buffered())
    }

    fn messages() -> Vec<Vec<u8>> {
        let mut stun = Encoder::new(Class::Request, Method::Binding, TransactionId([1; 12]));
        stun.text(0x8022, "a client");
        let channel = |len: usize| {
            let mut message = vec![0x40, 1, 0, len as u8];
            message.resize(4 + len + wire::padding(len), 0x77);
            message
        };
        vec![channel(5), channel(5), stun.finish(), channel(0), channel(0), channel(8)]
    }

    /// RFC 8489 §6.2.2, RFC 8656 §12.5: the messages do not depend on where a stream is split.
    #[test]
    fn split_at_every_byte() {
        let messages = messages();
        let stream = messages.concat();
        for at in 0..=stream.len() {
            let (first, second) = stream.split_at(at);
            assert_eq!(feed([first, second]), (messages.clone(), true, 0));
        }
        assert_eq!(feed(stream.chunks(1)), (messages.clone(), true, 0));
        assert_eq!(feed([&stream[..]]), (messages, true, 0));
    }

    #[test]
    fn equal_channel_data_is_one_run() {
        let stream = [messages()[0].clone(), messages()[1].clone(), messages()[3].clone()].concat();
        assert_eq!(
            next(&stream, ChannelRange::Rfc8656, true),
            Ok(Some(MessageRun { segment_size: 12, len: 24 }))
        );
        assert_eq!(
            next(&stream[24..], ChannelRange::Rfc8656, true),
            Ok(Some(MessageRun { segment_size: 4, len: 4 }))
        );
        let many = messages()[3].repeat(1000);
        assert_eq!(
            next(&many, ChannelRange::Rfc8656, true),
            Ok(Some(MessageRun { segment_size: 4, len: 4 * MAX_RUN })),
            "runs are bounded"
        );
    }

    /// RFC 8656 §12, RFC 8489 §5: a framing error, also when it arrives byte by byte, and as soon as it has arrived.
    #[test]
    fn a_framing_error() {
        for error in [&[0x50][..], &[0x04], &[0x00, 0x03, 0x01, 0x01], &[0x00, 0x03, 0x01, 0x00, 0x21, 0x13]]
        {
            let stream = [&messages().concat(), error].concat();
            assert_eq!(feed([&stream[..]]), (messages(), false, 0));
            assert_eq!(feed(stream.chunks(1)), (messages(), false, 0));
            let (unfinished, last) = stream.split_at(stream.len() - 1);
            assert_eq!(feed([unfinished]), (messages(), true, error.len() - 1));
            assert_eq!(feed([unfinished, last]), (messages(), false, 0));
        }
    }

    /// A read that brings nothing leaves the unfinished message as it is.
    #[test]
    fn an_empty_read() {
        let message = messages()[2].clone();
        for at in 1..message.len() {
            let (first, second) = message.split_at(at);
            assert_eq!(feed([first, &[], second]), (vec![message.clone()], true, 0), "{at}");
        }
    }

    /// RFC 5766 §11: with its channel numbers, messages with these are framed too.
    #[test]
    fn channel_data_of_older_clients() {
        let stream = [&[0x7A, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0].repeat(2)[..], &messages()[2]].concat();
        let run = MessageRun { segment_size: 12, len: 24 };
        assert_eq!(next(&stream, ChannelRange::Rfc5766, true), Ok(Some(run)));
        assert_eq!(next(&stream[..1], ChannelRange::Rfc5766, true), Ok(None));
        assert_eq!(next(&stream, ChannelRange::Rfc5766, false), Err(StreamError::TooEarly));
        let error = StreamError::Framing(FramingError::FirstByte);
        assert_eq!(next(&stream, ChannelRange::Rfc8656, true), Err(error));
        assert_eq!(next(&[0x80, 0, 0, 0], ChannelRange::Rfc5766, true), Err(error));
    }

    /// RFC 8656 §12.6: there is no channel without an allocation, so its first byte is enough.
    #[test]
    fn channel_data_without_an_allocation() {
        assert_eq!(next(&[0x40], ChannelRange::Rfc8656, false), Err(StreamError::TooEarly));
        assert_eq!(next(&[0x40], ChannelRange::Rfc8656, true), Ok(None));
        let request = &messages()[2];
        assert_eq!(next(request, ChannelRange::Rfc8656, false), next(request, ChannelRange::Rfc8656, true));
    }

    #[test]
    fn the_longest_message_in_small_pieces() {
        let mut message = vec![0x00, 0x01, 0xFF, 0xFC];
        message.resize(wire::FRAME_MAX, 7);
        assert_eq!(feed(message.chunks(1000)), (vec![message.clone()], true, 0));
        let unfinished = wire::FRAME_MAX - 1;
        assert_eq!(feed(message[..unfinished].chunks(1000)), (vec![], true, unfinished));
    }

    proptest! {
        /// Arbitrary bytes in pieces of any size yield the same messages as in one piece.
        #[test]
        fn piece_sizes_do_not_matter(
            stream in prop::collection::vec(prop_oneof![Just(0x40u8), Just(0u8), 0u8..9, any::<u8>()], 0..300),
            size in 1usize..40,
        ) {
            prop_assert_eq!(feed(stream.chunks(size)), feed([&stream[..]]));
        }
    }
}
