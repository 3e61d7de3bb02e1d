//! Programs name peers while allocations live.

use std::sync::Arc;

use hairpin::turn::peers::{ListenerRules, OverlayMode, Overlays, PeerRule, PeerRules, Rules};
use hairpin::turn::{External, ListenerPolicy, ListenerTable, Transport, TurnConfig};

use crate::world::{PEER, World, addr, config, credentials, rules};

use OverlayMode::{Add, Only};

const A: &str = "198.51.100.1:40000";
/// A media server at an address that is refused by default.
const SFU: &str = "10.0.0.5:7882";

fn parsed(texts: &[&str]) -> Vec<PeerRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn overlays(overlays: &[(OverlayMode, &[&str])]) -> Overlays {
    let parsed: Vec<_> = overlays.iter().map(|(mode, addresses)| (*mode, parsed(addresses))).collect();
    Overlays::new(parsed.iter().map(|(mode, addresses)| (*mode, &addresses[..])))
}

/// The rules of a file, and what is set over them.
fn with(file: Rules, set: &[(OverlayMode, &[&str])]) -> TurnConfig {
    TurnConfig { peers: PeerRules::new(Rules { overlays: overlays(set), ..file }), ..config() }
}

/// RFC 8656 §21: an overlay opens exactly what it names, and nothing when it is gone.
#[test]
fn an_overlay_opens_exactly_what_it_names() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    assert_eq!(client.permit(&mut world, &[SFU]).code(), 403);
    world.apply(with(rules(), &[(Add, &[SFU, "10.0.0.6", "10.0.0.7:5000-5001"])]), credentials());
    for (peer, code) in [(SFU, 0), ("10.0.0.6:1", 0), ("10.0.0.7:5001", 0), ("10.0.0.8:7882", 403), (PEER, 0)]
    {
        assert_eq!(client.permit(&mut world, &[peer]).code(), code, "{peer}");
    }
    assert_eq!(client.bind(&mut world, 0x4000, SFU).code(), 0);
    assert_eq!(client.bind(&mut world, 0x4001, "10.0.0.5:7883").code(), 403, "another port");
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
    assert!(client.send(&mut world, "10.0.0.6:65535", b"x").is_some());
    assert!(client.send(&mut world, "10.0.0.7:5002", b"x").is_none());
    world.apply(config(), credentials());
    world.pass(0);
    assert_eq!(world.channels.last().unwrap(), "-0x4000");
    assert_eq!(world.server.stats().permissions, 1, "that of {PEER} is left");
    assert!(client.channel_data(&mut world, 0x4000, b"x").is_none());
    assert!(client.send(&mut world, "10.0.0.6:65535", b"x").is_none());
}

/// What the operator denies stays denied, however wide the range and however exact the overlay.
#[test]
fn what_the_file_denies_stays_denied() {
    for mode in [Add, Only] {
        for deny in ["10.0.0.0/8", "0.0.0.0/0", "10.0.0.5", SFU, "10.0.0.0/8:7000-8000"] {
            let file = Rules { deny: parsed(&[deny]), ..rules() };
            let mut world = World::new(with(file, &[(mode, &[SFU])]), credentials());
            let mut client = world.allocated(A);
            assert_eq!(client.bind(&mut world, 0x4000, SFU).code(), 403, "{mode:?} {deny}");
        }
        // What the file itself allows within that is not denied
        let file = Rules { deny: parsed(&["10.0.0.0/8"]), allow: parsed(&["10.0.0.0/24"]), ..rules() };
        let mut world = World::new(with(file, &[(mode, &[SFU])]), credentials());
        assert_eq!(world.allocated(A).bind(&mut world, 0x4000, SFU).code(), 0);
    }
}

/// Overlays hold at every listener, also at one that stands alone; what that or the other listeners deny stays denied there.
#[test]
fn an_overlay_holds_at_every_listener() {
    let reached = |deny: &[&str], own: ListenerRules| {
        let file = Rules { deny: parsed(deny), overlays: overlays(&[(Add, &[SFU])]), ..rules() };
        let peers = PeerRules::new(file);
        let policy = ListenerPolicy {
            transport: Transport::Udp,
            address: addr("192.0.2.1:3478"),
            peers: Some(Arc::new(peers.for_listener(&own))),
            closing: false,
        };
        let listeners = ListenerTable::new(vec![policy]);
        let mut world = World::new(TurnConfig { peers, listeners, ..config() }, credentials());
        let mut client = world.allocated(A);
        [SFU, PEER]
            .map(|peer| client.bind(&mut world, if peer == SFU { 0x4000 } else { 0x4001 }, peer).code())
    };
    let alone =
        |allow: &[&str], deny: &[&str]| ListenerRules::Alone { allow: parsed(allow), deny: parsed(deny) };
    let add = |deny: &[&str]| ListenerRules::Add { allow: Vec::new(), deny: parsed(deny) };
    assert_eq!(reached(&[], alone(&[], &[])), [0, 403]);
    assert_eq!(reached(&["10.0.0.0/8"], alone(&[], &[])), [403, 403]);
    assert_eq!(
        reached(&["10.0.0.0/8"], alone(&["10.0.0.5"], &[])),
        [0, 403],
        "the listener allows it itself"
    );
    assert_eq!(reached(&[], alone(&[], &["10.0.0.0/24"])), [403, 403]);
    assert_eq!(reached(&[], add(&[])), [0, 0]);
    assert_eq!(reached(&[], add(&["10.0.0.0/24"])), [403, 0]);
}

/// A server on this machine is opened by its exact address with ports; without ports nothing is, and the relay's own endpoints
/// never are.
#[test]
fn own_addresses_need_ports_and_endpoints_stay_closed() {
    let set: &[&str] = &["192.0.2.1:7000", "192.0.2.1:3478", "192.0.2.9"];
    let file = Rules { own: [rules().own, vec!["192.0.2.9".parse().unwrap()]].concat(), ..rules() };
    for mode in [Add, Only] {
        let mut world = World::new(with(file.clone(), &[(mode, set)]), credentials());
        let mut client = world.allocated(A);
        assert_eq!(client.bind(&mut world, 0x4000, "192.0.2.1:7000").code(), 0);
        assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
        assert_eq!(client.bind(&mut world, 0x4001, "192.0.2.1:3478").code(), 403, "a listener");
        assert_eq!(client.bind(&mut world, 0x4001, "192.0.2.1:7001").code(), 403);
        assert_eq!(client.permit(&mut world, &["192.0.2.9:7000"]).code(), 403);
    }
}

/// RFC 8656 §9, §21: with `only`, clients reach what overlays name and the live relayed addresses of this relay, and nothing
/// that the file or the defaults allow. What was permitted before ends.
#[test]
fn only_limits_clients_to_what_overlays_name() {
    let file = || Rules { allow: parsed(&["10.0.1.0/24", "192.0.2.1:9000"]), ..rules() };
    let mut world = World::new(with(file(), &[]), credentials());
    let (mut a, mut b) = (world.allocated(A), world.allocated("198.51.100.2:40000"));
    let at_b = world.relayed(b.relay()).unwrap().to_string();
    for (n, peer) in [PEER, "10.0.1.1:1", "192.0.2.1:9000", &at_b].into_iter().enumerate() {
        assert_eq!(a.bind(&mut world, 0x4000 + n as u16, peer).code(), 0, "{peer}");
    }
    world.apply(with(file(), &[(Only, &[SFU]), (Add, &["9.9.9.9:1"])]), credentials());
    world.pass(0);
    assert_eq!((world.server.stats().permissions, world.server.stats().channels), (1, 1));
    assert!(
        a.channel_data(&mut world, 0x4003, b"x").is_some(),
        "a call between clients of this relay goes on"
    );
    let peers = [(SFU, 0), ("9.9.9.9:1", 0), ("10.0.1.1:1", 403), ("192.0.2.1:9000", 403), (PEER, 403)];
    for (n, (peer, code)) in peers.into_iter().enumerate() {
        assert_eq!(a.bind(&mut world, 0x4010 + n as u16, peer).code(), code, "{peer}");
    }
    let refused = world.refused.last().unwrap();
    assert_eq!(refused.reason.text(), "not among the peers that overlays limit clients to");
    assert!(refused.fix.to_string().contains("hairpin ctl peers"), "{:?}", refused.fix);
    assert!(b.send(&mut world, "192.0.2.1:9000", b"x").is_none());
    // A named address of which another port is meant
    assert!(a.send(&mut world, "9.9.9.9:2", b"x").is_none());
    // Clients are limited to nothing, too
    world.apply(with(file(), &[(Only, &[])]), credentials());
    world.pass(0);
    assert_eq!((world.server.stats().permissions, world.server.stats().channels), (1, 1));
    world.apply(with(file(), &[]), credentials());
    assert_eq!(a.bind(&mut world, 0x4000, PEER).code(), 0);
}

/// Behind a NAT, a server on this machine is named by its inside address and reached by its external one; a NAT64 address is
/// judged by the IPv4 address inside.
#[test]
fn overlays_are_found_by_every_name() {
    let pair = ("192.0.2.1".parse().unwrap(), "203.0.113.5".parse().unwrap());
    for mode in [Add, Only] {
        let mut config = with(rules(), &[(mode, &["192.0.2.1:7000", SFU])]);
        config.external = External::new(vec![pair]);
        let mut world = World::new(config, credentials());
        let mut client = world.allocated(A);
        client.permit(&mut world, &["203.0.113.5:1", "192.0.2.1:1"]);
        for name in ["203.0.113.5:7000", "192.0.2.1:7000"] {
            let sent = client.send(&mut world, name, b"x").expect(name);
            assert_eq!(sent.peer.0, addr("192.0.2.1:7000"));
        }
        assert!(client.send(&mut world, "203.0.113.5:7001", b"x").is_none());
        let mut six = crate::world::Client::new("198.51.100.6:1");
        let family = |request: &mut hairpin::wire::Encoder| {
            request.bytes(hairpin::wire::attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        };
        assert_eq!(six.allocate(&mut world, family).code(), 0);
        assert_eq!(six.bind(&mut world, 0x4000, "[64:ff9b::10.0.0.5]:7882").code(), 0);
        assert_eq!(six.bind(&mut world, 0x4001, "[64:ff9b::10.0.0.6]:7882").code(), 403);
    }
}

/// RFC 8656 §9: an overlay that names a server on this machine by its inside address does not open it by an external one that
/// the operator denies; only what the operator allows inside does that.
#[test]
fn an_overlay_opens_no_external_address_that_the_file_denies() {
    let pair = ("192.0.2.1".parse().unwrap(), "203.0.113.5".parse().unwrap());
    let (inside, outside) = ("192.0.2.1:7000", "203.0.113.5:7000");
    let reached = |mode, allow: &[&str], deny: &[&str], own: Option<ListenerRules>| {
        let set = overlays(&[(mode, &[inside])]);
        let file = Rules { allow: parsed(allow), deny: parsed(deny), overlays: set, ..rules() };
        let peers = PeerRules::new(file);
        let policy = own.map(|own| ListenerPolicy {
            transport: Transport::Udp,
            address: addr("192.0.2.1:3478"),
            peers: Some(Arc::new(peers.for_listener(&own))),
            closing: false,
        });
        let listeners = ListenerTable::new(policy.into_iter().collect());
        let config = TurnConfig { peers, listeners, external: External::new(vec![pair]), ..config() };
        let mut world = World::new(config, credentials());
        let mut client = world.allocated(A);
        [(0x4000, outside), (0x4001, inside)].map(|(channel, name)| {
            client.bind(&mut world, channel, name).code() == 0
                && client.channel_data(&mut world, channel, b"x").is_some()
        })
    };
    for mode in [Add, Only] {
        assert_eq!(reached(mode, &[], &[], None), [true, true]);
        for deny in ["203.0.113.5", outside, "203.0.113.0/24", "203.0.113.5:6000-8000", "0.0.0.0/0"] {
            let is_inside_denied = deny == "0.0.0.0/0";
            assert_eq!(reached(mode, &[], &[deny], None), [false, !is_inside_denied], "{mode:?} {deny}");
        }
        let deny = ["203.0.113.0/24"];
        assert_eq!(reached(mode, &[inside], &deny, None), [true, true], "the file opens it itself");
        // What the other listeners are denied is opened by no overlay at a listener that stands alone
        let alone = |allow: &[&str]| Some(ListenerRules::Alone { allow: parsed(allow), deny: Vec::new() });
        assert_eq!(reached(mode, &[], &deny, alone(&[])), [false, true]);
        assert_eq!(reached(mode, &[], &deny, alone(&[inside])), [true, true]);
    }
}
