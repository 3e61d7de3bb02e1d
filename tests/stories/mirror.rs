//! What a forwarding table outside of the server is told, and what it brings back.

use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::{AllocationLimits, External, PeerAddr, RelayedAddr, Totals, TurnConfig};

use crate::world::{PEER, World, addr, config, credentials, rules};

const A: &str = "198.51.100.1:40000";

/// RFC 8656 §12: a bound channel comes with everything that is needed to relay its data.
#[test]
fn a_bound_channel_says_it_all() {
    let limits = AllocationLimits { bandwidth: 5000, new_peers: 0, ..AllocationLimits::default() };
    let mut world = World::new(TurnConfig { limits, ..config() }, credentials());
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    let bound = world.bound.pop().unwrap();
    assert_eq!((bound.tuple, bound.relay, bound.channel), (client.tuple, client.relay(), 0x4000));
    assert_eq!(bound.socket, world.relays[&client.relay()]);
    assert_eq!(bound.relayed, RelayedAddr(world.relayed(client.relay()).unwrap()));
    assert_eq!((bound.peer, bound.sent_to), (PeerAddr(addr(PEER)), PeerAddr(addr(PEER))));
    assert_eq!(bound.expires, world.now.mono + 600 * crate::world::SECOND);
    assert!(bound.is_permitted);
    assert!(bound.scope.check(5000, |_| false).is_ok());
    assert_eq!(bound.bandwidth, 5000);
}

/// RFC 8656 §9: behind a NAT, packets between two clients of one relay never go to the external address.
#[test]
fn packets_really_go_to_the_local_address() {
    let external = "203.0.113.1".parse().unwrap();
    let config = TurnConfig {
        peers: PeerRules::new(Rules { relay: vec![external], ..rules() }),
        external: External::new(vec![("192.0.2.1".parse().unwrap(), external)]),
        ..config()
    };
    let mut world = World::new(config, credentials());
    let (mut one, mut two) = (world.allocated(A), world.allocated("198.51.100.2:40000"));
    let local = world.relayed(two.relay()).unwrap();
    let called = format!("203.0.113.1:{}", local.port());
    assert_eq!(one.bind(&mut world, 0x4000, &called).code(), 0);
    let bound = world.bound.pop().unwrap();
    assert_eq!((bound.peer, bound.sent_to), (PeerAddr(addr(&called)), PeerAddr(local)));
    assert!(bound.scope.check(local.port(), |relayed| relayed == local).is_ok());
    assert!(
        bound.scope.check(local.port(), |_| false).is_err(),
        "the port is judged while nobody lives there"
    );
    two.refresh(&mut world, 0);
}

/// RFC 8656 §9, §12: while a channel outlives its permission, only data to the peer passes.
#[test]
fn a_permission_lapses_and_comes_back() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.refresh(&mut world, 3600);
    client.permit(&mut world, &["8.8.4.4:1"]);
    client.bind(&mut world, 0x4000, PEER);
    world.pass(300);
    client.permit(&mut world, &[PEER]);
    world.pass(100);
    client.permit(&mut world, &[PEER]);
    world.pass(200);
    // At the end only a permission is left, which lapses unnoticed
    assert_eq!(world.channels, ["+0x4000 8.8.8.8:5000", "lapsed 8.8.8.8", "restored 8.8.8.8", "-0x4000"]);
    world.pass(300);
    world.channels.clear();
    client.bind(&mut world, 0x4000, PEER);
    world.pass(300);
    client.bind(&mut world, 0x4001, "8.8.8.8:1");
    client.refresh(&mut world, 0);
    world.channels[4..].sort();
    assert_eq!(
        world.channels,
        [
            "+0x4000 8.8.8.8:5000",
            "lapsed 8.8.8.8",
            "restored 8.8.8.8",
            "+0x4001 8.8.8.8:1",
            "-0x4000",
            "-0x4001"
        ]
    );
}

/// A new snapshot is told for every channel that it leaves bound.
#[test]
fn new_limits_are_told() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    world.pass(300);
    let limits = AllocationLimits { bandwidth: 7, ..AllocationLimits::default() };
    world.apply(TurnConfig { limits, ..config() }, credentials());
    world.pass(0);
    let bound = world.bound.last().unwrap();
    assert_eq!((bound.channel, bound.bandwidth, bound.is_permitted), (0x4000, 7, false));
}

/// What was relayed elsewhere counts like everything else.
#[test]
fn counts_come_back() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    client.channel_data(&mut world, 0x4000, b"four");
    let part = Totals { to_peer_packets: 10, to_peer_bytes: 100, to_client_packets: 2, to_client_bytes: 30 };
    world.server.counted_elsewhere(client.relay(), part);
    world.server.counted_elsewhere(client.relay(), part);
    let stats = world.server.stats();
    assert_eq!((stats.to_peer[0].packets, stats.to_peer[0].bytes), (21, 204));
    assert_eq!((stats.to_client[0].packets, stats.to_client[0].bytes), (4, 60));
    client.refresh(&mut world, 0);
    world.server.counted_elsewhere(client.relay(), part);
    let whole = Totals { to_peer_packets: 21, to_peer_bytes: 204, to_client_packets: 4, to_client_bytes: 60 };
    assert_eq!(world.closed[0].totals, whole);
    assert_eq!(world.server.stats().to_peer[0].packets, 21, "it has ended");
}
