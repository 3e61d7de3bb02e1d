//! The operator changes peer rules, limits and credentials while allocations live.

use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::stats::Dropped;
use hairpin::turn::{AllocationLimits, Lifetimes, TurnConfig};

use crate::world::{PEER, World, addr, config, credentials, rules};

const A: &str = "198.51.100.1:40000";
const OTHER: &str = "9.9.9.9:7000";

fn with_rules(rules: Rules) -> TurnConfig {
    TurnConfig { peers: PeerRules::new(rules), ..config() }
}

fn denying(range: &str) -> TurnConfig {
    with_rules(Rules { deny: vec![range.parse().unwrap()], ..rules() })
}

/// RFC 8656 §21: what new rules refuse ends, with its channels; everything else stays.
#[test]
fn new_rules_end_what_they_refuse() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    client.bind(&mut world, 0x4001, OTHER);
    client.permit(&mut world, &["8.8.4.4:1"]);
    world.apply(denying("8.8.8.0/24"), credentials());
    world.pass(0);
    assert_eq!(world.channels.last().unwrap(), "-0x4000");
    assert_eq!((world.server.stats().permissions, world.server.stats().channels), (2, 1));
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(world.peer_sends(client.relay(), PEER, b"x").is_none());
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 403);
    assert!(client.channel_data(&mut world, 0x4001, b"x").is_some());
    assert!(client.send(&mut world, "8.8.4.4:1", b"x").is_some());
    client.refresh(&mut world, 0);
    world.assert_empty();
}

/// RFC 8656 §21: no packet passes by the old rules, even before the sweep has come to its allocation.
#[test]
fn a_packet_meets_the_new_rules_at_once() {
    let mut world = World::default();
    let mut clients: Vec<_> = (1..=3).map(|n| world.allocated(&format!("198.51.100.{n}:40000"))).collect();
    for client in &mut clients {
        client.bind(&mut world, 0x4000, PEER);
    }
    world.apply(denying("8.8.8.8"), credentials());
    assert!(clients[0].channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(clients[1].send(&mut world, PEER, b"x").is_none());
    assert!(world.peer_sends(clients[2].relay(), PEER, b"x").is_none());
    let stats = world.server.stats();
    assert_eq!((stats.permissions, stats.channels), (0, 0), "each packet ended what it met");
    assert_eq!((stats.dropped(Dropped::NoChannel), stats.dropped(Dropped::NoPermission)), (1, 2));
    world.pass(0);
    assert_eq!(clients[0].bind(&mut world, 0x4000, OTHER).code(), 0);
}

/// A large table is judged in steps of 256 permissions and channels; each is due at once.
#[test]
fn a_large_table_is_judged_in_steps() {
    let limits = AllocationLimits { permissions: 1000, new_peers: 0, ..AllocationLimits::default() };
    let mut world = World::new(TurnConfig { limits, ..config() }, credentials());
    for client in 1..=4 {
        let mut client = world.allocated(&format!("198.51.100.{client}:40000"));
        let peers: Vec<String> = (0..=255).map(|n| format!("8.8.8.{n}:1")).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        assert_eq!(client.permit(&mut world, &peers).code(), 0);
        assert_eq!(client.bind(&mut world, 0x4000, "8.8.4.4:1").code(), 0);
    }
    world.apply(denying("8.8.8.0/24"), credentials());
    let mut permissions = vec![world.server.stats().permissions];
    while world.server.poll_timeout().is_some_and(|at| at <= world.now.mono) {
        world.server.handle_timeout(world.now);
        permissions.push(world.server.stats().permissions);
    }
    assert!(permissions.windows(2).all(|pair| pair[0] - pair[1] <= 256), "{permissions:?}");
    assert_eq!((permissions[0], permissions.last()), (4 * 257, Some(&4)));
    assert!(permissions.len() >= 5);
}

/// RFC 8656 §21: when a port of this machine becomes an endpoint, a channel to it ends; the permission stays.
#[test]
fn a_channel_ends_with_its_port() {
    let allow = vec!["192.0.2.1".parse().unwrap()];
    let before = with_rules(Rules { allow: allow.clone(), ..rules() });
    let mut world = World::new(before, credentials());
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, "192.0.2.1:7000");
    client.bind(&mut world, 0x4001, "192.0.2.1:7001");
    let endpoints = vec![addr("0.0.0.0:7000")];
    world.apply(with_rules(Rules { allow, endpoints, ..rules() }), credentials());
    world.pass(0);
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(client.channel_data(&mut world, 0x4001, b"x").is_some());
    assert!(client.send(&mut world, "192.0.2.1:7000", b"x").is_none());
    assert!(client.send(&mut world, "192.0.2.1:3478", b"x").is_some(), "no endpoint any more");
}

/// RFC 8656 §9: a channel to another client's relayed address outlives the moment in which nobody lives there.
#[test]
fn relayed_addresses_may_come_back() {
    let mut world = World::default();
    let (mut one, mut two) = (world.allocated(A), world.allocated("198.51.100.2:40000"));
    let at_two = world.relayed(two.relay()).unwrap().to_string();
    one.bind(&mut world, 0x4000, &at_two);
    two.refresh(&mut world, 0);
    world.apply(config(), credentials());
    world.pass(0);
    assert_eq!(world.server.stats().channels, 1);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_none());
}

/// Lifetimes and limits hold for what is granted from now on.
#[test]
fn limits_hold_for_what_comes() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.permit(&mut world, &[PEER, OTHER]);
    let limits = AllocationLimits { permissions: 1, new_peers: 0, ..AllocationLimits::default() };
    let lifetimes =
        Lifetimes { allocation_lifetime: 60, max_allocation_lifetime: 60, ..Lifetimes::default() };
    world.apply(TurnConfig { limits, lifetimes, ..config() }, credentials());
    world.pass(0);
    assert!(client.send(&mut world, OTHER, b"x").is_some());
    assert_eq!(client.permit(&mut world, &["8.8.4.4:1"]).code(), 508);
    assert_eq!(client.refresh(&mut world, 600).lifetime(), Some(60));
    world.pass(60);
    world.assert_empty();
}
