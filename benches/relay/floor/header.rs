//! The header before a payload on the clients' side, four bytes of ChannelData or 36 of an indication, removed and added
//! in place.
//!
//! Both layouts end in the payload's length, the only field that is read or computed: a Data indication's header
//! contains the peer's address from the start, and its transaction id never changes.

use std::ops::Range;

use hairpin::wire::{self, CHANNEL_HEADER};

use super::sys::MAX_SEGMENTS;

/// Bytes of a STUN header, which its length field does not count (RFC 8489 §5).
const STUN: usize = 20;

/// A prepared header.
pub struct PayloadHeader {
    bytes: Vec<u8>,
    /// Whether messages are padded to a multiple of four bytes.
    padded: bool,
}

impl PayloadHeader {
    /// Indications are always padded, ChannelData only in a stream (RFC 8656 §12.5).
    pub fn new(bytes: Vec<u8>, in_stream: bool) -> PayloadHeader {
        let padded = in_stream || bytes.len() > CHANNEL_HEADER;
        PayloadHeader { bytes, padded }
    }

    /// The length of the first message, if it is complete.
    pub fn message_len(&self, bytes: &[u8]) -> Option<usize> {
        let payload = self.payload_len(bytes)?;
        let len = self.bytes.len() + payload + self.padding(payload);
        (len <= bytes.len()).then_some(len)
    }

    /// Removes the header of every message. Messages are `stride` bytes long, or there is only one if `stride` is 0.
    /// Returns the range of the payloads and the length of each; the first one is not moved.
    pub fn strip(&self, bytes: &mut [u8], messages: Range<usize>, stride: usize) -> (Range<usize>, usize) {
        let stride = if stride == 0 { messages.len().max(1) } else { stride };
        let start = messages.start + self.bytes.len();
        let (mut to, mut size) = (start, 0);
        for from in messages.clone().step_by(stride) {
            let message = &bytes[from..messages.end.min(from + stride)];
            let room = message.len().saturating_sub(self.bytes.len());
            let payload = if self.padded { self.payload_len(message).unwrap_or(0).min(room) } else { room };
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

    /// Adds a header before every payload. Payloads are `size` bytes long, or there is only one if `size` is 0. Returns
    /// the range of the messages and the length of each; the last payload is not moved.
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

    fn payload_len(&self, message: &[u8]) -> Option<usize> {
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
