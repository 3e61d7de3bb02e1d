//! Messages out of a stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5): whatever the pieces it arrives in.
//!
//! Messages are cut where they were read; a connection keeps bytes of its own only while a message is unfinished. Those
//! go back to the beginning of the buffer when the message is whole, so that each message lies in one piece. No byte
//! is copied more than twice, however small the pieces are.

use super::pool::Pool;
use crate::wire::{self, FramingError};

/// A connection's unfinished message.
#[derive(Default)]
pub struct Reassembly {
    /// Shorter than the message that it begins, so shorter than [`wire::FRAME_MAX`].
    kept: Vec<u8>,
}

/// Messages at the beginning of a buffer that the core decides about at once: one STUN message, or ChannelData messages
/// of one length that begin with the same four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRun {
    /// The length of each with its padding.
    pub segment_size: usize,
    /// Their length together.
    pub len: usize,
}

/// Messages in a run at most: what the outbox has room for at a time.
const RUN: usize = 128;

impl Reassembly {
    /// How many bytes wait for the rest of their message. Whoever reads leaves so much room before what it reads.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// `read` bytes now stand in `buffer` behind the room for those kept. Returns how many bytes, from the beginning of
    /// the buffer, are to be cut now: none while the message is still unfinished.
    ///
    /// # Panics
    /// If the buffer is shorter than that.
    pub fn join(&mut self, buffer: &mut [u8], read: usize, pool: &mut Pool) -> usize {
        let kept = self.kept.len();
        let end = kept + read;
        if kept == 0 {
            return end;
        }
        // What is kept was judged before: it begins a message.
        let needed = wire::frame_len(&self.kept).ok().flatten().unwrap_or(wire::CHANNEL_HEADER);
        if end < needed {
            self.kept.extend_from_slice(&buffer[kept..end]);
            return 0;
        }
        buffer[..kept].copy_from_slice(&self.kept);
        pool.put(std::mem::take(&mut self.kept));
        end
    }

    /// Keeps what [`next`] left over.
    pub fn keep(&mut self, rest: &[u8], pool: &mut Pool) {
        if !rest.is_empty() {
            self.kept = pool.take();
            self.kept.extend_from_slice(rest);
        }
    }
}

/// The messages that `bytes` begin with; `None` if the first is unfinished.
///
/// # Errors
/// The stream is of no use any more.
pub fn next(bytes: &[u8]) -> Result<Option<MessageRun>, FramingError> {
    let Some(segment_size) = wire::frame_len(bytes)?.filter(|&len| len <= bytes.len()) else {
        return Ok(None);
    };
    let alike = if wire::is_channel_data(bytes) {
        let header = &bytes[..wire::CHANNEL_HEADER];
        let following = bytes[segment_size..].chunks_exact(segment_size).take(RUN - 1);
        following.take_while(|next| next.starts_with(header)).count()
    } else {
        0
    };
    Ok(Some(MessageRun { segment_size, len: segment_size * (1 + alike) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Class, Encoder, Method, TransactionId};

    /// Feeds pieces; returns the messages, or those before the stream was lost.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool, usize) {
        let (mut reassembly, mut pool) = (Reassembly::default(), Pool::default());
        let mut messages = Vec::new();
        for piece in pieces {
            let mut buffer = vec![0xEE; reassembly.kept()];
            buffer.extend_from_slice(piece);
            let end = reassembly.join(&mut buffer, piece.len(), &mut pool);
            let mut at = 0;
            loop {
                match next(&buffer[at..end]) {
                    Ok(Some(run)) => {
                        messages
                            .extend(buffer[at..at + run.len].chunks(run.segment_size).map(<[u8]>::to_vec));
                        at += run.len;
                    }
                    Ok(None) => break reassembly.keep(&buffer[at..end], &mut pool),
                    Err(FramingError) => return (messages, false, 0),
                }
            }
            assert!(reassembly.kept() < wire::FRAME_MAX);
        }
        (messages, true, reassembly.kept())
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

    /// RFC 8489 §6.2.2, RFC 8656 §12.5: wherever a stream is cut, its messages are the same.
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
        assert_eq!(next(&many), Ok(Some(MessageRun { segment_size: 4, len: 4 * RUN })), "a bound");
    }

    /// RFC 8656 §12: a stream that goes on with 0x5000 is lost, wherever that is cut.
    #[test]
    fn a_lost_stream() {
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
        /// Arbitrary bytes in arbitrary pieces: the same messages as in one piece.
        #[test]
        fn pieces_do_not_matter(
            stream in prop::collection::vec(prop_oneof![Just(0x40u8), Just(0u8), 0u8..9, any::<u8>()], 0..300),
            size in 1usize..40,
        ) {
            prop_assert_eq!(feed(stream.chunks(size)), feed([&stream[..]]));
        }
    }
}
