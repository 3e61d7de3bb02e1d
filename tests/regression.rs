//! Bugs that must not come back. Each bug found gets its packet and its story here; the first entries are published bugs
//! of other relays.

#![cfg(test)]

#[allow(dead_code, reason = "the stories use all of it")]
#[path = "stories/world.rs"]
mod world;

use hairpin::wire::{Class, Encoder, Method, TransactionId, attribute, padding};
use world::{Client, PEER, PRIVATE, REALM, World, addr};

const A: &str = "198.51.100.1:40000";

/// CVE-2020-4067: padding of uninitialised memory revealed other clients' data. RFC 8489 §14: padding is zero.
#[test]
fn padding_of_responses_is_zero() {
    let mut world = World::default();
    let mut client = Client::new(A);
    let mut responses = Vec::new();
    for method in [Method::Binding, Method::Allocate, Method::Refresh, Method::CreatePermission] {
        let request = Encoder::new(Class::Request, method, client.id()).finish();
        responses.push(world.ask(&client.tuple, &request));
    }
    responses.push(client.allocate(&mut world, |request| request.bytes(attribute::EVEN_PORT, &[0x80])));
    responses.push(client.allocate(&mut world, |_| {}));
    responses.push(client.permit(&mut world, &[PRIVATE]));
    responses.push(client.permit(&mut world, &[]));
    responses.push(client.ask(&mut world, Method::Refresh, |request| request.bytes(0x7FFF, b"?")));
    let codes: Vec<u16> = responses.iter().map(|response| response.code()).collect();
    assert_eq!(codes, [0, 401, 401, 401, 0, 437, 403, 400, 420]);
    let mut padded = 0;
    for response in &responses {
        let mut rest = &response.0[20..];
        while let Some((&[_, _, len0, len1], value)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([len0, len1]));
            let (zeros, after) = value[len..].split_at(padding(len));
            assert!(zeros.iter().all(|byte| *byte == 0), "{:02x?}", response.0);
            padded += zeros.len();
            rest = after;
        }
    }
    assert!(padded > 0);
}

/// coturn before commit ab762f33 processed attributes behind MESSAGE-INTEGRITY, which anybody on the path can append.
/// RFC 8489 §14.5: they are ignored.
#[test]
fn attributes_after_integrity_are_ignored() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    let mut permit = client.request(Method::CreatePermission, |request| {
        request.xor_address(attribute::XOR_PEER_ADDRESS, addr(PEER));
    });
    append_peer(&mut permit, "8.8.4.4:5000");
    assert_eq!(world.ask(&client.tuple, &permit).code(), 0);
    assert_eq!(world.server.stats().permissions, 1);
    assert!(client.send(&mut world, PEER, b"x").is_some());
    assert!(client.send(&mut world, "8.8.4.4:5000", b"x").is_none());

    let mut without_peer = client.request(Method::CreatePermission, |_| {});
    append_peer(&mut without_peer, PEER);
    assert_eq!(world.ask(&client.tuple, &without_peer).code(), 400);
}

/// Adds an XOR-PEER-ADDRESS to a finished message.
fn append_peer(message: &mut Vec<u8>, peer: &str) {
    let id = TransactionId(message[8..20].try_into().unwrap());
    let mut other = Encoder::new(Class::Request, Method::CreatePermission, id);
    other.xor_address(attribute::XOR_PEER_ADDRESS, addr(peer));
    message.extend_from_slice(&other.finish()[20..]);
    let len = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

/// CVE-2018-4058, CVE-2020-26262, CVE-2026-27624: loopback was reachable as 0.0.0.0, as :: and as an IPv4-mapped address.
/// RFC 8656 §21.4: no form of these addresses is allowed, whichever request names it.
#[test]
fn every_form_of_loopback_is_denied() {
    for (family, peers) in [
        (1, &["127.0.0.1:80", "127.8.8.8:80", "0.0.0.0:80", "0.1.2.3:80"][..]),
        (
            2,
            &[
                "[::]:80",
                "[::1]:80",
                "[::127.0.0.1]:80",
                "[::ffff:127.0.0.1]:80",
                "[::ffff:0.0.0.0]:80",
                "[64:ff9b::127.0.0.1]:80",
                "[2002:7f00:1::]:80",
            ],
        ),
    ] {
        let mut world = World::default();
        let mut client = Client::new(A);
        let allocated = client.allocate(&mut world, |request| {
            request.bytes(attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        });
        assert_eq!(allocated.code(), 0);
        for (n, peer) in peers.iter().enumerate() {
            assert_eq!(client.permit(&mut world, &[peer]).code(), 403, "{peer}");
            assert_eq!(client.bind(&mut world, 0x4000 + n as u16, peer).code(), 403, "{peer}");
            assert_eq!(client.send(&mut world, peer, b"x"), None, "{peer}");
        }
        assert_eq!(world.server.stats().permissions, 0);
    }
}

/// CVE-2026-40613, CVE-2026-43994: attributes of unexpected lengths were read out of bounds or as another type. RFC 8489
/// §6.3: whatever the length, a request gets one response and keeps the server in order.
#[test]
fn attributes_of_every_length() {
    let kinds = [
        attribute::CHANNEL_NUMBER,
        attribute::LIFETIME,
        attribute::XOR_PEER_ADDRESS,
        attribute::DATA,
        attribute::REQUESTED_ADDRESS_FAMILY,
        attribute::EVEN_PORT,
        attribute::REQUESTED_TRANSPORT,
        attribute::DONT_FRAGMENT,
        attribute::RESERVATION_TOKEN,
        attribute::ADDITIONAL_ADDRESS_FAMILY,
    ];
    let methods = [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];
    let mut world = World::default();
    for method in methods {
        for kind in kinds {
            for len in 0..=24 {
                let mut client = world.allocated(A);
                let value = vec![0x01; len];
                let response = client.ask(&mut world, method, |request| request.bytes(kind, &value));
                assert!(
                    matches!(response.code(), 0 | 400 | 403 | 420 | 437 | 440 | 442 | 443),
                    "{kind:#x} {len}"
                );
                assert_eq!(client.refresh(&mut world, 0).code() % 437, 0);
                world.assert_empty();
            }
        }
    }
}

/// The same for the attributes that authenticate a request.
#[test]
fn credentials_of_every_length() {
    let kinds = [
        attribute::USERNAME,
        attribute::REALM,
        attribute::NONCE,
        attribute::USERHASH,
        attribute::PASSWORD_ALGORITHM,
        attribute::PASSWORD_ALGORITHMS,
        attribute::MESSAGE_INTEGRITY,
        attribute::MESSAGE_INTEGRITY_SHA256,
    ];
    let mut world = World::default();
    let client = world.allocated(A);
    for kind in kinds {
        for len in (0..=64).chain([509, 510, 763, 764, 768]) {
            let mut request = Encoder::new(Class::Request, Method::Refresh, TransactionId([9; 12]));
            for (other, value) in
                [(attribute::USERNAME, client.user.as_bytes()), (attribute::REALM, REALM.as_bytes())]
            {
                if other != kind {
                    request.bytes(other, value);
                }
            }
            request.bytes(attribute::LIFETIME, &[0; 4]);
            request.bytes(kind, &vec![b'a'; len]);
            if kind != attribute::MESSAGE_INTEGRITY {
                request.bytes(attribute::NONCE, &client.nonce);
                request.integrity_sha1(b"a wrong key");
            }
            world.deliver(&client.tuple, &request.finish());
            assert!(world.replies.drain(..).count() <= 1);
        }
    }
    assert_eq!(world.server.stats().allocations, 1, "no such request deletes the allocation");
}
