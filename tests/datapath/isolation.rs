//! Isolation between workers, and between requests and data.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hairpin::turn::Transport;

use crate::client::channel_message;
use crate::world::{Relay, Setup, addr, peer, receive, setup};

/// After a worker has panicked, its clients get error 437, the resources of its allocations are free again, and it serves new
/// allocations.
#[test]
fn a_panicking_worker_restarts_empty() {
    let relay = Relay::start(Setup { workers: 4, user_allocations: 32, ..setup("127.1.2.1") });
    let mut clients: Vec<_> = (0..32).map(|_| relay.allocated(Transport::Udp)).collect();
    let peer = peer();
    clients.iter_mut().for_each(|client| client.bind(0x4001, addr(&peer)));
    relay.wait_for("all are counted", |stats| stats.turn.allocations == 32 && stats.turn.channels == 32);
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 486);
    let lost = relay.workers().stats()[2].turn.allocations;
    assert!(lost > 0, "the worker has clients");

    relay.workers().panic(2);
    relay.wait_for("the worker restarts", |stats| stats.panics == 1 && stats.turn.allocations == 32 - lost);
    assert!(relay.stats().turn.allocations_total >= 32, "no counter goes backwards");

    let (mut ended, mut kept) = (0, 0);
    for client in &mut clients {
        match client.refresh(600).code() {
            437 => {
                assert!(UdpSocket::bind(client.relayed[0]).is_ok(), "its port is free");
                assert_eq!(
                    client.allocate(&[]).code(),
                    0,
                    "its quota is free, and its worker serves clients"
                );
                client.bind(0x4001, addr(&peer));
                ended += 1;
            }
            code => {
                assert_eq!(code, 0);
                kept += 1;
            }
        }
        client.send(&channel_message(0x4001, b"hello"));
        assert_eq!(receive(&peer), (b"hello".to_vec(), client.relayed[0]));
    }
    assert_eq!((ended, kept), (lost, 32 - lost));
    relay.stop();
}

/// Requests have a queue of their own: no data is lost when a worker receives more requests than it can process.
#[test]
fn a_flood_of_requests_drops_no_data() {
    let relay = Relay::start(setup("127.1.2.2"));
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    client.bind(0x4001, addr(&peer));
    let (stop, server) = (AtomicBool::new(false), relay.udp[0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.1.2.2:0").unwrap();
            // A Binding request.
            let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(&request, server);
            }
        });
        for n in 0..500u32 {
            client.send(&channel_message(0x4001, &n.to_be_bytes()));
            assert_eq!(receive(&peer).0, n.to_be_bytes());
        }
        stop.store(true, Ordering::Relaxed);
    });
    relay.stop();
}
