//! What operators ask of running workers: lists, rates, and the end of allocations, while packets go on.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hairpin::auth::{self, Auth, NonceKeys, Password, Revocation, Revocations, Secret, StaticUser};
use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::datapath::{AllocationQuery, DatapathSnapshot, RatedAllocation};
use hairpin::turn::{self, CloseReason, Selector, Transport};
use hairpin::wire::{Method, attribute};
use tokio::runtime;
use tokio::time::Instant;

use crate::client::{Client, Reply, channel_message};
use crate::world::{REALM, Relay, Setup, addr, peer, receive, setup};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Every page of a list.
fn list(relay: &Relay, selector: &Selector, limit: usize) -> Vec<RatedAllocation> {
    let mut query = AllocationQuery { selector: selector.clone(), limit, ..AllocationQuery::default() };
    let mut rows = Vec::new();
    loop {
        let page = block_on(relay.workers().list(&query));
        assert!(page.rows.len() <= limit && page.silent.is_empty());
        rows.extend(page.rows);
        query.after = page.next;
        if page.next.is_none() {
            return rows;
        }
    }
}

fn user(name: &str) -> Selector {
    Selector { user: Some(name.into()), ..Selector::default() }
}

/// A relay with two workers, and so many clients over UDP that both have some.
fn crowded(ip: &str, clients: usize) -> (Relay, Vec<Client>) {
    let relay = Relay::start(Setup { workers: 2, ..setup(ip) });
    let clients = (0..clients).map(|_| relay.allocated(Transport::Udp)).collect();
    (relay, clients)
}

/// A page has allocations of all workers in the order of their creation, and the next one goes on behind it.
#[test]
fn pages_go_over_all_workers() {
    let (relay, mut clients) = crowded("127.1.20.1", 60);
    clients.extend([Transport::Tcp, Transport::Tls].map(|transport| relay.allocated(transport)));
    let rows = list(&relay, &Selector::default(), 7);
    let relayed: Vec<_> = rows.iter().map(|one| one.row.relayed[0].address).collect();
    let expected: Vec<_> = clients.iter().map(|client| client.relayed[0]).collect();
    assert_eq!(relayed, expected);
    for transport in Transport::ALL {
        let selector = Selector { transport: Some(transport), ..Selector::default() };
        let count = if transport == Transport::Udp { 60 } else { 1 };
        assert_eq!(list(&relay, &selector, 1000).len(), count, "{transport:?}");
    }
    relay.stop();
}

/// Sends a packet through a call and back every few milliseconds until told to stop. Returns how many.
fn call(client: &mut Client, peer: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        client.send(&channel_message(0x4000, b"a packet of a call"));
        let (data, relayed) = receive(peer);
        assert_eq!(data, b"a packet of a call");
        peer.send_to(&data, relayed).unwrap();
        assert_eq!(client.channel_data(), (0x4000, data));
        sent += 1;
        thread::sleep(Duration::from_millis(2));
    }
    sent
}

/// Stops a call, also when a test fails beside it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lists over lists, and the end of many allocations, cost a call beside them nothing.
#[test]
fn a_call_goes_on_beside_lists_and_ends() {
    let (relay, mut clients) = crowded("127.1.20.2", 200);
    let mut caller = relay.client(Transport::Udp);
    caller.user = "bob";
    assert_eq!(caller.allocate_own_family().code(), 0);
    let peer = peer();
    caller.bind(0x4000, addr(&peer));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let call = scope.spawn(|| call(&mut caller, &peer, &stop));
        let stop = Stop(&stop);
        for _ in 0..20 {
            assert_eq!(list(&relay, &Selector::default(), 50).len(), 201);
        }
        let query = AllocationQuery { limit: 1000, rates: true, ..AllocationQuery::default() };
        let page = block_on(relay.workers().list(&query));
        for RatedAllocation { row, rates } in page.rows {
            let rates = rates.expect("it has not ended");
            let expected = if &*row.user == "bob" { 20..=500 } else { 0..=0 };
            assert!(expected.contains(&rates.to_peer_packets), "{} {rates:?}", row.user);
            let bytes = 18 * rates.to_peer_packets;
            assert!(rates.to_peer_bytes.abs_diff(bytes) < 18, "bytes of application data: {rates:?}");
            assert!(expected.contains(&rates.to_client_packets), "{} {rates:?}", row.user);
        }
        let ended = block_on(relay.workers().end(user("alice"), CloseReason::Ended));
        assert_eq!((ended.ended, ended.silent), (200, vec![]));
        drop(stop);
        let sent = call.join().unwrap();
        assert!(sent > 10, "{sent} packets");
    });
    for client in &clients {
        assert!(UdpSocket::bind(client.relayed[0]).is_ok(), "its port is free");
    }
    assert_eq!(clients[0].refresh(600).code(), 437);
    relay.wait_for("the metric", |stats| stats.turn.closed[CloseReason::Ended] == 200);
    relay.stop();
}

/// A client over TCP or TLS notices at once: its connection ends with its allocation.
#[test]
fn the_connection_ends_with_an_allocation_that_an_operator_ends() {
    let relay = Relay::start(setup("127.1.20.3"));
    let mut clients = [Transport::Tcp, Transport::Tls].map(|transport| relay.allocated(transport));
    let mut other = relay.client(Transport::Tcp);
    assert_eq!(other.binding().code(), 0);
    assert_eq!(block_on(relay.workers().end(Selector::default(), CloseReason::Ended)).ended, 2);
    clients.iter_mut().for_each(Client::assert_closed);
    relay.wait_for_ends(ConnectionEnd::Operator, [1, 1]);
    assert_eq!(other.binding().code(), 0);
    relay.stop();
}

/// A worker that hangs is named, and holds nobody up. It ends what it was told to end as soon as it goes on.
#[test]
fn a_stuck_worker_is_named_and_catches_up() {
    let (relay, clients) = crowded("127.1.20.4", 30);
    block_on(async {
        relay.workers().block(1, Duration::from_secs(8)).await;
        let (start, query) = (Instant::now(), AllocationQuery { limit: 100, ..AllocationQuery::default() });
        let (page, ended) = tokio::join!(
            relay.workers().list(&query),
            relay.workers().end(Selector::default(), CloseReason::Ended)
        );
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert_eq!((page.silent, ended.silent), (vec![1], vec![1]));
        assert!(ended.ended < 30, "{} have ended", ended.ended);
    });
    relay.wait_for("all have ended", |stats| stats.turn.closed[CloseReason::Ended] == 30);
    assert!(clients.iter().all(|client| UdpSocket::bind(client.relayed[0]).is_ok()));
    relay.stop();
}

/// Serves with these revocations from now on, as the daemon does from its start.
fn with_revocations(snapshot: DatapathSnapshot, revocations: &Arc<Revocations>) -> DatapathSnapshot {
    let users = ["alice", "bob"].map(|name| StaticUser {
        name: name.into(),
        password: Password::Plain(Secret::new("secret")),
        allocations: 0,
    });
    let config = auth::AuthConfig {
        realm: REALM.into(),
        users: users.into(),
        listed: Arc::default(),
        secrets: Vec::new(),
        livekit_keys: Vec::new(),
        livekit_two_part: true,
        user_before_expiry: false,
        max_lifetime: 2_592_000,
        nonce_lifetime: 3600,
    };
    let auth = Auth::new(config, NonceKeys { current: [7; 32], previous: None }).unwrap();
    let auth = Arc::new(auth.with_revocations(revocations.clone()));
    let turn = turn::Snapshot { generation: 2, auth, config: snapshot.turn.config.clone() };
    DatapathSnapshot { turn: Arc::new(turn), ..snapshot }
}

/// While a user allocates as fast as it can on both workers, a revocation leaves it nothing: what is in flight is refused, or
/// ends with the rest.
#[test]
fn a_revocation_leaves_nothing_to_a_user_who_keeps_allocating() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.20.5") });
    let revocations = Arc::new(Revocations::default());
    let snapshot = relay.setup.snapshot(Some(relay.identities.clone()));
    block_on(relay.workers().apply(with_revocations(snapshot, &revocations))).unwrap();
    let mut bystander = relay.client(Transport::Udp);
    bystander.user = "bob";
    assert_eq!(bystander.allocate_own_family().code(), 0);
    let refused = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !refused.load(Ordering::Relaxed) {
                    let mut client = relay.client(Transport::Udp);
                    if client_allocates(&mut client) == 401 {
                        refused.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        relay.wait_for("allocations", |stats| stats.turn.allocations > 20);
        revocations.insert("alice", Revocation { since: 0, until: u64::MAX, is_static: true });
        let ended = block_on(relay.workers().end(user("alice"), CloseReason::Revoked));
        assert!(ended.ended > 10, "{ended:?}");
    });
    assert_eq!(list(&relay, &user("alice"), 100).len(), 0);
    assert_eq!(list(&relay, &Selector::default(), 100).len(), 1);
    assert_eq!(bystander.refresh(600).code(), 0);
    assert!(relay.workers().serving().auth.has_static_user("alice"), "the workers tell what they serve by");
    relay.stop();
}

/// The code of an Allocate with credentials. A revoked user is challenged again, which [`Client::ask`] does not expect.
fn client_allocates(client: &mut Client) -> u16 {
    let mut code = 0;
    for _ in 0..2 {
        let request = client.request(Method::Allocate, &Client::allocation(), &[]);
        client.send(&request);
        let reply = Reply(client.message());
        if let Some(nonce) = reply.attribute(attribute::NONCE) {
            client.nonce = nonce.value.to_vec();
        }
        code = reply.code();
    }
    code
}
