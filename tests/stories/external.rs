//! A relay behind a NAT that maps addresses one to one and may not hairpin packets.

use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::stats::Dropped;
use hairpin::turn::{External, Header, TurnConfig};

use crate::world::{Client, PEER, World, addr, config, credentials, rules};

const A: &str = "198.51.100.1:40000";

/// The external address of 192.0.2.1 is 203.0.113.1; that of 2001:db8::1 is 2001:db8:ffff::1.
fn world() -> World {
    let pairs = [("192.0.2.1", "203.0.113.1"), ("2001:db8::1", "2001:db8:ffff::1")];
    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
    let relay = pairs.iter().map(|(_, external)| *external).collect();
    let config = TurnConfig {
        peers: PeerRules::new(Rules { relay, ..rules() }),
        external: External::new(pairs),
        ..config()
    };
    World::new(config, credentials())
}

/// RFC 8656 §7.2: clients are told the addresses that peers can reach, of each family.
#[test]
fn clients_are_told_the_external_address() {
    let mut world = world();
    let mut client = Client::new(A);
    let answer = client.allocate(&mut world, |request| {
        request.bytes(hairpin::wire::attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(answer.relayed(), [addr("203.0.113.1:50000"), addr("[2001:db8:ffff::1]:50000")]);
    assert_eq!(world.sockets.values().next(), Some(&addr("192.0.2.1:50000")), "the socket has the local one");
}

/// RFC 8656 §9: two clients meet at the external address, although no packet is ever sent to it.
#[test]
fn two_clients_meet_behind_the_nat() {
    let mut world = world();
    let mut one = world.allocated(A);
    let mut two = world.allocated("198.51.100.2:40000");
    let outside = |world: &World, client: &Client| {
        format!("203.0.113.1:{}", world.relayed(client.relay()).unwrap().port())
    };
    let (at_one, at_two) = (outside(&world, &one), outside(&world, &two));
    assert_eq!(one.bind(&mut world, 0x4000, &at_two).code(), 0);
    assert_eq!(two.permit(&mut world, &[&at_one]).code(), 0);

    let forward = one.channel_data(&mut world, 0x4000, b"x").unwrap();
    assert_eq!(forward.peer.0, world.relayed(two.relay()).unwrap(), "sent to the local address");
    let from = world.relayed(one.relay()).unwrap().to_string();
    let heard = world.peer_sends(two.relay(), &from, b"x").unwrap();
    assert!(
        matches!(heard.header, Header::Data { peer, .. } if peer == addr(&at_one)),
        "heard from the external one"
    );
    assert_eq!(two.send(&mut world, &at_one, b"x").unwrap().peer.0, world.relayed(one.relay()).unwrap());
    let from = world.relayed(two.relay()).unwrap().to_string();
    assert_eq!(world.peer_sends(one.relay(), &from, b"x").unwrap().header, Header::Channel(0x4000));

    assert!(one.send(&mut world, "203.0.113.1:22", b"x").is_none(), "only live allocations");
    assert_eq!(one.bind(&mut world, 0x4001, "203.0.113.1:3478").code(), 403);
    two.refresh(&mut world, 0);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(world.server.stats().dropped(Dropped::ForbiddenPort) >= 2);
}

/// RFC 8656 §21: behind the NAT the local address is a private address like any other.
#[test]
fn the_local_address_stays_private() {
    let mut world = world();
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &["10.0.0.5:1"]).code(), 403);
    assert_eq!(client.permit(&mut world, &["192.0.2.1:1"]).code(), 403);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    assert_eq!(client.send(&mut world, PEER, b"x").unwrap().peer.0, addr(PEER));
}
