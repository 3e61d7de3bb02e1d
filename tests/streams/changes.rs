//! What changes while workers run: listeners, relay addresses, limits, and signs of life.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hairpin::datapath::ListenerGroup;
use hairpin::turn::Transport;
use tokio::runtime;

use crate::client::{Client, channel_message};
use crate::world::{Relay, peer, receive};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn addr(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

/// A listener that is added serves new clients; one that is removed serves no more; calls elsewhere go on.
#[test]
fn listeners_come_and_go() {
    let relay = Relay::start("127.1.10.1", |setup| setup.workers = 2);
    let (mut bystander, peer) = (relay.allocated(Transport::Udp), peer());
    bystander.bind(0x4001, &peer);
    let config = relay.setup.datapath();
    for round in 0..3 {
        let udp = Arc::new(ListenerGroup::open(addr("127.1.10.2"), &config, 7).unwrap());
        let tcp = Arc::new(ListenerGroup::open_stream(Transport::Tcp, addr("127.1.10.2"), &config).unwrap());
        let addresses = (udp.local_addr(), tcp.local_addr());
        for group in [udp, tcp] {
            block_on(relay.workers().listen(group)).unwrap();
        }
        for _ in 0..8 {
            assert_eq!(Client::over_udp(addresses.0).allocate().code(), 0, "round {round}");
            assert_eq!(Client::over_tcp(addresses.1).allocate().code(), 0, "round {round}");
        }
        block_on(relay.workers().unlisten(Transport::Udp, addresses.0));
        block_on(relay.workers().unlisten(Transport::Tcp, addresses.1));
        // Every owner drops its sockets in its own time; then the address is free.
        let free = || {
            let udp = ListenerGroup::open(addresses.0, &config, 7);
            udp.is_ok() && TcpStream::connect(addresses.1).is_err()
        };
        let freed = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            free()
        });
        assert!(freed, "round {round}");
        bystander.send(&channel_message(0x4001, b"still here"));
        assert_eq!(receive(&peer).0, b"still here");
    }
    relay.stop();
}

/// A worker that restarts after a panic serves the listeners that were added while it ran.
#[test]
fn a_restarted_worker_serves_what_was_added() {
    let relay = Relay::start("127.1.10.3", |_| {});
    let config = relay.setup.datapath();
    let group = Arc::new(ListenerGroup::open(addr("127.1.10.4"), &config, 7).unwrap());
    let added = group.local_addr();
    block_on(relay.workers().listen(group)).unwrap();
    relay.workers().panic(0);
    relay.wait_for("the worker panicked", |stats| stats.panics == 1);
    assert_eq!(Client::over_udp(added).allocate().code(), 0);
    assert_eq!(relay.client(Transport::Udp).allocate().code(), 0);
    relay.stop();
}

/// New allocations use the new relay addresses; those on an address that was removed go on.
#[test]
fn relay_addresses_come_and_go() {
    let relay = Relay::start("127.1.10.5", |_| {});
    let peer = peer();
    let mut before = relay.allocated(Transport::Udp);
    before.bind(0x4001, &peer);
    let mut snapshot = relay.setup.snapshot(Some(relay.identity.clone()));
    let new: IpAddr = "127.1.10.6".parse().unwrap();
    snapshot.relay = vec![new];
    block_on(relay.workers().apply(snapshot)).unwrap();
    let mut after = relay.allocated(Transport::Udp);
    assert_eq!(after.relayed[0].ip(), new);
    after.bind(0x4001, &peer);
    for client in [&mut before, &mut after] {
        client.send(&channel_message(0x4001, b"through"));
        let (data, from) = receive(&peer);
        assert_eq!((&data[..], from), (&b"through"[..], client.relayed[0]));
    }
    relay.stop();
}

/// Limits hold from the moment they are applied; what is beyond them already stays.
#[test]
fn limits_change() {
    let relay = Relay::start("127.1.10.7", |_| {});
    let mut first = relay.allocated(Transport::Udp);
    let apply = |user_allocations| {
        let mut snapshot = relay.setup.snapshot(Some(relay.identity.clone()));
        snapshot.user_allocations = user_allocations;
        block_on(relay.workers().apply(snapshot)).unwrap();
    };
    apply(1);
    assert_eq!(relay.client(Transport::Udp).allocate().code(), 486);
    assert_eq!(first.refresh(600).code(), 0);
    apply(2);
    assert_eq!(relay.client(Transport::Udp).allocate().code(), 0);
    relay.stop();
}

/// Every thread gives signs of life while it is idle, while it serves and after a panic.
#[test]
fn threads_give_signs_of_life() {
    let relay = Relay::start("127.1.10.8", |setup| setup.workers = 2);
    let silent = || block_on(relay.workers().silent_threads(Duration::from_secs(20)));
    assert_eq!(silent(), []);
    let _client = relay.allocated(Transport::Tls);
    assert_eq!(silent(), []);
    relay.workers().panic(1);
    relay.wait_for("the worker panicked", |stats| stats.panics == 1);
    assert_eq!(silent(), []);
    relay.workers().stop();
    let limit = Duration::from_millis(200);
    assert_eq!(block_on(relay.workers().silent_threads(limit)).len(), 4, "all of them have ended");
}
