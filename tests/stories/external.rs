//! A relay behind a NAT that maps addresses one to one and may not hairpin packets.

use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::stats::Dropped;
use hairpin::turn::{External, Header, Icmp, PeerAddr, TurnConfig};
use hairpin::wire::{Method, attribute};

use crate::world::{Client, PEER, Reply, World, addr, config, credentials, rules};

const A: &str = "198.51.100.1:40000";

/// A server beside the relay, by the external and by the local address of the machine.
const OUTSIDE: &str = "203.0.113.1:7882";
const INSIDE: &str = "192.0.2.1:7882";

fn world() -> World {
    World::new(with(&[]), credentials())
}

fn world_with(allow: &[&str]) -> World {
    World::new(with(allow), credentials())
}

/// The external address of 192.0.2.1 is 203.0.113.1; that of 2001:db8::1 is 2001:db8:ffff::1.
fn with(allow: &[&str]) -> TurnConfig {
    let pairs = [("192.0.2.1", "203.0.113.1"), ("2001:db8::1", "2001:db8:ffff::1")];
    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
    let relay = pairs.iter().flat_map(|(inside, external)| [*inside, *external]).collect();
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    TurnConfig {
        peers: PeerRules::new(Rules { relay, allow, ..rules() }),
        external: External::new(pairs),
        ..config()
    }
}

/// What the client takes for the sender of a datagram.
fn named(header: Header) -> String {
    match header {
        Header::Data { peer, .. } => peer.to_string(),
        Header::Channel(number) => format!("{number:#x}"),
    }
}

/// RFC 8656 §7.2: clients are told the addresses that peers can reach, of each family.
#[test]
fn clients_are_told_the_external_address() {
    let mut world = world();
    let mut client = Client::new(A);
    let answer = client.allocate(&mut world, |request| {
        request.bytes(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
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

/// RFC 8656 §9: the external address changes. Two clients that were told the former one still meet there, also with one that is
/// told the new one; each is named as its peer knows it.
#[test]
fn clients_meet_at_the_former_external_address() {
    let mut world = world();
    let mut one = world.allocated(A);
    let mut two = world.allocated("198.51.100.2:40000");
    let name = |world: &World, client: &Client, ip: &str| {
        format!("{ip}:{}", world.relayed(client.relay()).unwrap().port())
    };
    let (at_one, at_two) = (name(&world, &one, "203.0.113.1"), name(&world, &two, "203.0.113.1"));
    assert_eq!(one.bind(&mut world, 0x4000, &at_two).code(), 0);
    assert_eq!(two.permit(&mut world, &[&at_one]).code(), 0);

    let [local, former, new] = ["192.0.2.1", "203.0.113.1", "203.0.113.2"].map(|ip| ip.parse().unwrap());
    let changed = TurnConfig {
        peers: PeerRules::new(Rules { relay: vec![local, former, new], ..rules() }),
        external: External::new(vec![(local, new)]).after(&External::new(vec![(local, former)]), |_| true),
        ..config()
    };
    world.apply(changed, credentials());
    let (inside_one, inside_two) =
        (world.relayed(one.relay()).unwrap().to_string(), world.relayed(two.relay()).unwrap().to_string());
    assert_eq!(one.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0.to_string(), inside_two);
    assert_eq!(named(world.peer_sends(two.relay(), &inside_one, b"x").unwrap().header), at_one);
    assert_eq!(two.send(&mut world, &at_one, b"x").unwrap().peer.0.to_string(), inside_one);
    assert_eq!(named(world.peer_sends(one.relay(), &inside_two, b"x").unwrap().header), "0x4000");
    assert_eq!(one.refresh(&mut world, 600).code(), 0);

    let told = Client::new("198.51.100.4:40000").allocate(&mut world, |_| {}).relayed();
    assert_eq!(told[0].ip(), new, "new allocations are told the new address");
    let mut three = world.allocated("198.51.100.3:40000");
    let at_three = name(&world, &three, "203.0.113.2");
    let inside_three = world.relayed(three.relay()).unwrap().to_string();
    assert_eq!(one.permit(&mut world, &[&at_three]).code(), 0);
    assert_eq!(three.permit(&mut world, &[&at_one]).code(), 0);
    assert_eq!(named(world.peer_sends(one.relay(), &inside_three, b"x").unwrap().header), at_three);
    assert_eq!(named(world.peer_sends(three.relay(), &inside_one, b"x").unwrap().header), at_one);
    assert!(one.send(&mut world, "203.0.113.1:22", b"x").is_none(), "only live allocations");
}

/// RFC 8656 §9, §21: behind the NAT the local address is reached like the relay's own anywhere: at live allocations only.
/// Other private addresses are not.
#[test]
fn the_local_address_is_reached_at_live_ports() {
    let mut world = world();
    let mut client = world.allocated(A);
    let mut other = world.allocated("198.51.100.2:40000");
    let (at, from) = (world.relayed(other.relay()).unwrap(), world.relayed(client.relay()).unwrap());
    assert_eq!(client.permit(&mut world, &["10.0.0.5:1"]).code(), 403);
    assert_eq!(client.permit(&mut world, &[&at.to_string()]).code(), 0);
    assert!(client.send(&mut world, INSIDE, b"x").is_none(), "a server there");
    assert!(world.peer_sends(client.relay(), INSIDE, b"x").is_none());
    assert_eq!(client.bind(&mut world, 0x4001, INSIDE).code(), 403);
    assert_eq!(client.bind(&mut world, 0x4002, "192.0.2.1:3478").code(), 403);
    assert_eq!(client.send(&mut world, &at.to_string(), b"x").unwrap().peer.0, at);
    assert_eq!(
        named(world.peer_sends(client.relay(), &at.to_string(), b"x").unwrap().header),
        at.to_string()
    );
    // The other one knows this one by its external name
    assert_eq!(other.permit(&mut world, &["203.0.113.1:1"]).code(), 0);
    let heard = world.peer_sends(other.relay(), &from.to_string(), b"x").unwrap();
    assert_eq!(named(heard.header), format!("203.0.113.1:{}", from.port()));
    assert_eq!(client.bind(&mut world, 0x4000, &at.to_string()).code(), 0);
    other.refresh(&mut world, 0);
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    assert_eq!(client.send(&mut world, PEER, b"x").unwrap().peer.0, addr(PEER));
}

/// RFC 8656 §9: a server beside the relay is reached by both names of the machine, without a NAT that hairpins, and what it
/// sends comes from the name that the client used, so that its permission matches.
#[test]
fn a_server_beside_the_relay_has_two_names() {
    for (names, expected) in [(&[OUTSIDE][..], OUTSIDE), (&[INSIDE], INSIDE), (&[OUTSIDE, INSIDE], OUTSIDE)] {
        let mut world = world_with(&["192.0.2.1:7000-8000"]);
        let mut client = world.allocated(A);
        assert_eq!(client.permit(&mut world, names).code(), 0, "{names:?}");
        let heard = world.peer_sends(client.relay(), INSIDE, b"first").unwrap();
        assert_eq!(named(heard.header), expected, "before the client has sent anything");
        for name in names.iter().chain(names) {
            assert_eq!(client.send(&mut world, name, b"x").unwrap().peer.0, addr(INSIDE), "{name}");
            let heard = world.peer_sends(client.relay(), INSIDE, b"x").unwrap();
            assert_eq!(named(heard.header), *name, "as the client named it last");
        }
        assert!(client.send(&mut world, "203.0.113.1:6999", b"x").is_none());
        assert!(world.peer_sends(client.relay(), "192.0.2.1:6999", b"x").is_none());
    }
}

/// RFC 8656 §12.5: the same with channels.
#[test]
fn channels_to_a_server_beside_the_relay() {
    let mut world = world_with(&[INSIDE]);
    let mut client = world.allocated(A);
    assert_eq!(client.bind(&mut world, 0x4001, INSIDE).code(), 0);
    assert_eq!(named(world.peer_sends(client.relay(), INSIDE, b"x").unwrap().header), "0x4001");
    assert_eq!(client.bind(&mut world, 0x4002, OUTSIDE).code(), 0);
    for channel in [0x4002, 0x4001, 0x4002] {
        assert_eq!(client.channel_data(&mut world, channel, b"x").unwrap().peer.0, addr(INSIDE));
        let heard = world.peer_sends(client.relay(), INSIDE, b"x").unwrap();
        assert_eq!(heard.header, Header::Channel(channel));
    }
    // Without a permission for the one, the other
    world.pass(200);
    client.permit(&mut world, &[INSIDE]);
    world.pass(100);
    assert_eq!(named(world.peer_sends(client.relay(), INSIDE, b"x").unwrap().header), "0x4001");
    world.pass(200);
    assert!(world.peer_sends(client.relay(), INSIDE, b"x").is_none());
    assert_eq!(world.server.stats().dropped(Dropped::NoPermission), 1);
}

/// RFC 8656 §11.5: an ICMP message is about the peer as the client named it.
#[test]
fn icmp_messages_name_what_the_client_named() {
    let mut world = world_with(&[INSIDE, "203.0.113.1"]);
    let mut client = world.allocated(A);
    client.permit(&mut world, &[INSIDE, OUTSIDE]);
    let told = |world: &mut World, client: &Client, about: &str| {
        let icmp = Icmp { kind: 3, code: 3, mtu: 0 };
        world.server.peer_error(world.now, client.relay(), PeerAddr(addr(about)), icmp);
        world.drain();
        let (_, bytes) = world.replies.pop_front().unwrap();
        Reply(bytes).attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address().unwrap()
    };
    for name in [OUTSIDE, INSIDE, OUTSIDE] {
        client.send(&mut world, name, b"x").unwrap();
        assert_eq!(told(&mut world, &client, INSIDE), addr(name));
    }
    // Elsewhere behind the same address
    assert_eq!(told(&mut world, &client, "203.0.113.1:9"), addr("203.0.113.1:9"));
}

/// RFC 8656 §21: what is neither an allocation nor allowed by its inside name is another machine behind the same external
/// address, which only the external address itself opens.
#[test]
fn another_machine_behind_the_same_external_address() {
    let mut world = world_with(&["203.0.113.1:7000-8000"]);
    let mut client = world.allocated(A);
    let other = world.allocated("198.51.100.2:40000");
    let live = format!("203.0.113.1:{}", world.relayed(other.relay()).unwrap().port());
    client.permit(&mut world, &[OUTSIDE]);
    assert_eq!(client.send(&mut world, OUTSIDE, b"x").unwrap().peer.0, addr(OUTSIDE));
    assert_eq!(named(world.peer_sends(client.relay(), OUTSIDE, b"x").unwrap().header), OUTSIDE);
    assert!(world.peer_sends(client.relay(), INSIDE, b"x").is_none(), "that is a server here");
    assert_eq!(client.send(&mut world, &live, b"x").unwrap().peer.0, world.relayed(other.relay()).unwrap());
    assert_eq!(client.bind(&mut world, 0x4000, OUTSIDE).code(), 0);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0, addr(OUTSIDE));
    assert_eq!(world.peer_sends(client.relay(), OUTSIDE, b"x").unwrap().header, Header::Channel(0x4000));
    assert_eq!(client.bind(&mut world, 0x4001, INSIDE).code(), 403);
}

/// An allocation that comes to live at a port takes it from another machine, and gives it back.
#[test]
fn a_port_changes_between_here_and_elsewhere() {
    let mut world = world_with(&["203.0.113.1"]);
    let mut client = world.allocated(A);
    let (outside, inside) = ("203.0.113.1:50100", "192.0.2.1:50100");
    client.bind(&mut world, 0x4000, outside);
    for _ in 0..2 {
        assert_eq!(client.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0, addr(outside));
        assert!(world.peer_sends(client.relay(), inside, b"x").is_none());
        world.next_port = 50_100;
        let mut other = world.allocated("198.51.100.2:40000");
        assert_eq!(client.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0, addr(inside));
        assert_eq!(world.peer_sends(client.relay(), inside, b"x").unwrap().header, Header::Channel(0x4000));
        other.refresh(&mut world, 0);
    }
}

/// What a client of the same network sends from a private address that is allowed keeps its name.
#[test]
fn a_private_peer_keeps_its_name() {
    let mut world = world_with(&["10.0.0.0/8", "192.0.2.0/24"]);
    let mut client = world.allocated(A);
    for peer in ["10.9.9.9:7882", "192.0.2.2:7882"] {
        assert_eq!(client.permit(&mut world, &[peer]).code(), 0);
        assert_eq!(client.send(&mut world, peer, b"x").unwrap().peer.0, addr(peer));
        assert_eq!(named(world.peer_sends(client.relay(), peer, b"x").unwrap().header), peer);
    }
    // A wide range opens neither name of the machine
    assert_eq!(client.bind(&mut world, 0x4000, INSIDE).code(), 403);
    client.permit(&mut world, &[OUTSIDE]);
    assert!(client.send(&mut world, OUTSIDE, b"x").is_none());
    let told = world.closed_ports_dropped.pop().unwrap();
    assert_eq!(
        (told.peer, told.remedy.to_string().as_str()),
        (
            PeerAddr(addr(OUTSIDE)),
            "to reach a server on this machine, add \"192.0.2.1:7882\" to peers.allow; to reach another machine behind \
             this external address, add \"203.0.113.1:7882\""
        )
    );
}

/// RFC 8656 §21: new rules hold for both names before the next packet.
#[test]
fn new_rules_hold_for_both_names() {
    let mut world = world_with(&[INSIDE]);
    let mut client = world.allocated(A);
    client.permit(&mut world, &[INSIDE, OUTSIDE]);
    client.send(&mut world, INSIDE, b"x");
    world.apply(with(&[]), credentials());
    assert!(world.peer_sends(client.relay(), INSIDE, b"x").is_none());
    assert_eq!(world.server.stats().permissions, 2, "clients meet at both");
    world.apply(with(&[INSIDE]), credentials());
    assert_eq!(named(world.peer_sends(client.relay(), INSIDE, b"x").unwrap().header), INSIDE);
}

/// A request from a relayed address is dropped by either name of it.
#[test]
fn allocations_are_not_nested_behind_the_nat() {
    let mut world = world();
    let one = world.allocated(A);
    let inside = world.relayed(one.relay()).unwrap();
    for source in [inside.to_string(), format!("203.0.113.1:{}", inside.port())] {
        let mut nested = Client::new(&source);
        let request = nested.request(Method::Allocate, |_| {});
        world.ignores(&nested.tuple, &request);
    }
    assert_eq!(world.server.stats().dropped(Dropped::Nested), 2);
    assert_eq!(world.server.stats().received(Method::Allocate), 2 + 2, "they count as received");
}
