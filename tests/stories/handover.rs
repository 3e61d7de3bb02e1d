//! An allocation moves from one server to another, with its sockets beside it.

use hairpin::turn::{Allocation, AllocationId, CloseReason, Header, PeerAddr, RelayId, Totals};
use hairpin::wire::{Family, Method, attribute};

use crate::world::{Client, PEER, PEER6, Reply, World, addr};

const A: &str = "198.51.100.1:40000";
const OTHER: &str = "9.9.9.9:7000";

/// Takes an allocation with its sockets; the new owner of the sockets names them by numbers of its own.
fn take(from: &mut World, to: &mut World, id: AllocationId) -> Box<Allocation> {
    let mut allocation = from.server.take(from.now, id).expect("an allocation");
    from.drain();
    for (family, socket) in allocation.sockets() {
        let Some(socket) = socket else { continue };
        let at = from.give_away(socket);
        allocation.set_socket(family, to.socket(at).socket);
    }
    allocation
}

fn move_allocation(from: &mut World, to: &mut World, client: &mut Client) {
    let allocation = take(from, to, client.relay().allocation);
    let sockets = allocation.sockets();
    let id = to.server.adopt(to.now, allocation).expect("room");
    for (family, socket) in sockets {
        to.relays.extend(socket.map(|socket| (RelayId { allocation: id, family }, socket)));
    }
    client.relay = Some(RelayId { allocation: id, family: Family::V4 });
    to.pass(0);
}

/// Another server whose table and sockets are not those of the first.
fn other_world() -> World {
    let mut world = World { next_socket: 500, next_port: 60_000, ..World::default() };
    for n in 0..3 {
        world.allocated(&format!("198.51.100.9:{}", 1000 + n)).refresh(&mut world, 0);
    }
    world
}

fn dual(world: &mut World) -> (Client, Vec<u8>) {
    let mut client = Client::new(A);
    client.refresh(world, 0);
    let request = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(world.ask(&client.tuple, &request).code(), 0);
    client.relay = Some(RelayId { allocation: world.opened.last().unwrap().id, family: Family::V4 });
    (client, request)
}

/// RFC 8656 §11, §12: data flows both ways, by channel and by indication, over both families.
#[test]
fn data_flows_after_the_move() {
    let (mut one, mut two) = (World::default(), other_world());
    let (mut client, _) = dual(&mut one);
    client.bind(&mut one, 0x4000, PEER);
    client.bind(&mut one, 0x4001, PEER6);
    client.permit(&mut one, &[OTHER]);
    move_allocation(&mut one, &mut two, &mut client);
    one.assert_empty();
    assert_eq!(one.closed.len(), 0, "it did not end");
    assert!(client.channel_data(&mut one, 0x4000, b"x").is_none());

    let (v4, v6) = (client.relay(), RelayId { family: Family::V6, ..client.relay() });
    let sent = client.channel_data(&mut two, 0x4000, b"x").unwrap();
    assert_eq!((sent.socket, sent.peer), (two.relays[&v4], PeerAddr(addr(PEER))));
    assert_eq!(client.channel_data(&mut two, 0x4001, b"x").unwrap().socket, two.relays[&v6]);
    assert_eq!(client.send(&mut two, OTHER, b"x").unwrap().socket, two.relays[&v4]);
    assert_eq!(two.peer_sends(v4, PEER, b"x").unwrap().header, Header::Channel(0x4000));
    assert_eq!(two.peer_sends(v6, PEER6, b"x").unwrap().header, Header::Channel(0x4001));
    assert!(matches!(two.peer_sends(v4, OTHER, b"x").unwrap().header, Header::Data { .. }));
    assert_eq!(client.refresh(&mut two, 0).code(), 0);
    two.assert_empty();
}

/// RFC 8656 §8, §9, §12: everything expires at the time it would have expired at.
#[test]
fn deadlines_move_along() {
    let (mut one, mut two) = (World::default(), other_world());
    let mut client = one.allocated(A);
    client.refresh(&mut one, 900);
    client.bind(&mut one, 0x4000, PEER);
    client.bind(&mut one, 0x4001, OTHER);
    one.pass(299);
    client.permit(&mut one, &[OTHER]);
    two.pass(299);
    move_allocation(&mut one, &mut two, &mut client);
    let heard = |two: &mut World, peer| two.peer_sends(client.relay(), peer, b"x").is_some();
    assert!(heard(&mut two, PEER));
    two.pass(1);
    assert!(!heard(&mut two, PEER) && heard(&mut two, OTHER));
    two.pass(299);
    assert!(!heard(&mut two, OTHER) && client.channel_data(&mut two, 0x4000, b"x").is_some());
    two.pass(1);
    assert!(client.channel_data(&mut two, 0x4000, b"x").is_none());
    two.pass(299);
    assert_eq!(two.sockets.len(), 1);
    two.pass(1);
    assert_eq!(two.closed.last().unwrap().reason, CloseReason::Expired);
    two.assert_empty();
}

/// RFC 8656 §7.2, §5: a retransmitted Allocate gets the same response, and the key that made the allocation serves on.
#[test]
fn the_credential_and_the_transaction_move_along() {
    let (mut one, mut two) = (World::default(), other_world());
    let (mut client, request) = dual(&mut one);
    let first = one.ask(&client.tuple, &request);
    move_allocation(&mut one, &mut two, &mut client);
    assert_eq!(two.ask(&client.tuple, &request).0, first.0);
    assert_eq!(client.allocate(&mut two, |_| {}).code(), 437);
    let mut bob = Client { nonce: client.nonce.clone(), ..client.clone().named("bob", "builder") };
    assert_eq!(bob.refresh(&mut two, 0).code(), 441);
    assert_eq!(client.refresh(&mut two, 600).code(), 0);
}

/// Totals and the time it lived continue; the gauges of both servers follow.
#[test]
fn totals_continue() {
    let (mut one, mut two) = (World::default(), other_world());
    let mut client = one.allocated(A);
    client.bind(&mut one, 0x4000, PEER);
    client.channel_data(&mut one, 0x4000, b"four");
    one.pass(100);
    two.pass(100);
    move_allocation(&mut one, &mut two, &mut client);
    assert_eq!((two.server.stats().allocations, two.server.stats().channels), (1, 1));
    client.channel_data(&mut two, 0x4000, b"three");
    two.peer_sends(client.relay(), PEER, b"six bytes");
    two.pass(20);
    client.refresh(&mut two, 0);
    let closed = two.closed.last().unwrap();
    let totals = Totals { to_peer_packets: 2, to_peer_bytes: 9, to_client_packets: 1, to_client_bytes: 9 };
    assert_eq!((closed.lived, closed.totals), (120, totals));
    two.assert_empty();
}

/// RFC 8656 §5: one allocation per 5-tuple. What is not adopted comes back whole.
#[test]
fn a_taken_tuple_is_not_adopted() {
    let (mut one, mut two) = (World::default(), other_world());
    let mut client = one.allocated(A);
    client.bind(&mut one, 0x4000, PEER);
    let mut other = two.allocated(A);
    let allocation = take(&mut one, &mut two, client.relay().allocation);
    let allocation = two.server.adopt(two.now, allocation).expect_err("the 5-tuple has an allocation");
    assert_eq!(allocation.tuple(), client.tuple);
    other.refresh(&mut two, 0);
    two.hold = true;
    let request =
        other.request(Method::Allocate, |r| r.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    two.ignores(&other.tuple, &request);
    let allocation = two.server.adopt(two.now, allocation).expect_err("an Allocate is pending");
    two.pass(5);
    assert_eq!(Reply(two.replies.pop_front().unwrap().1).code(), 508);
    assert!(two.server.adopt(two.now, allocation).is_ok());
    assert!(client.channel_data(&mut two, 0x4000, b"x").is_some());
}
