//! Data that was handed out to be relayed and could not be sent does not count as relayed.

use hairpin::turn::stats::TrafficCount;
use hairpin::turn::{Output, Totals};

use crate::world::{PEER, World};

const A: &str = "198.51.100.1:40000";

const ONE: TrafficCount = TrafficCount { packets: 1, bytes: 4 };

/// Two packets each way, of which one is lost; the other is in the closing line and in the counters.
#[test]
fn losses_are_subtracted() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    for _ in 0..2 {
        assert!(client.channel_data(&mut world, 0x4000, b"four").is_some());
        assert!(world.peer_sends(client.relay(), PEER, b"back").is_some());
    }
    world.server.unsent_to_peer(client.relay(), ONE);
    world.server.unsent_to_client(&client.tuple, ONE);
    let stats = world.server.stats();
    assert_eq!((stats.to_peer[0], stats.to_client[0]), (ONE, ONE));
    client.refresh(&mut world, 0);
    let left = Totals { to_peer_packets: 1, to_peer_bytes: 4, to_client_packets: 1, to_client_bytes: 4 };
    assert_eq!(world.closed[0].totals, left);
}

/// A loss that is noticed after the allocation has ended, and before anybody was told, is not in its totals.
#[test]
fn losses_of_an_allocation_that_has_just_ended() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, PEER);
    client.channel_data(&mut world, 0x4000, b"four");
    world.peer_sends(client.relay(), PEER, b"back");
    world.server.client_gone(world.now, &client.tuple);
    world.server.unsent_to_peer(client.relay(), ONE);
    world.server.unsent_to_client(&client.tuple, ONE);
    let closed = std::iter::from_fn(|| world.server.poll_output()).find_map(|output| match output {
        Output::Closed(closed) => Some(closed.totals),
        _ => None,
    });
    assert_eq!(closed, Some(Totals::default()));
    // Nobody is left to count for.
    world.server.unsent_to_peer(client.relay(), ONE);
    let stats = world.server.stats();
    assert_eq!((stats.to_peer[0], stats.to_client[0]), Default::default());
}
