//! What operators ask for while calls run: to list allocations, to end some, to revoke a user, and to reload without a
//! credential.

use std::collections::BTreeSet;
use std::sync::Arc;

use hairpin::auth::{
    Auth, AuthConfig, LiveKitKey, NonceKeys, OnRemoval, Password, Revocation, Revocations, Secret,
    livekit_credential, time_limited_password,
};
use hairpin::turn::{AllocationName, AllocationRow, CloseReason, EndStep, ListStep, Selector, Snapshot};
use hairpin::wire::{Method, attribute};

use crate::world::{Client, PEER, PEER6, START, World, addr, config, credentials};

const A: &str = "198.51.100.1:1000";
const B: &str = "198.51.100.2:2000";

/// Lists in steps of at most `limit` rows, and lets something happen between the steps.
fn list_while(
    world: &mut World,
    selector: Selector,
    limit: usize,
    mut meanwhile: impl FnMut(&mut World),
) -> Vec<AllocationRow> {
    let (selector, mut rows, mut after) = (Arc::new(selector), Vec::new(), None);
    for _ in 0..10_000 {
        let step = ListStep { selector: selector.clone(), after, limit, peers: false };
        let listed = world.server.list(world.now, &step);
        assert!(listed.rows.len() <= limit);
        rows.extend(listed.rows);
        after = listed.next;
        if after.is_none() {
            return rows;
        }
        meanwhile(world);
    }
    panic!("a list that does not end");
}

fn list(world: &mut World, selector: Selector) -> Vec<AllocationRow> {
    list_while(world, selector, 7, |_| {})
}

/// Ends in steps until there is nothing left to end; returns how many ended.
fn end(world: &mut World, selector: Selector, reason: CloseReason) -> u64 {
    let (selector, mut ended, mut after) = (Arc::new(selector), 0, None);
    loop {
        let step = world.server.end(world.now, &EndStep { selector: selector.clone(), after, reason });
        world.drain();
        ended += step.ended;
        after = step.next;
        if after.is_none() {
            return ended;
        }
    }
}

/// Serves with this `[auth]` from now on.
fn serve(world: &mut World, auth: Auth) {
    world.generation += 1;
    let snapshot = Snapshot { generation: world.generation, auth: Arc::new(auth), config: config() };
    world.server.apply(world.now, Arc::new(snapshot));
}

fn auth(config: AuthConfig) -> Auth {
    Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap()
}

/// The credentials of the stories, and a shared secret.
fn with_secret() -> AuthConfig {
    AuthConfig { secrets: vec![Secret::new("north")], ..credentials() }
}

/// A client with a time-limited credential.
fn time_limited(client: &str, username: &str) -> Client {
    Client::new(client).named(username, &time_limited_password(b"north", username))
}

fn revocation(until: u64) -> Revocation {
    Revocation { since: START, until, is_static: false }
}

fn user(name: &str) -> Selector {
    Selector { user: Some(name.into()), ..Selector::default() }
}

#[test]
fn a_row_says_who_relays_what_since_when_and_for_how_long() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.permit(&mut world, &[PEER, "9.9.9.9:1"]);
    client.bind(&mut world, 0x4000, PEER);
    client.channel_data(&mut world, 0x4000, b"hello");
    world.peer_sends(client.relay(), PEER, b"hi");
    world.pass(100);
    let [row] = &list(&mut world, Selector::default())[..] else { panic!("one allocation") };
    assert_eq!((&*row.user, row.client, row.server), ("alice", addr(A), addr("192.0.2.1:3478")));
    assert_eq!((row.created, row.age, row.expires_in), (START, 100, 500));
    assert_eq!((row.permissions, row.channels, &row.peers), (2, 1, &None));
    assert_eq!((row.totals.to_peer_packets, row.totals.to_peer_bytes), (1, 5));
    assert_eq!((row.totals.to_client_packets, row.totals.to_client_bytes), (1, 2));
    let [relayed] = row.relayed[..] else { panic!("one address") };
    assert_eq!((relayed.address, relayed.external), (addr("192.0.2.1:50000"), addr("192.0.2.1:50000")));

    let selector = Arc::new(Selector { name: Some(row.name), ..Selector::default() });
    let step = ListStep { selector, after: None, limit: 1, peers: true };
    let shown = world.server.list(world.now, &step);
    assert_eq!(shown.next, None);
    let peers = shown.rows[0].peers.as_ref().unwrap();
    assert_eq!(peers.permissions, [(addr(PEER).ip(), 200), ("9.9.9.9".parse().unwrap(), 200)]);
    assert_eq!(peers.channels, [(0x4000, addr(PEER), 500)]);
    assert_eq!(world.server.totals(&[row.name, AllocationName(7)]), [(row.name, row.totals)]);
}

/// An allocation that lives all the time is listed exactly once, whatever begins and ends meanwhile.
#[test]
fn pages_neither_miss_nor_repeat_what_stays() {
    let mut world = World::default();
    let mut clients: Vec<_> =
        (0..100).map(|n| world.allocated(&format!("198.51.100.1:{}", 1000 + n))).collect();
    let all: BTreeSet<_> = list(&mut world, Selector::default()).iter().map(|row| row.client).collect();
    assert_eq!(all.len(), 100);
    let (mut gone, mut port) = (BTreeSet::new(), 5000);
    let rows = list_while(&mut world, Selector::default(), 9, |world| {
        // The oldest and the newest of those that were there end, and another begins.
        for oldest in [true, false] {
            let at = if oldest { 0 } else { clients.len() - 1 };
            let mut client = clients.remove(at);
            gone.insert(client.tuple.client.0);
            client.refresh(world, 0);
        }
        if port < 5010 {
            port += 1;
            world.allocated(&format!("198.51.100.1:{port}"));
        }
    });
    let listed: Vec<_> = rows.iter().map(|row| row.client).collect();
    let unique: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(listed.len(), unique.len(), "none is listed twice");
    assert!(all.difference(&gone).all(|client| unique.contains(client)), "none that stayed is missing");
    assert!(rows.is_sorted_by_key(|row| row.name), "in the order of their creation");
}

/// However few allocations are meant, a step looks at a bounded number of them.
#[test]
fn a_step_is_bounded_whether_or_not_it_finds_anything() {
    let mut world = World::default();
    for n in 0..1000 {
        world.allocated(&format!("198.51.100.1:{}", 1000 + n));
    }
    let mut steps = 0;
    assert!(list_while(&mut world, user("nobody"), 1000, |_| steps += 1).is_empty());
    assert!((3..10).contains(&steps), "{steps} steps");
    let step = EndStep { selector: Arc::default(), after: None, reason: CloseReason::Ended };
    let ended = world.server.end(world.now, &step);
    world.drain();
    assert!(ended.ended <= 256 && ended.next.is_some(), "{ended:?}");
    assert_eq!(ended.ended + end(&mut world, Selector::default(), CloseReason::Ended), 1000);
    world.assert_empty();
}

/// A large table is walked in as many steps as it takes, none of which looks at more than a few hundred allocations: neither a
/// list of all of them nor the end of a user among them delays packets.
#[test]
fn a_table_of_20_000_allocations_is_listed_and_thinned_out_in_bounded_steps() {
    const ALL: usize = 20_000;
    const STEP: usize = 256;
    let mut world = World { next_port: 1024, ..World::default() };
    let mut users = [Client::new(A), Client::new(B).named("bob", "builder")];
    for n in 0..ALL {
        let client = &mut users[usize::from(n % 10 == 0)];
        client.tuple.client.0.set_port(2000 + n as u16);
        client.next_id = 0;
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    }

    let (mut after, mut rows, mut steps) = (None, Vec::new(), 0);
    loop {
        // More than a step may cost
        let step = ListStep { selector: Arc::default(), after, limit: 1000, peers: false };
        let listed = world.server.list(world.now, &step);
        assert!(listed.rows.len() <= STEP, "{} rows in a step", listed.rows.len());
        (after, steps) = (listed.next, steps + 1);
        rows.extend(listed.rows.into_iter().map(|row| row.name));
        if after.is_none() {
            break;
        }
    }
    assert!(rows.len() == ALL && rows.is_sorted(), "each of them once, in the order of their creation");
    assert!(steps <= ALL / STEP + 1, "{steps} steps");

    let (selector, mut after, mut ended, mut steps) = (Arc::new(user("bob")), None, 0, 0);
    loop {
        let step = EndStep { selector: selector.clone(), after, reason: CloseReason::Ended };
        let one = world.server.end(world.now, &step);
        world.drain();
        assert!(
            one.ended as usize <= STEP / 8,
            "{} ended in a step, each of which costs as much as 8",
            one.ended
        );
        (after, ended, steps) = (one.next, ended + one.ended, steps + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ended as usize, ALL / 10);
    assert!(world.closed.iter().all(|closed| &*closed.user == "bob"));
    // Each of all allocations is looked at once, and what ends costs 8 more
    assert!(steps <= 2 * ALL / STEP, "{steps} steps");
    assert_eq!(list(&mut world, user("bob")).len(), 0);
    assert_eq!(world.server.stats().allocations as usize, ALL - ALL / 10);
}

/// Permissions cost as much as allocations: a few allocations can have tens of thousands.
#[test]
fn permissions_count_towards_a_step() {
    let mut world = World::default();
    for n in 0..10 {
        let mut client = world.allocated(&format!("198.51.100.1:{}", 1000 + n));
        for batch in 0..2 {
            let peers: Vec<_> = (0..50).map(|n| format!("8.8.{batch}.{n}:5000")).collect();
            client.permit(&mut world, &peers.iter().map(String::as_str).collect::<Vec<_>>());
            world.pass(3);
        }
    }
    let peer = Selector { peer: Some("9.0.0.0/8".parse().unwrap()), ..Selector::default() };
    let mut steps = 0;
    assert!(list_while(&mut world, peer, 1000, |_| steps += 1).is_empty());
    assert!(steps >= 3, "{steps} steps");
}

#[test]
fn every_criterion_selects_alone_and_together() {
    let mut world = World::new(config(), with_secret());
    let mut old = world.allocated(A);
    old.permit(&mut world, &[PEER]);
    old.bind(&mut world, 0x4000, PEER);
    world.pass(60);
    let mut new = time_limited(B, &format!("{}:carol", START + 3600));
    assert_eq!(new.allocate(&mut world, |_| {}).code(), 0);
    new.permit(&mut world, &["9.9.9.9:1"]);
    let mut six = Client::new("[2001:db8::7]:99").named("bob", "builder");
    let families = |request: &mut hairpin::wire::Encoder| {
        request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    };
    assert_eq!(six.allocate(&mut world, families).code(), 0);
    six.permit(&mut world, &[PEER6]);

    let rule = |text: &str| Some(text.parse().unwrap());
    let none = Selector::default;
    let first = list(&mut world, none())[0].name;
    for (selector, expected) in [
        (none(), "alice carol bob"),
        (Selector { name: Some(first), ..none() }, "alice"),
        (Selector { name: Some(AllocationName(99)), ..none() }, ""),
        (user("carol"), "carol"),
        (user("nobody"), ""),
        (Selector { client: rule("198.51.100.0/24"), ..none() }, "alice carol"),
        (Selector { client: rule("198.51.100.1"), ..none() }, "alice"),
        (Selector { client: rule("198.51.100.1:1000"), ..none() }, "alice"),
        (Selector { client: rule("198.51.100.1:1001"), ..none() }, ""),
        (Selector { client: rule("2001:db8::7"), ..none() }, "bob"),
        (Selector { peer: rule("8.8.8.8"), ..none() }, "alice"),
        (Selector { peer: rule("8.8.8.8:5000"), ..none() }, "alice"),
        (Selector { peer: rule("8.8.8.8:5001"), ..none() }, ""),
        (Selector { peer: rule("2606:4700::/32"), ..none() }, "bob"),
        (Selector { peer: rule("9.9.9.9:1"), ..none() }, ""),
        (Selector { transport: Some(hairpin::turn::Transport::Udp), ..none() }, "alice carol bob"),
        (Selector { transport: Some(hairpin::turn::Transport::Tls), ..none() }, ""),
        (Selector { min_age: Some(60), ..none() }, "alice"),
        (Selector { min_age: Some(61), ..none() }, ""),
        (Selector { max_age: Some(59), ..none() }, "carol bob"),
        (Selector { client: rule("198.51.100.0/24"), max_age: Some(59), ..none() }, "carol"),
    ] {
        let found: Vec<_> =
            list(&mut world, selector.clone()).iter().map(|row| row.user.to_string()).collect();
        assert_eq!(found.join(" "), expected, "{selector:?}");
    }
    // A Send indication is what reaches a port without a channel.
    new.send(&mut world, "9.9.9.9:1", b"x");
    assert_eq!(list(&mut world, Selector { peer: rule("9.9.9.9:1"), ..none() }).len(), 1);
}

/// Ending a user's allocations leaves those of others alone, and the user may allocate again.
#[test]
fn an_operator_ends_the_allocations_of_a_user() {
    let mut world = World::default();
    for port in 1..=3 {
        world.allocated(&format!("198.51.100.1:{port}")).bind(&mut world, 0x4000, PEER);
    }
    let mut other = Client::new(B).named("bob", "builder");
    assert_eq!(other.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(end(&mut world, user("alice"), CloseReason::Ended), 3);
    assert!(
        world.closed.iter().all(|closed| closed.reason == CloseReason::Ended && &*closed.user == "alice")
    );
    assert_eq!(world.server.stats().closed[CloseReason::Ended], 3);
    assert_eq!(other.refresh(&mut world, 600).code(), 0);
    world.allocated(A);
}

/// RFC 8489 §9.2.4: 401. Only the credential's user is refused, and only up to the time of the revocation.
#[test]
fn a_revoked_user_is_refused_until_a_newer_credential() {
    let mut world = World::new(config(), with_secret());
    let revocations = Arc::new(Revocations::default());
    serve(&mut world, auth(with_secret()).with_revocations(revocations.clone()));
    let (until, before, after) = (START + 3600, START + 3600, START + 3601);
    let mut revoked = time_limited(A, &format!("{before}:carol"));
    let mut other = time_limited(B, &format!("{before}:dave"));
    for client in [&mut revoked, &mut other] {
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    }
    assert!(revocations.insert("carol", revocation(until)));
    // Between the refusal and the end, a running allocation cannot be kept.
    assert_eq!(revoked.refresh(&mut world, 600).code(), 401);
    assert_eq!(revoked.permit(&mut world, &[PEER]).code(), 401);
    assert_eq!(end(&mut world, user("carol"), CloseReason::Revoked), 1);
    assert_eq!(world.closed[0].reason, CloseReason::Revoked);

    assert_eq!(revoked.allocate(&mut world, |_| {}).code(), 401);
    let refused = world.refused.last().unwrap();
    assert_eq!((refused.reason.code(), refused.reason.text()), (401, "revoked"));
    assert!(refused.fix.to_string().contains("hairpin ctl unrevoke"), "{refused:?}");
    assert_eq!(other.refresh(&mut world, 600).code(), 0);
    let mut newer = time_limited("198.51.100.3:1", &format!("{after}:carol"));
    assert_eq!(newer.allocate(&mut world, |_| {}).code(), 0);
    revocations.remove("carol");
    assert_eq!(revoked.allocate(&mut world, |_| {}).code(), 0);
}

/// "refused": allocations end whose credential the revocation refuses, because it expires up to its time or has no expiry. One with
/// a credential that expires later lives on, as does its request in flight.
#[test]
fn a_revocation_may_keep_allocations_with_newer_credentials() {
    let key = LiveKitKey { name: "APIone".into(), secret: Secret::new("secret of one") };
    let config_of =
        || AuthConfig { livekit_keys: vec![key.clone()], livekit_two_part: true, ..with_secret() };
    let mut world = World::new(config(), config_of());
    let revocations = Arc::new(Revocations::default());
    serve(&mut world, auth(config_of()).with_revocations(revocations.clone()));
    let until = START + 3600;
    let (name, password) = livekit_credential("APIone", b"secret of one", "PA_carol", None);
    let mut clients = [
        time_limited(A, &format!("{until}:PA_carol")),
        Client::new("198.51.100.4:1").named(&name, &password),
        time_limited(B, &format!("{}:PA_carol", until + 1)),
        time_limited("198.51.100.3:1", &format!("{until}:dave")),
    ];
    for client in &mut clients {
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    }
    let mut late = time_limited("198.51.100.5:1", &format!("{}:PA_carol", until + 1));
    assert_eq!(late.refresh(&mut world, 0).code(), 437);
    world.hold = true;
    let udp =
        |request: &mut hairpin::wire::Encoder| request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let request = late.request(Method::Allocate, udp);
    world.ignores(&late.tuple, &request);

    revocations.insert("PA_carol", revocation(until));
    let selector = || Selector { expires_by: Some(until), ..user("PA_carol") };
    assert_eq!(end(&mut world, selector(), CloseReason::Revoked), 2);
    assert!(world.replies.is_empty(), "the request in flight is not refused");
    world.hold = false;
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    world.replies.clear();
    let [.., newer, other] = &mut clients;
    for client in [newer, other, &mut late] {
        assert_eq!(client.refresh(&mut world, 600).code(), 0);
    }
    assert_eq!(
        end(&mut world, user("PA_carol"), CloseReason::Revoked),
        2,
        "without the limit, the others too"
    );
}

/// A static user has no expiry: the revocation holds until it is taken back, even after its time.
#[test]
fn a_revoked_static_user_is_refused_until_it_is_taken_back() {
    let mut world = World::default();
    let revocations = Arc::new(Revocations::default());
    serve(&mut world, auth(credentials()).with_revocations(revocations.clone()));
    let mut client = world.allocated(A);
    revocations.insert("alice", Revocation { is_static: true, ..revocation(START + 60) });
    assert_eq!(end(&mut world, user("alice"), CloseReason::Revoked), 1);
    world.pass(3000);
    revocations.prune(world.now.unix);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 401);
    assert_eq!(Client::new(B).named("bob", "builder").allocate(&mut world, |_| {}).code(), 0);
    revocations.remove("alice");
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
}

/// An Allocate that was authenticated before the revocation and still waits for its sockets gets no allocation.
#[test]
fn a_request_in_flight_does_not_slip_through_a_revocation() {
    let mut world = World::default();
    let revocations = Arc::new(Revocations::default());
    serve(&mut world, auth(credentials()).with_revocations(revocations.clone()));
    let mut client = Client::new(A);
    let learn = client.refresh(&mut world, 0);
    assert_eq!(learn.code(), 437);
    world.hold = true;
    let udp =
        |request: &mut hairpin::wire::Encoder| request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let request = client.request(Method::Allocate, udp);
    world.ignores(&client.tuple, &request);
    assert_eq!(world.asked.len(), 1);

    revocations.insert("alice", Revocation { is_static: true, ..revocation(START + 60) });
    assert_eq!(end(&mut world, user("alice"), CloseReason::Revoked), 0);
    let (_, reply) = world.replies.pop_front().expect("a response");
    assert_eq!(crate::world::Reply(reply).code(), 401);
    world.hold = false;
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    world.assert_empty();
    world.ask(&client.tuple, &request);
    assert!(world.opened.is_empty(), "a retransmission does not slip through either");
}

/// `auth.on_removal`: allocations end whose user, password or secret is no longer configured, each for itself.
#[test]
fn allocations_end_with_their_credential_if_that_is_wanted() {
    let mut world = World::new(config(), with_secret());
    world.allocated(A);
    assert_eq!(Client::new(B).named("bob", "builder").allocate(&mut world, |_| {}).code(), 0);
    let name = format!("{}:carol", START + 3600);
    assert_eq!(time_limited("198.51.100.3:3", &name).allocate(&mut world, |_| {}).code(), 0);
    let users = |world: &mut World| -> String {
        world.pass(1);
        list(world, Selector::default()).iter().map(|row| format!("{} ", row.user)).collect()
    };

    let mut changed = with_secret();
    changed.users.remove(0);
    serve(&mut world, auth(changed.clone()));
    assert_eq!(users(&mut world), "alice bob carol ", "they are kept unless it is wanted");
    serve(&mut world, auth(with_secret()).on_removal(OnRemoval::End));
    assert_eq!(users(&mut world), "alice bob carol ", "nothing was removed");
    let mut rotated = with_secret();
    rotated.secrets.insert(0, Secret::new("south"));
    rotated.realm = "example.net".into();
    serve(&mut world, auth(rotated).on_removal(OnRemoval::End));
    assert_eq!(users(&mut world), "alice bob carol ", "another realm and another secret remove none");
    serve(&mut world, auth(changed.clone()).on_removal(OnRemoval::End));
    assert_eq!(users(&mut world), "bob carol ");
    changed.users[0].password = Password::Plain(Secret::new("rebuilt"));
    serve(&mut world, auth(changed.clone()).on_removal(OnRemoval::End));
    assert_eq!(users(&mut world), "carol ");
    changed.secrets = vec![Secret::new("south")];
    serve(&mut world, auth(changed).on_removal(OnRemoval::End));
    assert_eq!(users(&mut world), "");
    assert!(world.closed.iter().all(|closed| closed.reason == CloseReason::Removed));
    world.assert_empty();
}

/// `auth.on_removal`: allocations with LiveKit's own credentials end with the pair that these were made from.
#[test]
fn allocations_end_with_the_api_key_of_livekit() {
    let with_keys = |pairs: &[(&str, &str)]| {
        let pair =
            |(name, secret): &(&str, &str)| LiveKitKey { name: (*name).into(), secret: Secret::new(*secret) };
        AuthConfig { livekit_keys: pairs.iter().map(pair).collect(), ..credentials() }
    };
    let (one, two) = (("APIone", "secret of one"), ("APItwo", "secret of two"));
    let mut world = World::new(config(), with_keys(&[one, two]));
    for (client, (key, secret), sid) in [(A, one, "PA_one"), (B, two, "PA_two")] {
        let (name, password) = livekit_credential(key, secret.as_bytes(), sid, Some(START + 60));
        let allocated = Client::new(client).named(&name, &password).allocate(&mut world, |_| {});
        assert_eq!(allocated.code(), 0);
    }
    let mut serve_with = |pairs: &[(&str, &str)], on_removal| -> Vec<String> {
        serve(&mut world, auth(with_keys(pairs)).on_removal(on_removal));
        world.pass(100);
        list(&mut world, Selector::default()).iter().map(|row| row.user.to_string()).collect()
    };
    assert_eq!(serve_with(&[two], OnRemoval::Keep), ["PA_one", "PA_two"]);
    assert_eq!(
        serve_with(&[two, one], OnRemoval::End),
        ["PA_one", "PA_two"],
        "that they have expired does not matter"
    );
    assert_eq!(serve_with(&[two], OnRemoval::End), ["PA_two"]);
    assert_eq!(serve_with(&[("APItwo", "another secret")], OnRemoval::End), [""; 0]);
    assert!(world.closed.iter().all(|closed| closed.reason == CloseReason::Removed));
    world.assert_empty();
}

/// A time-limited credential that has expired is still one of its secret: only its removal ends a running call.
#[test]
fn an_expired_credential_is_not_a_removed_one() {
    let mut world = World::new(config(), with_secret());
    let mut client = time_limited(A, &format!("{}:carol", START + 60));
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    world.pass(300);
    serve(&mut world, auth(with_secret()).on_removal(OnRemoval::End));
    world.pass(1);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
}

/// An Allocate in flight when its credential is removed does not stay.
#[test]
fn a_request_in_flight_does_not_outlive_its_credential() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.refresh(&mut world, 0);
    world.hold = true;
    let request = client
        .request(Method::Allocate, |request| request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    world.ignores(&client.tuple, &request);
    let mut changed = credentials();
    changed.users.remove(0);
    serve(&mut world, auth(changed).on_removal(OnRemoval::End));
    world.pass(1);
    world.hold = false;
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let answer = world.open(&ask);
    world.server.answered(world.now, ticket, answer);
    world.drain();
    world.replies.clear();
    world.pass(1);
    world.assert_empty();
}

/// Each allocation is judged once per snapshot and within the steps of the sweep, so a large table delays no packet.
#[test]
fn removed_credentials_end_in_bounded_steps() {
    let mut world = World::default();
    for n in 0..1000 {
        world.allocated(&format!("198.51.100.1:{}", 1000 + n));
    }
    let mut changed = credentials();
    changed.users.remove(0);
    serve(&mut world, auth(changed).on_removal(OnRemoval::End));
    assert!(world.closed.is_empty());
    let mut steps = 0;
    while world.closed.len() < 1000 {
        let before = world.closed.len();
        world.server.handle_timeout(world.now);
        world.drain();
        assert!(world.closed.len() - before <= 256);
        steps += 1;
        assert!(steps < 50);
    }
    world.assert_empty();
}
