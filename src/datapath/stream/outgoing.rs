//! The output queue of a connection: whole messages in a bounded number of bytes.
//!
//! When the queue of a slow reader is full, new data messages are dropped as a whole, and queued messages stay intact.
//! Responses are not dropped; a client that sends requests without reading the responses is disconnected.

use super::pool::Pool;
use crate::turn::Header;
use crate::wire;

/// Bytes that responses may use beyond the bound on data.
const RESPONSES: usize = 1 << 16;

/// A connection's queue.
#[derive(Default)]
pub(in crate::datapath) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them have been sent.
    sent: usize,
}

impl Outgoing {
    /// The bytes that have not been sent.
    pub(in crate::datapath) fn queued(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Adds a message with a peer's data, padded to a multiple of four bytes (RFC 8656 section 12.5). Drops it and returns
    /// false if the queue would exceed `bound` bytes. An empty queue accepts a message of any length.
    pub(in crate::datapath) fn push_data(
        &mut self,
        bound: usize,
        header: &Header,
        n: usize,
        payload: &[u8],
        pool: &mut Pool,
    ) -> bool {
        let padding = wire::padding(payload.len());
        let len = header.len() + payload.len() + padding;
        let queued = self.queued().len();
        if queued > 0 && queued + len > bound {
            return false;
        }
        self.make_room(pool);
        let at = self.bytes.len();
        self.bytes.resize(at + header.len(), 0);
        header.write(n, payload.len(), &mut self.bytes[at..]);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(at + len, 0);
        true
    }

    /// Adds a message of the core; false if there is no room for it. Responses may exceed `bound` by `RESPONSES` bytes;
    /// indications may not.
    pub(in crate::datapath) fn push_message(
        &mut self,
        bound: usize,
        message: &[u8],
        pool: &mut Pool,
    ) -> bool {
        let bound = if is_indication(message) { bound } else { bound.max(wire::FRAME_MAX) + RESPONSES };
        let room = self.queued().len() + message.len() <= bound;
        if room {
            self.make_room(pool);
            self.bytes.extend_from_slice(message);
        }
        room
    }

    /// Removes bytes that have been sent.
    pub(in crate::datapath) fn advance(&mut self, count: usize, pool: &mut Pool) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            pool.put(std::mem::take(&mut self.bytes));
            self.sent = 0;
        }
    }

    fn make_room(&mut self, pool: &mut Pool) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        // More bytes have been sent than are moved, so the cost is amortized.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Whether a STUN message is an indication (RFC 8489 section 5).
pub(in crate::datapath) fn is_indication(message: &[u8]) -> bool {
    message.first_chunk().is_some_and(|&[high, low]| (high & 1, low & 0x10) == (0, 0x10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: usize = 1000;

    /// RFC 8656 §12.7: messages are dropped as a whole, and queued messages stay intact and padded.
    #[test]
    fn data_is_dropped_in_whole_messages() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        let header = Header::Channel(0x4001);
        let taken =
            (0..100).filter(|&n| queue.push_data(BOUND, &header, n, &[n as u8; 97], &mut pool)).count();
        assert_eq!(taken, BOUND / 104);
        assert_eq!(queue.queued().len(), taken * 104);
        for (n, message) in queue.queued().chunks(104).enumerate() {
            assert_eq!(message[..4], [0x40, 1, 0, 97]);
            assert_eq!(message[4..], [[n as u8; 97].as_slice(), &[0; 3]].concat());
        }
        queue.advance(104 + 50, &mut pool);
        assert!(queue.push_data(BOUND, &header, 0, b"later", &mut pool), "there is room again");
        assert_eq!(queue.queued()[54..58], [0x40, 1, 0, 97], "the next message is intact");
    }

    /// RFC 8656 §12.5: from 0 bytes to the largest value of the length field.
    #[test]
    fn every_length_fits() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        for len in [0, 1, 2, 3, 4, 65_507, 65_535] {
            assert!(queue.push_data(BOUND, &Header::Channel(0x4001), 0, &vec![7; len], &mut pool));
            assert_eq!(queue.queued().len(), 4 + len.next_multiple_of(4));
            queue.advance(queue.queued().len(), &mut pool);
        }
        assert_eq!(queue.bytes.capacity(), 0, "an empty queue has no buffer");
    }

    #[test]
    fn responses_have_room_beyond_the_bound_on_data() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        while queue.push_data(BOUND, &Header::Channel(0x4001), 0, &[0; 96], &mut pool) {}
        assert!(queue.push_message(BOUND, &[1; 100], &mut pool));
        let error = [&[0x00, 0x17][..], &[0; 98]].concat();
        assert!(
            is_indication(&error) && !queue.push_message(BOUND, &error, &mut pool),
            "an indication is treated as data"
        );
        let responses = (0..).take_while(|_| queue.push_message(BOUND, &[1; 100], &mut pool)).count();
        assert!(responses > 500 && queue.queued().len() <= wire::FRAME_MAX + RESPONSES, "{responses}");
    }

    #[test]
    fn memory_is_bounded_when_the_queue_is_never_empty() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        for n in 0..10_000 {
            queue.push_data(BOUND, &Header::Channel(0x4001), n, &[0; 96], &mut pool);
            if n > 5 {
                queue.advance(100, &mut pool);
            }
        }
        assert!(!queue.queued().is_empty() && queue.bytes.capacity() < 4 * BOUND);
    }
}
