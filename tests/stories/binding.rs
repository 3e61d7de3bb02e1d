//! Binding: plain STUN, for modern and for classic clients.

use hairpin::turn::bucket::{Rate, Rates, UnsignedResponse};
use hairpin::turn::stats::{Dropped, OUTCOMES};
use hairpin::wire::{Class, Encoder, Method, TransactionId, attribute};

use crate::world::{Client, World, addr, config, credentials};

const A: &str = "198.51.100.1:40000";

fn binding(fill: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut request = Encoder::new(Class::Request, Method::Binding, TransactionId([3; 12]));
    fill(&mut request);
    request.finish()
}

/// RFC 8489 §6.3.1.1: the client's address, XORed; a FINGERPRINT if there was one; no SOFTWARE unless configured.
#[test]
fn a_client_learns_its_address() {
    let mut world = World::default();
    for client in [A, "[2001:db8::7]:9"] {
        let tuple = Client::new(client).tuple;
        let answer = world.ask(&tuple, &binding(|_| {}));
        assert_eq!(answer.code(), 0);
        assert_eq!(answer.message().transaction_id(), TransactionId([3; 12]));
        assert_eq!(answer.attribute(attribute::XOR_MAPPED_ADDRESS).unwrap().xor_address(), Ok(addr(client)));
        assert_eq!(answer.message().attributes().count(), 1);
        assert!(!answer.message().has_fingerprint());
        assert!(world.ask(&tuple, &binding(|request| request.fingerprint())).message().has_fingerprint());
    }
}

/// RFC 8489 §14.7: a wrong FINGERPRINT is discarded.
#[test]
fn a_wrong_fingerprint_is_discarded() {
    let mut world = World::default();
    let mut request = binding(|request| request.fingerprint());
    *request.last_mut().unwrap() ^= 1;
    world.ignores(&Client::new(A).tuple, &request);
    assert_eq!(world.server.stats().dropped(Dropped::Malformed), 1);
}

/// RFC 8489 §6.3.1: unknown comprehension-required attributes are listed; others are ignored.
#[test]
fn unknown_attributes_are_named() {
    let mut world = World::default();
    let tuple = Client::new(A).tuple;
    let answer = world.ask(&tuple, &binding(|request| request.u32(0x0003, 0)));
    assert_eq!(answer.code(), 420);
    let unknown = answer.attribute(attribute::UNKNOWN_ATTRIBUTES).unwrap();
    assert_eq!(unknown.value, [0x00, 0x03]);
    let refused = world.refused.last().unwrap();
    assert_eq!(
        (refused.method, refused.reason.code(), &refused.unknown[..]),
        (Method::Binding, 420, &[3][..])
    );
    assert_eq!(world.ask(&tuple, &binding(|request| request.u32(0x8055, 0))).code(), 0);
    // RFC 8489 §14.13: each once, in their order, and as many as a request can have
    let all = (65_487 / 4) as u16;
    let answer = world.ask(&tuple, &binding(|request| (0..all).for_each(|n| request.bytes(0x7000 - n, &[]))));
    assert_eq!(answer.code(), 420);
    let unknown = answer.attribute(attribute::UNKNOWN_ATTRIBUTES).unwrap();
    assert!(unknown.value.iter().copied().eq((0..all).flat_map(|n| u16::to_be_bytes(0x7000 - n))));
    let answer =
        world.ask(&tuple, &binding(|request| (0..9000).for_each(|n| request.bytes(0x4000 + n / 2, &[]))));
    let unknown = answer.attribute(attribute::UNKNOWN_ATTRIBUTES).unwrap();
    assert!(unknown.value.iter().copied().eq((0x4000..0x4000 + 4500).flat_map(u16::to_be_bytes)));
}

/// RFC 3489 §8.1: without the magic cookie the response has MAPPED-ADDRESS and echoes the 16-byte id; only Binding is served.
#[test]
fn classic_clients() {
    let mut world = World::default();
    let tuple = Client::new(A).tuple;
    let mut request = binding(|_| {});
    request[4..8].copy_from_slice(b"abcd");
    let answer = world.ask(&tuple, &request);
    assert_eq!(&answer.0[..2], [1, 1]);
    assert_eq!(answer.0[4..20], request[4..20]);
    assert_eq!(answer.0[20..], [0, 1, 0, 8, 0, 1, 0x9C, 0x40, 198, 51, 100, 1]);

    // CHANGE-REQUEST is tolerated if it requests no change
    for (value, answered) in [(0, [1, 1]), (6, [1, 0x11])] {
        let mut request = binding(|request| request.u32(0x0003, value));
        request[4..8].copy_from_slice(b"abcd");
        assert_eq!(world.ask(&tuple, &request).0[..2], answered);
    }
    let mut allocate = Encoder::new(Class::Request, Method::Allocate, TransactionId([3; 12])).finish();
    allocate[4..8].copy_from_slice(b"abcd");
    world.ignores(&tuple, &allocate);
}

/// RFC 8489 §16.1.2: SOFTWARE is sent if it is configured.
#[test]
fn software_by_a_setting() {
    let software = Some("relay 1".to_string());
    let mut world = World::new(hairpin::turn::TurnConfig { software, ..config() }, credentials());
    let answer = world.ask(&Client::new(A).tuple, &binding(|_| {}));
    assert_eq!(answer.attribute(attribute::SOFTWARE).unwrap().utf8(), Ok("relay 1"));
    let mut client = Client::new(A);
    let answer = client.allocate(&mut world, |_| {});
    assert_eq!(answer.attribute(attribute::SOFTWARE).unwrap().utf8(), Ok("relay 1"));
    assert!(answer.message().verify_sha1(&client.key()));
}

/// RFC 8489 §16.2.1: responses to unauthenticated clients are rate-limited, Binding responses apart from all others;
/// responses to clients that have proved their key are not.
#[test]
fn answers_to_strangers_are_bounded() {
    let rate = |burst, per_second| Rate { burst, per_second };
    let rates = Rates { challenges: rate(10, 5), bindings: rate(15, 7), ..Rates::default() };
    let mut world = World::with_rates(config(), credentials(), rates);
    let mut client = world.allocated(A);
    let tuple = client.tuple;
    let mut stranger = client.clone().named("eve", "guess");
    let bindings = [binding(|_| {}), binding(|request| request.u32(0x0003, 0))];
    let challenges = [
        Encoder::new(Class::Request, Method::Allocate, TransactionId([4; 12])).finish(),
        stranger.request(Method::Refresh, |_| {}),
    ];
    let flood = |world: &mut World, requests: &[Vec<u8>]| {
        requests.iter().cycle().take(40).for_each(|request| assert_eq!(world.deliver(&tuple, request), None));
        world.replies.drain(..).count()
    };
    assert_eq!(flood(&mut world, &bindings), 15);
    assert_eq!(flood(&mut world, &challenges), 10);
    assert_eq!(world.server.stats().dropped(Dropped::ResponseWithheld), 25 + 30);
    let stats = world.server.stats();
    let answered = |method| OUTCOMES.iter().map(|&code| stats.answered(method, code)).sum::<u64>();
    let unanswered = |method| stats.received(method) - answered(method);
    assert_eq!(stats.received(Method::Binding), 40);
    assert_eq!(unanswered(Method::Binding), 25, "requests count with and without a response");
    assert_eq!(unanswered(Method::Allocate) + unanswered(Method::Refresh), 30);
    let binding = world.withheld.iter().filter(|&&response| response == UnsignedResponse::Binding).count();
    assert_eq!((binding, world.withheld.len()), (25, 25 + 30), "the log is told");
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    let other = Client::new("198.51.100.2:40000").tuple;
    assert_eq!(world.ask(&other, &bindings[0]).code(), 0);
    assert_eq!(world.ask(&other, &challenges[0]).code(), 401);
    world.pass(1);
    assert_eq!((flood(&mut world, &bindings), flood(&mut world, &challenges)), (7, 5));
}

/// RFC 8489 §9.2.4: a 438 to a client that has proved its key is no reflection, so it needs no token: every client of an
/// office gets one when nonces expire or the relay restarts.
#[test]
fn a_new_nonce_needs_no_token() {
    let rates = Rates { challenges: Rate { burst: 2, per_second: 1 }, ..Rates::default() };
    let mut world = World::with_rates(config(), credentials(), rates);
    let mut clients: Vec<Client> =
        (1..=2).map(|port| world.allocated(&format!("198.51.100.1:{port}"))).collect();
    for client in &mut clients {
        client.refresh(&mut world, 3600);
    }
    world.now.unix += 4000;
    let stranger = Encoder::new(Class::Request, Method::Allocate, TransactionId([4; 12])).finish();
    let tuple = Client::new("198.51.100.1:9").tuple;
    let empty = |world: &mut World| world.ignores(&tuple, &stranger);
    (0..2).for_each(|_| assert_eq!(world.ask(&tuple, &stranger).code(), 401));
    empty(&mut world);
    let mut foreign = clients[0].clone();
    foreign.nonce = b"obMatJos2AAAA before a restart".to_vec();
    for client in clients.iter_mut().chain([&mut foreign]) {
        let request = client.request(Method::Refresh, |_| {});
        assert_eq!(world.ask(&client.tuple, &request).code(), 438);
        assert_eq!(client.refresh(&mut world, 600).code(), 0);
    }
    // A wrong key needs one
    let mut wrong = clients[0].clone().named("alice", "guess");
    let request = wrong.request(Method::Refresh, |_| {});
    world.ignores(&wrong.tuple, &request);
    empty(&mut world);
}
