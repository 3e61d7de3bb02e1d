//! Listeners with peers of their own, and listeners that are being removed.

use std::sync::Arc;

use hairpin::turn::peers::{ListenerRules, PeerRule, PeerRules, Rules};
use hairpin::turn::{
    Admission, ListenerPolicy, ListenerTable, PerFamily, RelayId, Sibling, Transport, TurnConfig,
};
use hairpin::wire::{Family, Method, attribute};

use crate::world::{Client, PEER, World, addr, config, credentials, rules};

const A: &str = "198.51.100.1:40000";
const B: &str = "198.51.100.2:40000";
/// The listener that differs from the others.
const OTHER: &str = "192.0.2.1:3479";
/// A media server at an address that is refused by default.
const SFU: &str = "100.64.0.5:7882";

fn parsed(texts: &[&str]) -> Vec<PeerRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn alone(allow: &[&str], deny: &[&str]) -> ListenerRules {
    ListenerRules::Alone { allow: parsed(allow), deny: parsed(deny) }
}

fn add(allow: &[&str], deny: &[&str]) -> ListenerRules {
    ListenerRules::Add { allow: parsed(allow), deny: parsed(deny) }
}

/// One listener over UDP has these rules.
fn with(common: Rules, address: &str, own: &ListenerRules) -> TurnConfig {
    let peers = PeerRules::new(common);
    let policy = ListenerPolicy {
        transport: Transport::Udp,
        address: addr(address),
        peers: Some(Arc::new(peers.for_listener(own))),
        closing: false,
    };
    TurnConfig { peers, listeners: ListenerTable::new(vec![policy]), ..config() }
}

fn closing(address: &str) -> TurnConfig {
    let policy =
        ListenerPolicy { transport: Transport::Udp, address: addr(address), peers: None, closing: true };
    TurnConfig { listeners: ListenerTable::new(vec![policy]), ..config() }
}

/// A client with an allocation that came in by this listener.
fn by(world: &mut World, client: &str, listener: &str) -> Client {
    let mut client = Client::new(client);
    client.tuple.server = addr(listener);
    assert_eq!(client.allocate(world, |_| {}).code(), 0);
    client.relay = Some(RelayId { allocation: world.opened.last().unwrap().id, family: Family::V4 });
    client
}

/// RFC 8656 §21: rules that stand alone refuse everything that they do not allow, and those of the others do not count.
#[test]
fn a_listener_that_stands_alone_reaches_only_its_own_peers() {
    let common = Rules { allow: parsed(&["10.0.0.0/8"]), ..rules() };
    let mut world = World::new(with(common, OTHER, &alone(&[SFU], &[])), credentials());
    let (mut a, mut b) = (by(&mut world, A, "192.0.2.1:3478"), by(&mut world, B, OTHER));
    assert_eq!((a.permit(&mut world, &[PEER]).code(), a.permit(&mut world, &["10.0.0.1:1"]).code()), (0, 0));
    assert_eq!(a.permit(&mut world, &[SFU]).code(), 403, "only at the other listener");
    assert_eq!(b.permit(&mut world, &[SFU]).code(), 0);
    assert!(b.send(&mut world, SFU, b"x").is_some());
    assert!(b.send(&mut world, "100.64.0.5:7883", b"x").is_none(), "another port");
    assert_eq!(b.bind(&mut world, 0x4000, SFU).code(), 0);
    assert_eq!(b.bind(&mut world, 0x4001, "100.64.0.5:7883").code(), 403);
    for peer in [PEER, "10.0.0.1:1", "100.64.0.6:7882"] {
        assert_eq!(b.permit(&mut world, &[peer]).code(), 403, "{peer}");
    }
    let refused = world.refused.last().unwrap();
    assert_eq!(refused.reason.text(), "not among the peers that its listener allows");
    let fix = refused.fix.to_string();
    assert!(fix.contains("add \"100.64.0.6:7882\" to peers.allow of that [[listener]]"), "{fix}");
}

/// RFC 8656 §21: rules that add open and refuse in addition to those of the others, for clients of that listener alone.
#[test]
fn a_listener_that_adds_keeps_the_common_rules() {
    let common = Rules { allow: parsed(&["10.0.0.0/8"]), deny: parsed(&["9.9.9.9"]), ..rules() };
    let own = add(&["100.64.0.0/10"], &["8.8.8.0/24", "10.1.0.0/16"]);
    let mut world = World::new(with(common, OTHER, &own), credentials());
    let (mut a, mut b) = (by(&mut world, A, "192.0.2.1:3478"), by(&mut world, B, OTHER));
    for (peer, at_a, at_b) in [
        (PEER, 0, 403),
        (SFU, 403, 0),
        ("10.0.0.1:1", 0, 0),
        ("10.1.0.1:1", 0, 403),
        ("9.9.9.9:1", 403, 403),
        ("8.8.4.4:1", 0, 0),
    ] {
        let codes = (a.permit(&mut world, &[peer]).code(), b.permit(&mut world, &[peer]).code());
        assert_eq!(codes, (at_a, at_b), "{peer}");
    }
}

/// A wildcard listener is found by every address of its family; transports are apart.
#[test]
fn a_wildcard_listener_has_its_rules_at_every_address() {
    let mut world = World::new(with(rules(), "0.0.0.0:3479", &alone(&[SFU], &[])), credentials());
    let mut clients = [
        (by(&mut world, "198.51.100.3:1", OTHER), 403),
        (by(&mut world, "198.51.100.3:2", "192.0.2.9:3479"), 403),
        (by(&mut world, "198.51.100.3:3", "192.0.2.1:3478"), 0),
    ];
    for (client, code) in &mut clients {
        assert_eq!(client.permit(&mut world, &[PEER]).code(), *code);
    }
    let mut tcp = Client::new(A);
    (tcp.tuple.server, tcp.tuple.transport) = (addr(OTHER), Transport::Tcp);
    assert_eq!(tcp.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(tcp.permit(&mut world, &[PEER]).code(), 0, "the TCP listener is another one");
}

/// RFC 8656 §9: two clients of this relay meet at its relayed addresses, by whichever listener they came, unless rules deny it.
/// Its own endpoints stay closed whatever a listener allows.
#[test]
fn relayed_addresses_stay_open_and_endpoints_closed() {
    let own = alone(&["192.0.2.1:3478", "192.0.2.1:7000"], &[]);
    let mut world = World::new(with(rules(), OTHER, &own), credentials());
    let (a, mut b) = (by(&mut world, A, "192.0.2.1:3478"), by(&mut world, B, OTHER));
    let at_a = world.relayed(a.relay()).unwrap().to_string();
    assert_eq!(b.bind(&mut world, 0x4000, &at_a).code(), 0);
    assert!(b.channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(b.send(&mut world, "192.0.2.1:7000", b"x").is_some());
    for closed in ["192.0.2.1:3478", "192.0.2.1:7001"] {
        assert!(b.send(&mut world, closed, b"x").is_none(), "{closed}");
    }
    world.apply(with(rules(), OTHER, &alone(&[], &["192.0.2.1"])), credentials());
    assert!(b.channel_data(&mut world, 0x4000, b"x").is_none());
}

/// RFC 8656 §21: narrower rules of a listener end the permissions and channels that they refuse, and only those of its clients.
#[test]
fn narrower_rules_of_a_listener_end_what_they_refuse() {
    let mut world = World::new(with(rules(), OTHER, &add(&[SFU], &[])), credentials());
    let (mut a, mut b) = (by(&mut world, A, "192.0.2.1:3478"), by(&mut world, B, OTHER));
    for client in [&mut a, &mut b] {
        client.bind(&mut world, 0x4000, PEER);
    }
    b.bind(&mut world, 0x4001, SFU);
    world.apply(with(rules(), OTHER, &alone(&[SFU], &[])), credentials());
    world.pass(0);
    assert_eq!((world.server.stats().permissions, world.server.stats().channels), (2, 2));
    assert!(a.channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(b.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(b.channel_data(&mut world, 0x4001, b"x").is_some());
    assert!(world.peer_sends(b.relay(), PEER, b"x").is_none());
    world.apply(with(rules(), OTHER, &alone(&["100.64.0.5:7883"], &[])), credentials());
    assert!(b.channel_data(&mut world, 0x4001, b"x").is_none(), "before the sweep, too");
}

/// An allocation that moves to another server is judged by the rules of its listener there.
#[test]
fn rules_follow_an_allocation_to_another_server() {
    let mut one = World::new(with(rules(), OTHER, &add(&[SFU], &[])), credentials());
    let mut two = World::new(with(rules(), OTHER, &alone(&[SFU], &[])), credentials());
    let mut b = by(&mut one, B, OTHER);
    b.permit(&mut one, &[PEER, SFU]);
    let mut allocation = one.server.take(one.now, b.relay().allocation).expect("an allocation");
    let at = one.give_away(allocation.sockets()[Family::V4].unwrap());
    let socket = two.socket(at).socket;
    allocation.set_socket(Family::V4, socket);
    two.server.adopt(two.now, allocation).expect("room");
    assert!(b.send(&mut two, PEER, b"x").is_none());
    assert!(b.send(&mut two, SFU, b"x").is_some());
}

/// RFC 8656 §7.2: a listener that is being removed refuses new allocations with 508. What lives there lives on, and the
/// retransmission of a granted request gets its response.
#[test]
fn a_closing_listener_takes_no_new_allocation() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.tuple.server = addr(OTHER);
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    let allocate = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    assert_eq!(world.ask(&client.tuple, &allocate).code(), 0);
    world.apply(closing(OTHER), credentials());
    world.pass(0);
    assert_eq!(world.ask(&client.tuple, &allocate).code(), 0, "a retransmission");
    assert_eq!(
        (client.refresh(&mut world, 600).code(), client.bind(&mut world, 0x4000, PEER).code()),
        (0, 0)
    );
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
    let mut new = Client::new(B);
    new.tuple.server = addr(OTHER);
    assert_eq!(new.allocate(&mut world, |_| {}).code(), 508);
    let refused = world.refused.last().unwrap();
    assert_eq!((refused.reason.code(), refused.reason.text()), (508, "its listener is being removed"));
    assert!(refused.fix.to_string().contains("list it again"));
    by(&mut world, "198.51.100.4:1", "192.0.2.1:3478");
    client.refresh(&mut world, 0);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 508, "not even for a client that had one");
    world.apply(config(), credentials());
    assert_eq!(new.allocate(&mut world, |_| {}).code(), 0, "the listener is back");
}

/// RFC 8656 §7.2: a relay that drains sends clients of a removed listener to its siblings, as all others.
#[test]
fn a_draining_relay_sends_clients_of_a_closing_listener_to_its_siblings() {
    let servers = PerFamily { v4: Some(addr("203.0.113.8:3478")), v6: None };
    let sibling = Sibling { servers: [servers; 3], domain: None, certificate_names_address: false };
    let admission = Admission::Draining([sibling].into());
    let mut world = World::new(TurnConfig { admission, ..closing(OTHER) }, credentials());
    let mut client = Client::new(A);
    client.tuple.server = addr(OTHER);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 300);
}
