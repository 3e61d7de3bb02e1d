//! Permissions: which peers data may be sent to and received from.

use hairpin::turn::AllocationLimits;
use hairpin::turn::stats::Dropped;
use hairpin::wire::{Method, attribute};

use crate::world::{PEER, PEER6, PRIVATE, SECOND, World, config, credentials};

const A: &str = "198.51.100.1:40000";

/// RFC 8656 §9: 300 seconds for an address and all of its ports, refreshed by each request.
#[test]
fn a_permission_lasts_five_minutes() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(world.peer_sends(client.relay(), PEER, b"x"), None);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_some());
    assert!(world.peer_sends(client.relay(), "8.8.8.8:9", b"x").is_some());
    assert!(world.peer_sends(client.relay(), "8.8.8.9:5000", b"x").is_none());
    world.pass(200);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    world.pass(299);
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_some());
    assert!(client.send(&mut world, PEER, b"x").is_some());
    world.pass_unnoticed(1);
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_none(), "neither data nor a Send refreshes it");
    assert!(client.send(&mut world, PEER, b"x").is_none());
    assert_eq!(world.server.stats().permissions, 0);
}

/// RFC 8656 §10.2: several at once; if one is refused, none is installed.
#[test]
fn all_or_nothing() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    for (others, code) in [(PRIVATE, 403), (PEER6, 443), ("127.0.0.1:1", 403), ("0.0.0.0:1", 403)] {
        assert_eq!(client.permit(&mut world, &[PEER, others]).code(), code, "{others}");
        assert_eq!(client.permit(&mut world, &[others, PEER]).code(), code, "{others}");
    }
    assert!(client.send(&mut world, PEER, b"x").is_none());
    assert_eq!(world.server.stats().permissions, 0);
    assert_eq!(world.refused[0].peer.unwrap().to_string(), PRIVATE);
    assert_eq!(client.permit(&mut world, &[PEER, "8.8.4.4:1", PEER]).code(), 0);
    assert_eq!(world.server.stats().permissions, 2);
}

/// RFC 8656 §10.2: at least one address, each valid.
#[test]
fn addresses_must_be_valid() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &[]).code(), 400);
    let broken = [&[0, 1, 0, 0][..], &[0, 3, 0, 0, 1, 2, 3, 4], &[]];
    for value in broken {
        let answer = client.ask(&mut world, Method::CreatePermission, |request| {
            request.xor_address(attribute::XOR_PEER_ADDRESS, PEER.parse().unwrap());
            request.bytes(attribute::XOR_PEER_ADDRESS, value);
        });
        assert_eq!(answer.code(), 400, "{value:?}");
    }
    assert_eq!(world.server.stats().permissions, 0);
}

/// RFC 8656 §21.4: addresses that hide a tunnel are refused, and so are the ports of the relay's own endpoints.
#[test]
fn tunnels_and_own_endpoints_are_refused() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.refresh(&mut world, 0);
    client.allocate(&mut world, |r| r.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    for peer in [
        "[::ffff:8.8.8.8]:1",
        "[2002:808:808::1]:1",
        "[2001::1]:1",
        "[64:ff9b::a00:1]:1",
        "[::1]:1",
        "[fe80::1]:1",
    ] {
        assert_eq!(client.permit(&mut world, &[peer]).code(), 403, "{peer}");
        assert_eq!(client.bind(&mut world, 0x4000, peer).code(), 403, "{peer}");
    }
    assert_eq!(client.bind(&mut world, 0x4000, "[2001:db8::1]:3478").code(), 403);
}

/// RFC 8656 §9: two clients of one relay meet at its address; the port of each packet is judged.
#[test]
fn two_clients_of_one_relay_meet() {
    let mut world = World::default();
    let mut one = world.allocated(A);
    let mut two = world.allocated("198.51.100.2:40000");
    let (at_one, at_two) =
        (world.relayed(one.relay()).unwrap().to_string(), world.relayed(two.relay()).unwrap().to_string());
    assert_eq!(one.permit(&mut world, &[&at_two]).code(), 0);
    assert_eq!(two.bind(&mut world, 0x4000, &at_one).code(), 0);
    assert!(one.send(&mut world, &at_two, b"x").is_some());
    assert!(world.peer_sends(two.relay(), &at_one, b"x").is_some());
    assert!(two.channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(one.send(&mut world, "192.0.2.1:3478", b"x").is_none(), "the listener is no peer");
    assert!(one.send(&mut world, "192.0.2.1:22", b"x").is_none(), "nor is anything else on this machine");
    assert_eq!(one.bind(&mut world, 0x4001, "192.0.2.1:22").code(), 403);
    assert_eq!(world.server.stats().dropped(Dropped::ForbiddenPort), 2);

    one.refresh(&mut world, 0);
    assert!(two.channel_data(&mut world, 0x4000, b"x").is_none(), "nobody lives there any more");
    assert!(world.peer_sends(two.relay(), &at_one, b"x").is_none());
    two.refresh(&mut world, 0);
    world.assert_empty();
}

/// RFC 8656 §10.2: 508 at the limit of permissions; installed ones can be refreshed.
#[test]
fn permissions_are_bounded() {
    let limits = AllocationLimits { permissions: 2, new_peers: 0, ..AllocationLimits::default() };
    let mut world = World::new(hairpin::turn::TurnConfig { limits, ..config() }, credentials());
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &["8.8.8.1:1", "8.8.8.2:1", "8.8.8.3:1"]).code(), 508);
    assert_eq!(client.permit(&mut world, &["8.8.8.1:1", "8.8.8.2:1"]).code(), 0);
    assert_eq!(client.permit(&mut world, &["8.8.8.3:1"]).code(), 508);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.3:1").code(), 508);
    assert_eq!(client.permit(&mut world, &["8.8.8.2:1"]).code(), 0);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.2:1").code(), 0);
    world.pass(300);
    assert_eq!(client.permit(&mut world, &["8.8.8.3:1", "8.8.8.4:1"]).code(), 0);
}

/// RFC 8656 §21.3: a relay is no port scanner: new peers are rate-limited, known ones are not.
#[test]
fn new_peers_are_bounded() {
    let limits = AllocationLimits { new_peers: 10, ..AllocationLimits::default() };
    let mut world = World::new(hairpin::turn::TurnConfig { limits, ..config() }, credentials());
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    let sent = |world: &mut World, client: &mut crate::world::Client| {
        (1..=100).filter(|port| client.send(world, &format!("8.8.8.8:{port}"), b"x").is_some()).count()
    };
    assert_eq!(sent(&mut world, &mut client), 39, "the permission was one too");
    assert_eq!(world.server.stats().dropped(Dropped::TooManyPeers), 61);
    assert!(client.send(&mut world, "8.8.8.8:1", b"x").is_some());
    assert_eq!(client.permit(&mut world, &["8.8.8.9:1"]).code(), 508);
    assert_eq!(client.bind(&mut world, 0x4000, "8.8.8.8:200").code(), 508);
    world.pass(1);
    assert_eq!(sent(&mut world, &mut client), 39 + 10);
    assert_eq!(world.now.mono, 6 * SECOND);
}
