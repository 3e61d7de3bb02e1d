//! The reserved user of probes: two allocations that meet on the relay, whatever its users, rules and limits are, and that neither
//! count anywhere nor reach anything else.

use std::sync::Arc;

use hairpin::auth::{
    Auth, AuthConfig, NonceKeys, PROBE_USER, Revocation, Revocations, Secret, time_limited_password,
};
use hairpin::turn::bucket::{Rate, Rates};
use hairpin::turn::peers::{PeerRules, Rules};
use hairpin::turn::{
    Admission, AllocationLimits, CloseReason, EndStep, ListStep, Selector, Snapshot, TurnConfig,
};
use hairpin::wire::{Family, Method};

use crate::world::{Client, PEER, START, World, auth, channel_message, config, credentials, rules};

const A: &str = "198.51.100.1:1000";
const B: &str = "198.51.100.2:2000";

/// A probe with a credential that the relay has made at `unix`.
fn probe(client: &str, unix: u64) -> Client {
    let made = auth(credentials()).probe_credential(unix, [7; 9]);
    Client::new(client).named(&made.username, &made.password)
}

fn allocated(world: &mut World, client: &str) -> Client {
    let mut probe = probe(client, world.now.unix);
    assert_eq!(probe.allocate(world, |_| {}).code(), 0, "{:?}", world.refused.last());
    let id = world.opened.last().unwrap().id;
    probe.relay = Some(hairpin::turn::RelayId { allocation: id, family: Family::V4 });
    probe
}

fn relayed(world: &World, client: &Client) -> String {
    world.relayed(client.relay()).unwrap().to_string()
}

fn list(world: &mut World, selector: Selector) -> usize {
    let step = ListStep { selector: Arc::new(selector), after: None, limit: 100, peers: false };
    world.server.list(world.now, &step).rows.len()
}

#[test]
fn two_probes_meet_and_count_nowhere() {
    let mut world = World::default();
    let (mut a, mut b) = (allocated(&mut world, A), allocated(&mut world, B));
    let (at_a, at_b) = (relayed(&world, &a), relayed(&world, &b));
    assert_eq!(a.bind(&mut world, 0x4000, &at_b).code(), 0);
    assert_eq!(b.permit(&mut world, &[&at_a]).code(), 0);
    let sent = world.deliver(&a.tuple, &channel_message(0x4000, b"to b!")).expect("it is relayed");
    assert_eq!(sent.peer.0.to_string(), at_b);
    assert!(world.peer_sends(b.relay(), &at_a, b"to b!").is_some());
    assert!(b.send(&mut world, &at_a, b"to a").is_some());
    assert!(world.peer_sends(a.relay(), &at_b, b"to a").is_some());

    let stats = world.server.stats();
    assert_eq!((stats.allocations, stats.allocations_total, stats.probe_allocations), (0, 0, 2));
    assert_eq!((stats.permissions, stats.channels, stats.relays), (0, 0, Default::default()));
    let by_clients =
        &stats.to_peer[..3].iter().chain(&stats.to_client[..3]).map(|one| one.packets).sum::<u64>();
    assert_eq!(*by_clients, 0);
    assert!(world.opened.iter().all(|opened| opened.is_probe));

    assert_eq!(list(&mut world, Selector::default()), 0);
    let by_user = || Selector { user: Some(PROBE_USER.into()), ..Selector::default() };
    assert_eq!(list(&mut world, by_user()), 2);
    assert_eq!(a.refresh(&mut world, 0).code(), 0);
    let end = EndStep { selector: Arc::new(by_user()), after: None, reason: CloseReason::Ended };
    assert_eq!(world.server.end(world.now, &end).ended, 1);
    world.drain();
    assert_eq!(world.server.stats().closed.iter().map(|(_, n)| n).sum::<u64>(), 0);
    assert_eq!(world.server.stats().lifetimes.total(), 0);
    world.assert_empty();
}

/// A probe that was cut off leaves its place to the next one soon, whatever lifetime it asks for.
#[test]
fn the_allocations_of_probes_are_short() {
    let mut world = World::default();
    let mut a = allocated(&mut world, A);
    assert_eq!(a.refresh(&mut world, 3600).lifetime(), Some(30));
    world.pass(30);
    assert_eq!(world.closed.len(), 1);
    world.assert_empty();
}

/// RFC 8656 §21: a credential of the relay's own is no way around the rules about peers.
#[test]
fn probes_reach_nothing_but_live_relayed_addresses() {
    let allow = vec!["192.0.2.1:8080".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    let peers = PeerRules::new(Rules { allow, ..rules() });
    let mut world = World::new(TurnConfig { peers, ..config() }, credentials());
    let mut a = allocated(&mut world, A);
    for peer in [PEER, "10.0.0.1:5000", "127.0.0.1:80", "192.0.2.1:8080", "192.0.2.1:3478", "192.0.2.1:50001"]
    {
        assert_eq!(a.bind(&mut world, 0x4000, peer).code(), 403, "{peer}");
    }
    assert_eq!(a.permit(&mut world, &[PEER]).code(), 403);
    assert_eq!(a.permit(&mut world, &["192.0.2.1:1"]).code(), 0);
    assert!(a.send(&mut world, "192.0.2.1:8080", b"hello").is_none(), "a server's port");
    let client = world.allocated(B);
    let at_client = relayed(&world, &client);
    assert!(a.send(&mut world, &at_client, b"hello").is_some());
}

#[test]
fn neither_rules_nor_limits_keep_probes_from_meeting() {
    let deny = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let rate = Rate { burst: 1, per_second: 1 };
    let limits = AllocationLimits { allocations: 0, ..config().limits };
    let rates = Rates { new_allocations: rate, ..Rates::default() };
    let config = TurnConfig { peers: PeerRules::new(Rules { deny, ..rules() }), limits, ..config() };
    let mut world = World::with_rates(config, credentials(), rates);
    assert_eq!(Client::new("198.51.100.9:1").allocate(&mut world, |_| {}).code(), 508);
    let (mut a, b) = (allocated(&mut world, A), allocated(&mut world, B));
    let at_b = relayed(&world, &b);
    assert_eq!(a.bind(&mut world, 0x4000, &at_b).code(), 0);
    assert!(a.channel_data(&mut world, 0x4000, b"hello").is_some());
    // A new snapshot judges it in the same way
    world.apply(TurnConfig { peers: PeerRules::new(rules()), ..crate::world::config() }, credentials());
    world.pass(1);
    assert!(a.channel_data(&mut world, 0x4000, b"hello").is_some());
}

#[test]
fn a_draining_relay_refuses_probes() {
    let mut world =
        World::new(TurnConfig { admission: Admission::Draining(Arc::default()), ..config() }, credentials());
    assert_eq!(probe(A, START).allocate(&mut world, |_| {}).code(), 508);
}

/// RFC 8489 §9.2.4: the password of a reserved name is made with the keys of this process, and with nothing else.
#[test]
fn nobody_else_makes_credentials_of_probes() {
    let settings = AuthConfig {
        users: Vec::new(),
        secrets: vec![Secret::new("north")],
        user_before_expiry: true,
        max_lifetime: 60,
        ..credentials()
    };
    let mut world = World::new(config(), settings);
    let strange = Auth::new(credentials(), NonceKeys { current: [8; 32], previous: None }).unwrap();
    let strange = strange.probe_credential(START, [7; 9]);
    let other = format!("{PROBE_USER}:1:{}", START + 10);
    for (user, password) in [
        (&strange.username, strange.password),
        (&strange.username, time_limited_password(b"north", &strange.username)),
        (&other, time_limited_password(b"north", &other)),
    ] {
        let mut forged = Client::new(A).named(user, &password);
        assert_eq!(forged.allocate(&mut world, |_| {}).code(), 401, "{user}");
        assert_eq!(world.refused.last().unwrap().reason.text(), "wrong_password");
    }
    // It works whatever the configuration has, and longer than others may
    assert_eq!(probe(A, START).allocate(&mut world, |_| {}).code(), 0);
}

#[test]
fn credentials_of_probes_expire_and_can_be_revoked() {
    let mut world = World::default();
    let mut first = probe(A, START);
    world.pass(301);
    assert_eq!(first.allocate(&mut world, |_| {}).code(), 401);
    assert_eq!(world.refused.last().unwrap().reason.text(), "expired");

    let revoked = Arc::new(Revocations::default());
    let until = world.now.unix + 300;
    revoked.insert(PROBE_USER, Revocation { since: world.now.unix, until, is_static: false });
    let keys = NonceKeys { current: [7; 32], previous: None };
    let auth = Auth::new(credentials(), keys).unwrap().with_revocations(revoked);
    world.generation += 1;
    let snapshot = Snapshot { generation: world.generation, auth: Arc::new(auth), config: config() };
    world.server.apply(world.now, Arc::new(snapshot));
    assert_eq!(probe(A, world.now.unix).allocate(&mut world, |_| {}).code(), 401);
    assert_eq!(world.refused.last().unwrap().reason.text(), "revoked");
    let mut later = probe(A, world.now.unix + 1);
    assert_eq!(later.allocate(&mut world, |_| {}).code(), 0, "one that is made afterwards");
    assert_eq!(later.ask(&mut world, Method::Refresh, |_| {}).code(), 0);
}
