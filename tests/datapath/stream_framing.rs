//! Splitting a stream into messages, and framing errors.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use hairpin::datapath::stream::stats::ConnectionEnd;
use hairpin::turn::Transport;
use hairpin::turn::stats::Dropped;
use hairpin::wire::{Method, attribute};

use crate::client::{Client, ClientSocket, connect, padded_channel_message, tls_over};
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

/// RFC 8489 §6.3: a malformed message that can be framed is discarded, and the stream stays open. So does one of a client
/// whose allocation has ended.
#[test]
fn malformed_messages_are_discarded() {
    let relay = relay("127.1.6.3");
    for transport in STREAMS {
        let mut client = relay.allocated(transport);
        assert_eq!(client.refresh(0).code(), 0);
        let mut unknown_method = client.request(Method::Binding, &[], &[]);
        unknown_method[..2].copy_from_slice(&[0x03, 0xEF]);
        let mut bad_attribute = client.request(Method::Binding, &[(0x8022, vec![1; 4])], &[]);
        bad_attribute[22..24].copy_from_slice(&[0xFF, 0xFF]);
        for message in [unknown_method, bad_attribute, padded_channel_message(0x4001, b"nobody")] {
            client.send(&message);
            assert_eq!(client.binding().code(), 0);
        }
    }
    relay.wait_for("the messages are counted", |stats| {
        stats.turn.dropped(Dropped::Malformed) == 4 && stats.turn.dropped(Dropped::NoAllocation) == 2
    });
    relay.stop();
}

/// RFC 8489 §5, RFC 8656 §12, RFC 7983 §7: bytes that can never become a message close the stream as soon as they show it,
/// whatever was sent before, but requests before them get responses.
#[test]
fn framing_errors_close_the_stream() {
    let relay = relay("127.1.6.4");
    let garbage = [
        &[0x04][..],
        &[0x3F],
        &[0x50, 0],
        &[0x7F, 0xFF, 0, 0],
        b"\x80",
        b"\xFF\xFF",
        b"SSH-2.0-OpenSSH\r\n",
        // A length that is not a multiple of four.
        &[0x00, 0x01, 0, 2],
        // A wrong cookie: in a request, in a Binding indication, in one that is not complete.
        &[0x00, 0x03, 0, 0, 0x21, 0x12, 0xA4, 0x43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x00, 0x11, 0, 0, 0x20],
        &[0x00, 0x16, 0, 8, 0],
    ];
    for transport in STREAMS {
        for garbage in garbage {
            let mut silent = relay.client(transport);
            silent.send(garbage);
            silent.assert_closed();
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
    // Those that do not begin like STUN are not served in the first place.
    relay.wait_for_ends(ConnectionEnd::NotServed, [7, 7]);
    relay.wait_for_ends(ConnectionEnd::Unframed, [26, 26]);
    relay.wait_until_empty();
    relay.stop();
}

/// The same byte by byte: the connection is closed with the first byte that no message has there.
#[test]
fn framing_errors_in_pieces() {
    let relay = relay("127.1.6.6");
    for transport in STREAMS {
        for (piece, wrong) in [(&[0x00, 0x03][..], &[0, 1][..]), (&[0x00, 0x03, 0, 8, 0x21, 0x12], &[0xA5])] {
            let mut client = relay.client(transport);
            client.send(piece);
            sleep(Duration::from_millis(50));
            let open = relay.stats().sockets.streams.open;
            assert_eq!(open.iter().sum::<u64>(), 1, "{piece:?} may be the start of a message");
            client.send(wrong);
            client.assert_closed();
        }
    }
    relay.wait_for_ends(ConnectionEnd::Unframed, [2, 2]);
    relay.stop();
}

/// RFC 3489: a classic Binding request has no cookie.
#[test]
fn a_classic_binding_request_over_a_stream() {
    let relay = relay("127.1.6.7");
    for transport in STREAMS {
        let mut client = relay.client(transport);
        let mut request = client.request(Method::Binding, &[], &[]);
        request[4..8].copy_from_slice(&[1, 2, 3, 4]);
        client.send(&request);
        let mut header = [0; 20];
        match &mut client.socket {
            ClientSocket::Tcp(socket) => socket.read_exact(&mut header).unwrap(),
            ClientSocket::Tls(tls) => tls.read_exact(&mut header).unwrap(),
            ClientSocket::Udp(_) => unreachable!(),
        }
        assert_eq!((&header[..2], &header[4..]), (&[1, 1][..], &request[4..20]));
    }
    relay.stop();
}

/// RFC 8656 §12: there is no channel without an allocation. After one there may be, also if it was made in the same write.
#[test]
fn channel_data_needs_an_allocation() {
    let relay = relay("127.1.6.8");
    for transport in STREAMS {
        let mut client = relay.client(transport);
        assert_eq!(client.binding().code(), 0);
        client.send(&[0x40]);
        client.assert_closed();

        let (mut client, peer) = (relay.client(transport), peer());
        assert_eq!(client.refresh(600).code(), 437, "the client has a nonce");
        let number = (attribute::CHANNEL_NUMBER, vec![0x40, 1, 0, 0]);
        let allocate = client.request(Method::Allocate, &Client::allocation(), &[]);
        let bind = client.request(Method::ChannelBind, &[number], &[addr(&peer)]);
        client.send(&[allocate, bind, padded_channel_message(0x4001, b"at once")].concat());
        assert_eq!(receive(&peer).0, b"at once");
    }
    relay.wait_for_ends(ConnectionEnd::ChannelTooEarly, [1, 1]);
    relay.stop();
}

/// What a listener does not serve is closed with its first bytes and without an answer, with and without TLS, also where their first
/// byte is in the range of channels.
#[test]
fn other_protocols_are_not_served() {
    let relay = relay("127.1.6.9");
    for (n, transport) in STREAMS.into_iter().enumerate() {
        for (bytes, why) in [
            (&b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"[..], ConnectionEnd::NotServed),
            (b"HEAD / HTTP/1.0\r\n\r\n", ConnectionEnd::NotServed),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", ConnectionEnd::NotServed),
            (b"POST / HTTP/1.1\r\n\r\n", ConnectionEnd::NotServed),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ConnectionEnd::NotServed),
            (b"SSH-2.0-OpenSSH_9\r\n", ConnectionEnd::NotServed),
            (b"\xff\xfe\xfd\xfc", ConnectionEnd::NotServed),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 3478\r\n", ConnectionEnd::UntrustedProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C", ConnectionEnd::UntrustedProxyHeader),
        ] {
            // Nobody believes a header inside TLS.
            let why = if n == 1 { ConnectionEnd::NotServed } else { why };
            let before = relay.stats().sockets.streams.closed[n][why];
            let mut client = relay.client(transport);
            client.send(bytes);
            client.assert_closed();
            relay.wait_for(why.as_str(), |stats| stats.sockets.streams.closed[n][why] == before + 1);
        }
    }
    let mut nested = relay.client(Transport::Tls);
    nested.send(b"\x16\x03\x01\x02\0\x01");
    nested.assert_closed();
    relay.wait_until_empty();
    relay.stop();
}

/// Either port tells plain TURN and TLS apart by the first bytes, and what was established is the transport: in counters, in
/// responses, and for allocations.
#[test]
fn tls_and_plain_turn_on_either_port() {
    let relay = relay("127.1.6.5");
    let mut plain = [Client::over_tcp(relay.tls), Client::over_tcp(relay.tcp)];
    let mut encrypted = [tls_over(&relay, connect(relay.tcp)), tls_over(&relay, connect(relay.tls))];
    for client in plain.iter_mut().chain(&mut encrypted) {
        assert_eq!(client.allocate_own_family().code(), 0);
        let peer = peer();
        client.bind(0x4001, addr(&peer));
        client.send(&padded_channel_message(0x4001, b"out"));
        assert_eq!(receive(&peer).0, b"out");
        peer.send_to(b"back", client.relayed[0]).unwrap();
        assert_eq!(client.channel_data().1, b"back");
    }
    relay.wait_for("both transports count", |stats| {
        let streams = &stats.sockets.streams;
        (streams.open, streams.accepted, streams.handshakes.total()) == ([2, 2], [2, 2], 2)
    });
    drop((plain, encrypted));
    relay.wait_for_ends(ConnectionEnd::Client, [2, 2]);
    relay.stop();
}
