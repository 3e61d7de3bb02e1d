//! ICMP messages about packets to peers.

use hairpin::turn::stats::Dropped;
use hairpin::turn::{Icmp, PeerAddr, RelayId};
use hairpin::wire::{Class, Family, Method, attribute};

use crate::world::{Client, PEER, PEER6, Reply, World, addr};

const A: &str = "198.51.100.1:40000";

fn error(
    world: &mut World,
    relay: RelayId,
    peer: &str,
    kind: u8,
    code: u8,
    mtu: u32,
) -> Option<(u8, u8, u32)> {
    world.server.peer_error(world.now, relay, PeerAddr(addr(peer)), Icmp { kind, code, mtu });
    world.drain();
    let (_, bytes) = world.replies.pop_front()?;
    let reply = Reply(bytes);
    assert_eq!((reply.message().class(), reply.message().method()), (Class::Indication, Method::Data));
    assert_eq!(reply.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address(), Ok(addr(peer)));
    assert!(reply.attribute(attribute::DATA).is_none());
    let [0, 0, kind, code, a, b, c, d] = reply.attribute(attribute::ICMP).unwrap().array().unwrap() else {
        panic!("RFC 8656 §18.13: reserved bits are zero")
    };
    Some((kind, code, u32::from_be_bytes([a, b, c, d])))
}

/// RFC 8656 §11.5, §18.13: types 3 and 11 for IPv4, 1 to 3 for IPv6, with the MTU if the message states one.
#[test]
fn a_client_is_told_why() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.allocate(&mut world, |request| request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    client.permit(&mut world, &[PEER, PEER6]);
    let relay = |family| RelayId { allocation: world.opened[0].id, family };
    let (v4, v6) = (relay(Family::V4), relay(Family::V6));
    for (kind, code, mtu, told) in
        [(3, 3, 9, Some(0)), (3, 4, 1400, Some(1400)), (11, 0, 9, Some(0)), (5, 1, 0, None), (12, 0, 0, None)]
    {
        assert_eq!(error(&mut world, v4, PEER, kind, code, mtu), told.map(|mtu| (kind, code, mtu)));
    }
    for (kind, code, mtu, told) in
        [(1, 4, 9, Some(0)), (2, 0, 1280, Some(1280)), (3, 0, 9, Some(0)), (4, 1, 0, None), (137, 0, 0, None)]
    {
        assert_eq!(error(&mut world, v6, PEER6, kind, code, mtu), told.map(|mtu| (kind, code, mtu)));
    }
    assert_eq!(world.server.stats().dropped(Dropped::Icmp), 4);
}

/// RFC 8656 §11.5: the destination of the packet needs a permission; its port does not matter.
#[test]
fn a_permission_is_needed() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(error(&mut world, client.relay(), PEER, 3, 3, 0), None);
    client.permit(&mut world, &[PEER]);
    assert!(error(&mut world, client.relay(), "8.8.8.8:77", 3, 3, 0).is_some());
    world.pass(300);
    assert_eq!(error(&mut world, client.relay(), PEER, 3, 3, 0), None);
    client.refresh(&mut world, 0);
    assert_eq!(error(&mut world, client.relay(), PEER, 3, 3, 0), None);
}

/// RFC 8656 §12.5: it comes in a Data indication even if there is a channel, and within a rate limit.
#[test]
fn it_is_bounded() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    let told = |world: &mut World| {
        (0..1000).filter(|_| error(world, client.relay(), PEER, 3, 1, 0).is_some()).count()
    };
    assert_eq!(told(&mut world), 64);
    world.pass(1);
    assert_eq!(told(&mut world), 16);
}
