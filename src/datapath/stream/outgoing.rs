//! What waits for a client to read: whole messages, one behind the other, in a bounded number of bytes.
//!
//! A client that reads slowly loses data as it would behind any full queue: whole messages that find no room, and
//! nothing of those that wait already. Answers are not lost; a client that asks and never reads is given up.

use super::pool::Pool;
use crate::turn::Header;
use crate::wire;

/// Bytes that answers may take beyond the bound on data.
const ANSWERS: usize = 1 << 16;

/// A connection's queue.
#[derive(Default)]
pub(in crate::datapath) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
}

impl Outgoing {
    /// What waits.
    pub(in crate::datapath) fn queued(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Adds a message with a peer's data (RFC 8656 section 12.5: padded to four bytes in a stream); false, and it is
    /// dropped, if that were more than `bound` bytes. The first message finds room whatever its length.
    pub(in crate::datapath) fn data(
        &mut self,
        bound: usize,
        header: &Header,
        n: usize,
        payload: &[u8],
        pool: &mut Pool,
    ) -> bool {
        let padding = wire::padding(payload.len());
        let len = header.len() + payload.len() + padding;
        let waiting = self.queued().len();
        if waiting > 0 && waiting + len > bound {
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

    /// Adds a message of the core; false if there is no room for it: for answers not even beyond the bound, for
    /// indications within it.
    pub(in crate::datapath) fn message(&mut self, bound: usize, message: &[u8], pool: &mut Pool) -> bool {
        let bound = if is_indication(message) { bound } else { bound.max(wire::FRAME_MAX) + ANSWERS };
        let room = self.queued().len() + message.len() <= bound;
        if room {
            self.make_room(pool);
            self.bytes.extend_from_slice(message);
        }
        room
    }

    /// So many bytes are sent.
    pub(in crate::datapath) fn sent(&mut self, count: usize, pool: &mut Pool) {
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
        // Each byte is moved once at most for every byte that was sent.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// RFC 8489 section 5: the class of a message.
pub(in crate::datapath) fn is_indication(message: &[u8]) -> bool {
    message.first_chunk().is_some_and(|&[high, low]| (high & 1, low & 0x10) == (0, 0x10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: usize = 1000;

    /// RFC 8656 §12.7: whole messages only, each padded; what found room stays whole.
    #[test]
    fn data_is_dropped_in_whole_messages() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        let header = Header::Channel(0x4001);
        let taken = (0..100).filter(|&n| queue.data(BOUND, &header, n, &[n as u8; 97], &mut pool)).count();
        assert_eq!(taken, BOUND / 104);
        assert_eq!(queue.queued().len(), taken * 104);
        for (n, message) in queue.queued().chunks(104).enumerate() {
            assert_eq!(message[..4], [0x40, 1, 0, 97]);
            assert_eq!(message[4..], [[n as u8; 97].as_slice(), &[0; 3]].concat());
        }
        queue.sent(104 + 50, &mut pool);
        assert!(queue.data(BOUND, &header, 0, b"later", &mut pool), "room again");
        assert_eq!(queue.queued()[54..58], [0x40, 1, 0, 97], "the next message stands where it stood");
    }

    /// RFC 8656 §12.5: from 0 bytes to all that a length can say.
    #[test]
    fn every_length_fits() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        for len in [0, 1, 2, 3, 4, 65_507, 65_535] {
            assert!(queue.data(BOUND, &Header::Channel(0x4001), 0, &vec![7; len], &mut pool));
            assert_eq!(queue.queued().len(), 4 + len.next_multiple_of(4));
            queue.sent(queue.queued().len(), &mut pool);
        }
        assert_eq!(queue.bytes.capacity(), 0, "an idle client owns no buffer");
    }

    #[test]
    fn answers_find_room_where_data_does_not() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        while queue.data(BOUND, &Header::Channel(0x4001), 0, &[0; 96], &mut pool) {}
        assert!(queue.message(BOUND, &[1; 100], &mut pool));
        let error = [&[0x00, 0x17][..], &[0; 98]].concat();
        assert!(is_indication(&error) && !queue.message(BOUND, &error, &mut pool), "that is data");
        let answers = (0..).take_while(|_| queue.message(BOUND, &[1; 100], &mut pool)).count();
        assert!(answers > 500 && queue.queued().len() <= wire::FRAME_MAX + ANSWERS, "{answers}");
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        for n in 0..10_000 {
            queue.data(BOUND, &Header::Channel(0x4001), n, &[0; 96], &mut pool);
            if n > 5 {
                queue.sent(100, &mut pool);
            }
        }
        assert!(!queue.queued().is_empty() && queue.bytes.capacity() < 4 * BOUND);
    }
}
