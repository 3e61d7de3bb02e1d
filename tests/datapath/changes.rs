//! Changes while workers run: listeners, relay addresses, limits. Also whether idle and busy threads respond.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hairpin::datapath::ListenerGroup;
use hairpin::turn::Transport;

use crate::client::{Client, channel_message};
use crate::world::{Relay, Setup, addr, block_on, peer, receive, relay, setup};

fn any_port(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

/// An added listener serves new clients, a removed one closes, and other listeners are not affected.
#[test]
fn listeners_are_added_and_removed() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.12.1") });
    let (mut bystander, peer) = (relay.allocated(Transport::Udp), peer());
    bystander.bind(0x4001, addr(&peer));
    let config = relay.setup.datapath();
    for round in 0..3 {
        let udp = Arc::new(ListenerGroup::open(any_port("127.1.12.2"), &config, 7).unwrap());
        let tcp =
            Arc::new(ListenerGroup::open_stream(Transport::Tcp, any_port("127.1.12.2"), &config).unwrap());
        let addresses = (udp.local_addr(), tcp.local_addr());
        for group in [udp, tcp] {
            block_on(relay.workers().listen(group)).unwrap();
        }
        for _ in 0..8 {
            assert_eq!(Client::over_udp(addresses.0).allocate(&[]).code(), 0, "round {round}");
            assert_eq!(Client::over_tcp(addresses.1).allocate(&[]).code(), 0, "round {round}");
        }
        block_on(relay.workers().unlisten(Transport::Udp, addresses.0));
        block_on(relay.workers().unlisten(Transport::Tcp, addresses.1));
        // Every thread has dropped its sockets.
        assert!(ListenerGroup::open(addresses.0, &config, 7).is_ok(), "round {round}");
        assert!(TcpStream::connect(addresses.1).is_err(), "round {round}");
        bystander.send(&channel_message(0x4001, b"still here"));
        assert_eq!(receive(&peer).0, b"still here");
    }
    relay.stop();
}

/// RFC 8489 §6.2.3: TLS clients need a certificate, so a listener for them is refused while there is none.
#[test]
fn a_listener_for_tls_needs_an_identity() {
    let relay = relay("127.1.12.24");
    let config = relay.setup.datapath();
    let open = || {
        let group = ListenerGroup::open_stream(Transport::Tls, any_port("127.1.12.24"), &config).unwrap();
        block_on(relay.workers().listen(Arc::new(group)))
    };
    open().unwrap();
    block_on(relay.workers().apply(relay.setup.snapshot(None))).unwrap();
    assert!(open().unwrap_err().to_string().contains("TLS clients need a certificate and its key"));
    relay.stop();
}

/// A listener that is being removed is told when the last of its allocations has ended, on whichever worker, also if that is
/// because the worker panicked.
#[test]
fn a_listener_counts_its_allocations() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.12.25") });
    let config = relay.setup.datapath();
    let group = Arc::new(ListenerGroup::open(any_port("127.1.12.26"), &config, 7).unwrap());
    block_on(relay.workers().listen(group.clone())).unwrap();
    let _bystander = relay.allocated(Transport::Udp);
    let allocate = || {
        let mut client = Client::over_udp(group.local_addr());
        assert_eq!(client.allocate(&[]).code(), 0);
        client
    };
    let emptied = Arc::new(tokio::sync::Notify::new());
    let is_told = |within| block_on(async { tokio::time::timeout(within, emptied.notified()).await.is_ok() });
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(20));
    let mut clients: Vec<Client> = std::iter::repeat_with(allocate).take(8).collect();
    assert_eq!(group.allocations(), 8);
    group.notify_when_empty(&emptied);
    for client in &mut clients {
        assert!(!is_told(short));
        assert_eq!(client.refresh(0).code(), 0);
    }
    assert!(is_told(long) && group.allocations() == 0);
    clients.iter_mut().for_each(|client| assert_eq!(client.allocate(&[]).code(), 0));
    relay.workers().panic(0);
    relay.workers().panic(1);
    assert!(is_told(long) && group.allocations() == 0);
    group.keep();
    allocate().refresh(0);
    assert!(!is_told(short), "it is kept");
    relay.stop();
}

/// The listeners that workers were started with can be removed like any other.
#[test]
fn the_first_listeners_can_be_removed() {
    let relay = relay("127.1.12.20");
    let config = relay.setup.datapath();
    let (udp, tcp) = (relay.udp[0], relay.tcp);
    block_on(relay.workers().unlisten(Transport::Udp, udp));
    block_on(relay.workers().unlisten(Transport::Tcp, tcp));
    assert!(ListenerGroup::open(udp, &config, 7).is_ok() && TcpStream::connect(tcp).is_err());
    assert_eq!(relay.client(Transport::Tls).allocate(&[]).code(), 0, "the other listener stays");
    relay.stop();
}

/// Workers that are dropped end like those that are stopped.
#[test]
fn dropped_workers_end() {
    let relay = relay("127.1.12.21");
    let (udp, config) = (relay.udp[0], relay.setup.datapath());
    let client = relay.allocated(Transport::Udp);
    drop(relay);
    assert!(ListenerGroup::open(udp, &config, 7).is_ok());
    assert!(std::net::UdpSocket::bind(client.relayed[0]).is_ok());
}

/// The CPU time of a worker never decreases, also when it restarts.
#[test]
fn a_worker_that_restarts_keeps_its_cpu_time() {
    let relay = relay("127.1.12.31");
    let worked = |relay: &Relay| relay.workers().stats()[0].cpu;
    relay.allocated(Transport::Udp);
    let before = worked(&relay);
    assert!(before > Duration::ZERO);
    relay.workers().panic(0);
    relay.wait_for("the worker panicked", |stats| stats.panics == 1);
    let after = worked(&relay);
    assert!(after > before, "{after:?} {before:?}");
    relay.allocated(Transport::Udp);
    relay.workers().stop();
    assert!(worked(&relay) >= after, "it stays when the thread has ended");
    relay.stop();
}

/// A worker that restarts after a panic serves the listeners that were added before.
#[test]
fn a_restarted_worker_serves_added_listeners() {
    let relay = relay("127.1.12.3");
    let config = relay.setup.datapath();
    let group = Arc::new(ListenerGroup::open(any_port("127.1.12.4"), &config, 7).unwrap());
    let added = group.local_addr();
    block_on(relay.workers().listen(group)).unwrap();
    relay.workers().panic(0);
    relay.wait_for("the worker panicked", |stats| stats.panics == 1);
    assert_eq!(Client::over_udp(added).allocate(&[]).code(), 0);
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 0);
    relay.stop();
}

/// New allocations use the new relay addresses; allocations on a removed address stay.
#[test]
fn relay_addresses_are_replaced() {
    let relay = relay("127.1.12.5");
    let peer = peer();
    let mut before = relay.allocated(Transport::Udp);
    before.bind(0x4001, addr(&peer));
    let mut snapshot = relay.setup.snapshot(Some(relay.identities.clone()));
    let new: IpAddr = "127.1.12.6".parse().unwrap();
    snapshot.relay = vec![new];
    block_on(relay.workers().apply(snapshot)).unwrap();
    let mut after = relay.allocated(Transport::Udp);
    assert_eq!(after.relayed[0].ip(), new);
    after.bind(0x4001, addr(&peer));
    for client in [&mut before, &mut after] {
        client.send(&channel_message(0x4001, b"through"));
        let (data, from) = receive(&peer);
        assert_eq!((&data[..], from), (&b"through"[..], client.relayed[0]));
    }
    relay.stop();
}

/// A client gets a relayed address that is the one it came in by, over every transport, while there are others.
#[test]
fn the_relayed_address_is_the_one_that_the_client_came_in_by() {
    let addresses = ["127.1.12.22", "127.1.12.23"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let setup = setup("127.1.12.22");
    let udp = addresses.map(|ip| SocketAddr::new(ip, 0)).to_vec();
    let relay = Relay::start(Setup { udp, relay: addresses.to_vec(), ..setup });
    for (server, ip) in relay.udp.iter().zip(addresses) {
        for _ in 0..4 {
            let mut client = Client::over_udp(*server);
            assert_eq!(client.allocate_own_family().code(), 0);
            assert_eq!(client.relayed[0].ip(), ip);
        }
    }
    relay.stop();
    let addresses = ["127.1.12.25", "127.1.12.24"].map(|ip| ip.parse().unwrap());
    let relay = Relay::start(Setup { relay: addresses.to_vec(), ..self::setup("127.1.12.24") });
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        for _ in 0..4 {
            assert_eq!(relay.allocated(transport).relayed[0].ip(), addresses[1]);
        }
    }
    relay.stop();
}

/// A thread that does nothing is silent until it goes on.
#[test]
fn a_blocked_worker_is_silent() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.12.26") });
    block_on(relay.workers().block(1, Duration::from_secs(2)));
    let silent = block_on(relay.workers().silent_threads(Duration::from_millis(300)));
    assert_eq!(silent.iter().map(|thread| (thread.worker, thread.stages)).collect::<Vec<_>>(), [(1, false)]);
    assert_eq!(block_on(relay.workers().silent_threads(Duration::from_secs(20))), []);
    relay.stop();
}

/// New limits apply to new allocations; existing allocations beyond them stay.
#[test]
fn limits_are_replaced() {
    let relay = relay("127.1.12.7");
    let mut first = relay.allocated(Transport::Udp);
    let apply = |user_allocations| {
        let setup = Setup { user_allocations, ..setup("127.1.12.7") };
        let snapshot = setup.snapshot(Some(relay.identities.clone()));
        block_on(relay.workers().apply(snapshot)).unwrap();
    };
    apply(1);
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 486);
    assert_eq!(first.refresh(600).code(), 0);
    apply(2);
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 0);
    relay.stop();
}

/// Every thread responds while it is idle, while it serves clients and after a panic.
#[test]
fn threads_respond() {
    let relay = Relay::start(Setup { workers: 2, ..setup("127.1.12.8") });
    let silent = || block_on(relay.workers().silent_threads(Duration::from_secs(20)));
    assert_eq!(silent(), []);
    let _client = relay.allocated(Transport::Tls);
    assert_eq!(silent(), []);
    relay.workers().panic(1);
    relay.wait_for("the worker panicked", |stats| stats.panics == 1);
    assert_eq!(silent(), []);
    relay.workers().stop();
    let limit = Duration::from_millis(200);
    assert_eq!(block_on(relay.workers().silent_threads(limit)).len(), 4, "all threads have ended");
}
