//! Clients over streams. The tests of `wire` cover framing.

use hairpin::turn::{CloseReason, OperatorCommand, PeerAddr, PerFamily, Tos, Transport};
use hairpin::wire::{Class, Encoder, Method, TransactionId};

use crate::world::{Client, PEER, World, addr, channel_message};

fn client(transport: Transport) -> Client {
    let mut client = Client::new("198.51.100.1:40000");
    client.tuple.transport = transport;
    client
}

/// RFC 8656 §5: the transport is part of the 5-tuple: a client address may have one allocation per transport.
#[test]
fn each_transport_is_a_tuple_of_its_own() {
    let mut world = World::default();
    for transport in Transport::ALL {
        assert_eq!(client(transport).allocate(&mut world, |_| {}).code(), 0);
    }
    assert_eq!(world.server.stats().relays, [PerFamily { v4: 1, v6: 0 }; 3]);
    world.server.command(world.now, OperatorCommand::EndAll);
    world.drain();
    world.assert_empty();
}

/// RFC 8656 §6: an allocation ends with its stream, at once; others do not.
#[test]
fn an_allocation_ends_with_its_stream() {
    let mut world = World::default();
    let mut clients = [client(Transport::Tcp), client(Transport::Tls)];
    for client in &mut clients {
        client.allocate(&mut world, |_| {});
        client.bind(&mut world, 0x4000, PEER);
    }
    world.server.client_gone(world.now, &clients[0].tuple);
    world.drain();
    assert_eq!(
        world.closed.iter().map(|closed| closed.reason).collect::<Vec<_>>(),
        [CloseReason::ClientGone]
    );
    assert!(clients[0].channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(clients[1].channel_data(&mut world, 0x4000, b"x").is_some());
    world.server.client_gone(world.now, &clients[1].tuple);
    world.server.client_gone(world.now, &clients[1].tuple);
    world.drain();
    world.assert_empty();
}

/// RFC 8489 §6.3.1: a stream that ends while its request is pending leaves nothing open.
#[test]
fn a_stream_ends_while_its_request_is_pending() {
    let mut world = World::default();
    let mut client = client(Transport::Tcp);
    client.allocate(&mut world, |_| {});
    client.refresh(&mut world, 0);
    world.hold = true;
    let request = client.request(Method::Allocate, |request| request.bytes(0x0019, &[17, 0, 0, 0]));
    world.ignores(&client.tuple, &request);
    world.server.client_gone(world.now, &client.tuple);
    world.drain();
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    world.assert_empty();
}

/// RFC 8656 §15: from a stream, DSCP is kept and ECN is Not-ECT; over UDP both are kept.
#[test]
fn streams_have_no_ecn() {
    for (transport, tos) in [(Transport::Udp, 0xBB), (Transport::Tcp, 0xB8), (Transport::Tls, 0xB8)] {
        let mut world = World::default();
        let mut client = client(transport);
        client.allocate(&mut world, |_| {});
        client.bind(&mut world, 0x4000, PEER);
        let bytes = channel_message(0x4000, b"x");
        let forward =
            world.server.from_client(world.now, &client.tuple, Tos(0xBB), bytes.len(), &bytes).unwrap();
        assert_eq!(forward.tos, Tos(tos));
    }
}

/// RFC 8656 §12.5, §11.3: the longest data that fits into a message on a stream and into a datagram.
#[test]
fn the_longest_messages() {
    for (transport, channel, data) in [(Transport::Udp, 65_503, 65_468), (Transport::Tcp, 65_507, 65_507)] {
        let mut world = World::default();
        let mut client = client(transport);
        client.allocate(&mut world, |_| {});
        client.bind(&mut world, 0x4000, PEER);
        let relay =
            hairpin::turn::RelayId { allocation: world.opened[0].id, family: hairpin::wire::Family::V4 };
        let mut heard = |peer: &str, len: usize| {
            let payload = vec![0; len];
            world.server.from_peer(world.now, relay, PeerAddr(addr(peer)), Tos(0), len, &payload).is_some()
        };
        assert!(heard(PEER, channel) && heard("8.8.8.8:9", data), "{transport:?}");
        if transport == Transport::Udp {
            assert!(!heard(PEER, channel + 1) && !heard("8.8.8.8:9", data + 1));
        }
    }
}

/// RFC 8489 §6.2.2: responses over a stream need no rate limit, since its source is not forged.
#[test]
fn a_stream_is_no_mirror() {
    use hairpin::turn::bucket::{Rate, Rates};
    let (config, credentials) = (crate::world::config(), crate::world::credentials());
    let rate = Rate { burst: 1, per_second: 1 };
    let rates = Rates { bindings: rate, challenges: rate, ..Rates::default() };
    let mut world = World::with_rates(config, credentials, rates);
    let binding = Encoder::new(Class::Request, Method::Binding, TransactionId([3; 12])).finish();
    for _ in 0..10 {
        assert_eq!(world.ask(&client(Transport::Tcp).tuple, &binding).code(), 0);
    }
}
