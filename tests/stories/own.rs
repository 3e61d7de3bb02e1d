//! The relay's own machine: its addresses are closed to clients, but for the ports where two of them meet and what the
//! operator names exactly.

use hairpin::turn::peers::{Cidr, PeerRules};
use hairpin::turn::stats::Dropped;
use hairpin::turn::{PeerAddr, Transport, TurnConfig};
use hairpin::wire::Method;

use crate::world::{Client, PEER, World, addr, channel_message, config, credentials, rules};

const A: &str = "198.51.100.1:40000";
const B: &str = "198.51.100.2:40000";
/// The relay's address with the port of a server beside it.
const SERVER: &str = "192.0.2.1:7882";
/// Another address of the machine.
const SECOND: &str = "9.9.9.8:7882";

fn with(allow: &[&str], own: &[&str]) -> TurnConfig {
    let mut rules = rules();
    rules.allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    rules.own.extend(own.iter().map(|range| range.parse::<Cidr>().unwrap()));
    TurnConfig { peers: PeerRules::new(rules), ..config() }
}

fn world(allow: &[&str], own: &[&str]) -> World {
    World::new(with(allow, own), credentials())
}

/// RFC 8656 §21: a service on another address of the machine is behind its firewall.
#[test]
fn another_address_of_the_machine_is_no_peer() {
    for allow in [&[][..], &["0.0.0.0/0"], &["9.0.0.0/8"], &["9.9.9.8:7883"]] {
        let mut world = world(allow, &["9.9.9.8", "127.0.0.0/8"]);
        let mut client = world.allocated(A);
        if client.permit(&mut world, &[SECOND]).code() == 0 {
            assert!(client.send(&mut world, SECOND, b"x").is_none(), "{allow:?}");
        }
        assert_eq!(client.bind(&mut world, 0x4000, SECOND).code(), 403, "{allow:?}");
        assert_eq!(client.permit(&mut world, &["127.0.0.5:7882"]).code(), 403);
    }
    for allow in ["9.9.9.8", "9.9.9.8:7882", "9.9.9.8:7000-8000"] {
        let mut world = world(&[allow], &["9.9.9.8"]);
        let mut client = world.allocated(A);
        assert_eq!(client.bind(&mut world, 0x4000, SECOND).code(), 0);
        assert_eq!(client.channel_data(&mut world, 0x4000, b"x").unwrap().peer.0, addr(SECOND));
        assert_eq!(client.bind(&mut world, 0x4001, "9.9.9.8:3478").code(), 403, "a listener stays closed");
    }
}

/// RFC 8656 §21: an address that the machine gets later is closed from then on, with what clients had there.
#[test]
fn an_address_that_comes_later_is_closed() {
    let mut world = world(&[], &[]);
    let mut client = world.allocated(A);
    client.bind(&mut world, 0x4000, SECOND);
    client.permit(&mut world, &[PEER]);
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_some(), "it is elsewhere");
    world.apply(with(&[], &["9.9.9.8"]), credentials());
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(client.send(&mut world, SECOND, b"x").is_none());
    assert!(world.peer_sends(client.relay(), SECOND, b"x").is_none());
    world.pass(0);
    assert_eq!((world.server.stats().permissions, world.server.stats().channels), (1, 0));
    assert_eq!(client.permit(&mut world, &[SECOND]).code(), 403);
    // It moves to another machine
    world.apply(with(&[], &[]), credentials());
    assert_eq!(client.permit(&mut world, &[SECOND]).code(), 0);
    assert!(client.send(&mut world, SECOND, b"x").is_some());
}

/// RFC 8656 §9: a server on the relay's own address is opened by its ports; everything else there stays closed, and clients
/// still meet.
#[test]
fn a_server_beside_the_relay() {
    let mut world = world(&["192.0.2.1:7882"], &[]);
    let (mut one, two) = (world.allocated(A), world.allocated(B));
    let at_two = world.relayed(two.relay()).unwrap().to_string();
    assert_eq!(one.permit(&mut world, &[SERVER]).code(), 0);
    assert_eq!(one.send(&mut world, SERVER, b"x").unwrap().peer.0, addr(SERVER));
    assert!(world.peer_sends(one.relay(), SERVER, b"x").is_some());
    assert!(one.send(&mut world, &at_two, b"x").is_some());
    for closed in ["192.0.2.1:7881", "192.0.2.1:3478", "192.0.2.1:22"] {
        assert!(one.send(&mut world, closed, b"x").is_none(), "{closed}");
        assert!(world.peer_sends(one.relay(), closed, b"x").is_none(), "{closed}");
        assert_eq!(one.bind(&mut world, 0x4000, closed).code(), 403, "{closed}");
    }
    assert_eq!(one.bind(&mut world, 0x4000, SERVER).code(), 0);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_some());
}

/// The operator is told once per allocation, with the entry that opens the port.
#[test]
fn the_first_packet_to_a_closed_port_is_told() {
    let mut world = World::default();
    let (mut one, mut two) = (world.allocated(A), world.allocated(B));
    for client in [&mut one, &mut two] {
        client.permit(&mut world, &[SERVER]);
        for port in 7880..7890 {
            assert!(client.send(&mut world, &format!("192.0.2.1:{port}"), b"x").is_none());
        }
    }
    assert_eq!(world.closed_ports_dropped.len(), 2, "one per allocation");
    assert_eq!(world.server.stats().dropped(Dropped::ForbiddenPort), 20);
    let told = world.closed_ports_dropped.pop().unwrap();
    assert_eq!((told.tuple, &*told.user, told.peer), (two.tuple, "alice", PeerAddr(addr("192.0.2.1:7880"))));
    assert_eq!(told.reason.text(), "the address is this relay's own and no allocation lives on that port");
    assert_eq!(
        told.remedy.to_string(),
        "to reach a server on this machine, add \"192.0.2.1:7880\" to peers.allow"
    );
}

/// Also at the relay's own listeners, which nothing opens.
#[test]
fn a_packet_to_a_listener_is_told() {
    let mut world = world(&["192.0.2.1"], &[]);
    let mut client = world.allocated(A);
    client.permit(&mut world, &[SERVER]);
    for _ in 0..2 {
        assert!(client.send(&mut world, "192.0.2.1:3478", b"x").is_none());
    }
    let [told] = &world.closed_ports_dropped[..] else { panic!("{:?}", world.closed_ports_dropped) };
    assert_eq!(told.reason.text(), "this server's own endpoint");
    assert_eq!(
        told.remedy.to_string(),
        "no rule opens it; a server on this machine, such as an SFU, needs another port"
    );
}

/// RFC 8656 §9: a relay whose address is replaced goes on relaying between allocations at the former one, with all their
/// channels, while this machine has it.
#[test]
fn calls_at_a_former_address_go_on() {
    let with_relay = |relay: &[&str]| {
        let mut rules = rules();
        rules.relay = relay.iter().map(|ip| ip.parse().unwrap()).collect();
        rules.own = vec!["192.0.2.0/30".parse().unwrap()];
        TurnConfig { peers: PeerRules::new(rules), ..config() }
    };
    let mut world = World::new(with_relay(&["192.0.2.1"]), credentials());
    let (mut one, mut two) = (world.allocated(A), world.allocated(B));
    let at_two = world.relayed(two.relay()).unwrap().to_string();
    assert_eq!(one.bind(&mut world, 0x4000, &at_two).code(), 0);
    world.apply(with_relay(&["192.0.2.2", "192.0.2.1"]), credentials());
    world.pass(0);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(world.peer_sends(one.relay(), &at_two, b"x").is_some());
    two.refresh(&mut world, 0);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_none());
}

/// The same for a port of another machine of which only others are allowed.
#[test]
fn a_closed_port_elsewhere_is_told() {
    let mut world = world(&["10.0.0.0/8:5000-6000"], &[]);
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &["10.9.9.9:1"]).code(), 0);
    assert!(client.send(&mut world, "10.9.9.9:5000", b"x").is_some());
    assert!(client.send(&mut world, "10.9.9.9:0", b"x").is_none());
    assert!(client.send(&mut world, "10.9.9.9:6001", b"x").is_none());
    assert!(client.send(&mut world, "10.9.9.9:6002", b"x").is_none());
    let [told] = &world.closed_ports_dropped[..] else { panic!("{:?}", world.closed_ports_dropped) };
    assert_eq!((told.peer, told.reason.text()), (PeerAddr(addr("10.9.9.9:6001")), "private"));
    assert_eq!(told.remedy.to_string(), "if clients need this peer, add \"10.9.9.9:6001\" to peers.allow");
}

/// The 403 of ChannelBind and CreatePermission says the same.
#[test]
fn a_refusal_names_what_opens_the_port() {
    let mut world = world(&[], &["9.9.9.8"]);
    let mut client = world.allocated(A);
    assert_eq!(client.bind(&mut world, 0x4000, SERVER).code(), 403);
    assert_eq!(client.bind(&mut world, 0x4000, SECOND).code(), 403);
    assert_eq!(client.permit(&mut world, &["9.9.9.8:0"]).code(), 403);
    let told: Vec<_> = world.refused.iter().map(|one| (one.reason.text(), one.fix.to_string())).collect();
    let live = "the address is this relay's own and no allocation lives on that port";
    assert_eq!(
        told.iter().map(|(why, fix)| (*why, &**fix)).collect::<Vec<_>>(),
        [
            (live, "to reach a server on this machine, add \"192.0.2.1:7882\" to peers.allow"),
            (
                "the address is this relay's own",
                "to reach a server on this machine, add \"9.9.9.8:7882\" to peers.allow"
            ),
            (
                "the address is this relay's own",
                "to reach a server on this machine, add \"9.9.9.8\" to peers.allow, best with the server's ports"
            ),
        ]
    );
    // Nothing opens it
    assert_eq!(client.bind(&mut world, 0x4000, "192.0.2.1:3478").code(), 403);
    assert!(world.refused.last().unwrap().fix.to_string().contains("no rule opens it"));
}

/// A port that packets have reached is no server that the operator forgot: the other client has left.
#[test]
fn a_port_that_was_reached_is_not_told() {
    let mut world = World::default();
    let (mut one, mut two, mut three) =
        (world.allocated(A), world.allocated(B), world.allocated("198.51.100.3:40000"));
    let at = |world: &World, client: &Client| world.relayed(client.relay()).unwrap().to_string();
    let (at_two, at_three) = (at(&world, &two), at(&world, &three));
    one.permit(&mut world, &[&at_two]);
    one.bind(&mut world, 0x4000, &at_three);
    assert!(one.send(&mut world, &at_two, b"x").is_some());
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_some());
    two.refresh(&mut world, 0);
    three.refresh(&mut world, 0);
    // Also after its permission has lapsed in between
    world.pass(300);
    assert!(one.channel_data(&mut world, 0x4000, b"x").is_none());
    one.permit(&mut world, &[&at_two]);
    assert!(one.send(&mut world, &at_two, b"x").is_none());
    assert!(world.closed_ports_dropped.is_empty());
    assert!(one.send(&mut world, SERVER, b"x").is_none());
    assert_eq!(world.closed_ports_dropped.len(), 1);
}

/// RFC 8656 §9: a port is open exactly while an allocation lives there, however often it comes and goes.
#[test]
fn a_port_lives_and_dies() {
    let mut world = World::default();
    let mut one = world.allocated(A);
    one.permit(&mut world, &[SERVER]);
    for round in 0..3 {
        world.next_port = 50_100;
        let at = "192.0.2.1:50100";
        assert!(one.send(&mut world, at, b"x").is_none(), "{round}");
        assert_eq!(one.bind(&mut world, 0x4000 + round, at).code(), if round == 0 { 403 } else { 400 });
        let mut two = world.allocated(B);
        assert!(one.send(&mut world, at, b"x").is_some(), "{round}");
        assert_eq!(one.bind(&mut world, 0x4000, at).code(), 0);
        assert!(world.peer_sends(one.relay(), at, b"x").is_some());
        two.refresh(&mut world, 0);
        assert!(one.channel_data(&mut world, 0x4000, b"x").is_none(), "{round}");
        assert!(world.peer_sends(one.relay(), at, b"x").is_none());
    }
    assert_eq!(world.closed_ports_dropped.len(), 1, "before anybody lived there");
}

/// A request from a live relayed address would put an allocation inside another: each packet would be relayed once more.
#[test]
fn allocations_are_not_nested() {
    let mut world = World::default();
    let mut one = world.allocated(A);
    let relayed = world.relayed(one.relay()).unwrap().to_string();
    let mut nested = Client::new(&relayed);
    let tuple = nested.tuple;
    for method in [Method::Allocate, Method::Binding] {
        let request = nested.request(method, |_| {});
        world.ignores(&tuple, &request);
    }
    assert_eq!(world.server.stats().dropped(Dropped::Nested), 2);
    assert_eq!(world.nested, [tuple; 2], "the log can name the address");
    // Data is not looked at: it has no allocation
    assert!(world.deliver(&tuple, &channel_message(0x4000, b"x")).is_none());
    assert_eq!(world.server.stats().dropped(Dropped::NoAllocation), 1);
    // A stream is not a relayed address, whatever its port
    nested.tuple.transport = Transport::Tcp;
    assert_eq!(nested.allocate(&mut world, |_| {}).code(), 0);
    // Once the allocation has ended, the address is like any other
    one.refresh(&mut world, 0);
    nested.tuple.transport = Transport::Udp;
    assert_eq!(nested.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(world.server.stats().dropped(Dropped::Nested), 2);
}

/// RFC 8656 §21.4: a server must not accept 6to4 or Teredo addresses in Allocate and ChannelBind requests.
#[test]
fn tunnelled_clients_are_refused() {
    let mut world = World::default();
    for client in ["[2002:c633:6401::1]:40000", "[2001:0:c633:6401::1]:40000"] {
        let mut client = Client::new(client);
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 403);
        let refused = world.refused.last().unwrap();
        assert!(["6to4", "Teredo"].contains(&refused.reason.text()), "{refused:?}");
        assert!(refused.fix.to_string().contains("RFC 8656 section 21.4"));
        assert_eq!(client.bind(&mut world, 0x4000, PEER).code(), 403);
    }
    let mut native = Client::new("[2001:db8:1::1]:40000");
    assert_eq!(native.allocate(&mut world, |_| {}).code(), 0);
    native.refresh(&mut world, 0);
    world.assert_empty();
}
