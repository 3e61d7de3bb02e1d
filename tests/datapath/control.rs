//! Requests from UDP clients: addresses, quotas, reservations and expiry.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use hairpin::turn::{Lifetimes, Transport};
use hairpin::wire::{Method, attribute};

use crate::client::{Client, channel_message};
use crate::world::{Relay, Setup, addr, assert_silent, ipv6, peer, peer_like, receive, setup};

const DUAL: (u16, &[u8]) = (attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
const PAIR: (u16, &[u8]) = (attribute::EVEN_PORT, &[0x80]);

fn with((kind, value): (u16, &[u8])) -> Vec<(u16, Vec<u8>)> {
    vec![(kind, value.to_vec())]
}

fn token(token: &[u8]) -> Vec<(u16, Vec<u8>)> {
    with((attribute::RESERVATION_TOKEN, token))
}

/// RFC 8656 §7.2: responses and data are sent from the address and port that the client used, also by wildcard listeners.
#[test]
fn responses_come_from_the_address_that_the_client_used() {
    let v6 = ipv6().map(|ip| ("[::]:0", vec!["::1".to_owned(), ip.to_string()]));
    let v4 = ("0.0.0.0:0", vec!["127.1.1.1".to_owned(), "127.1.1.2".to_owned()]);
    for (wildcard, addresses) in std::iter::once(v4).chain(v6) {
        let setup = Setup { udp: vec![wildcard.parse().unwrap()], ..setup(&addresses[0]) };
        let relay = Relay::start(setup);
        let port = relay.udp[0].port();
        for ip in addresses {
            let peer = peer_like(&ip);
            // The client checks the source address of everything that it receives.
            let mut client = Client::over_udp(SocketAddr::new(ip.parse().unwrap(), port));
            assert_eq!(client.allocate_own_family().code(), 0);
            client.bind(0x4001, addr(&peer));
            peer.send_to(b"hello", client.relayed[0]).unwrap();
            assert_eq!(client.channel_data(), (0x4001, b"hello".to_vec()));
            assert_eq!(client.refresh(0).code(), 0);
        }
        relay.stop();
    }
}

/// RFC 8656 §7.2: a dual allocation relays in both families.
#[test]
fn a_dual_allocation() {
    let Some(_) = ipv6() else { return };
    let relay = Relay::start(Setup {
        relay: vec!["127.1.1.3".parse().unwrap(), "::1".parse().unwrap()],
        ..setup("127.1.1.3")
    });
    let mut client = relay.client(Transport::Udp);
    assert_eq!(client.allocate(&with(DUAL)).code(), 0);
    assert_eq!(client.relayed.len(), 2);
    for (n, ip) in [(0, "127.1.1.3"), (1, "::1")] {
        let peer = peer_like(ip);
        let channel = 0x4001 + n;
        client.bind(channel, addr(&peer));
        client.send(&channel_message(channel, b"there"));
        assert_eq!(receive(&peer), (b"there".to_vec(), client.relayed[usize::from(n)]));
        peer.send_to(b"back", client.relayed[usize::from(n)]).unwrap();
        assert_eq!(client.channel_data(), (channel, b"back".to_vec()));
    }
    relay.stop();
}

/// RFC 8656 §7.2: a user's quota is shared by all 5-tuples and workers, and deleted allocations no longer count.
#[test]
fn a_quota_is_shared_by_all_workers() {
    let relay = Relay::start(Setup { workers: 4, user_allocations: 20, ..setup("127.1.1.4") });
    let mut clients: Vec<_> = (0..40).map(|_| relay.client(Transport::Udp)).collect();
    let codes: Vec<_> = clients.iter_mut().map(|client| client.allocate(&[]).code()).collect();
    assert_eq!(
        (codes.iter().filter(|&&c| c == 0).count(), codes.iter().filter(|&&c| c == 486).count()),
        (20, 20)
    );
    relay.wait_for("all allocations are counted", |stats| stats.turn.allocations == 20);
    assert!(relay.workers().stats().iter().all(|stats| stats.turn.allocations > 0));

    let mut bob = relay.client(Transport::Udp);
    bob.user = "bob";
    assert_eq!(bob.allocate(&[]).code(), 0, "the quota is per user");
    let first = codes.iter().position(|&code| code == 0).unwrap();
    assert_eq!(clients[first].refresh(0).code(), 0);
    let last = codes.iter().position(|&code| code == 486).unwrap();
    assert_eq!(clients[last].allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §7.2: 508 when no port is free; a refused request uses no quota.
#[test]
fn ports_run_out() {
    let relay = Relay::start(Setup { workers: 2, ports: 30_000..=30_007, ..setup("127.1.1.5") });
    let mut clients: Vec<_> = (0..9).map(|_| relay.client(Transport::Udp)).collect();
    let codes: Vec<_> = clients.iter_mut().map(|client| client.allocate(&[]).code()).collect();
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 0, 0, 508]);
    assert_eq!(clients[3].refresh(0).code(), 0);
    assert_eq!(clients[8].allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §7.2: a token is claimed from any 5-tuple, on any worker, and only once.
#[test]
fn tokens_are_claimed_from_other_5_tuples() {
    let relay = Relay::start(Setup { workers: 4, ..setup("127.1.1.6") });
    for n in 0..32 {
        let mut maker = relay.client(Transport::Udp);
        let made = maker.allocate(&with(PAIR));
        assert_eq!(made.code(), 0);
        let bytes = made.attribute(attribute::RESERVATION_TOKEN).unwrap().value.to_vec();
        let mut claimer = relay.client(Transport::Udp);
        claimer.user = if n % 2 == 0 { "alice" } else { "bob" };
        assert_eq!(claimer.allocate(&token(&bytes)).code(), 0);
        assert_eq!(
            (maker.relayed[0].port() % 2, claimer.relayed[0].port()),
            (0, maker.relayed[0].port() + 1)
        );
        assert_eq!(relay.client(Transport::Udp).allocate(&token(&bytes)).code(), 508, "only once");

        let peer = peer();
        claimer.bind(0x4001, addr(&peer));
        peer.send_to(b"hello", claimer.relayed[0]).unwrap();
        assert_eq!(claimer.channel_data(), (0x4001, b"hello".to_vec()));
    }
    relay.stop();
}

/// RFC 8656 §7.2: a reservation that is not claimed expires and releases its port, even if no packet arrives.
#[test]
fn a_reservation_expires() {
    let relay = Relay::start(Setup { reservation_lifetime: 1, ports: 30_000..=30_001, ..setup("127.1.1.7") });
    let mut maker = relay.client(Transport::Udp);
    let made = maker.allocate(&with(PAIR));
    let bytes = made.attribute(attribute::RESERVATION_TOKEN).unwrap().value.to_vec();
    let reserved = (maker.relayed[0].ip(), 30_001);
    assert!(UdpSocket::bind(reserved).is_err());
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 508);
    sleep(Duration::from_millis(1300));
    assert!(UdpSocket::bind(reserved).is_ok());
    assert_eq!(relay.client(Transport::Udp).allocate(&token(&bytes)).code(), 508);
    assert_eq!(relay.client(Transport::Udp).allocate(&[]).code(), 0);
    relay.stop();
}

/// RFC 8656 §8: an allocation that is not refreshed expires, even if no packet arrives.
#[test]
fn an_allocation_expires() {
    let lifetimes = Lifetimes { allocation_lifetime: 1, max_allocation_lifetime: 1, ..Lifetimes::default() };
    let relay = Relay::start(Setup { lifetimes, ..setup("127.1.1.8") });
    let mut client = relay.allocated(Transport::Udp);
    let peer = peer();
    client.bind(0x4001, addr(&peer));
    assert!(UdpSocket::bind(client.relayed[0]).is_err());
    sleep(Duration::from_millis(1300));
    assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    peer.send_to(b"hello", client.relayed[0]).unwrap();
    assert_silent(client.udp());
    assert_eq!(client.refresh(600).code(), 437);
    relay.wait_for("everything has ended", |stats| stats.turn.allocations == 0 && stats.turn.channels == 0);
    relay.stop();
}

/// Stopping closes every socket: ports and listener addresses can be bound again immediately.
#[test]
fn stopping_closes_everything() {
    let relay = Relay::start(Setup { workers: 3, ..setup("127.1.1.9") });
    let clients: Vec<_> = (0..12).map(|_| relay.allocated(Transport::Udp)).collect();
    let listener = relay.udp[0];
    assert!(UdpSocket::bind(listener).is_err());
    relay.stop();
    for client in clients {
        assert!(UdpSocket::bind(client.relayed[0]).is_ok());
    }
    let again = Relay::start(Setup { udp: vec![listener], workers: 1, ..setup("127.1.1.9") });
    assert_eq!(again.udp, [listener]);
    again.stop();
}

/// RFC 8489 §6.3.1: Binding on every listener of a relay.
#[test]
fn several_listeners() {
    let listen =
        vec!["127.1.1.10:0".parse().unwrap(), "127.1.1.11:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let relay = Relay::start(Setup { workers: 2, udp: listen, ..setup("127.1.1.10") });
    for &listener in &relay.udp {
        let mut client = Client::over_udp(listener);
        let reply = client.ask(Method::Binding, &[], &[]);
        let mapped = reply.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address().unwrap();
        assert_eq!(mapped, addr(client.udp()));
    }
    relay.stop();
}
