//! Tests of the outbox: for any incoming batches, the same payloads are sent, in order and within the limits of the kernel.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use proptest::prelude::*;
use slotmap::KeyData;

use super::*;
use crate::datapath::packet::arena::{Arena, SLOTS};
use crate::datapath::sys::receive::Receiver;
use crate::wire::{self, Class, Message as Stun, Method, TransactionId, attribute};

/// A GRO batch of one sender: datagrams of `size` bytes; the last one may be shorter.
#[derive(Clone, Debug)]
struct Batch {
    /// The client or peer that sends it.
    sender: u8,
    size: usize,
    count: usize,
    last: usize,
}

impl Batch {
    fn lengths(&self) -> Vec<usize> {
        let mut lengths = vec![self.size; self.count];
        lengths[self.count - 1] = self.last;
        lengths
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    let size = prop_oneof![0usize..20, 900usize..1300, Just(4_000), Just(60_000)];
    (0u8..2, size, 1usize..=SEGMENTS, any::<prop::sample::Index>()).prop_map(|(sender, size, count, last)| {
        // The kernel never joins empty datagrams, and a batch has at most 64 KiB, including the client's headers.
        let count = if size == 0 { 1 } else { count.min(65_000 / (size + 8)).max(1) };
        let last = if size == 0 { 0 } else { last.index(size) + 1 };
        Batch { sender, size, count, last }
    })
}

/// Bytes that differ between datagrams.
fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed * 31 + i * 7 + i / 256) as u8).collect()
}

fn route(sender: u8) -> Route {
    let relay = KeyData::from_ffi(1 << 32).into();
    Route {
        via: Egress::Relay(relay),
        to: SocketAddr::new([192, 0, 2, sender].into(), 5000),
        source: None,
        tos: Tos(sender),
        dont_fragment: false,
    }
}

/// Checks that the kernel would accept the batches, and segments them like the kernel.
fn datagrams(outbox: &Outbox, memory: &[u8], gso: bool) -> Vec<(Route, Vec<u8>)> {
    let mut all = Vec::new();
    for batch in &outbox.batches {
        assert!(batch.count <= BATCH_SEGMENTS && (gso || batch.count == 1), "{batch:?}");
        assert!(batch.bytes.len() <= BATCH_BYTES || batch.count == 1, "{batch:?}");
        assert_eq!(batch.bytes.len().div_ceil(batch.segment_size.max(1)).max(1), batch.count, "{batch:?}");
        for n in 0..batch.count {
            let start = batch.bytes.start + n * batch.segment_size;
            all.push((batch.route, memory[start..batch.bytes.end.min(start + batch.segment_size)].to_vec()));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// RFC 8656 §12.6: the payloads of ChannelData are sent unchanged, without headers, and in order.
    #[test]
    fn payloads_reach_peers(batches in prop::collection::vec(batch(), 1..12), padding in 0usize..4, gso: bool) {
        let (mut arena, mut outbox) = (Arena::new(), Outbox::new(gso));
        let mut expected = Vec::new();
        for batch in &batches {
            // A shorter last datagram of a batch is a run of its own.
            for run in [&batch.lengths()[..batch.count - 1], &[batch.last]] {
                let Some(&len) = run.first() else { continue };
                let segment_size = 4 + len + padding;
                let range = arena.take(run.len() * segment_size);
                for n in 0..run.len() {
                    let bytes = payload(expected.len(), len);
                    let at = range.start + n * segment_size + 4;
                    arena.memory()[at..at + len].copy_from_slice(&bytes);
                    expected.push((route(batch.sender), bytes));
                }
                outbox.for_peer(arena.memory(), route(batch.sender), range, segment_size, 4, len);
            }
        }
        prop_assert!(datagrams(&outbox, arena.memory(), gso) == expected);
    }

    /// RFC 8656 §12.6 and §11.3: each payload is sent to the client with a matching header, and in order.
    #[test]
    fn payloads_reach_clients(batches in prop::collection::vec(batch(), 1..12), channel: bool, gso: bool) {
        let (mut arena, mut outbox) = (Arena::new(), Outbox::new(gso));
        let mut expected = Vec::new();
        let peer: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        for batch in &batches {
            let range = arena.take((batch.count - 1) * batch.size + batch.last);
            let mut at = range.start;
            for len in batch.lengths() {
                let bytes = payload(expected.len(), len);
                arena.memory()[at..at + len].copy_from_slice(&bytes);
                at += len;
                expected.push((route(batch.sender), bytes));
            }
            let id = TransactionId([expected.len() as u8; 12]);
            let header = if channel { Header::Channel(0x4001) } else { Header::Data { id, peer } };
            outbox.for_client(arena.memory(), route(batch.sender), range, batch.size, &header);
        }
        let got = datagrams(&outbox, arena.memory(), gso);
        prop_assert_eq!(got.len(), expected.len());
        for ((route, datagram), (expected_route, payload)) in got.iter().zip(&expected) {
            prop_assert_eq!(route, expected_route);
            if channel {
                let header = wire::ChannelHeader::parse(datagram).unwrap();
                prop_assert_eq!((header.number, usize::from(header.len)), (0x4001, payload.len()));
                prop_assert!(datagram[4..] == payload[..]);
            } else {
                let stun = Stun::parse(datagram).unwrap();
                prop_assert_eq!((stun.class(), stun.method()), (Class::Indication, Method::Data));
                let from = stun.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address().unwrap();
                prop_assert_eq!(from, peer);
                prop_assert!(stun.attribute(attribute::DATA).unwrap().value == &payload[..]);
                prop_assert!(datagram[datagram.len() - wire::padding(payload.len())..].iter().all(|&b| b == 0));
            }
        }
    }
}

/// Datagrams that were received one by one are sent as GSO batches.
#[test]
fn single_datagrams_of_one_route_share_a_batch() {
    let (mut arena, mut outbox) = (Arena::new(), Outbox::new(true));
    for n in 0..SLOTS {
        let range = arena.take(1204);
        let relayed = if n < 60 { 1200 } else { 1000 };
        outbox.for_peer(arena.memory(), route(1), range, 1204, 4, relayed);
    }
    let sizes: Vec<_> = outbox.batches.iter().map(|batch| (batch.segment_size, batch.count)).collect();
    // 65,507 bytes hold 54 of them, and a shorter segment ends a batch.
    assert_eq!(sizes, [(1200, 54), (1200, 7), (1000, 3)]);
}

struct SocketPair {
    from: UdpSocket,
    to: UdpSocket,
}

impl SocketPair {
    fn new() -> SocketPair {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        SocketPair { from: bind(), to: bind() }
    }

    fn route(&self) -> Route {
        Route { to: self.to.local_addr().unwrap(), ..route(0) }
    }

    /// Sends `count` datagrams of `len` bytes in one batch; returns the lengths of the datagrams that arrived.
    fn relay(
        &self,
        outbox: &mut Outbox,
        counters: &mut SocketCounters,
        len: usize,
        count: usize,
    ) -> Vec<usize> {
        let mut arena = Arena::new();
        let range = arena.take(count * (len + 4));
        outbox.for_peer(arena.memory(), self.route(), range, len + 4, 4, len);
        outbox.flush(arena.memory(), |_| Some(self.from.as_fd()), counters);
        let (mut receiver, mut memory) = (Receiver::new(64), vec![0; 64 << 16]);
        let got = receiver.receive(self.to.as_fd(), memory.chunks_mut(1 << 16)).unwrap_or(0);
        (0..got).map(|n| receiver.datagram(n).unwrap().len).collect()
    }
}

/// If a device cannot segment, datagrams are sent one by one, and after three failures without trying a batch first.
#[test]
fn segments_of_a_refused_batch_are_sent_one_by_one() {
    let (sockets, mut outbox, mut counters) =
        (SocketPair::new(), Outbox::new(true), SocketCounters::default());
    option::without_checksums(sockets.from.as_fd()).unwrap();
    for attempt in 1..=5 {
        assert_eq!(sockets.relay(&mut outbox, &mut counters, 1000, 3), [1000; 3]);
        assert_eq!(counters.gso_refused, attempt.min(3));
    }
    assert_eq!(counters.unsent.sum(), 0);
}

/// RFC 8656 §14: DF is set for the datagrams that ask for it, and cleared for the next one.
#[test]
fn a_datagram_with_df_shares_no_batch() {
    let (sockets, mut outbox, mut counters) =
        (SocketPair::new(), Outbox::new(true), SocketCounters::default());
    let mut arena = Arena::new();
    for dont_fragment in [false, true, true, false] {
        let range = arena.take(104);
        let route = Route { dont_fragment, ..sockets.route() };
        outbox.for_peer(arena.memory(), route, range, 104, 4, 100);
    }
    assert_eq!(outbox.batches.len(), 4);
    outbox.flush(arena.memory(), |_| Some(sockets.from.as_fd()), &mut counters);
    let mut buffer = [0; 200];
    sockets.to.set_nonblocking(true).unwrap();
    assert_eq!((0..5).map_while(|_| sockets.to.recv(&mut buffer).ok()).collect::<Vec<_>>(), [100; 4]);
}

/// A failed send drops its own datagrams and no others.
#[test]
fn a_failed_send_drops_no_other_datagram() {
    let (sockets, mut outbox, mut counters) =
        (SocketPair::new(), Outbox::new(true), SocketCounters::default());
    let mut arena = Arena::new();
    let too_long = arena.take(65_530);
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    for (to, range, len) in [
        (sockets.to.local_addr().unwrap(), arena.take(104), 100),
        (sockets.to.local_addr().unwrap(), too_long, 65_520),
        (broadcast, arena.take(104), 100),
        (sockets.to.local_addr().unwrap(), arena.take(104), 100),
    ] {
        let segment_size = range.len();
        outbox.for_peer(arena.memory(), Route { to, ..route(0) }, range, segment_size, 4, len);
    }
    outbox.flush(arena.memory(), |_| Some(sockets.from.as_fd()), &mut counters);
    let mut buffer = [0; 200];
    sockets.to.set_nonblocking(true).unwrap();
    assert_eq!((0..3).map_while(|_| sockets.to.recv(&mut buffer).ok()).collect::<Vec<_>>(), [100; 2]);
    let mut expected = SocketCounters::default();
    expected.unsent(Unsent::TooLong, 1);
    expected.unsent(Unsent::Refused, 1);
    assert_eq!(counters, expected);
}

#[test]
fn datagrams_for_a_closed_socket_are_counted() {
    let (sockets, mut outbox, mut counters) =
        (SocketPair::new(), Outbox::new(true), SocketCounters::default());
    let mut arena = Arena::new();
    let range = arena.take(3 * 104);
    outbox.for_peer(arena.memory(), sockets.route(), range, 104, 4, 100);
    outbox.flush(arena.memory(), |_| None, &mut counters);
    assert_eq!(counters.unsent[Unsent::Closed], 3);
    assert!(outbox.has_room());
}
