//! Requests that a client sends without waiting for the responses to earlier ones (RFC 8489 section 6.2.2).

use hairpin::turn::Transport;
use hairpin::wire::{Method, TransactionId, attribute};

use crate::client::{Client, Reply, padded_channel_message};
use crate::world::{addr, peer, receive, relay};

fn lifetime(seconds: u32) -> (u16, Vec<u8>) {
    (attribute::LIFETIME, seconds.to_be_bytes().to_vec())
}

fn channel(number: u16) -> (u16, Vec<u8>) {
    (attribute::CHANNEL_NUMBER, (u32::from(number) << 16).to_be_bytes().to_vec())
}

/// The error codes of the responses, 0 for success, which must be in the order of the requests.
fn codes(client: &mut Client, requests: &[Vec<u8>]) -> Vec<u16> {
    let code = |request: &Vec<u8>| {
        let reply = Reply(client.message());
        assert_eq!(reply.0[8..20], request[8..20], "the transaction ID");
        reply.code()
    };
    requests.iter().map(code).collect()
}

/// Sends all messages at once: in one write over a stream, otherwise as consecutive datagrams.
fn send(client: &mut Client, transport: Transport, messages: &[Vec<u8>]) {
    match transport {
        Transport::Udp => messages.iter().for_each(|message| client.send(message)),
        Transport::Tcp | Transport::Tls => client.send(&messages.concat()),
    }
}

/// RFC 8489 §6.2.2, RFC 8656 §7: requests after an Allocate request find the allocation.
#[test]
fn requests_after_an_allocate_find_the_allocation() {
    let relay = relay("127.1.13.1");
    for transport in Transport::ALL {
        let peer = peer();
        let addr = addr(&peer);
        for _ in 0..10 {
            let mut client = relay.client(transport);
            assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
            let requests = vec![
                client.request(Method::Allocate, &Client::allocation(), &[]),
                client.request(Method::CreatePermission, &[], &[addr]),
                client.request(Method::ChannelBind, &[channel(0x4001)], &[addr]),
                client.request(Method::Refresh, &[lifetime(900)], &[]),
            ];
            send(&mut client, transport, &requests);
            assert_eq!(codes(&mut client, &requests), [0, 0, 0, 0], "{transport:?}");
            client.send(&padded_channel_message(0x4001, b"hello"));
            assert_eq!(receive(&peer).0, b"hello");
        }
    }
    relay.stop();
}

/// RFC 8656 §8: a Refresh request with lifetime 0 after an Allocate request deletes the allocation, and another Allocate request
/// creates a new one.
#[test]
fn a_deletion_after_an_allocate() {
    let relay = relay("127.1.13.2");
    for transport in Transport::ALL {
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
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

/// Data after Allocate and ChannelBind requests is relayed to the peer.
#[test]
fn data_after_an_allocate_is_relayed() {
    let relay = relay("127.1.13.3");
    for transport in [Transport::Tcp, Transport::Tls] {
        let peer = peer();
        let addr = addr(&peer);
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
        let mut messages = vec![
            client.request(Method::Allocate, &Client::allocation(), &[]),
            client.request(Method::ChannelBind, &[channel(0x4001)], &[addr]),
        ];
        let requests = messages.clone();
        messages.extend((0..20).map(|n| padded_channel_message(0x4001, &[n; 33])));
        client.send(&messages.concat());
        assert_eq!(codes(&mut client, &requests), [0, 0]);
        (0..20).for_each(|n| assert_eq!(receive(&peer).0, [n; 33]));
    }
    relay.stop();
}

/// A retransmitted Allocate request gets a success response again, and a new one error 437, also in the same write.
#[test]
fn a_retransmitted_and_a_second_allocate() {
    let relay = relay("127.1.13.4");
    for transport in Transport::ALL {
        let mut client = relay.client(transport);
        assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
        let first = client.request(Method::Allocate, &Client::allocation(), &[]);
        let second = client.request(Method::Allocate, &Client::allocation(), &[]);
        assert_ne!(TransactionId(first[8..20].try_into().unwrap()).0, second[8..20]);
        let requests = vec![first.clone(), first, second];
        send(&mut client, transport, &requests);
        assert_eq!(codes(&mut client, &requests), [0, 0, 437], "{transport:?}");
    }
    relay.stop();
}
