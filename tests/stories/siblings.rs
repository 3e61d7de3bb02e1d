//! A relay that drains: new clients are sent to its siblings (RFC 8489 §10, §14.15, §14.16; RFC 8656 §7.2, 11.), running
//! allocations live on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hairpin::turn::{Admission, External, PerFamily, Sibling, Transport, TurnConfig};
use hairpin::wire::{Class, Encoder, Method, attribute};
use sha2::{Digest, Sha256};

use crate::world::{Client, PEER, REALM, Reply, World, addr, config, credentials};

const A: &str = "198.51.100.1:40000";
const A6: &str = "[2001:db8:2::1]:40000";

const UDP: Option<u16> = Some(3478);
const TCP: Option<u16> = Some(3479);
const TLS: Option<u16> = Some(5349);

/// A sibling at these addresses that serves UDP, TCP and TLS at these ports.
fn sibling(v4: Option<&str>, v6: Option<&str>, ports: [Option<u16>; 3]) -> Sibling {
    let at = |ip: Option<&str>, port: Option<u16>| Some(SocketAddr::new(ip?.parse().unwrap(), port?));
    let servers = ports.map(|port| PerFamily { v4: at(v4, port), v6: at(v6, port) });
    Sibling { servers, domain: None, certificate_names_address: false }
}

fn draining(siblings: &[Sibling]) -> TurnConfig {
    TurnConfig { admission: Admission::Draining(siblings.into()), ..config() }
}

fn drain(world: &mut World, siblings: &[Sibling]) {
    world.apply(draining(siblings), credentials());
}

fn client(from: &str, transport: Transport) -> Client {
    let mut client = Client::new(from);
    client.tuple.transport = transport;
    client
}

/// What a client is told that asks for an allocation: the code, and each ALTERNATE-SERVER.
fn answer(world: &mut World, client: &mut Client) -> (u16, Vec<SocketAddr>) {
    let reply = client.allocate(world, |_| {});
    let servers = servers(&reply);
    assert!(reply.message().verify_sha1(&client.key()), "signed as the request was");
    (reply.code(), servers)
}

/// RFC 8489 §14.15: encoded as MAPPED-ADDRESS is.
fn servers(reply: &Reply) -> Vec<SocketAddr> {
    let message = reply.message();
    let all = message.attributes().filter(|one| one.kind == attribute::ALTERNATE_SERVER);
    let read = |value: &[u8]| {
        let port = u16::from_be_bytes([value[2], value[3]]);
        match (value[1], &value[4..]) {
            (1, ip) => SocketAddr::new(<[u8; 4]>::try_from(ip).unwrap().into(), port),
            (_, ip) => SocketAddr::new(<[u8; 16]>::try_from(ip).unwrap().into(), port),
        }
    };
    all.map(|one| read(one.value)).collect()
}

/// RFC 8489 §10: ALTERNATE-SERVER has an address of the client's own family and the port of its transport; that of the other
/// family follows it.
#[test]
fn a_new_client_is_sent_to_its_own_family_and_transport() {
    let all = sibling(Some("203.0.113.8"), Some("2001:db8::8"), [UDP, TCP, TLS]);
    let mut world = World::default();
    drain(&mut world, &[Sibling { certificate_names_address: true, ..all }]);
    for (transport, port) in Transport::ALL.into_iter().zip([3478, 3479, 5349]) {
        let (v4, v6) = (addr(&format!("203.0.113.8:{port}")), addr(&format!("[2001:db8::8]:{port}")));
        assert_eq!(answer(&mut world, &mut client(A, transport)), (300, vec![v4, v6]));
        assert_eq!(answer(&mut world, &mut client(A6, transport)), (300, vec![v6, v4]));
    }
    let refused = world.refused.last().unwrap();
    assert_eq!((refused.reason.code(), refused.alternate), (300, Some(addr("[2001:db8::8]:5349"))));
    assert!(world.opened.is_empty() && world.sockets.is_empty());
    assert_eq!(world.server.stats().answered(Method::Allocate, 300), 6);
}

/// 508 where no sibling has the client's family and transport.
#[test]
fn without_a_fitting_sibling_the_relay_is_full() {
    let v4 = sibling(Some("203.0.113.8"), None, [UDP, None, None]);
    let v6 = sibling(None, Some("2001:db8::8"), [None, TCP, None]);
    let mut world = World::default();
    drain(&mut world, &[v4, v6]);
    for (from, transport, code) in [
        (A, Transport::Udp, 300),
        (A6, Transport::Udp, 508),
        (A, Transport::Tcp, 508),
        (A6, Transport::Tcp, 300),
        (A, Transport::Tls, 508),
        (A6, Transport::Tls, 508),
    ] {
        let (found, servers) = answer(&mut world, &mut client(from, transport));
        assert_eq!((found, servers.len()), (code, usize::from(code == 300)), "{from} {transport:?}");
    }
    assert!(world.refused.last().unwrap().fix.to_string().contains("[[sibling]]"));
    drain(&mut world, &[]);
    assert_eq!(answer(&mut world, &mut client(A, Transport::Udp)), (508, vec![]));
    let refused = world.refused.last().unwrap();
    assert!(refused.reason.text().contains("drains") && refused.fix.to_string().contains("[[sibling]]"));
}

/// Browsers forget the host name when they follow a 300, so TLS clients are sent only where the certificate names the address.
/// RFC 8489 §10, §14.16: they are told the name in the certificate; clients without TLS are not.
#[test]
fn tls_clients_follow_only_where_the_certificate_names_the_address() {
    let named = Sibling {
        domain: Some("turn-2.example.org".into()),
        ..sibling(Some("203.0.113.8"), None, [UDP, TCP, TLS])
    };
    let mut world = World::default();
    drain(&mut world, std::slice::from_ref(&named));
    assert_eq!(answer(&mut world, &mut client(A, Transport::Tls)), (508, vec![]));
    drain(&mut world, &[Sibling { certificate_names_address: true, ..named }]);
    for (transport, domain) in
        [(Transport::Udp, None), (Transport::Tcp, None), (Transport::Tls, Some("turn-2.example.org"))]
    {
        let reply = client(A, transport).allocate(&mut world, |_| {});
        assert_eq!(reply.code(), 300);
        let found = reply.attribute(attribute::ALTERNATE_DOMAIN).map(|one| one.utf8().unwrap().to_owned());
        assert_eq!(found.as_deref(), domain, "{transport:?}");
    }
}

/// RFC 8489 §9.2.4, §10: the response is signed with the attribute that the request had.
#[test]
fn the_response_is_signed_as_the_request() {
    let mut world = World::default();
    drain(&mut world, &[sibling(Some("203.0.113.8"), None, [UDP, None, None])]);
    let mut client = Client::new(A);
    // It learns its nonce.
    assert_eq!(client.allocate(&mut world, |_| {}).code(), 300);
    let mut request = Encoder::new(Class::Request, Method::Allocate, client.id());
    request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    request.text(attribute::USERNAME, "alice");
    request.text(attribute::REALM, REALM);
    request.bytes(attribute::NONCE, &client.nonce);
    request.bytes(attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
    request.bytes(attribute::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
    let key = Sha256::digest("alice:example.org:wonder");
    request.integrity_sha256(&key);
    let reply = world.ask(&client.tuple, &request.finish());
    let message = reply.message();
    assert_eq!((reply.code(), message.verify_sha256(&key), message.has_integrity_sha1()), (300, true, false));
    assert_eq!(reply.bytes(attribute::NONCE), None);
}

/// RFC 8656 §7.4: libwebrtc signs its first request to the sibling with the nonce of the 300, and would give up after a 438. It
/// begins anew after a 437, and is challenged.
#[test]
fn browsers_begin_anew_at_the_sibling() {
    let mut world = World::default();
    drain(&mut world, &[sibling(Some("203.0.113.8"), None, [UDP, None, None])]);
    let mut browser = Client::new(A);
    let reply = browser.allocate(&mut world, |_| {});
    assert_eq!(reply.code(), 300);
    browser.nonce = reply.bytes(attribute::NONCE).unwrap();
    let mut there = World::default();
    let transport = |request: &mut Encoder| request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let request = browser.request(Method::Allocate, transport);
    let reply = there.ask(&browser.tuple, &request);
    assert!(reply.code() == 437 && reply.message().verify_sha1(&browser.key()));
    assert_eq!(reply.bytes(attribute::NONCE), None);
    assert!(there.sockets.is_empty() && there.refused.is_empty());
    // Other requests with this nonce are answered as with any that is foreign, and so is whoever has no key.
    let refresh = browser.request(Method::Refresh, |_| {});
    assert_eq!(there.ask(&browser.tuple, &refresh).code(), 438);
    let mut mallory = browser.clone().named("alice", "wrong");
    let request = mallory.request(Method::Allocate, transport);
    assert_eq!(there.ask(&mallory.tuple, &request).code(), 401);
    browser.nonce.clear();
    assert_eq!(browser.allocate(&mut there, |_| {}).code(), 0);
}

/// RFC 8656 §7.2: a client is challenged and its mistakes are told first; who has no credentials learns of no sibling.
#[test]
fn strangers_and_mistakes_are_refused_as_always() {
    let mut world = World::default();
    drain(&mut world, &[sibling(Some("203.0.113.8"), None, [UDP, None, None])]);
    let mut request = Encoder::new(Class::Request, Method::Allocate, Client::new(A).id());
    request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let reply = world.ask(&Client::new(A).tuple, &request.finish());
    assert_eq!((reply.code(), servers(&reply)), (401, vec![]));
    let mut mallory = Client::new(A).named("alice", "wrong");
    let reply = mallory.allocate(&mut world, |_| {});
    assert_eq!((reply.code(), servers(&reply)), (401, vec![]));
    let mut client = Client::new(A);
    for (transport, code) in [(None, 400), (Some([6, 0, 0, 0]), 442)] {
        let reply = client.ask(&mut world, Method::Allocate, |request| {
            transport.iter().for_each(|value| request.bytes(attribute::REQUESTED_TRANSPORT, value));
        });
        assert_eq!((reply.code(), servers(&reply)), (code, vec![]));
    }
}

/// RFC 8489 §6.3.1: a retransmission of a granted Allocate gets the response that it got, and another Allocate on its 5-tuple
/// is a mismatch; everything else that keeps a call alive goes on.
#[test]
fn running_allocations_live_on() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.allocate(&mut world, |_| {});
    client.refresh(&mut world, 0);
    let granted = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let first = world.ask(&client.tuple, &granted);
    assert_eq!(first.code(), 0);
    client.bind(&mut world, 0x4000, PEER);
    drain(&mut world, &[sibling(Some("203.0.113.8"), None, [UDP, None, None])]);
    let again = world.ask(&client.tuple, &granted);
    assert_eq!((again.code(), again.relayed()), (0, first.relayed()));
    assert_eq!(answer(&mut world, &mut client), (437, vec![]));
    for _ in 0..10 {
        world.pass(300);
        assert_eq!(client.refresh(&mut world, 600).code(), 0);
        assert_eq!(client.permit(&mut world, &[PEER]).code(), 0);
        assert_eq!(client.bind(&mut world, 0x4000, PEER).code(), 0);
        assert!(client.channel_data(&mut world, 0x4000, b"x").is_some());
    }
    client.refresh(&mut world, 0);
    assert_eq!(answer(&mut world, &mut client).0, 300);
    world.assert_empty();
}

/// An Allocate that was accepted before the drain gets its allocation, though its relay socket comes later.
#[test]
fn a_request_that_waits_is_granted() {
    let mut world = World::default();
    let mut client = Client::new(A);
    client.allocate(&mut world, |_| {});
    client.refresh(&mut world, 0);
    world.hold = true;
    let request = client.request(Method::Allocate, |request| {
        request.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    world.ignores(&client.tuple, &request);
    drain(&mut world, &[sibling(Some("203.0.113.8"), None, [UDP, None, None])]);
    world.ignores(&client.tuple, &request);
    let (ticket, ask) = world.asked.pop_front().unwrap();
    let opened = world.open(&ask);
    world.server.answered(world.now, ticket, opened);
    world.drain();
    assert_eq!(Reply(world.replies.pop_front().unwrap().1).code(), 0);
}

/// RFC 8656 §7.2, 5.: who redeems a reservation asks for a new allocation, too.
#[test]
fn a_reservation_is_not_redeemed() {
    let mut world = World::default();
    let mut client = Client::new(A);
    let token = client.allocate(&mut world, |r| r.bytes(attribute::EVEN_PORT, &[0x80])).token().unwrap();
    drain(&mut world, &[]);
    let mut other = Client::new("198.51.100.1:40001");
    let reply = other.allocate(&mut world, |r| r.bytes(attribute::RESERVATION_TOKEN, &token));
    assert_eq!(reply.code(), 508);
}

/// Clients are spread over all siblings, and each is sent to the same one again: a retransmission gets the same response.
#[test]
fn clients_are_spread_over_all_siblings() {
    let siblings = [7, 8, 9].map(|n| sibling(Some(&format!("203.0.113.{n}")), None, [UDP, None, None]));
    let mut world = World::default();
    drain(&mut world, &siblings);
    let mut counts = std::collections::BTreeMap::<SocketAddr, usize>::new();
    for port in 1000..1300 {
        let mut client = Client::new(&format!("198.51.100.1:{port}"));
        let (_, servers) = answer(&mut world, &mut client);
        assert_eq!(answer(&mut world, &mut client), (300, servers.clone()));
        *counts.entry(servers[0]).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 50), "{counts:?}");
}

/// RFC 8489 §10: no loop: a client is not sent back to the address where it asked, inside or outside of a NAT.
#[test]
fn a_client_is_not_sent_where_it_asked() {
    let here = ["192.0.2.1", "203.0.113.1"].map(|ip| sibling(Some(ip), None, [UDP, None, None]));
    let external = External::new(vec![("192.0.2.1".parse().unwrap(), "203.0.113.1".parse().unwrap())]);
    let mut world = World::new(TurnConfig { external: external.clone(), ..draining(&here) }, credentials());
    assert_eq!(answer(&mut world, &mut client(A, Transport::Udp)), (508, vec![]));
    let other = sibling(Some("203.0.113.8"), None, [UDP, None, None]);
    let all = [&here[..], &[other]].concat();
    world.apply(TurnConfig { external, ..draining(&all) }, credentials());
    let sent: BTreeSet<_> = (1000..1050)
        .map(|port| answer(&mut world, &mut Client::new(&format!("198.51.100.1:{port}"))))
        .collect();
    assert_eq!(sent, BTreeSet::from([(300, vec![addr("203.0.113.8:3478")])]));
}

/// After the end of a drain there are new allocations again.
#[test]
fn a_drain_can_end() {
    let mut world = World::default();
    drain(&mut world, &[]);
    assert_eq!(answer(&mut world, &mut client(A, Transport::Udp)).0, 508);
    world.apply(config(), credentials());
    assert_eq!(answer(&mut world, &mut client(A, Transport::Udp)).0, 0);
}
