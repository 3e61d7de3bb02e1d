//! What stands before a payload on the clients' side, ChannelData's four bytes or an indication's 36, taken off and put on
//! in place.
//!
//! Both layouts end in the payload's length, which is all that is ever read or computed: the peer's address stands in a
//! Data indication's header from the start, and its transaction id stays what it is.

use std::ops::Range;

use hairpin::wire::{self, CHANNEL_HEADER};

use crate::sys::MAX_SEGMENTS;

/// Bytes of a STUN header; its length does not count them (RFC 8489 §5).
const STUN: usize = 20;

/// A header made beforehand.
pub struct Header {
    bytes: Vec<u8>,
    /// Whether messages are filled up to four bytes.
    padded: bool,
}

impl Header {
    /// Indications are padded everywhere, ChannelData in a stream (RFC 8656 §12.5).
    pub fn new(bytes: Vec<u8>, in_stream: bool) -> Header {
        let padded = in_stream || bytes.len() > CHANNEL_HEADER;
        Header { bytes, padded }
    }

    /// The length of the message that these bytes begin with, if it is there in whole.
    pub fn message(&self, bytes: &[u8]) -> Option<usize> {
        let payload = self.announced(bytes)?;
        let len = self.bytes.len() + payload + self.padding(payload);
        (len <= bytes.len()).then_some(len)
    }

    /// Takes it off every message, `stride` bytes each, or off the only one if that is 0; where the payloads then
    /// stand, and how long each is. The first stays in place.
    pub fn strip(&self, bytes: &mut [u8], messages: Range<usize>, stride: usize) -> (Range<usize>, usize) {
        let stride = if stride == 0 { messages.len().max(1) } else { stride };
        let start = messages.start + self.bytes.len();
        let (mut to, mut size) = (start, 0);
        for from in messages.clone().step_by(stride) {
            let message = &bytes[from..messages.end.min(from + stride)];
            let room = message.len().saturating_sub(self.bytes.len());
            let payload = if self.padded { self.announced(message).unwrap_or(0).min(room) } else { room };
            let from = from + self.bytes.len();
            if from == start {
                size = payload;
            } else {
                bytes.copy_within(from..from + payload, to);
            }
            to += payload;
        }
        (start..to, size)
    }

    /// Puts it before every payload, `size` bytes each, or before the only one if that is 0; where the messages then
    /// stand, and how long each is. The last payload stays in place.
    pub fn add(&self, bytes: &mut [u8], payloads: Range<usize>, size: usize) -> (Range<usize>, usize) {
        let size = if size == 0 { payloads.len().max(1) } else { size };
        let count = payloads.len().div_ceil(size).clamp(1, MAX_SEGMENTS);
        let start = payloads.start - count * self.bytes.len() - (count - 1) * self.padding(size);
        let mut to = start;
        for n in 0..count {
            let from = payloads.start + n * size;
            let payload = size.min(payloads.end - from);
            let at = to + self.bytes.len();
            self.write(&mut bytes[to..at], payload);
            if at != from {
                bytes.copy_within(from..from + payload, at);
            }
            to = at + payload + self.padding(payload);
            bytes[at + payload..to].fill(0);
        }
        (start..to, self.bytes.len() + size + self.padding(size))
    }

    fn announced(&self, message: &[u8]) -> Option<usize> {
        let length = message.get(self.bytes.len() - 2..self.bytes.len())?;
        Some(usize::from(u16::from_be_bytes([length[0], length[1]])))
    }

    fn padding(&self, payload: usize) -> usize {
        if self.padded { wire::padding(payload) } else { 0 }
    }

    fn write(&self, out: &mut [u8], payload: usize) {
        let len = out.len();
        out.copy_from_slice(&self.bytes);
        out[len - 2..].copy_from_slice(&(payload as u16).to_be_bytes());
        if len > CHANNEL_HEADER {
            let message = (len - STUN + payload + self.padding(payload)) as u16;
            out[2..4].copy_from_slice(&message.to_be_bytes());
        }
    }
}
