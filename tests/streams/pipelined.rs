//! Requests that a client sends without waiting for the responses to earlier ones (RFC 8489 section 6.2.2).

use hairpin::turn::Transport;
use hairpin::wire::{Method, TransactionId, attribute};

use crate::client::{Client, Reply, channel_message};
use crate::world::{peer, receive, relay};

fn lifetime(seconds: u32) -> (u16, Vec<u8>) {
    (attribute::LIFETIME, seconds.to_be_bytes().to_vec())
}

fn channel(number: u16) -> (u16, Vec<u8>) {
    (attribute::CHANNEL_NUMBER, (u32::from(number) << 16).to_be_bytes().to_vec())
}

/// The error codes of the responses, in order; 0 is success. Each response belongs to its request.
fn codes(client: &mut Client, requests: &[Vec<u8>]) -> Vec<u16> {
    let code = |request: &Vec<u8>| {
        let reply = Reply(client.message());
        assert_eq!(reply.0[8..20], request[8..20], "the transaction id");
        reply.code()
    };
    requests.iter().map(code).collect()
}

/// Sends all messages at once: in one write to a connection, back to back as datagrams.
fn send(client: &mut Client, transport: Transport, messages: &[Vec<u8>]) {
    match transport {
        Transport::Udp => messages.iter().for_each(|message| client.send(message)),
        Transport::Tcp | Transport::Tls => client.send(&messages.concat()),
    }
}

/// RFC 8489 §6.2.2, RFC 8656 §7: what follows an Allocate at once finds the allocation, over every transport.
#[test]
fn requests_behind_an_allocate_find_the_allocation() {
    let relay = relay("127.1.9.1");
    for transport in Transport::ALL {
        let peer = peer();
        let addr = peer.local_addr().unwrap();
        for _ in 0..10 {
            let mut client = relay.client(transport);
            assert_eq!(client.refresh(600).code(), 437, "only to get a nonce");
            let requests = vec![
                client.request(Method::Allocate, &Client::allocation(), &[]),
                client.request(Method::CreatePermission, &[], &[addr]),
                client.request(Method::ChannelBind, &[channel(0x4001)], &[addr]),
                client.request(Method::Refresh, &[lifetime(900)], &[]),
            ];
            send(&mut client, transport, &requests);
            assert_eq!(codes(&mut client, &requests), [0, 0, 0, 0], "{transport:?}");
            client.send(&channel_message(0x4001, b"hello"));
            assert_eq!(receive(&peer).0, b"hello");
        }
    }
    relay.stop();
}

/// RFC 8656 §8: a Refresh with lifetime 0 right behind the Allocate leaves no relayed address open, and a second
/// Allocate behind that makes a new allocation.
#[test]
fn a_deletion_behind_an_allocate_deletes_it() {
    let relay = relay("127.1.9.2");
    for transport in Transport::ALL {
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "only to get a nonce");
        let requests = vec![
            client.request(Method::Allocate, &Client::allocation(), &[]),
            client.request(Method::Refresh, &[lifetime(0)], &[]),
            client.request(Method::Allocate, &Client::allocation(), &[]),
            client.request(Method::Refresh, &[lifetime(0)], &[]),
        ];
        send(&mut client, transport, &requests);
        assert_eq!(codes(&mut client, &requests), [0, 0, 0, 0], "{transport:?}");
        relay.wait_for("no allocation is left", |stats| stats.turn.allocations == 0);
    }
    relay.stop();
}

/// Data behind an Allocate, its permission and its channel goes to the peer.
#[test]
fn data_behind_an_allocate_is_relayed() {
    let relay = relay("127.1.9.3");
    for transport in [Transport::Tcp, Transport::Tls] {
        let peer = peer();
        let addr = peer.local_addr().unwrap();
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "only to get a nonce");
        let mut messages = vec![
            client.request(Method::Allocate, &Client::allocation(), &[]),
            client.request(Method::ChannelBind, &[channel(0x4001)], &[addr]),
        ];
        let requests = messages.clone();
        messages.extend((0..20).map(|n| channel_message(0x4001, &[n; 33])));
        client.send(&messages.concat());
        assert_eq!(codes(&mut client, &requests), [0, 0]);
        (0..20).for_each(|n| assert_eq!(receive(&peer).0, [n; 33]));
    }
    relay.stop();
}

/// Its transaction id tells a retransmitted Allocate from a second one, also in the same write.
#[test]
fn a_repeated_allocate_is_answered_twice_and_a_second_one_refused() {
    let relay = relay("127.1.9.4");
    for transport in Transport::ALL {
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "only to get a nonce");
        let first = client.request(Method::Allocate, &Client::allocation(), &[]);
        let second = client.request(Method::Allocate, &Client::allocation(), &[]);
        assert_ne!(TransactionId(first[8..20].try_into().unwrap()).0, second[8..20]);
        let requests = vec![first.clone(), first, second];
        send(&mut client, transport, &requests);
        assert_eq!(codes(&mut client, &requests), [0, 0, 437], "{transport:?}");
    }
    relay.stop();
}
