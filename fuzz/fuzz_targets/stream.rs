//! Feeds a stream of arbitrary bytes to the reassembly in arbitrary pieces: it yields the same messages as in one piece, each
//! as long as its header says, buffers at most one incomplete message, and fails at the same byte.

#![no_main]

use hairpin::datapath::stream::{Pool, Reassembly, next};
use hairpin::wire::{self, FRAME_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte is the number of bytes after it that are lengths of pieces.
    let Some((&count, rest)) = input.split_first() else { return };
    let (lengths, stream) = rest.split_at(rest.len().min(usize::from(count % 32)));
    let whole = messages(stream);
    assert_eq!(pieces(stream, lengths), whole);
    assert_eq!(pieces(stream, &[0]), whole, "byte by byte");
});

/// The messages of a stream, and whether it ends in a framing error.
fn messages(stream: &[u8]) -> (Vec<&[u8]>, bool) {
    let (mut found, mut rest) = (Vec::new(), stream);
    loop {
        match wire::frame_len(rest, wire::ChannelRange::Rfc8656) {
            Ok(Some(len)) if len <= rest.len() => {
                let (message, after) = rest.split_at(len);
                found.push(message);
                rest = after;
            }
            Ok(_) => return (found, false),
            Err(_) => return (found, true),
        }
    }
}

/// The same for a stream that arrives in pieces of these lengths plus one, repeated. Returns slices of `stream` so that
/// results compare by their bytes.
fn pieces<'a>(stream: &'a [u8], lengths: &[u8]) -> (Vec<&'a [u8]>, bool) {
    let (mut reassembly, mut pool) = (Reassembly::default(), Pool::default());
    let (mut found, mut seen, mut rest) = (Vec::new(), 0, stream);
    let lengths = if lengths.is_empty() { &[255][..] } else { lengths };
    for length in lengths.iter().cycle().map(|&length| 1 + usize::from(length)) {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        let mut buffer = vec![0xEE; reassembly.buffered()];
        buffer.extend_from_slice(piece);
        let end = reassembly.complete(&mut buffer, piece.len(), &mut pool);
        let mut at = 0;
        loop {
            match next(&buffer[at..end], wire::ChannelRange::Rfc8656, true) {
                Ok(Some(run)) => {
                    assert!(run.segment_size > 0 && run.len % run.segment_size == 0);
                    for message in buffer[at..at + run.len].chunks(run.segment_size) {
                        let original = &stream[seen..seen + message.len()];
                        assert_eq!(message, original);
                        found.push(original);
                        seen += message.len();
                    }
                    at += run.len;
                }
                Ok(None) => break reassembly.buffer_rest(&buffer[at..end], &mut pool),
                Err(_) => return (found, true),
            }
        }
        assert!(reassembly.buffered() < FRAME_MAX);
        if rest.is_empty() {
            break;
        }
    }
    (found, false)
}
