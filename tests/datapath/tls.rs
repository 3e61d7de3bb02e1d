//! TLS versions, handshakes and records (RFC 8489 section 6.2.3).

use std::io::{Read, Write};
use std::sync::Arc;

use hairpin::datapath::stream::stats::{ConnectionEnd, HandshakeFailure};
use hairpin::tls::{CertificateName, Identities, Identity, NamedIdentity, Sessions, UnknownName};
use hairpin::turn::Transport;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::client::{Client, ClientSocket, connect, padded_channel_message, tls, tls_config};
use crate::world::{Relay, Setup, addr, block_on, peer, receive, relay, setup};

/// RFC 8489 §6.2.3: TLS 1.2 and 1.3; RFC 7443: ALPN is optional; RFC 7301 §3.1: a client that offers only other protocols
/// is served without ALPN.
#[test]
fn versions_and_alpn() {
    let relay = relay("127.1.10.1");
    for version in [&TLS12, &TLS13] {
        for (protocols, chosen) in [
            (&[][..], None),
            (&[&b"stun.turn"[..]][..], Some(&b"stun.turn"[..])),
            (&[b"stun.nat-discovery"], Some(b"stun.nat-discovery")),
            (&[b"x", b"stun.turn"], Some(b"stun.turn")),
            (&[b"http/1.1"], None),
            (&[b"h2"], None),
            (&[b"h2", b"http/1.1"], None),
            (&[b"webrtc", b"c-webrtc"], None),
        ] {
            let mut config = tls_config(&relay, version);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            let stream = tls(&relay, config).unwrap();
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            assert_eq!(stream.conn.alpn_protocol(), chosen);
            let (mut client, peer) = (Client::over_stream(ClientSocket::Tls(Box::new(stream))), peer());
            assert_eq!(client.allocate(&[]).code(), 0);
            client.bind(0x4001, addr(&peer));
            let data: Vec<u8> = (0..40_000).map(|n| (n / 3) as u8).collect();
            client.send(&padded_channel_message(0x4001, &data));
            assert!(receive(&peer).0 == data);
            peer.send_to(&data, client.relayed[0]).unwrap();
            assert!(client.channel_data().1 == data);
        }
    }
    relay.stop();
}

/// Failed handshakes are counted by reason.
#[test]
fn failed_handshakes() {
    let relay = relay("127.1.10.2");
    let failed = |why: HandshakeFailure| {
        relay.wait_for(why.as_str(), |stats| stats.sockets.streams.handshakes_failed[why] == 1);
    };
    // A handshake record with something else inside.
    connect(relay.tls).write_all(&[0x16, 3, 1, 0, 4, 9, 9, 9, 9]).unwrap();
    failed(HandshakeFailure::NotTls);
    connect(relay.tls).write_all(&[0x16, 3, 1]).unwrap();
    failed(HandshakeFailure::Gone);
    // A ClientHello of TLS 1.0, without cipher suites that are still in use.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 5, 1, 0]);
    connect(relay.tls).write_all(&hello).unwrap();
    failed(HandshakeFailure::NothingInCommon);
    let other = crate::world::relay("127.1.10.3");
    let config = tls_config(&other, &TLS13);
    other.stop();
    assert!(tls(&relay, config).is_err(), "the certificate is not trusted");
    failed(HandshakeFailure::Refused);
    assert_eq!(relay.client(Transport::Tls).binding().code(), 0);
    let stats = relay.stats().sockets.streams;
    assert_eq!(stats.handshakes_failed.sum(), 4);
    assert_eq!(stats.handshakes.total(), 1, "only successful ones have a duration");
    assert!(stats.handshakes.sum() > std::time::Duration::ZERO);
    relay.stop();
}

/// RFC 6066 §3: a client that asks for a name that is not served gets the alert unrecognized_name, is counted, and costs no
/// other client anything. A new set of certificates holds for new handshakes; open connections go on.
#[test]
fn unknown_names_get_an_alert() {
    let relay = relay("127.1.10.6");
    let mut before = relay.allocated(Transport::Tls);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["relay.example.org".into()]).unwrap();
    let identity = Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).unwrap();
    let names = vec![CertificateName::parse("relay.example.org").unwrap()];
    let named = NamedIdentity { identity, names, until: 0 };
    let sessions = Sessions::new().unwrap();
    let apply = |certificates: &[NamedIdentity]| {
        let identities = Identities::new(certificates, UnknownName::Refuse, &sessions);
        block_on(relay.workers().apply(relay.setup.snapshot(identities))).unwrap();
    };
    let other =
        NamedIdentity { names: vec![CertificateName::parse("other.example").unwrap()], ..named.clone() };
    apply(&[other]);
    let mut socket = connect(relay.tls);
    let mut client =
        ClientConnection::new(Arc::new(tls_config(&relay, &TLS13)), "relay.example.org".try_into().unwrap())
            .unwrap();
    client.write_tls(&mut socket).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 112]);
    relay.wait_for("unknown_name", |stats| {
        stats.sockets.streams.handshakes_failed[HandshakeFailure::UnknownName] == 1
    });
    assert_eq!(before.refresh(600).code(), 0, "an open connection");
    apply(&[named]);
    assert!(tls(&relay, tls_config(&relay, &TLS13)).is_err(), "the old certificate does not serve any more");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut after = Client::over_stream(ClientSocket::Tls(Box::new(tls(&relay, config).unwrap())));
    assert_eq!((after.binding().code(), before.refresh(600).code()), (0, 0));
    relay.stop();
}

/// Sessions resume on whatever worker: the keys of tickets are the same everywhere.
#[test]
fn sessions_resume_on_every_worker() {
    let relay = Relay::start(Setup { workers: 3, ..setup("127.1.10.7") });
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&relay, version);
        for n in 0..12 {
            let mut client =
                Client::over_stream(ClientSocket::Tls(Box::new(tls(&relay, config.clone()).unwrap())));
            // Tickets of TLS 1.3 come after the handshake.
            assert_eq!(client.binding().code(), 0);
            let ClientSocket::Tls(stream) = &client.socket else { unreachable!() };
            let expected = if n == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(stream.conn.handshake_kind(), Some(expected), "{version:?}, connection {n}");
        }
    }
    let busy = relay.workers().stats().iter().filter(|worker| worker.sockets.streams.accepted[1] > 0).count();
    assert!(busy > 1, "{busy} workers");
    relay.stop();
}

/// An invalid record closes the connection and ends the allocation.
#[test]
fn an_invalid_record() {
    let relay = relay("127.1.10.4");
    let mut client = relay.allocated(Transport::Tls);
    client.tcp().write_all(&[0x17, 3, 3, 0, 20]).unwrap();
    client.tcp().write_all(&[0; 20]).unwrap();
    let ClientSocket::Tls(stream) = &mut client.socket else { unreachable!() };
    assert!(stream.read(&mut [0; 100]).is_err(), "an alert");
    relay.wait_for_ends(ConnectionEnd::Tls, [0, 1]);
    relay.wait_until_empty();
    relay.stop();
}

/// Records of one byte, and records with many messages.
#[test]
fn records_of_any_size() {
    let relay = relay("127.1.10.5");
    let (mut client, peer) = (relay.allocated(Transport::Tls), peer());
    client.bind(0x4001, addr(&peer));
    let messages: Vec<u8> = (0..50u8).flat_map(|n| padded_channel_message(0x4001, &[n; 3])).collect();
    for byte in messages.chunks(1) {
        client.send(byte);
    }
    for n in 0..50 {
        assert_eq!(receive(&peer).0, [n; 3]);
    }
    // More than a record can hold, in messages of many sizes.
    let sizes: Vec<usize> = (0..120).map(|n| n * 137 % 9000).collect();
    let all: Vec<u8> =
        sizes.iter().flat_map(|&len| padded_channel_message(0x4001, &vec![len as u8; len])).collect();
    write_in_background(client, all);
    for len in sizes {
        assert_eq!(receive(&peer).0, vec![len as u8; len]);
    }
    relay.stop();
}

/// Writes while the test reads.
fn write_in_background(mut client: Client, bytes: Vec<u8>) {
    std::thread::spawn(move || {
        for chunk in bytes.chunks(60_001) {
            client.send(chunk);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    });
}
