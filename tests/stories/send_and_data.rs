//! Send and Data indications.

use hairpin::turn::stats::Dropped;
use hairpin::turn::{Header, PeerAddr, Tos, Transport};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};

use crate::world::{Client, PEER, PEER6, World, addr};

const A: &str = "198.51.100.1:40000";

/// RFC 8656 §11.2: to a peer with a permission, with DONT-FRAGMENT as requested; empty data is valid.
#[test]
fn a_send_reaches_its_peer() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.send(&mut world, PEER, b"early"), None);
    client.permit(&mut world, &[PEER]);
    for data in [&b""[..], b"x", b"hello"] {
        for dont_fragment in [false, true] {
            let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([9; 12]));
            send.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER));
            if dont_fragment {
                send.bytes(attribute::DONT_FRAGMENT, &[]);
            }
            send.bytes(attribute::DATA, data);
            let bytes = send.finish();
            let forward = world.deliver(&client.tuple, &bytes).unwrap();
            assert_eq!(&bytes[forward.offset..forward.offset + forward.len], data);
            assert_eq!((forward.peer, forward.dont_fragment), (PeerAddr(addr(PEER)), dont_fragment));
        }
    }
    assert!(client.send(&mut world, "8.8.8.8:1", b"x").is_some(), "permissions know no ports");
    assert!(client.send(&mut world, "8.8.8.8:0", b"x").is_none());
}

/// RFC 8656 §13, §14: between datagrams, DONT-FRAGMENT is only heeded from IPv4 to IPv4. §13, §15: from a stream it always is,
/// whatever the families of the client and the peer.
#[test]
fn where_dont_fragment_is_heeded() {
    const A6: &str = "[2001:db8::9]:1";
    let (udp, streams) = ([Transport::Udp], [Transport::Tcp, Transport::Tls]);
    let cases = [(A, 1, PEER, true), (A, 2, PEER6, false), (A6, 1, PEER, false), (A6, 2, PEER6, false)];
    let over_udp = cases.iter().flat_map(|&case| udp.map(|transport| (transport, case)));
    let over_streams = cases.iter().flat_map(|&(client, family, peer, _)| {
        streams.map(|transport| (transport, (client, family, peer, true)))
    });
    for (transport, (client, family, peer, set)) in over_udp.chain(over_streams) {
        let mut world = World::default();
        let mut client = Client::new(client);
        client.tuple.transport = transport;
        client.allocate(&mut world, |r| r.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
        client.permit(&mut world, &[peer]);
        let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([9; 12]));
        send.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
        send.bytes(attribute::DONT_FRAGMENT, &[]);
        send.bytes(attribute::DATA, b"x");
        let forward = world.deliver(&client.tuple, &send.finish()).unwrap();
        assert_eq!(forward.dont_fragment, set, "{transport:?} {:?} to {peer}", client.tuple.client);
        assert!(!client.send(&mut world, peer, b"x").unwrap().dont_fragment, "without the attribute");
        client.bind(&mut world, 0x4000, peer);
        assert!(!client.channel_data(&mut world, 0x4000, b"x").unwrap().dont_fragment, "ChannelData");
    }
}

/// RFC 8656 §11.2: an indication that lacks an attribute or has an unknown one is dropped without a response.
#[test]
fn bad_indications_are_discarded() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.permit(&mut world, &[PEER]);
    let bad: [fn(&mut Encoder); 4] = [
        |send| send.bytes(attribute::DATA, b"x"),
        |send| send.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER)),
        |send| {
            send.bytes(attribute::XOR_PEER_ADDRESS, &[0, 1, 2]);
            send.bytes(attribute::DATA, b"x");
        },
        |send| {
            send.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER));
            send.bytes(0x7FFF, &[]);
            send.bytes(attribute::DATA, b"x");
        },
    ];
    for fill in bad {
        let mut send = Encoder::new(Class::Indication, Method::Send, TransactionId([9; 12]));
        fill(&mut send);
        assert_eq!(world.deliver(&client.tuple, &send.finish()), None);
    }
    assert_eq!(world.server.stats().dropped(Dropped::BadSend), 4);
    assert!(world.replies.is_empty());
}

/// RFC 8656 §11.3: a peer without a channel reaches the client in a Data indication, each with its own transaction id.
#[test]
fn data_indications() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.permit(&mut world, &[PEER]);
    let peer = PeerAddr(addr(PEER));
    let to = world.server.from_peer(world.now, client.relay(), peer, Tos(3), 5, b"helloworldxyz").unwrap();
    assert_eq!((to.tuple, to.tos), (client.tuple, Tos(3)));
    assert!(matches!(to.header, Header::Data { .. }));
    let mut ids = Vec::new();
    for (n, payload) in [&b"hello"[..], b"world", b"xyz"].into_iter().enumerate() {
        let mut bytes = vec![0xFF; to.header.len()];
        to.header.write(n, payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + to.header.padding(payload.len()), 0);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        assert_eq!(message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address(), Ok(addr(PEER)));
        assert_eq!(message.attribute(attribute::DATA).unwrap().value, payload);
        ids.push(message.transaction_id().0);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// RFC 8489 §6.3, §6.3.2: unexpected responses and indications are dropped; Binding indications are accepted.
#[test]
fn other_messages() {
    let mut world = World::default();
    let client = world.allocated(A);
    let messages = [
        (Class::Indication, Method::Data),
        (Class::Success, Method::Binding),
        (Class::Error, Method::Allocate),
    ];
    for (class, method) in messages {
        world.ignores(&client.tuple, &Encoder::new(class, method, TransactionId([1; 12])).finish());
    }
    assert_eq!(world.server.stats().dropped(Dropped::Unexpected), 3);
    world.ignores(
        &client.tuple,
        &Encoder::new(Class::Indication, Method::Binding, TransactionId([1; 12])).finish(),
    );
    assert_eq!(world.server.stats().dropped(Dropped::Unexpected), 3);
}

/// RFC 7983 §7, RFC 8656 §12: first bytes that are neither STUN nor ChannelData are dropped.
#[test]
fn other_protocols_are_dropped() {
    let mut world = World::default();
    let client = world.allocated(A);
    for first in (4..=0x3F).chain(0x50..=0xFF) {
        world.ignores(&client.tuple, &[first, 0, 0, 0, 0, 0, 0, 0]);
    }
    world.ignores(&client.tuple, &[]);
    assert_eq!(world.server.stats().dropped(Dropped::NotTurn), 60 + 176 + 1);
}

/// RFC 8656 §11.3: a relayed address that has ended receives nothing.
#[test]
fn a_closed_relay_hears_nothing() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.permit(&mut world, &[PEER]);
    client.refresh(&mut world, 0);
    let mut other = world.allocated(A);
    other.permit(&mut world, &[PEER]);
    assert_eq!(world.peer_sends(client.relay(), PEER, b"x"), None, "an id is never used again");
    assert!(world.peer_sends(other.relay(), PEER, b"x").is_some());
    assert_eq!(world.server.stats().dropped(Dropped::NoRelay), 1);
}
