//! Data in both directions over UDP: single datagrams and bursts, with and without GRO, GSO and steering.

use std::net::UdpSocket;

use hairpin::turn::Transport;
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use socket2::SockRef;

use crate::client::{Client, channel_message, send_indication};
use crate::sockets::{accept_only, send_batch};
use crate::world::{Relay, Setup, addr, assert_silent, ipv6, peer, peer_like, receive, setup};

/// Payloads of these lengths, all different.
fn payloads(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let payload = |(n, len)| (0..len).map(|i: usize| (n * 37 + i + i / 256) as u8).collect();
    lengths.into_iter().enumerate().map(payload).collect()
}

/// The setup without optional kernel features.
fn plain(ip: &str) -> Setup {
    Setup { gro: false, gso: false, steering: false, ..setup(ip) }
}

/// Enlarges the receive buffer, so that it holds a burst.
fn enlarge_buffer(socket: &UdpSocket) {
    SockRef::from(socket).set_recv_buffer_size(4 << 20).unwrap();
}

fn echo(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer_like(ip);
    client.bind(0x4001, addr(&peer));
    for payload in payloads((0..40).map(|n| n * 33)) {
        client.send(&channel_message(0x4001, &payload));
        let (got, from) = receive(&peer);
        assert_eq!((got, from), (payload.clone(), client.relayed[0]));
        peer.send_to(&payload, from).unwrap();
        assert_eq!(client.channel_data(), (0x4001, payload));
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was dropped");
    relay.stop();
}

/// RFC 8656 §12.6, §12.7: ChannelData in both directions, including empty messages.
#[test]
fn channel_data() {
    echo("127.1.0.1", setup("127.1.0.1"));
}

/// RFC 8656 §12.6, §12.7
#[test]
fn channel_data_without_kernel_features() {
    echo("127.1.0.2", plain("127.1.0.2"));
}

/// RFC 8656 §11.2, §11.3: indications in both directions, with and without padding.
#[test]
fn indications() {
    let relay = Relay::start(setup("127.1.0.3"));
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    client.permit(addr(&peer));
    for payload in payloads((0..40).map(|n| n * 3)) {
        client.send(&send_indication(addr(&peer), &payload));
        let (got, from) = receive(&peer);
        assert_eq!((got, from), (payload.clone(), client.relayed[0]));
        peer.send_to(&payload, from).unwrap();
        assert_eq!(client.indication(), (addr(&peer), payload));
    }
    relay.stop();
}

/// RFC 8656 §9: data from a peer without a permission is not relayed.
#[test]
fn a_peer_needs_a_permission() {
    let relay = Relay::start(setup("127.1.0.4"));
    let client = relay.allocated(Transport::Udp);
    peer().send_to(b"hello", client.relayed[0]).unwrap();
    assert_silent(client.udp());
    relay.stop();
}

/// RFC 8656 §12.5: only data that is too long for ChannelData in a UDP datagram is dropped.
#[test]
fn the_longest_datagram() {
    let relay = Relay::start(setup("127.1.0.5"));
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    client.bind(0x4001, addr(&peer));
    for payload in payloads([65_503, 65_504, 65_507, 1]) {
        peer.send_to(&payload, client.relayed[0]).unwrap();
        if payload.len() <= 65_503 {
            assert_eq!(client.channel_data(), (0x4001, payload));
        }
    }
    relay.stop();
}

/// Payload lengths of bursts: equal ones, video frames that end with a shorter datagram, mixed, tiny and large ones.
fn lengths() -> [Vec<usize>; 5] {
    let framed = [vec![1200; 7], vec![300]].concat().repeat(6);
    let mixed = (0..60).map(|n| [900, 1000, 900, 4][n % 4] + n / 20).collect();
    [vec![1100; 40], framed, mixed, vec![1; 150], vec![9000; 20]]
}

/// Groups consecutive datagrams like GRO: all of one length, except that the last one may be shorter.
fn gro_batches(datagrams: &[Vec<u8>]) -> impl Iterator<Item = &[Vec<u8>]> {
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

/// RFC 8656 §12.6: GRO batches for one channel arrive completely and in order, whatever their sizes.
fn bursts_to_a_peer(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer_like(ip);
    enlarge_buffer(&peer);
    client.bind(0x4001, addr(&peer));
    for lengths in lengths() {
        let sent = payloads(lengths);
        let messages: Vec<_> = sent.iter().map(|payload| channel_message(0x4001, payload)).collect();
        gro_batches(&messages).for_each(|batch| send_batch(client.udp(), client.server, batch));
        for payload in sent {
            assert!(receive(&peer) == (payload, client.relayed[0]));
        }
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was dropped");
    relay.stop();
}

/// RFC 8656 §12.7, §11.3: GRO batches of a peer arrive completely and in order, in ChannelData and in indications.
fn bursts_to_a_client(ip: &str, setup: Setup) {
    let relay = Relay::start(setup);
    let mut client = relay.allocated(Transport::Udp);
    enlarge_buffer(client.udp());
    let (bound, permitted) = (peer_like(ip), peer_like(ip));
    client.bind(0x4001, addr(&bound));
    client.permit(addr(&permitted));
    for lengths in lengths() {
        let sent = payloads(lengths);
        gro_batches(&sent).for_each(|batch| send_batch(&bound, client.relayed[0], batch));
        for payload in &sent {
            assert!(client.channel_data() == (0x4001, payload.clone()));
        }
        gro_batches(&sent).for_each(|batch| send_batch(&permitted, client.relayed[0], batch));
        for payload in sent {
            assert!(client.indication() == (addr(&permitted), payload));
        }
    }
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was dropped");
    relay.stop();
}

/// RFC 8656 §12.6
#[test]
fn gro_batches_to_a_peer() {
    bursts_to_a_peer("127.1.0.6", setup("127.1.0.6"));
    if ipv6().is_some() {
        bursts_to_a_peer("::1", setup("::1"));
    }
}

/// RFC 8656 §12.6
#[test]
fn bursts_to_a_peer_without_kernel_features() {
    bursts_to_a_peer("127.1.0.7", plain("127.1.0.7"));
}

/// RFC 8656 §12.7, §11.3
#[test]
fn gro_batches_to_a_client() {
    bursts_to_a_client("127.1.0.8", setup("127.1.0.8"));
    if ipv6().is_some() {
        bursts_to_a_client("::1", setup("::1"));
    }
}

/// RFC 8656 §12.7, §11.3
#[test]
fn bursts_to_a_client_without_kernel_features() {
    bursts_to_a_client("127.1.0.9", plain("127.1.0.9"));
}

/// RFC 8656 §12.6: a GRO batch may contain messages of different channels and methods.
#[test]
fn a_batch_of_different_messages() {
    let relay = Relay::start(setup("127.1.0.10"));
    let mut client = relay.allocated(Transport::Udp);
    let (one, other) = (peer(), peer());
    client.bind(0x4001, addr(&one));
    client.bind(0x4002, addr(&other));
    // All messages have 44 bytes.
    let to = |number, byte| channel_message(number, &[byte; 40]);
    let indication = |byte: u8| send_indication(addr(&other), &[byte; 8]);
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
    send_batch(client.udp(), client.server, &batch);
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

/// RFC 8656 §12.6, §12.7: two clients of one relay reach each other, also on different workers.
#[test]
fn two_clients_reach_each_other() {
    let relay = Relay::start(Setup {
        workers: 4,
        relay: vec!["127.1.0.11".parse().unwrap(), "127.1.0.12".parse().unwrap()],
        ..setup("127.1.0.11")
    });
    for _ in 0..8 {
        let (mut a, mut b) = (relay.allocated(Transport::Udp), relay.allocated(Transport::Udp));
        enlarge_buffer(a.udp());
        enlarge_buffer(b.udp());
        a.bind(0x4001, b.relayed[0]);
        b.bind(0x4002, a.relayed[0]);
        let sent = payloads(vec![1100; 60]);
        let relay = |from: &mut Client, to: &mut Client, sent_on, received_on| {
            sent.iter().for_each(|payload| from.send(&channel_message(sent_on, payload)));
            for payload in &sent {
                assert!(to.channel_data() == (received_on, payload.clone()));
            }
        };
        relay(&mut a, &mut b, 0x4001, 0x4002);
        relay(&mut b, &mut a, 0x4002, 0x4001);
    }
    relay.stop();
}

/// RFC 8656 §13: DSCP and ECN are copied in both directions.
#[test]
fn dscp_and_ecn_are_copied() {
    let relay = Relay::start(setup("127.1.0.13"));
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    client.bind(0x4001, addr(&peer));
    for tos in [0xB8, 0xBB, 0x01, 0x00] {
        accept_only(client.udp(), tos);
        accept_only(&peer, tos);
        SockRef::from(client.udp()).set_tos_v4(tos.into()).unwrap();
        SockRef::from(&peer).set_tos_v4(tos.into()).unwrap();
        client.send(&channel_message(0x4001, &[tos]));
        assert_eq!(receive(&peer).0, [tos]);
        peer.send_to(&[tos], client.relayed[0]).unwrap();
        assert_eq!(client.channel_data(), (0x4001, vec![tos]));
    }
    relay.stop();
}

/// RFC 8656 §11.5, §18.13: the client is informed of an unreachable peer, and another peer of it loses no data.
#[test]
fn an_unreachable_peer_does_not_affect_another() {
    let relay = Relay::start(setup("127.1.0.40"));
    let mut client = relay.allocated(Transport::Udp);
    let busy = peer();
    enlarge_buffer(&busy);
    let closed = addr(&peer());
    client.bind(0x4001, addr(&busy));
    client.bind(0x4002, closed);
    let mut reported = 0;
    for payload in payloads((0..200).map(|_| 100)) {
        client.send(&channel_message(0x4002, b"is anybody there?"));
        client.send(&channel_message(0x4001, &payload));
        let (got, from) = receive(&busy);
        assert_eq!(got, payload);
        busy.send_to(&payload, from).unwrap();
        loop {
            let bytes = client.message();
            let Ok(message) = Message::parse(&bytes) else {
                assert_eq!(bytes[4..], payload);
                break;
            };
            let peer = message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address();
            assert_eq!(peer, Ok(closed));
            assert_eq!(message.attribute(attribute::ICMP).unwrap().value, [0, 0, 3, 3, 0, 0, 0, 0]);
            reported += 1;
        }
    }
    assert!(reported > 0, "the client was informed");
    assert_eq!(relay.stats().sockets, Default::default(), "nothing was dropped");
    relay.stop();
}

/// RFC 8656 §14: DF is set for packets that ask for it, and does not affect the next packet.
#[test]
fn packets_with_df() {
    let relay = Relay::start(setup("127.1.0.42"));
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    enlarge_buffer(&peer);
    client.permit(addr(&peer));
    let mut send = |len: usize, dont_fragment: bool| {
        let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([len as u8; 12]));
        send.xor_address(attribute::XOR_PEER_ADDRESS, addr(&peer));
        if dont_fragment {
            send.bytes(attribute::DONT_FRAGMENT, &[]);
        }
        send.bytes(attribute::DATA, &vec![7; len]);
        client.send(&send.finish());
    };
    // The MTU of loopback is 65,536 bytes with the IP header, which is more than any of these packets.
    for (len, dont_fragment) in [(65_000, true), (65_000, false), (10, true), (10, false)] {
        send(len, dont_fragment);
        assert_eq!(receive(&peer).0.len(), len);
    }
    relay.stop();
}
