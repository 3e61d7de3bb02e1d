//! Dual allocations.

use hairpin::turn::{CloseReason, Families, Header, PerFamily, RelayId, TurnConfig};
use hairpin::wire::{Family, Method, attribute};

use crate::world::{Client, PEER, PEER6, World, addr, config, credentials};

const A: &str = "198.51.100.1:40000";
const V6: [u8; 4] = [2, 0, 0, 0];

fn dual(world: &mut World) -> (Client, RelayId, RelayId) {
    let mut client = Client::new(A);
    let answer = client.allocate(world, |request| request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &V6));
    assert_eq!(answer.relayed(), [addr("192.0.2.1:50000"), addr("[2001:db8::1]:50000")]);
    assert!(answer.attribute(attribute::ADDRESS_ERROR_CODE).is_none());
    let allocation = world.opened.last().unwrap().id;
    let relay = |family| RelayId { allocation, family };
    (client, relay(Family::V4), relay(Family::V6))
}

/// RFC 8656 §7.2, 9.: one address per family, requested by the attribute of the RFC or that of its drafts.
#[test]
fn both_families() {
    let mut world = World::default();
    let (mut client, v4, v6) = dual(&mut world);
    assert_eq!(client.permit(&mut world, &[PEER, PEER6]).code(), 0);
    assert_eq!(client.send(&mut world, PEER6, b"x").unwrap().socket, world.relays[&v6]);
    assert_eq!(client.send(&mut world, PEER, b"x").unwrap().socket, world.relays[&v4]);
    assert!(world.peer_sends(v6, PEER6, b"x").is_some());
    assert_eq!(world.server.stats().relays[0], PerFamily { v4: 1, v6: 1 });
    client.refresh(&mut world, 0);
    world.assert_empty();
    assert_eq!(world.closed.len(), 1);

    let answer = client.allocate(&mut world, |r| r.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT, &V6));
    assert_eq!(answer.relayed().len(), 2);
}

/// RFC 8656 §7.2, 6., 8. and 9.: combinations that are not allowed, and a family that is not IPv6.
#[test]
fn bad_combinations() {
    let mut world = World::default();
    let additional = attribute::ADDITIONAL_ADDRESS_FAMILY;
    let bad = [
        (additional, &[1, 0, 0, 0][..], attribute::DONT_FRAGMENT, &[][..]),
        (additional, &[3, 0, 0, 0], attribute::DONT_FRAGMENT, &[]),
        (additional, &[2], attribute::DONT_FRAGMENT, &[]),
        (additional, &V6, attribute::REQUESTED_ADDRESS_FAMILY, &V6),
        (additional, &V6, attribute::EVEN_PORT, &[0x80]),
    ];
    for (one, value, other, beside) in bad {
        let answer = Client::new(A).allocate(&mut world, |request| {
            request.bytes(one, value);
            request.bytes(other, beside);
        });
        assert_eq!(answer.code(), 400, "{one:#x} {value:?} {other:#x}");
    }
    world.assert_empty();
    let answer = Client::new(A).allocate(&mut world, |request| {
        request.bytes(additional, &V6);
        request.bytes(attribute::EVEN_PORT, &[0]);
    });
    assert_eq!(answer.relayed().len(), 2);
}

/// RFC 8656 §7.2, 9.: one family is granted, and ADDRESS-ERROR-CODE tells why the other is not; a retransmission gets the same
/// response.
#[test]
fn half_of_it() {
    for (here, short_of, family, code) in [
        (Families { v4: true, v6: false }, None, Family::V6, 440),
        (Families { v4: false, v6: true }, None, Family::V4, 440),
        (Families { v4: true, v6: true }, Some(Family::V6), Family::V6, 508),
        (Families { v4: true, v6: true }, Some(Family::V4), Family::V4, 508),
    ] {
        let mut world =
            World { short_of, ..World::new(TurnConfig { families: here, ..config() }, credentials()) };
        let mut client = Client::new(A);
        client.allocate(&mut world, |_| {});
        client.refresh(&mut world, 0);
        let request = client.request(Method::Allocate, |request| {
            request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &V6);
        });
        let answer = world.ask(&client.tuple, &request);
        assert_eq!((answer.code(), answer.relayed().len()), (0, 1));
        let missing = answer.attribute(attribute::ADDRESS_ERROR_CODE).unwrap();
        let (missing_code, reason) = missing.error_code().unwrap();
        let missing_family = if missing.value[0] == 1 { Family::V4 } else { Family::V6 };
        assert_eq!((missing_family, missing_code), (family, code));
        assert!(!reason.is_empty());
        assert_eq!(world.ask(&client.tuple, &request).0, answer.0);
    }
}

/// RFC 8656 §8.1: one family can be refreshed or deleted alone; permissions and channels of the other stay.
#[test]
fn families_are_refreshed_alone() {
    let mut world = World::default();
    let (mut client, v4, v6) = dual(&mut world);
    client.bind(&mut world, 0x4000, PEER);
    client.bind(&mut world, 0x4001, PEER6);
    let refresh = |client: &mut Client, world: &mut World, family: u8, lifetime: u32| {
        client.ask(world, Method::Refresh, |request| {
            request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            request.u32(attribute::LIFETIME, lifetime);
        })
    };
    assert_eq!(refresh(&mut client, &mut world, 1, 0).code(), 0);
    assert!(world.relayed(v4).is_none() && world.relayed(v6).is_some());
    assert!(world.closed.is_empty());
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert_eq!(client.channel_data(&mut world, 0x4001, b"x").unwrap().socket, world.relays[&v6]);
    assert_eq!(world.peer_sends(v6, PEER6, b"x").unwrap().header, Header::Channel(0x4001));
    assert_eq!(refresh(&mut client, &mut world, 1, 600).code(), 443);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 443);
    assert_eq!(refresh(&mut client, &mut world, 2, 0).code(), 0);
    assert_eq!(world.closed[0].reason, CloseReason::Deleted);
    world.assert_empty();
}

/// RFC 8656 §8: each family has its own lifetime.
#[test]
fn families_expire_alone() {
    let mut world = World::default();
    let (mut client, v4, v6) = dual(&mut world);
    client.ask(&mut world, Method::Refresh, |request| {
        request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &V6);
        request.u32(attribute::LIFETIME, 900);
    });
    world.pass(600);
    assert!(world.relayed(v4).is_none() && world.relayed(v6).is_some());
    assert_eq!(client.ask(&mut world, Method::Refresh, |_| {}).lifetime(), Some(600));
    world.pass(599);
    assert!(world.closed.is_empty());
    world.pass(1);
    world.assert_empty();
}
