//! Refreshing and deleting an allocation.

use hairpin::turn::{CloseReason, OperatorCommand, Totals};
use hairpin::wire::{Method, attribute};

use crate::world::{Client, PEER, World};

const A: &str = "198.51.100.1:40000";

/// RFC 8656 §8.2: the lifetime starts anew, within the same bounds as that of an Allocate.
#[test]
fn a_refresh_starts_the_lifetime_anew() {
    for (wanted, granted) in [(1, 600), (900, 900), (u32::MAX, 3600)] {
        let mut world = World::default();
        let mut client = world.allocated(A);
        world.pass(599);
        let answer = client.refresh(&mut world, wanted);
        assert_eq!((answer.code(), answer.lifetime()), (0, Some(granted)));
        assert!(answer.message().verify_sha1(&client.key()));
        world.pass(u64::from(granted) - 1);
        assert_eq!(world.sockets.len(), 1);
        world.pass(1);
        assert_eq!(world.closed.len(), 1);
        world.assert_empty();
    }
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.ask(&mut world, Method::Refresh, |_| {}).lifetime(), Some(600));
    let answer =
        client.ask(&mut world, Method::Refresh, |request| request.bytes(attribute::LIFETIME, &[0; 3]));
    assert_eq!(answer.code(), 400);
}

/// The histogram of lifetimes counts an allocation when it ends, whatever ended it, and not before.
#[test]
fn lifetimes_count_at_the_end() {
    let mut world = World::default();
    let mut clients: Vec<_> =
        ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.1:3"].map(|client| world.allocated(client)).into();
    world.pass(4);
    let ended = |world: &World| {
        let lifetimes = world.server.stats().lifetimes;
        (lifetimes.cumulative().filter(|count| *count > 0).collect::<Vec<_>>(), lifetimes.sum().as_secs())
    };
    assert_eq!(ended(&world), (vec![], 0));
    assert_eq!(clients[0].refresh(&mut world, 0).code(), 0);
    // The buckets from 5 s to a day.
    assert_eq!(ended(&world), (vec![1; 12], 4));
    assert_eq!(clients[1].refresh(&mut world, 3600).code(), 0);
    world.pass(3600);
    assert_eq!(ended(&world).1, 4 + 600 + 3604);
    assert_eq!(
        world.server.stats().lifetimes.cumulative().collect::<Vec<_>>()[..],
        [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    );
    world.assert_empty();
}

/// RFC 8656 §8.2: lifetime 0 deletes at once; a second one finds no allocation.
#[test]
fn lifetime_zero_deletes() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    client.channel_data(&mut world, 0x4000, b"four");
    world.peer_sends(client.relay(), PEER, b"seven b");
    world.pass(3);
    let request = client.request(Method::Refresh, |request| request.u32(attribute::LIFETIME, 0));
    let answer = world.ask(&client.tuple, &request);
    assert_eq!((answer.code(), answer.lifetime()), (0, Some(0)));
    world.assert_empty();
    assert_eq!(world.ask(&client.tuple, &request).code(), 437);
    let closed = &world.closed[0];
    assert_eq!((closed.reason, closed.lived), (CloseReason::Deleted, 3));
    let totals = Totals { to_peer_packets: 1, to_peer_bytes: 4, to_client_packets: 1, to_client_bytes: 7 };
    assert_eq!(closed.totals, totals);
}

/// RFC 8656 §6: an expired allocation is gone for every input, even if no timeout was handled.
#[test]
fn nothing_meets_what_has_expired() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    world.pass_unnoticed(600);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), None);
    assert_eq!(world.peer_sends(client.relay(), PEER, b"x"), None);
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    world.assert_empty();
    let mut again = Client { nonce: client.nonce, ..Client::new(A) };
    assert_eq!(again.allocate(&mut world, |_| {}).code(), 0);
}

/// RFC 8656 §8.2: a family that the allocation does not have.
#[test]
fn a_family_that_is_not_there() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    for (value, code) in [(&[1, 0, 0, 0][..], 0), (&[2, 0, 0, 0], 443), (&[9, 0, 0, 0], 443), (&[1], 400)] {
        let answer =
            client.ask(&mut world, Method::Refresh, |r| r.bytes(attribute::REQUESTED_ADDRESS_FAMILY, value));
        assert_eq!(answer.code(), code, "{value:?}");
    }
}

/// RFC 8656 §5: only the user who allocated; another one gets 441, signed with its own key.
#[test]
fn another_user_has_wrong_credentials() {
    let mut world = World::default();
    let client = world.allocated(A);
    let mut other = Client { nonce: client.nonce.clone(), ..client.clone().named("bob", "builder") };
    let answer = other.refresh(&mut world, 0);
    assert_eq!(answer.code(), 441);
    assert!(answer.message().verify_sha1(&other.key()));
    for answer in [other.permit(&mut world, &[PEER]), other.bind(&mut world, 0x4000, PEER)] {
        assert_eq!(answer.code(), 441);
    }
    assert_eq!(world.sockets.len(), 1);
}

/// The operator stops the server: every allocation ends and is reported.
#[test]
fn the_server_stops() {
    let mut world = World::default();
    for port in 1..=3 {
        world.allocated(&format!("198.51.100.1:{port}")).bind(&mut world, 0x4000, PEER);
    }
    world.server.command(world.now, OperatorCommand::EndAll);
    world.drain();
    world.assert_empty();
    assert_eq!(world.closed.len(), 3);
    assert!(world.closed.iter().all(|closed| closed.reason == CloseReason::Shutdown));
}
