//! Credentials over the life of an allocation. The tests of `auth` cover the checks one by one.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hairpin::auth::{Secret, time_limited_password};
use hairpin::turn::stats::Dropped;
use hairpin::wire::{Class, Encoder, Method, TransactionId, attribute};

use crate::world::{Client, PEER, START, World, config, credentials};

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
        world.refused.iter().map(|refused| (refused.user.as_deref(), refused.reason)).collect();
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
    assert_eq!(world.refused.last().unwrap().reason, "expired");
    // The same name with another expiry is another USERNAME: 441 compares all of it
    let mut renewed =
        Client { nonce: client.nonce.clone(), ..time_limited(&format!("{}:carol", START + 3600)) };
    assert_eq!(renewed.refresh(&mut world, 600).code(), 441);
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
