//! Splitting a stream into messages, and framing errors.

use std::net::Shutdown;
use std::thread::sleep;
use std::time::Duration;

use hairpin::datapath::stream::stats::{ConnectionEnd, StreamCounters};
use hairpin::turn::Transport;
use hairpin::turn::stats::Dropped;
use hairpin::wire::Method;

use crate::client::{Client, padded_channel_message};
use crate::world::{STREAMS, addr, peer, receive, relay};

/// RFC 8489 §6.2.2: messages are split at every byte.
#[test]
fn split_at_every_byte() {
    let relay = relay("127.1.6.1");
    for transport in STREAMS {
        let (mut client, peer) = (relay.allocated(transport), peer());
        client.bind(0x4001, addr(&peer));
        let request = client.request(Method::Refresh, &[], &[]);
        let data = padded_channel_message(0x4001, b"hello");
        for message in [&request, &data] {
            for at in 1..message.len() {
                client.send(&message[..at]);
                if at % 8 == 1 {
                    // Long enough for the relay to read the first part separately.
                    sleep(Duration::from_millis(1));
                }
                client.send(&message[at..]);
                if message == &data {
                    assert_eq!(receive(&peer).0, b"hello");
                } else {
                    client.message();
                }
            }
        }
        for byte in data.chunks(1) {
            client.send(byte);
        }
        assert_eq!(receive(&peer).0, b"hello");
    }
    relay.stop();
}

/// RFC 8489 §6.2.2: each of many requests in one write gets a response, in order.
#[test]
fn many_requests_in_one_write() {
    let relay = relay("127.1.6.2");
    for transport in STREAMS {
        let mut client = relay.client(transport);
        let requests: Vec<_> = (0..2000).map(|_| client.request(Method::Binding, &[], &[])).collect();
        client.send(&requests.concat());
        for request in &requests {
            assert_eq!(client.message()[8..20], request[8..20], "the transaction ID");
        }
    }
    relay.stop();
}

/// RFC 8489 §6.3: a malformed message that can be framed is discarded, and the stream stays open.
#[test]
fn malformed_messages_are_discarded() {
    let relay = relay("127.1.6.3");
    for transport in STREAMS {
        let mut client = relay.client(transport);
        let mut wrong_cookie = client.request(Method::Allocate, &[], &[]);
        wrong_cookie[4] ^= 1;
        let mut bad_length = client.request(Method::Binding, &[(0x8022, vec![1; 4])], &[]);
        bad_length[22..24].copy_from_slice(&[0xFF, 0xFF]);
        for message in
            [wrong_cookie, bad_length, vec![0x3F; 20 + 0x3F3F], padded_channel_message(0x4001, b"nobody")]
        {
            client.send(&message);
            assert_eq!(client.binding().code(), 0);
        }
    }
    relay.wait_for("the messages are counted", |stats| {
        stats.turn.dropped(Dropped::Malformed) == 4 && stats.turn.dropped(Dropped::NoAllocation) == 2
    });
    relay.stop();
}

/// RFC 8656 §12, Table 2: a framing error, also 0x5000 to 0x7FFF, closes the stream immediately, but requests before it get
/// responses.
#[test]
fn framing_errors_close_the_stream() {
    let relay = relay("127.1.6.4");
    let garbage = [&[0x50, 0, 0, 0][..], &[0x7F, 0xFF, 0, 0], b"\x80", b"\xFF\xFF", b"SSH-2.0-OpenSSH\r\n"];
    for transport in STREAMS {
        for garbage in garbage {
            let mut client = relay.client(transport);
            let request = client.request(Method::Binding, &[], &[]);
            client.send(&[&request, garbage].concat());
            client.message();
            client.assert_closed();
            let mut allocated = relay.allocated(transport);
            allocated.send(garbage);
            allocated.assert_closed();
        }
    }
    relay.wait_for_ends(ConnectionEnd::Unframed, [10, 10]);
    relay.wait_until_empty();
    relay.stop();
}

/// A TCP client on the TLS port is disconnected.
#[test]
fn a_tcp_client_on_the_tls_port() {
    let relay = relay("127.1.6.5");
    let mut client = Client::over_tcp(relay.tls);
    let request = client.request(Method::Binding, &[], &[]);
    client.send(&request);
    let _ = client.tcp().shutdown(Shutdown::Write);
    let ended = std::io::Read::read_to_end(&mut client.tcp(), &mut Vec::new());
    assert!(ended.is_ok_and(|len| len < 10), "an alert at most");
    relay.wait_for("the failure is counted", |stats| stats.sockets.streams.handshakes_failed.sum() == 1);
    assert_eq!(relay.stats().sockets.streams.open, [0, 0]);
    assert_eq!(StreamCounters::index(Transport::Tls), 1);
    relay.stop();
}
