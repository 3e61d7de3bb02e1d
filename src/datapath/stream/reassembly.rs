//! Splits a stream into messages (RFC 8489 section 6.2.2, RFC 8656 section 12.5).
//!
//! Messages are split in the buffer that they were read into; a connection stores bytes of its own only while a message is
//! unfinished. When the rest arrives, they are copied to the start of the buffer, so that every message is contiguous. No
//! byte is copied more than twice, however small the reads are.

use super::pool::Pool;
use crate::wire::{self, FramingError};

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
        if buffered == 0 {
            return end;
        }
        // The buffered bytes are the valid start of a message, as `next` found when they were read.
        let needed = wire::frame_len(&self.partial).ok().flatten().unwrap_or(wire::CHANNEL_HEADER);
        if end < needed {
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

/// The messages at the start of `bytes`; `None` if the first one is unfinished.
///
/// # Errors
/// If the bytes are not the start of a message. The rest of the stream cannot be framed either.
pub fn next(bytes: &[u8]) -> Result<Option<MessageRun>, FramingError> {
    let Some(segment_size) = wire::frame_len(bytes)?.filter(|&len| len <= bytes.len()) else {
        return Ok(None);
    };
    let more = if wire::is_channel_data(bytes) {
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
            let mut at = 0;
            loop {
                match next(&buffer[at..end]) {
                    Ok(Some(run)) => {
                        messages
                            .extend(buffer[at..at + run.len].chunks(run.segment_size).map(<[u8]>::to_vec));
                        at += run.len;
                    }
                    Ok(None) => break reassembly.buffer_rest(&buffer[at..end], &mut pool),
                    Err(FramingError) => return (messages, false, 0),
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
        assert_eq!(next(&stream), Ok(Some(MessageRun { segment_size: 12, len: 24 })));
        assert_eq!(next(&stream[24..]), Ok(Some(MessageRun { segment_size: 4, len: 4 })));
        let many = messages()[3].repeat(1000);
        assert_eq!(
            next(&many),
            Ok(Some(MessageRun { segment_size: 4, len: 4 * MAX_RUN })),
            "runs are bounded"
        );
    }

    /// RFC 8656 §12: 0x5000 is a framing error, also when it arrives byte by byte.
    #[test]
    fn a_framing_error() {
        let mut stream = messages().concat();
        stream.extend([0x50, 0, 0, 0]);
        assert_eq!(feed([&stream[..]]), (messages(), false, 0));
        assert_eq!(feed(stream.chunks(1)), (messages(), false, 0));
    }

    #[test]
    fn the_longest_message_in_small_pieces() {
        let mut message = vec![0x00, 0x01, 0xFF, 0xFF];
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
