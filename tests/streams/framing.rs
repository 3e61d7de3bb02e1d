//! Messages however they arrive, and what is no message.

use std::net::Shutdown;
use std::thread::sleep;
use std::time::Duration;

use hairpin::datapath::stream::stats::{ConnectionEnd, StreamCounters};
use hairpin::turn::Transport;
use hairpin::turn::stats::Dropped;
use hairpin::wire::Method;

use crate::client::channel_message;
use crate::world::{BOTH, peer, receive, relay};

/// RFC 8489 §6.2.2: a message split at every byte, over both.
#[test]
fn split_at_every_byte() {
    let relay = relay("127.1.6.1");
    for transport in BOTH {
        let (mut client, peer) = (relay.allocated(transport), peer());
        client.bind(0x4001, &peer);
        let request = client.request(Method::Refresh, &[], &[]);
        let data = channel_message(0x4001, b"hello");
        for message in [&request, &data] {
            for at in 1..message.len() {
                client.send(&message[..at]);
                if at % 8 == 1 {
                    // Long enough for the first part to be read by itself.
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

/// RFC 8489 §6.2.2: many requests in one write are answered each, in order.
#[test]
fn many_requests_in_one_write() {
    let relay = relay("127.1.6.2");
    for transport in BOTH {
        let mut client = relay.client(transport);
        let requests: Vec<_> = (0..2000).map(|_| client.request(Method::Binding, &[], &[])).collect();
        client.send(&requests.concat());
        for request in &requests {
            assert_eq!(client.message()[8..20], request[8..20], "the transaction id");
        }
    }
    relay.stop();
}

/// RFC 8489 §6.3: what is framed but malformed is discarded, and the stream stays.
#[test]
fn malformed_messages_are_discarded() {
    let relay = relay("127.1.6.3");
    for transport in BOTH {
        let mut client = relay.client(transport);
        let mut wrong_cookie = client.request(Method::Allocate, &[], &[]);
        wrong_cookie[4] ^= 1;
        let mut bad_length = client.request(Method::Binding, &[(0x8022, vec![1; 4])], &[]);
        bad_length[22..24].copy_from_slice(&[0xFF, 0xFF]);
        for message in [wrong_cookie, bad_length, vec![0x3F; 20 + 0x3F3F], channel_message(0x4001, b"nobody")]
        {
            client.send(&message);
            assert_eq!(client.binding().code(), 0);
        }
    }
    relay.wait_for("both are counted", |stats| {
        stats.turn.dropped(Dropped::Malformed) == 4 && stats.turn.dropped(Dropped::NoAllocation) == 2
    });
    relay.stop();
}

/// RFC 8656 §12, Table 2: what cannot be framed closes the stream, 0x5000 to 0x7FFF too, at once; and what came before
/// is answered.
#[test]
fn garbage_closes_the_stream() {
    let relay = relay("127.1.6.4");
    let garbage = [&[0x50, 0, 0, 0][..], &[0x7F, 0xFF, 0, 0], b"\x80", b"\xFF\xFF", b"SSH-2.0-OpenSSH\r\n"];
    for transport in BOTH {
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

/// A TLS client on the TCP port, and a TCP client on the TLS port: closed or left waiting for their deadline, and no
/// harm done.
#[test]
fn the_other_port() {
    let relay = relay("127.1.6.5");
    let mut client = crate::client::Client::over_tcp(relay.tls);
    let request = client.request(Method::Binding, &[], &[]);
    client.send(&request);
    let _ = client.socket().shutdown(Shutdown::Write);
    let ended = std::io::Read::read_to_end(&mut client.socket(), &mut Vec::new());
    assert!(ended.is_ok_and(|len| len < 10), "an alert at most");
    relay.wait_for("counted", |stats| stats.sockets.streams.handshakes_failed.sum() == 1);
    assert_eq!(relay.stats().sockets.streams.open, [0, 0]);
    assert_eq!(StreamCounters::index(Transport::Tls), 1);
    relay.stop();
}
