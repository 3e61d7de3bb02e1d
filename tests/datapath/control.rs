//! Requests and their answers: addresses, quotas, reservations and time.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use hairpin::turn::Lifetimes;
use hairpin::wire::{Method, attribute};

use crate::client::{Client, channel_message};
use crate::world::{Relay, Setup, addr, assert_silent, ipv6, peer, receive, setup};

const DUAL: (u16, &[u8]) = (attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
const PAIR: (u16, &[u8]) = (attribute::EVEN_PORT, &[0x80]);

fn with((kind, value): (u16, &[u8])) -> Vec<(u16, Vec<u8>)> {
    vec![(kind, value.to_vec())]
}

fn token(token: &[u8]) -> Vec<(u16, Vec<u8>)> {
    with((attribute::RESERVATION_TOKEN, token))
}

/// RFC 8656 §7.2: answers and data leave from the address and port that was asked, on wildcards too.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    let v6 = ipv6().map(|ip| ("[::]:0", vec!["::1".to_owned(), ip.to_string()]));
    let v4 = ("0.0.0.0:0", vec!["127.1.1.1".to_owned(), "127.1.1.2".to_owned()]);
    for (wildcard, addresses) in std::iter::once(v4).chain(v6) {
        let setup = Setup { udp: vec![wildcard.parse().unwrap()], ..setup(&addresses[0]) };
        let relay = Relay::start(setup);
        let port = relay.listeners[0].port();
        for ip in addresses {
            let peer = peer(&ip);
            // `ask` and `channel_data` see to it that everything comes from the address that the client knows.
            let mut client = Client::new(SocketAddr::new(ip.parse().unwrap(), port));
            assert_eq!(client.allocate_here().code(), 0);
            client.bind(0x4001, addr(&peer));
            peer.send_to(b"hello", client.relayed[0]).unwrap();
            assert_eq!(client.channel_data(), (0x4001, b"hello".to_vec()));
            assert_eq!(client.refresh(0).code(), 0);
        }
        relay.stop();
    }
}

/// RFC 8656 §7.2: a dual allocation relays in both families, from a client of either.
#[test]
fn a_dual_allocation() {
    let Some(_) = ipv6() else { return };
    let relay = Relay::start(Setup {
        relay: vec!["127.1.1.3".parse().unwrap(), "::1".parse().unwrap()],
        ..setup("127.1.1.3")
    });
    let mut client = relay.client();
    assert_eq!(client.allocate(&with(DUAL)).code(), 0);
    assert_eq!(client.relayed.len(), 2);
    for (n, ip) in [(0, "127.1.1.3"), (1, "::1")] {
        let peer = peer(ip);
        let channel = 0x4001 + n;
        client.bind(channel, addr(&peer));
        client.send(&channel_message(channel, b"there"));
        assert_eq!(receive(&peer), (b"there".to_vec(), client.relayed[usize::from(n)]));
        peer.send_to(b"back", client.relayed[usize::from(n)]).unwrap();
        assert_eq!(client.channel_data(), (channel, b"back".to_vec()));
    }
    relay.stop();
}

/// RFC 8656 §7.2: one user's quota is the same from every 5-tuple and on every worker; what ends is given back.
#[test]
fn a_quota_filled_from_many_ports() {
    let relay = Relay::start(Setup { workers: 4, user_allocations: 20, ..setup("127.1.1.4") });
    let mut clients: Vec<_> = (0..40).map(|_| relay.client()).collect();
    let codes: Vec<_> = clients.iter_mut().map(|client| client.allocate(&[]).code()).collect();
    assert_eq!(
        (codes.iter().filter(|&&c| c == 0).count(), codes.iter().filter(|&&c| c == 486).count()),
        (20, 20)
    );
    relay.wait_for("all workers serve", |stats| stats.turn.allocations == 20);
    assert!(relay.workers().stats().iter().all(|stats| stats.turn.allocations > 0));

    let mut bob = relay.client();
    bob.user = "bob";
    assert_eq!(bob.allocate(&[]).code(), 0, "the quota is a user's");
    let first = codes.iter().position(|&code| code == 0).unwrap();
    assert_eq!(clients[first].refresh(0).code(), 0);
    let last = codes.iter().position(|&code| code == 486).unwrap();
    assert_eq!(clients[last].allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §7.2: 508 when no port is left, and then what was refused costs nothing.
#[test]
fn ports_run_out() {
    let relay = Relay::start(Setup { workers: 2, ports: 30_000..=30_007, ..setup("127.1.1.5") });
    let mut clients: Vec<_> = (0..9).map(|_| relay.client()).collect();
    let codes: Vec<_> = clients.iter_mut().map(|client| client.allocate(&[]).code()).collect();
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 0, 0, 508]);
    assert_eq!(clients[3].refresh(0).code(), 0);
    assert_eq!(clients[8].allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §7.2: a token is redeemed from any 5-tuple, whichever worker that is on, and once.
#[test]
fn tokens_are_redeemed_from_other_5_tuples() {
    let relay = Relay::start(Setup { workers: 4, ..setup("127.1.1.6") });
    for n in 0..32 {
        let mut maker = relay.client();
        let made = maker.allocate(&with(PAIR));
        assert_eq!(made.code(), 0);
        let bytes = made.attribute(attribute::RESERVATION_TOKEN).unwrap().value.to_vec();
        let mut claimer = relay.client();
        claimer.user = if n % 2 == 0 { "alice" } else { "bob" };
        assert_eq!(claimer.allocate(&token(&bytes)).code(), 0);
        assert_eq!(
            (maker.relayed[0].port() % 2, claimer.relayed[0].port()),
            (0, maker.relayed[0].port() + 1)
        );
        assert_eq!(relay.client().allocate(&token(&bytes)).code(), 508, "only once");

        let peer = peer("127.1.1.6");
        claimer.bind(0x4001, addr(&peer));
        peer.send_to(b"hello", claimer.relayed[0]).unwrap();
        assert_eq!(claimer.channel_data(), (0x4001, b"hello".to_vec()));
    }
    relay.stop();
}

/// RFC 8656 §7.2: a reservation that nobody claims lapses: its port is free again, though no packet came.
#[test]
fn a_reservation_lapses() {
    let relay = Relay::start(Setup { reservation_lifetime: 1, ports: 30_000..=30_001, ..setup("127.1.1.7") });
    let mut maker = relay.client();
    let made = maker.allocate(&with(PAIR));
    let bytes = made.attribute(attribute::RESERVATION_TOKEN).unwrap().value.to_vec();
    let reserved = (maker.relayed[0].ip(), 30_001);
    assert!(UdpSocket::bind(reserved).is_err());
    assert_eq!(relay.client().allocate(&[]).code(), 508);
    sleep(Duration::from_millis(1300));
    assert!(UdpSocket::bind(reserved).is_ok());
    assert_eq!(relay.client().allocate(&token(&bytes)).code(), 508);
    assert_eq!(relay.client().allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §8: nobody refreshes, and the socket closes in its time, though no packet came.
#[test]
fn an_allocation_expires() {
    let lifetimes = Lifetimes { allocation_lifetime: 1, max_allocation_lifetime: 1, ..Lifetimes::default() };
    let relay = Relay::start(Setup { lifetimes, ..setup("127.1.1.8") });
    let mut client = relay.allocated();
    let peer = peer("127.1.1.8");
    client.bind(0x4001, addr(&peer));
    assert!(UdpSocket::bind(client.relayed[0]).is_err());
    sleep(Duration::from_millis(1300));
    assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    peer.send_to(b"hello", client.relayed[0]).unwrap();
    assert_silent(&client.socket);
    assert_eq!(client.refresh(600).code(), 437);
    relay.wait_for("gauges", |stats| stats.turn.allocations == 0 && stats.turn.channels == 0);
    relay.stop();
}

/// A stop closes every socket: ports and listeners can be had again at once.
#[test]
fn a_stop_closes_everything() {
    let relay = Relay::start(Setup { workers: 3, ..setup("127.1.1.9") });
    let clients: Vec<_> = (0..12).map(|_| relay.allocated()).collect();
    let listener = relay.listeners[0];
    assert!(UdpSocket::bind(listener).is_err());
    relay.stop();
    for client in clients {
        assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    }
    let again = Relay::start(Setup { udp: vec![listener], workers: 1, ..setup("127.1.1.9") });
    assert_eq!(again.listeners, [listener]);
    again.stop();
}

/// RFC 8489 §6.3.1: Binding, on every listener of a relay with several.
#[test]
fn several_listeners() {
    let listen =
        vec!["127.1.1.10:0".parse().unwrap(), "127.1.1.11:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let relay = Relay::start(Setup { workers: 2, udp: listen, ..setup("127.1.1.10") });
    for &listener in &relay.listeners {
        let mut client = Client::new(listener);
        let answer = client.ask(Method::Binding, &[], &[]);
        let mapped = answer.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address().unwrap();
        assert_eq!(mapped, addr(&client.socket));
    }
    relay.stop();
}
