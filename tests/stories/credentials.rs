//! Credentials over the life of an allocation. The tests of `auth` cover the checks one by one.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hairpin::auth::{AuthConfig, LiveKitKey, Secret, livekit_credential, time_limited_password};
use hairpin::turn::Transport;
use hairpin::turn::stats::Dropped;
use hairpin::wire::{Class, Encoder, Method, TransactionId, attribute};
use sha2::{Digest, Sha256};

use crate::world::{Client, PEER, REALM, Reply, START, World, config, credentials};

const A: &str = "198.51.100.1:40000";

/// RFC 8489 §9.2.4: 401 has REALM, NONCE and PASSWORD-ALGORITHMS, and is not signed; wrong credentials look the same.
#[test]
fn a_401_is_a_challenge() {
    let mut world = World::default();
    let mut client = Client::new(A);
    let first = Encoder::new(Class::Request, Method::Allocate, TransactionId([1; 12])).finish();
    let mut answers = vec![world.ask(&client.tuple, &first)];
    client.nonce = answers[0].bytes(attribute::NONCE).unwrap();
    for (user, password) in [("alice", "wrong"), ("nobody", "wonder")] {
        let request = client.clone().named(user, password).request(Method::Allocate, |_| {});
        answers.push(world.ask(&client.tuple, &request));
    }
    for answer in answers {
        assert_eq!(answer.code(), 401);
        let kinds: Vec<u16> = answer.message().attributes().map(|attribute| attribute.kind).collect();
        let challenge =
            [attribute::ERROR_CODE, attribute::REALM, attribute::NONCE, attribute::PASSWORD_ALGORITHMS];
        assert_eq!(kinds, challenge);
        assert!(!answer.message().has_integrity_sha1() && !answer.message().has_integrity_sha256());
    }
    let refused: Vec<_> =
        world.refused.iter().map(|refused| (refused.user.as_deref(), refused.reason.text())).collect();
    assert_eq!(refused, [(Some("alice"), "wrong_password"), (Some("nobody"), "unknown_user")]);
    world.assert_empty();
}

/// RFC 8656 §5: a nonce expires during an allocation; a 438 brings a new one and the call goes on.
#[test]
fn a_nonce_expires() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.refresh(&mut world, 3600);
    world.pass(3599);
    client.refresh(&mut world, 3600);
    world.pass(2);
    let request = client.request(Method::Refresh, |_| {});
    let answer = world.ask(&client.tuple, &request);
    assert_eq!(answer.code(), 438);
    assert_ne!(answer.bytes(attribute::NONCE), Some(client.nonce.clone()));
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
}

/// RFC 8489 §9.2.4: authentication is checked before the content, and before the allocation.
#[test]
fn authentication_comes_first() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    client.password = "wrong".into();
    for answer in [
        client.ask(&mut world, Method::Refresh, |request| request.bytes(0x7FFF, &[])),
        client.bind(&mut world, 0x1000, PEER),
        client.allocate(&mut world, |_| {}),
    ] {
        assert_eq!(answer.code(), 401);
    }
}

fn time_limited(name: &str) -> Client {
    let password = time_limited_password(b"a shared secret", name);
    assert!(BASE64_STANDARD.decode(&password).is_ok());
    Client::new(A).named(name, &password)
}

/// Time-limited credentials open an allocation before they expire, and serve it afterwards; quotas count by the part
/// beside the expiry (draft-uberti-behave-turn-rest §2.2).
#[test]
fn a_call_outlives_its_time_limited_credential() {
    let mut config_with_secret = credentials();
    config_with_secret.secrets.push(Secret::new(*b"a shared secret"));
    let mut world = World::new(config(), config_with_secret.clone());
    let mut client = time_limited(&format!("{}:carol", START + 60));
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(&*world.opened[0].user, "carol");
    world.pass(120);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER).code(), 0);
    let mut late =
        Client { tuple: Client::new("198.51.100.1:40001").tuple, nonce: Vec::new(), ..client.clone() };
    assert_eq!(late.allocate(&mut world, |_| {}).code(), 401);
    assert_eq!(world.refused.last().unwrap().reason.text(), "expired");
    // The same name with another expiry is another USERNAME: 441 compares all of it
    let mut renewed =
        Client { nonce: client.nonce.clone(), ..time_limited(&format!("{}:carol", START + 3600)) };
    assert_eq!(renewed.refresh(&mut world, 600).code(), 441);
}

fn with_livekit_keys() -> AuthConfig {
    let key = LiveKitKey { name: "APIkey".into(), secret: Secret::new("a secret of LiveKit") };
    AuthConfig { livekit_keys: vec![key], ..credentials() }
}

/// A participant of LiveKit with LiveKit's own credentials.
fn participant(tuple: &str, sid: &str, expires: Option<u64>) -> Client {
    let (name, password) = livekit_credential("APIkey", b"a secret of LiveKit", sid, expires);
    Client::new(tuple).named(&name, &password)
}

/// LiveKit's own credentials live for 5 minutes and the call goes on: Refresh, CreatePermission and ChannelBind do not judge the
/// expiry. After a resume the client has a fresh one for the same sid, with which it makes another allocation.
#[test]
fn a_call_outlives_its_credential_of_livekit() {
    let mut world = World::new(config(), with_livekit_keys());
    let mut client = participant(A, "PA_carol", Some(START + 300));
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(&*world.opened[0].user, "PA_carol");
    world.pass(400);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER).code(), 0);
    let mut late =
        Client { tuple: Client::new("198.51.100.1:40001").tuple, nonce: Vec::new(), ..client.clone() };
    assert_eq!(late.allocate(&mut world, |_| {}).code(), 401);
    let refused = world.refused.last().unwrap();
    assert_eq!(refused.reason.text(), "expired");
    assert!(refused.fix.to_string().contains("clocks"), "{refused:?}");

    // RFC 8656 §5: 441 compares the whole USERNAME, so the fresh credential is for an allocation of its own
    let mut fresh = participant("198.51.100.1:40002", "PA_carol", Some(START + 700));
    let mut intruder = Client { tuple: client.tuple, nonce: client.nonce.clone(), ..fresh.clone() };
    assert_eq!(intruder.refresh(&mut world, 600).code(), 441);
    assert_eq!(fresh.allocate(&mut world, |_| {}).code(), 0);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    assert_eq!((world.opened.len(), &*world.opened[1].user), (2, "PA_carol"));
}

/// What the log says about a credential of LiveKit that is refused: which API key, and which setting.
#[test]
fn a_refused_credential_of_livekit_is_explained() {
    let mut world = World::new(config(), with_livekit_keys());
    for (api_key, secret, reason, said) in [
        (
            "APIother",
            "a secret of LiveKit",
            "unknown_user",
            "API key APIother; add that key and its secret to the file of",
        ),
        ("APIkey", "another secret", "wrong_password", "compare the secret of LiveKit's API key APIkey"),
    ] {
        let (name, password) = livekit_credential(api_key, secret.as_bytes(), "PA_x", Some(START + 300));
        let mut client = Client::new(A).named(&name, &password);
        assert_eq!(client.allocate(&mut world, |_| {}).code(), 401);
        let refused = world.refused.last().unwrap();
        assert_eq!((refused.reason.text(), refused.user.as_deref()), (reason, Some(&*name)));
        assert!(refused.fix.to_string().contains(said), "{refused:?}");
    }
}

/// RFC 8656 §6: an allocation keeps its key, so removing its user or secret ends no call.
#[test]
fn an_allocation_keeps_its_key() {
    let mut world = World::default();
    let mut client = world.allocated(A);
    let mut without = credentials();
    without.users.retain(|user| user.name != "alice");
    world.apply(config(), without);
    world.pass(0);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
    client.refresh(&mut world, 0);
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 401);
}

/// RFC 8489 §9.2.4: integrity without the attributes that it needs is a bad request; the response is not signed.
#[test]
fn integrity_needs_its_attributes() {
    let mut world = World::default();
    let client = world.allocated(A);
    let mut request = Encoder::new(Class::Request, Method::Refresh, TransactionId([1; 12]));
    request.text(attribute::USERNAME, "alice");
    request.integrity_sha1(&client.key());
    let answer = world.ask(&client.tuple, &request.finish());
    assert_eq!(answer.code(), 400);
    assert_eq!(answer.message().attributes().count(), 1);
    assert_eq!(world.server.stats().dropped(Dropped::Malformed), 0);
}

/// RFC 8489 §9.2.4, §14.5, §14.6: a client that names MD5 and signs with MESSAGE-INTEGRITY alone gets both attributes, each
/// valid for a client that knows only that one; others get the one that the RFC names.
#[test]
fn clients_that_know_one_integrity_attribute_verify_it() {
    const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
    for (algorithm, sha256, expected) in [
        (None, false, (true, false)),
        (Some(1), false, (true, true)),
        (Some(1), true, (false, true)),
        (Some(2), false, (false, true)),
        (Some(2), true, (false, true)),
    ] {
        let mut world = World::default();
        let mut client = world.allocated(A);
        let key = match algorithm {
            Some(2) => Sha256::digest("alice:example.org:wonder").to_vec(),
            _ => client.key().to_vec(),
        };
        for (method, code) in [(Method::Refresh, 0), (Method::CreatePermission, 400), (Method::Allocate, 437)]
        {
            let mut request = Encoder::new(Class::Request, method, client.id());
            if method == Method::Allocate {
                request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            }
            request.text(attribute::USERNAME, "alice");
            request.text(attribute::REALM, REALM);
            request.bytes(attribute::NONCE, &client.nonce);
            if let Some(algorithm) = algorithm {
                request.bytes(attribute::PASSWORD_ALGORITHMS, &OFFER);
                request.bytes(attribute::PASSWORD_ALGORITHM, &[0, algorithm, 0, 0]);
            }
            match sha256 {
                true => request.integrity_sha256(&key),
                false => request.integrity_sha1(&key),
            }
            request.fingerprint();
            let answer = world.ask(&client.tuple, &request.finish());
            assert_eq!(answer.code(), code, "{algorithm:?} {method:?}");
            let message = answer.message();
            assert!(message.has_fingerprint());
            let verified = (message.verify_sha1(&key), message.verify_sha256(&key));
            assert_eq!(verified, expected, "{algorithm:?} {sha256} {method:?}");
            assert_eq!((message.has_integrity_sha1(), message.has_integrity_sha256()), expected);
        }
    }
}

/// RFC 8489 §14.8: unsigned errors over UDP have no reason phrase, as they may be sent to the victim of a forged request;
/// over a stream, and where they are signed, errors have one.
#[test]
fn what_a_stranger_receives_is_short() {
    let reason =
        |answer: &Reply| answer.attribute(attribute::ERROR_CODE).unwrap().error_code().unwrap().1.to_owned();
    for (transport, phrases) in [
        (Transport::Udp, ["", "", ""]),
        (Transport::Tcp, ["Unauthenticated", "Bad Request", "Unknown Attribute"]),
    ] {
        let mut world = World::default();
        let mut client = Client::new(A);
        client.tuple.transport = transport;
        let first = Encoder::new(Class::Request, Method::Allocate, TransactionId([1; 12])).finish();
        let challenge = world.ask(&client.tuple, &first);
        let mut bad = Encoder::new(Class::Request, Method::Allocate, TransactionId([1; 12]));
        bad.integrity_sha1(b"key");
        let bad = world.ask(&client.tuple, &bad.finish());
        let mut unknown = Encoder::new(Class::Request, Method::Binding, TransactionId([1; 12]));
        unknown.bytes(0x0003, &[0; 4]);
        let unknown = world.ask(&client.tuple, &unknown.finish());
        assert_eq!([reason(&challenge), reason(&bad), reason(&unknown)], phrases);
        if transport == Transport::Udp {
            // Header, ERROR-CODE, REALM, NONCE, PASSWORD-ALGORITHMS
            assert_eq!(challenge.0.len(), 20 + 8 + (4 + 12) + (4 + 32) + (4 + 8));
        }
        client.nonce = challenge.bytes(attribute::NONCE).unwrap();
        assert_eq!(reason(&client.refresh(&mut world, 600)), "Allocation Mismatch");
    }
}
