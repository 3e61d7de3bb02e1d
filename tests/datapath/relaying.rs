//! Data both ways, single datagrams and bursts, with the kernel's help and without.

use std::net::UdpSocket;

use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use socket2::SockRef;

use crate::client::channel_message;
use crate::sockets::{accept_only, send_joined};
use crate::world::{Relay, Setup, addr, assert_silent, ipv6, peer, receive, setup};

/// Payloads of these lengths, each different.
fn payloads(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let payload = |(n, len)| (0..len).map(|i: usize| (n * 37 + i + i / 256) as u8).collect();
    lengths.into_iter().enumerate().map(payload).collect()
}

/// The same with everything that the kernel may lack switched off.
fn plain(ip: &str) -> Setup {
    Setup { gro: false, gso: false, steering: false, ..setup(ip) }
}

/// Room for a burst on the way to a test's socket.
fn roomy(socket: UdpSocket) -> UdpSocket {
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    socket
}

fn echo(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated();
    let peer = peer(ip);
    client.bind(0x4001, addr(&peer));
    for payload in payloads((0..40).map(|n| n * 33)) {
        client.send(&channel_message(0x4001, &payload));
        let (got, from) = receive(&peer);
        assert_eq!((got, from), (payload.clone(), client.relayed[0]));
        peer.send_to(&payload, from).unwrap();
        assert_eq!(client.channel_data(), (0x4001, payload));
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was lost");
    relay.stop();
}

/// RFC 8656 §12.6, §12.7: ChannelData both ways, empty ones too.
#[test]
fn channel_data() {
    echo("127.1.0.1", setup("127.1.0.1"));
}

/// RFC 8656 §12.6, §12.7
#[test]
fn channel_data_without_the_kernels_help() {
    echo("127.1.0.2", plain("127.1.0.2"));
}

/// RFC 8656 §11.2, §11.3: indications both ways; payloads that need padding get zeros.
#[test]
fn indications() {
    let relay = Relay::start(setup("127.1.0.3"));
    let mut client = relay.allocated();
    let peer = peer("127.1.0.3");
    client.permit(addr(&peer));
    for payload in payloads((0..40).map(|n| n * 3)) {
        client.send(&client.indication_message(addr(&peer), &payload));
        let (got, from) = receive(&peer);
        assert_eq!((got, from), (payload.clone(), client.relayed[0]));
        peer.send_to(&payload, from).unwrap();
        assert_eq!(client.indication(), (addr(&peer), payload));
    }
    relay.stop();
}

/// RFC 8656 §9: what comes from a peer without a permission goes nowhere.
#[test]
fn strangers_are_not_relayed() {
    let relay = Relay::start(setup("127.1.0.4"));
    let client = relay.allocated();
    peer("127.1.0.4").send_to(b"hello", client.relayed[0]).unwrap();
    assert_silent(&client.socket);
    relay.stop();
}

/// RFC 8656 §12.5: the longest that a channel to a UDP client carries; what is longer is dropped, and nothing else.
#[test]
fn the_longest_datagram() {
    let relay = Relay::start(setup("127.1.0.5"));
    let mut client = relay.allocated();
    let peer = peer("127.1.0.5");
    client.bind(0x4001, addr(&peer));
    for payload in payloads([65_503, 65_504, 65_507, 1]) {
        peer.send_to(&payload, client.relayed[0]).unwrap();
        if payload.len() <= 65_503 {
            assert_eq!(client.channel_data(), (0x4001, payload));
        }
    }
    relay.stop();
}

/// Payload lengths of bursts: equal ones, frames that end with a shorter datagram, a mixture, tiny and large ones.
fn lengths() -> [Vec<usize>; 5] {
    let framed = [vec![1200; 7], vec![300]].concat().repeat(6);
    let mixed = (0..60).map(|n| [900, 1000, 900, 4][n % 4] + n / 20).collect();
    [vec![1100; 40], framed, mixed, vec![1; 150], vec![9000; 20]]
}

/// Consecutive datagrams as a kernel would join them: all of one length, the last perhaps shorter.
fn joinable(datagrams: &[Vec<u8>]) -> impl Iterator<Item = &[Vec<u8>]> {
    let mut rest = datagrams;
    std::iter::from_fn(move || {
        let size = rest.first()?.len();
        let full = rest.iter().take(65_000 / size).take_while(|datagram| datagram.len() == size).count();
        let shorter = rest.get(full).is_some_and(|next| next.len() < size) && full < 64;
        let (batch, after) = rest.split_at((full + usize::from(shorter)).min(64));
        rest = after;
        Some(batch)
    })
}

/// RFC 8656 §12.6: a joined burst of one channel arrives whole and in order, however its sizes change.
fn bursts_to_a_peer(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated();
    let peer = roomy(peer(ip));
    client.bind(0x4001, addr(&peer));
    for lengths in lengths() {
        let sent = payloads(lengths);
        let messages: Vec<_> = sent.iter().map(|payload| channel_message(0x4001, payload)).collect();
        joinable(&messages).for_each(|batch| send_joined(&client.socket, client.server, batch));
        for payload in sent {
            assert!(receive(&peer) == (payload, client.relayed[0]));
        }
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was lost");
    relay.stop();
}

/// RFC 8656 §12.7, §11.3: a joined burst of a peer arrives whole and in order, in ChannelData and in indications.
fn bursts_to_a_client(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated();
    client.socket = roomy(client.socket);
    let (bound, permitted) = (peer(ip), peer(ip));
    client.bind(0x4001, addr(&bound));
    client.permit(addr(&permitted));
    for lengths in lengths() {
        let sent = payloads(lengths);
        joinable(&sent).for_each(|batch| send_joined(&bound, client.relayed[0], batch));
        for payload in &sent {
            assert!(client.channel_data() == (0x4001, payload.clone()));
        }
        joinable(&sent).for_each(|batch| send_joined(&permitted, client.relayed[0], batch));
        for payload in sent {
            assert!(client.indication() == (addr(&permitted), payload));
        }
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was lost");
    relay.stop();
}

/// RFC 8656 §12.6
#[test]
fn joined_bursts_to_a_peer() {
    bursts_to_a_peer("127.1.0.6", setup("127.1.0.6"));
    if ipv6().is_some() {
        bursts_to_a_peer("::1", setup("::1"));
    }
}

/// RFC 8656 §12.6
#[test]
fn bursts_to_a_peer_without_the_kernels_help() {
    bursts_to_a_peer("127.1.0.7", plain("127.1.0.7"));
}

/// RFC 8656 §12.7, §11.3
#[test]
fn joined_bursts_to_a_client() {
    bursts_to_a_client("127.1.0.8", setup("127.1.0.8"));
    if ipv6().is_some() {
        bursts_to_a_client("::1", setup("::1"));
    }
}

/// RFC 8656 §12.7, §11.3
#[test]
fn bursts_to_a_client_without_the_kernels_help() {
    bursts_to_a_client("127.1.0.9", plain("127.1.0.9"));
}

/// RFC 8656 §12.6: a batch may hold several channels, indications and requests; each is what it is.
#[test]
fn a_batch_of_many_kinds() {
    let relay = Relay::start(setup("127.1.0.10"));
    let mut client = relay.allocated();
    let (one, other) = (peer("127.1.0.10"), peer("127.1.0.10"));
    client.bind(0x4001, addr(&one));
    client.bind(0x4002, addr(&other));
    // All of one length: 44 bytes.
    let to = |number, byte| channel_message(number, &[byte; 40]);
    let indication = |byte| client.indication_message(addr(&other), &[byte; 8]);
    let batch = [
        to(0x4001, 1),
        to(0x4001, 2),
        to(0x4002, 3),
        indication(4),
        indication(5),
        to(0x4003, 6),
        to(0x4001, 7),
    ];
    assert!(batch.iter().all(|message| message.len() == 44));
    send_joined(&client.socket, client.server, &batch);
    for (socket, expected) in
        [(&one, vec![(1, 40), (2, 40), (7, 40)]), (&other, vec![(3, 40), (4, 8), (5, 8)])]
    {
        for (byte, len) in expected {
            assert_eq!(receive(socket).0, vec![byte; len]);
        }
        assert_silent(socket);
    }
    relay.stop();
}

/// RFC 8656 §12.6, §12.7: two clients of one relay meet, also across workers.
#[test]
fn two_clients_meet() {
    let relay = Relay::start(Setup {
        workers: 4,
        relay: vec!["127.1.0.11".parse().unwrap(), "127.1.0.12".parse().unwrap()],
        ..setup("127.1.0.11")
    });
    for _ in 0..8 {
        let (mut a, mut b) = (relay.allocated(), relay.allocated());
        (a.socket, b.socket) = (roomy(a.socket), roomy(b.socket));
        a.bind(0x4001, b.relayed[0]);
        b.bind(0x4002, a.relayed[0]);
        let sent = payloads(vec![1100; 60]);
        for (from, to, number, arrives) in [(&a, &b, 0x4001, 0x4002), (&b, &a, 0x4002, 0x4001)] {
            sent.iter().for_each(|payload| from.send(&channel_message(number, payload)));
            for payload in &sent {
                assert!(to.channel_data() == (arrives, payload.clone()));
            }
        }
    }
    relay.stop();
}

/// RFC 8656 §13: DSCP and ECN go with the datagrams, both ways.
#[test]
fn marks_are_kept() {
    let relay = Relay::start(setup("127.1.0.13"));
    let mut client = relay.allocated();
    let peer = peer("127.1.0.13");
    client.bind(0x4001, addr(&peer));
    for tos in [0xB8, 0xBB, 0x01, 0x00] {
        accept_only(&client.socket, tos);
        accept_only(&peer, tos);
        SockRef::from(&client.socket).set_tos_v4(tos.into()).unwrap();
        SockRef::from(&peer).set_tos_v4(tos.into()).unwrap();
        client.send(&channel_message(0x4001, &[tos]));
        assert_eq!(receive(&peer).0, [tos]);
        peer.send_to(&[tos], client.relayed[0]).unwrap();
        assert_eq!(client.channel_data(), (0x4001, vec![tos]));
    }
    relay.stop();
}

/// RFC 8656 §11.5, §18.13: a peer that nobody listens at is told to its client; one beside it loses nothing by that.
#[test]
fn an_unreachable_peer_beside_a_busy_one() {
    let relay = Relay::start(setup("127.1.0.40"));
    let mut client = relay.allocated();
    let busy = roomy(peer("127.1.0.40"));
    let closed = addr(&peer("127.1.0.41"));
    client.bind(0x4001, addr(&busy));
    client.bind(0x4002, closed);
    let mut told = 0;
    for payload in payloads((0..200).map(|_| 100)) {
        client.send(&channel_message(0x4002, b"is anybody there?"));
        client.send(&channel_message(0x4001, &payload));
        let (got, from) = receive(&busy);
        assert_eq!(got, payload);
        busy.send_to(&payload, from).unwrap();
        loop {
            let (bytes, _) = receive(&client.socket);
            let Ok(message) = Message::parse(&bytes) else {
                assert_eq!(bytes[4..], payload);
                break;
            };
            let peer = message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address();
            assert_eq!(peer, Ok(closed));
            assert_eq!(message.attribute(attribute::ICMP).unwrap().value, [0, 0, 3, 3, 0, 0, 0, 0]);
            told += 1;
        }
    }
    assert!(told > 0, "the client was told");
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was lost");
    relay.stop();
}

/// RFC 8656 §14: a packet with DF that is too long for the path costs itself alone, and its client is told the MTU.
#[test]
fn a_packet_too_long_for_df() {
    let relay = Relay::start(setup("127.1.0.42"));
    let mut client = relay.allocated();
    let peer = roomy(peer("127.1.0.42"));
    client.permit(addr(&peer));
    let send = |len: usize, dont_fragment: bool| {
        let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([len as u8; 12]));
        send.xor_address(attribute::XOR_PEER_ADDRESS, addr(&peer));
        if dont_fragment {
            send.bytes(attribute::DONT_FRAGMENT, &[]);
        }
        send.bytes(attribute::DATA, &vec![7; len]);
        client.send(&send.finish());
    };
    // The loopback takes 65,536 bytes with the IP header: everything that UDP can send. So DF goes through, and leaves
    // nothing behind that the next packet would feel.
    for (len, dont_fragment) in [(65_000, true), (65_000, false), (10, true), (10, false)] {
        send(len, dont_fragment);
        assert_eq!(receive(&peer).0.len(), len);
    }
    relay.stop();
}
