//! `cargo bench --bench micro` measures the protocol layers without sockets, one message at a time. It uses the simulated
//! world of tests/stories, where relay sockets open at once.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hairpin::auth::AuthPurpose;
use hairpin::turn::{Header, PeerAddr, Tos};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};

#[allow(dead_code, reason = "used by the stories")]
#[path = "../tests/stories/world.rs"]
mod world;

use world::{Client, PEER, START, World, addr, auth, channel_message, credentials};

const PAYLOAD: [u8; 200] = [7; 200];
const CHANNEL: u16 = 0x4001;
const PERMITTED: &str = "1.1.1.1:5000";
const RELAYED: &str = "192.0.2.1:50000";

/// RFC 8656 §7: a request with credentials, and its response.
fn allocate(criterion: &mut Criterion) {
    let auth = auth(credentials());
    let mut client = Client::new("203.0.113.5:40000");
    let from = client.tuple.client.0;
    let mut challenge = Encoder::new(Class::Error, Method::Allocate, TransactionId([1; 12]));
    auth.challenge(START, from, &mut challenge);
    let challenge = challenge.finish();
    let nonce = Message::parse(&challenge).unwrap().attribute(attribute::NONCE).unwrap();
    client.nonce = nonce.value.to_vec();
    let request = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    criterion.bench_function("allocate/parse", |bencher| {
        bencher.iter(|| Message::parse(black_box(&request)).is_ok());
    });
    criterion.bench_function("allocate/parse_and_authenticate", |bencher| {
        bencher.iter(|| {
            let request = Message::parse(black_box(&request)).unwrap();
            auth.authenticate(START, from, &request, AuthPurpose::Allocate, None).is_ok()
        });
    });
    let request = Message::parse(&request).unwrap();
    let authenticated = auth.authenticate(START, from, &request, AuthPurpose::Allocate, None).ok().unwrap();
    let relayed = addr(RELAYED);
    criterion.bench_function("allocate/response", |bencher| {
        bencher.iter(|| {
            let mut response = Encoder::response(black_box(&request), Class::Success);
            response.xor_address(attribute::XOR_RELAYED_ADDRESS, relayed);
            response.xor_address(attribute::XOR_MAPPED_ADDRESS, from);
            response.u32(attribute::LIFETIME, 600);
            authenticated.sign(&mut response);
            response.finish()
        });
    });
}

/// RFC 8656 §11 and §12: a packet of 200 bytes in each direction and framing.
fn data(criterion: &mut Criterion) {
    let mut world = World::default();
    let mut client = world.allocated("203.0.113.5:40000");
    assert_eq!(client.bind(&mut world, CHANNEL, PEER).code(), 0);
    assert_eq!(client.permit(&mut world, &[PERMITTED]).code(), 0);
    let World { mut server, now, .. } = world;
    let relay = client.relay();

    let mut send = Encoder::new(Class::Indication, Method::Send, client.id());
    send.xor_address(attribute::XOR_PEER_ADDRESS, addr(PERMITTED));
    send.bytes(attribute::DATA, &PAYLOAD);
    for (name, message) in [("channel_data", channel_message(CHANNEL, &PAYLOAD)), ("send", send.finish())] {
        let mut forward = || {
            let message = black_box(&message);
            server.from_client(now, &client.tuple, Tos(0), message.len(), message)
        };
        assert_eq!(forward().map(|to| to.len), Some(PAYLOAD.len()));
        criterion.bench_function(&format!("to_peer/{name}"), |bencher| bencher.iter(&mut forward));
    }
    for (name, peer) in [("channel_data", PEER), ("data", PERMITTED)] {
        let peer = PeerAddr(addr(peer));
        let mut out = [0; Header::MAX];
        let mut forward = || {
            let payload = black_box(&PAYLOAD);
            let to = server.from_peer(now, relay, peer, Tos(0), payload.len(), payload)?;
            to.header.write(0, payload.len(), &mut out);
            Some(to)
        };
        assert!(
            forward().is_some_and(|to| matches!(to.header, Header::Channel(_)) == (name == "channel_data"))
        );
        criterion.bench_function(&format!("to_client/{name}"), |bencher| bencher.iter(&mut forward));
    }
}

criterion_group!(benches, allocate, data);
criterion_main!(benches);
