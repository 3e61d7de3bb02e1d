//! The output queue of a connection: whole messages in a bounded number of bytes.
//!
//! When the queue of a slow reader is full, new data messages are dropped as a whole, and queued messages stay intact.
//! Responses are not dropped: while more than a few of them wait, a connection is not read, so its client gets no further
//! ones. Data counts as relayed when it has left the queue.

use super::pool::Pool;
use crate::turn::Header;
use crate::turn::stats::TrafficCount;
use crate::wire;

/// Bytes of responses that may wait before a connection is not read any more: a few dozen responses.
const RESPONSES: usize = 4 << 10;

/// Bytes of responses that may wait in any case.
const RESPONSES_MAX: usize = 1 << 16;

/// A connection's queue.
#[derive(Default)]
pub(in crate::datapath) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them have been sent.
    sent: usize,
    /// Where the first message begins that has not been sent as a whole.
    message: usize,
    /// The data in the queue.
    data: TrafficCount,
    /// Data that has left the queue and is still in the buffers of TLS.
    encrypted: TrafficCount,
    /// Bytes of the responses in the queue that have not been sent as a whole.
    responses: usize,
}

impl Outgoing {
    /// The bytes that have not been sent.
    pub(in crate::datapath) fn queued(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The data that waits here.
    pub(in crate::datapath) fn data(&self) -> TrafficCount {
        self.data + self.encrypted
    }

    /// Whether so many responses wait that there should be no more.
    pub(in crate::datapath) fn has_many_responses(&self) -> bool {
        self.responses > RESPONSES
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
        self.data.add(1, payload.len() as u64);
        true
    }

    /// Adds a message of the core; false if there is no room for it. Indications are bound like data.
    pub(in crate::datapath) fn push_message(
        &mut self,
        bound: usize,
        message: &[u8],
        pool: &mut Pool,
    ) -> bool {
        let is_response = !is_indication(message);
        let (waiting, bound) =
            if is_response { (self.responses, RESPONSES_MAX) } else { (self.queued().len(), bound) };
        if waiting + message.len() > bound {
            return false;
        }
        self.make_room(pool);
        self.bytes.extend_from_slice(message);
        if is_response {
            self.responses += message.len();
        }
        true
    }

    /// Removes bytes that have been sent, or that TLS has taken over.
    pub(in crate::datapath) fn advance(&mut self, count: usize, pool: &mut Pool) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            pool.put(std::mem::take(&mut self.bytes));
            let encrypted = self.data();
            *self = Outgoing { encrypted, ..Outgoing::default() };
            return;
        }
        while let Some((len, payload)) = first_message(&self.bytes[self.message..])
            && self.message + len <= self.sent
        {
            if payload.is_none() && !is_indication(&self.bytes[self.message..]) {
                self.responses = self.responses.saturating_sub(len);
            }
            self.message += len;
            if let Some(payload) = payload {
                self.data.subtract(1, payload as u64);
                self.encrypted.add(1, payload as u64);
            }
        }
    }

    /// The socket has taken everything that has left the queue.
    pub(in crate::datapath) fn flushed(&mut self) {
        self.encrypted = TrafficCount::default();
    }

    fn make_room(&mut self, pool: &mut Pool) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        // More bytes have been sent than are moved, so the cost is amortized.
        if self.message > self.bytes.len() / 2 {
            self.bytes.drain(..self.message);
            self.sent -= self.message;
            self.message = 0;
        }
    }
}

/// The length of the message at the start of a part of the queue, and of the data in it. Unlike in what clients send, every
/// message is known to be one.
fn first_message(queued: &[u8]) -> Option<(usize, Option<usize>)> {
    let &[first, _, high, low] = queued.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let len =
        if first < 0x40 { wire::STUN_HEADER + len } else { wire::CHANNEL_HEADER + len + wire::padding(len) };
    Some((len, wire::relayed_payload(queued)))
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
        assert!(responses > 500 && queue.queued().len() <= BOUND + RESPONSES_MAX, "{responses}");
    }

    /// A few responses may wait. Those that have been sent do not count, whatever data follows them.
    #[test]
    fn many_responses_are_noticed() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        let response = [&[1, 1, 0, 80][..], &[0; 96]].concat();
        let few = (0..).take_while(|_| {
            queue.push_message(BOUND, &response, &mut pool);
            !queue.has_many_responses()
        });
        assert_eq!(few.count(), RESPONSES / 100);
        let responses = queue.queued().len();
        assert!(!queue.push_data(BOUND, &Header::Channel(0x4001), 0, &[0; 96], &mut pool));
        assert!(queue.push_data(1 << 16, &Header::Channel(0x4001), 0, &[0; 96], &mut pool));
        queue.advance(99, &mut pool);
        assert!(queue.has_many_responses(), "none has left as a whole");
        queue.advance(1, &mut pool);
        assert!(!queue.has_many_responses());
        queue.advance(responses - 100, &mut pool);
        assert!(queue.responses == 0 && !queue.queued().is_empty());
    }

    /// A slow client that always has a few responses waiting is read, however many it has got.
    #[test]
    fn responses_that_have_left_do_not_count() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        let response = [&[1, 1, 0, 80][..], &[0; 96]].concat();
        assert!(queue.push_message(BOUND, &response, &mut pool));
        for n in 0..1000 {
            assert!(queue.push_message(BOUND, &response, &mut pool));
            assert!(queue.push_data(1 << 16, &Header::Channel(0x4001), n, &[0; 96], &mut pool));
            queue.advance(if n == 0 { 100 } else { 200 }, &mut pool);
            assert!(!queue.has_many_responses(), "{n}: {}", queue.responses);
        }
    }

    /// Data counts as relayed when its last byte has left, and messages without data do not count.
    #[test]
    fn data_is_counted_until_it_has_left() {
        let (mut queue, mut pool) = (Outgoing::default(), Pool::default());
        let peers = ["192.0.2.1:9", "[2001:db8::1]:9"].map(|peer| peer.parse().unwrap());
        let id = wire::TransactionId([7; 12]);
        let headers = [
            Header::Channel(0x4001),
            Header::Data { id, peer: peers[0] },
            Header::Data { id, peer: peers[1] },
        ];
        for step in [1, 7, 1000] {
            let (mut messages, mut expected) = (Vec::new(), TrafficCount::default());
            for n in 0..60 {
                let (header, len) = (&headers[n % 3], n * 5);
                assert!(queue.push_data(1 << 16, header, n, &vec![7; len], &mut pool));
                messages.push((header.len() + len + wire::padding(len), Some(len as u64)));
                expected.add(1, len as u64);
                // RFC 8656 §11.5: an ICMP indication, and the response to a classic Binding request
                for other in [[0x00, 0x17, 0, 4, 0x80, 0x04, 0, 0], [0x01, 0x01, 0, 4, 0, 0, 0, 0]] {
                    assert!(queue.push_message(1 << 16, &[&other[..], &[0; 16]].concat(), &mut pool));
                    messages.push((24, None));
                }
            }
            assert_eq!(queue.data(), expected);
            let (mut sent, mut next) = (0, messages.iter().peekable());
            while !queue.queued().is_empty() {
                let count = step.min(queue.queued().len());
                queue.advance(count, &mut pool);
                assert_eq!(queue.data(), expected, "TLS still has it");
                queue.flushed();
                sent += count;
                while let Some((len, payload)) = next.next_if(|(len, _)| *len <= sent) {
                    sent -= len;
                    payload.iter().for_each(|&payload| expected.subtract(1, payload));
                }
                assert_eq!(queue.data(), expected);
            }
            assert_eq!(expected, TrafficCount::default());
        }
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
