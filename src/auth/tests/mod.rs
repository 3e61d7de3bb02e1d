//! Stories of clients that authenticate: RFC 8489 §9.2, RFC 8656 §5. This file has the configurations and the request
//! builder that they share.

mod allocations;
mod bid_down;
mod livekit;
mod names;
mod order;
mod products;
mod setup;
mod vectors;

use std::net::SocketAddr;
use std::sync::Arc;

use super::credential::{Key, userhash};
use super::*;
use crate::wire::{Class, Encoder, Message, Method, TransactionId, attribute, reason_phrase};

const NOW: u64 = 1_700_000_000;
const REALM: &str = "example.org";
const BOTH: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
const SHA256: &[u8] = &[0, 2, 0, 0];
const MD5: &[u8] = &[0, 1, 0, 0];

fn client() -> SocketAddr {
    "192.0.2.1:5000".parse().unwrap()
}

fn plain(name: &str, password: &str) -> StaticUser {
    StaticUser { name: name.into(), password: Password::Plain(Secret::new(password)), allocations: 0 }
}

fn stored(name: &str, password: &str) -> StaticUser {
    StaticUser {
        name: name.into(),
        password: Password::Md5Key(md5_key(name, REALM, password)),
        allocations: 0,
    }
}

fn config(users: &[StaticUser], secrets: &[&str]) -> AuthConfig {
    AuthConfig {
        realm: REALM.into(),
        users: users.to_vec(),
        listed: Arc::default(),
        secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect(),
        livekit_keys: Vec::new(),
        livekit_two_part: true,
        user_before_expiry: false,
        max_lifetime: u64::MAX,
        nonce_lifetime: 600,
    }
}

fn auth(users: &[StaticUser], secrets: &[&str]) -> Auth {
    Auth::new(config(users, secrets), NonceKeys { current: [7; 32], previous: None })
        .expect("a valid configuration")
}

fn key(algorithm: PasswordAlgorithm, username: &str, password: &str) -> Vec<u8> {
    Key::derive(algorithm, username, REALM, password.as_bytes()).as_bytes().to_vec()
}

/// The value of an attribute in a challenge made at `unix`.
fn challenged(auth: &Auth, unix: u64, kind: u16) -> Vec<u8> {
    let mut response = Encoder::new(Class::Error, Method::Allocate, TransactionId([1; 12]));
    auth.challenge(unix, client(), &mut response);
    let bytes = response.finish();
    let message = Message::parse(&bytes).expect("a valid response");
    message.attribute(kind).expect("challenges have the attribute").value.to_vec()
}

/// A request under construction.
#[derive(Clone)]
struct TestRequest {
    attributes: Vec<(u16, Vec<u8>)>,
    sha1: Option<Vec<u8>>,
    sha256: Option<Vec<u8>>,
}

impl TestRequest {
    fn new() -> TestRequest {
        TestRequest { attributes: Vec::new(), sha1: None, sha256: None }
    }

    fn with(mut self, kind: u16, value: impl AsRef<[u8]>) -> TestRequest {
        self.attributes.push((kind, value.as_ref().to_vec()));
        self
    }

    fn without(mut self, kind: u16) -> TestRequest {
        self.attributes.retain(|(other, _)| *other != kind);
        self
    }

    /// Adds MESSAGE-INTEGRITY.
    fn sha1(mut self, key: &[u8]) -> TestRequest {
        self.sha1 = Some(key.to_vec());
        self
    }

    /// Adds MESSAGE-INTEGRITY-SHA256.
    fn sha256(mut self, key: &[u8]) -> TestRequest {
        self.sha256 = Some(key.to_vec());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut request = Encoder::new(Class::Request, Method::Allocate, TransactionId([9; 12]));
        for (kind, value) in &self.attributes {
            request.bytes(*kind, value);
        }
        if let Some(key) = &self.sha1 {
            request.integrity_sha1(key);
        }
        if let Some(key) = &self.sha256 {
            request.integrity_sha256(key);
        }
        request.finish()
    }

    fn authenticate(
        &self,
        auth: &Auth,
        unix: u64,
        purpose: AuthPurpose,
        known: Option<&Arc<Credential>>,
    ) -> Result<Authenticated, AuthRefusal> {
        let bytes = self.bytes();
        auth.authenticate(
            unix,
            client(),
            &Message::parse(&bytes).expect("a well-formed request"),
            purpose,
            known,
        )
    }

    fn allocate(&self, auth: &Auth) -> Result<Authenticated, AuthRefusal> {
        self.authenticate(auth, NOW, AuthPurpose::Allocate, None)
    }

    fn rejected(&self, auth: &Auth) -> (u16, AuthReason) {
        let refusal = self.allocate(auth).expect_err("rejected");
        assert!(refusal.signed.is_none());
        (refusal.code, refusal.reason)
    }
}

/// An unsigned request with username, realm and nonce.
fn unsigned(auth: &Auth, username: &str) -> TestRequest {
    TestRequest::new()
        .with(attribute::USERNAME, username)
        .with(attribute::REALM, REALM)
        .with(attribute::NONCE, challenged(auth, NOW, attribute::NONCE))
}

/// A request of a client of RFC 5389.
fn rfc5389(auth: &Auth, username: &str, password: &str) -> TestRequest {
    unsigned(auth, username).sha1(&key(PasswordAlgorithm::Md5, username, password))
}

/// A request of a client of RFC 8489 that chooses SHA-256.
fn rfc8489(auth: &Auth, username: &str, password: &str) -> TestRequest {
    unsigned(auth, username)
        .with(attribute::PASSWORD_ALGORITHMS, BOTH)
        .with(attribute::PASSWORD_ALGORITHM, SHA256)
        .sha256(&key(PasswordAlgorithm::Sha256, username, password))
}

/// The error response as the server above encodes it.
fn error_response(auth: &Auth, refusal: &AuthRefusal) -> Vec<u8> {
    let bytes = TestRequest::new().bytes();
    let mut response =
        Encoder::error_response(&Message::parse(&bytes).unwrap(), refusal.code, reason_phrase(refusal.code));
    if matches!(refusal.code, 401 | 438) {
        auth.challenge(NOW, client(), &mut response);
    }
    response.finish()
}

fn signed(authenticated: &Authenticated) -> Vec<u8> {
    let mut response = Encoder::new(Class::Success, Method::Allocate, TransactionId([9; 12]));
    authenticated.sign(&mut response);
    response.finish()
}
