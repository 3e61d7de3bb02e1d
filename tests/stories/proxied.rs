//! Clients behind proxies, whose addresses are what PROXY headers say.

use hairpin::turn::{
    CloseReason, EndStep, ListStep, PeerAddr, RefusalReason, RelayId, Selector, Tos, Transport, Via,
};
use hairpin::wire::{Class, Encoder, Family, Method, TransactionId, attribute};

use crate::world::{Client, PEER, World, addr};

const CLIENT: &str = "198.51.100.1:40000";

fn proxied(client: &str, connection: u64) -> Client {
    let mut client = Client::new(client);
    (client.tuple.transport, client.tuple.via) = (Transport::Tcp, Via::Proxy(connection));
    client
}

/// Two connections whose headers name the same client and server, and the same client without a proxy.
fn three() -> [Client; 3] {
    let mut direct = Client::new(CLIENT);
    direct.tuple.transport = Transport::Tcp;
    [proxied(CLIENT, 7), proxied(CLIENT, 8), direct]
}

fn allocated(world: &mut World) -> [Client; 3] {
    three().map(|mut client| {
        assert_eq!(client.allocate(world, |_| {}).code(), 0);
        client.relay = Some(RelayId { allocation: world.opened.last().unwrap().id, family: Family::V4 });
        client
    })
}

/// RFC 8656 §5, §6: streams are keyed by connection, never by the header's addresses alone. Each has its own allocation, permissions
/// and channels, data goes back to the connection that it belongs to, and the end of one leaves the others alone.
#[test]
fn connections_with_the_same_header_are_independent() {
    let mut world = World::default();
    let mut clients = allocated(&mut world);
    assert_eq!(world.server.stats().allocations, 3);
    // RFC 8656 §7.2, 2.: a second one on the same connection is refused.
    assert_eq!(clients[0].allocate(&mut world, |_| {}).code(), 437);

    assert_eq!(clients[0].bind(&mut world, 0x4000, PEER).code(), 0);
    assert!(clients[0].channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(clients[1].channel_data(&mut world, 0x4000, b"x").is_none());
    assert_eq!(clients[1].bind(&mut world, 0x4001, PEER).code(), 0);
    for client in &clients[..2] {
        let to = world.server.from_peer(world.now, client.relay(), PeerAddr(addr(PEER)), Tos(0), 1, b"y");
        assert_eq!(to.unwrap().tuple, client.tuple);
    }

    world.server.client_gone(world.now, &clients[0].tuple);
    world.drain();
    let closed: Vec<_> = world.closed.iter().map(|closed| (closed.tuple, closed.reason)).collect();
    assert_eq!(closed, [(clients[0].tuple, CloseReason::ClientGone)]);
    assert!(clients[1].channel_data(&mut world, 0x4001, b"x").is_some());
    assert_eq!(clients[2].refresh(&mut world, 600).code(), 0);
    for client in &clients {
        world.server.client_gone(world.now, &client.tuple);
    }
    world.drain();
    world.assert_empty();
}

/// RFC 8489 §6.3.1: a retransmission is recognised on its own connection only, whether its request waits or was carried out: the same
/// transaction on another one is another request.
#[test]
fn retransmissions_belong_to_their_connection() {
    let mut world = World::default();
    let mut clients = allocated(&mut world);
    for client in &mut clients {
        client.refresh(&mut world, 0);
    }
    world.hold = true;
    let request = clients[0].request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    for client in [&clients[0], &clients[0], &clients[1]] {
        world.ignores(&client.tuple, &request);
    }
    assert_eq!(world.asked.len(), 2, "one question per connection");
    // The end of one cancels its own request.
    world.server.client_gone(world.now, &clients[0].tuple);
    world.drain();
    while let Some((ticket, ask)) = world.asked.pop_front() {
        let answer = world.open(&ask);
        world.server.answered(world.now, ticket, answer);
    }
    world.drain();
    let opened: Vec<_> = world.opened.iter().skip(3).map(|opened| opened.tuple).collect();
    assert_eq!(opened, [clients[1].tuple]);
    assert_eq!(world.server.stats().allocations, 1);
}

/// Operators see each of them, and end one by its name, or all of one client.
#[test]
fn operators_tell_them_apart() {
    let mut world = World::default();
    let clients = allocated(&mut world);
    let list = |world: &mut World| {
        let step = ListStep { selector: Default::default(), after: None, limit: 10, peers: true };
        world.server.list(world.now, &step).rows
    };
    let rows = list(&mut world);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.client == addr(CLIENT)));
    let end = |world: &mut World, selector: Selector| {
        let step = EndStep { selector: selector.into(), after: None, reason: CloseReason::Ended };
        let ended = world.server.end(world.now, &step).ended;
        world.drain();
        ended
    };
    assert_eq!(end(&mut world, Selector { name: Some(rows[1].name), ..Selector::default() }), 1);
    assert_eq!(world.closed[0].tuple, clients[1].tuple);
    assert_eq!(list(&mut world).len(), 2);
    let client = Some("198.51.100.1".parse().unwrap());
    assert_eq!(end(&mut world, Selector { client, ..Selector::default() }), 2);
    world.assert_empty();
}

/// An allocation keeps its connection when it moves to another server.
#[test]
fn an_allocation_moves_with_its_connection() {
    let (mut world, mut other) = (World::default(), World::default());
    let clients = allocated(&mut world);
    let [first, second, _] = clients.map(|client| client.relay().allocation);
    let first = world.server.take(world.now, first).unwrap();
    let second = world.server.take(world.now, second).unwrap();
    assert_eq!((first.tuple().via, second.tuple().via), (Via::Proxy(7), Via::Proxy(8)));
    assert!(other.server.adopt(other.now, first).is_ok());
    assert!(other.server.adopt(other.now, second).is_ok(), "its 5-tuple is another one");
}

/// RFC 8489 §5: a header that names a loopback or unspecified client is answered with 400 to every method, before authentication: a
/// browser would abandon such an allocation without an error. The same client without a proxy is a program of this machine.
#[test]
fn a_proxied_client_cannot_be_loopback_or_unspecified() {
    for client in ["127.0.0.1:40000", "127.9.8.7:40000", "0.0.0.0:40000", "[::1]:40000", "[::]:40000"] {
        let mut world = World::default();
        let mut client = proxied(client, 7);
        for (count, method) in [
            Method::Binding,
            Method::Allocate,
            Method::Refresh,
            Method::CreatePermission,
            Method::ChannelBind,
        ]
        .into_iter()
        .enumerate()
        {
            let bare = Encoder::new(Class::Request, method, TransactionId([count as u8; 12])).finish();
            let reply = world.ask(&client.tuple, &bare);
            assert_eq!((reply.code(), reply.bytes(attribute::NONCE)), (400, None), "{method:?}");
            let signed = client.request(method, |_| {});
            assert_eq!(world.ask(&client.tuple, &signed).code(), 400, "{method:?}");
        }
        let refused = world.refused.iter().all(|refused| refused.reason == RefusalReason::ProxiedClient);
        assert!(refused && world.refused.len() == 10);
        world.assert_empty();

        let mut direct = client;
        direct.tuple.via = Via::Direct;
        if direct.tuple.client.0.ip().is_loopback() {
            assert_eq!(direct.allocate(&mut world, |_| {}).code(), 0, "{:?}", direct.tuple);
        }
    }
    let mut world = World::default();
    let mut other = proxied("10.0.0.1:40000", 7);
    assert_eq!(other.allocate(&mut world, |_| {}).code(), 0, "a private address is a client's");
}
