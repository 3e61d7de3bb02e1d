//! Tests of opening and closing relay sockets on loopback, and of releasing quota, ports and sockets.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

use rand::SeedableRng;
use socket2::SockRef;

use super::*;
use crate::datapath::descriptors::{DescriptorRoom, Descriptors};
use crate::datapath::drops::tests::overflow;
use crate::datapath::poll::Events;
use crate::datapath::wake::Waker;
use crate::turn::{LiveRelays, PortUse};
use crate::wire::Family;

/// No relay address.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The relay sockets of one worker.
struct World {
    relays: Relays,
    poll: Poll,
    log: SocketLog,
}

fn resources(addresses: &[&str], ports: RangeInclusive<u16>, user_allocations: usize) -> Arc<Resources> {
    let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let ports = Ports::new(ports, Descriptors::new(DescriptorRoom::UNBOUNDED));
    ports.set_addresses(&addresses).unwrap();
    Arc::new(Resources {
        ports,
        ledger: QuotaLedger::new(user_allocations, 100),
        reservations: Reservations::default(),
        reservation_lifetime: 30.into(),
        gro: true,
    })
}

impl World {
    fn new(resources: &Arc<Resources>) -> World {
        let relays = Relays::new(resources.clone(), StdRng::seed_from_u64(9));
        World { relays, poll: Poll::new().unwrap(), log: SocketLog::default() }
    }

    fn ask(&mut self, now: u64, ask: Ask) -> Answer {
        self.relays.answer(ask, Opening { now, poll: &self.poll, log: &mut self.log })
    }

    fn open(&mut self, user: &str, v4: bool, v6: bool, port: PortRequest) -> Answer {
        self.ask(0, open_relay(user, Families { v4, v6 }, port, [ANY; 3]))
    }

    fn claim(&mut self, now: u64, user: &str, token: Token) -> Answer {
        self.ask(now, Ask::ClaimReservation { user: user.into(), token })
    }
}

fn open_relay(user: &str, families: Families, port: PortRequest, near: [IpAddr; 3]) -> Ask {
    Ask::OpenRelay(RelayRequest { user: user.into(), client: ANY, families, port, near })
}

fn v4(answer: &Answer) -> SocketAddr {
    opened(answer, Family::V4).addr.0
}

fn opened(answer: &Answer, family: Family) -> OpenedRelay {
    let Answer::Opened { relays, .. } = answer else { panic!("{answer:?}") };
    relays[family].expect("asked for").expect("no shortage")
}

fn token(answer: &Answer) -> Token {
    let Answer::Opened { token: Some(token), .. } = answer else { panic!("{answer:?}") };
    *token
}

fn key(answer: &Answer, family: Family) -> RelaySocketKey {
    opened(answer, family).socket.into()
}

/// RFC 8656 §7.2: a dual allocation has a relayed address of each family, which can be closed separately.
#[test]
fn a_dual_allocation_opens_and_closes() {
    let resources = resources(&["127.0.2.1", "::1"], 20_000..=32_000, 1);
    let mut world = World::new(&resources);
    let answer = world.open("alice", true, true, PortRequest::Any);
    assert!(matches!(answer, Answer::Opened { token: None, .. }));
    let [v4, v6] = [Family::V4, Family::V6].map(|family| opened(&answer, family).addr);
    assert!(resources.ports.is_live(v4.0) && resources.ports.is_live(v6.0));

    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"hello", v4.0).unwrap();
    let mut events = Events::new(4);
    world.poll.wait(&mut events).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events.source(0), Some(EventSource::Relay(key(&answer, Family::V4))));

    world.relays.close(key(&answer, Family::V4));
    assert!(!resources.ports.is_live(v4.0) && resources.ports.is_live(v6.0));
    assert!(world.relays.socket(key(&answer, Family::V4)).is_none());
    assert_eq!(world.open("alice", true, false, PortRequest::Any), Answer::Refused(Denial::Quota(1)));
    world.relays.close(key(&answer, Family::V6));
    assert_eq!(resources.ledger.total(), 0);
    let waker = Waker::new().unwrap();
    world.poll.add(waker.as_fd(), EventSource::Waker).unwrap();
    waker.wake();
    world.poll.wait(&mut events).unwrap();
    assert_eq!(
        (events.len(), events.source(0)),
        (1, Some(EventSource::Waker)),
        "a closed socket has no events"
    );
}

/// RFC 8656 §7.2: a dual allocation succeeds with one family, and fails with none.
#[test]
fn a_dual_allocation_with_one_family() {
    let resources = resources(&["127.0.2.2"], 20_000..=32_000, 9);
    let mut world = World::new(&resources);
    let answer = world.open("alice", true, true, PortRequest::Any);
    let Answer::Opened { relays, .. } = answer else { panic!("{answer:?}") };
    assert!(matches!(relays, PerFamily { v4: Some(Ok(_)), v6: Some(Err(Shortage)) }), "{relays:?}");
    world.relays.close(key(&answer, Family::V4));
    assert_eq!(world.open("alice", false, true, PortRequest::Any), Answer::Refused(Denial::NoAddress));
    assert_eq!(resources.ledger.total(), 0, "a failure uses no quota");
}

/// RFC 8656 §7.2: 508 when no port is free; ports that other programs use are skipped.
#[test]
fn ports_used_elsewhere_are_skipped() {
    let others: Vec<UdpSocket> =
        (20_100..20_104).filter_map(|port| UdpSocket::bind(("127.0.2.30", port)).ok()).collect();
    assert!(!others.is_empty());
    let resources = resources(&["127.0.2.30"], 20_100..=20_104, 99);
    let mut world = World::new(&resources);
    let answer = world.open("alice", true, false, PortRequest::Any);
    assert_eq!(v4(&answer).port(), 20_104);
    let families = Families { v4: true, v6: false };
    let ask = open_relay("alice", families, PortRequest::Any, [ANY; 3]);
    // Of this relay; what the others have is not known
    let ports = PortUse { range: (20_100, 20_104), ports: 5, in_use: 1 };
    assert_eq!(world.ask(1, ask), Answer::Refused(Denial::NoPort(ports)));
}

/// RFC 8656 §7.2: an address that is gone from the machine is skipped while there is another one.
#[test]
fn an_unavailable_address_is_skipped() {
    let resources = resources(&["192.0.2.77", "127.0.2.20"], 20_000..=32_000, 99);
    let mut world = World::new(&resources);
    for _ in 0..8 {
        assert_eq!(v4(&world.open("alice", true, false, PortRequest::Any)).ip().to_string(), "127.0.2.20");
    }
    // Even if it is the one that the client came in by.
    let near = ["192.0.2.77".parse().unwrap(), ANY, ANY];
    let families = Families { v4: true, v6: false };
    let ask = open_relay("alice", families, PortRequest::Any, near);
    assert_eq!(v4(&world.ask(0, ask)).ip().to_string(), "127.0.2.20");
}

/// RFC 8656 §7.2: EVEN-PORT with the R bit reserves the next port; a token claims it on any worker, for any user.
#[test]
fn a_reserved_port_is_claimed_on_another_worker() {
    let resources = resources(&["127.0.2.3"], 20_000..=32_000, 2);
    let (mut one, mut other) = (World::new(&resources), World::new(&resources));
    let answer = one.open("alice", true, false, PortRequest::Pair);
    let made = key(&answer, Family::V4);
    let (even, token) = (v4(&answer), token(&answer));
    assert_eq!(even.port() % 2, 0);
    assert_eq!(
        one.open("alice", true, false, PortRequest::Any),
        Answer::Refused(Denial::Quota(2)),
        "both count"
    );
    let next = SocketAddr::new(even.ip(), even.port() + 1);
    assert!(!resources.ports.is_live(next));

    let answer = other.claim(29, "bob", token);
    let claimed = key(&answer, Family::V4);
    assert_eq!(v4(&answer), next);
    assert!(resources.ports.is_live(next));
    assert!(other.relays.socket(claimed).is_some());
    assert_eq!(other.claim(29, "bob", token), Answer::Refused(Denial::Token), "only once");
    assert!(
        matches!(one.open("alice", true, false, PortRequest::Any), Answer::Opened { .. }),
        "it counts for bob now"
    );
    one.relays.close(made);
    other.relays.close(claimed);
    assert_eq!(resources.ledger.total(), 1);
}

/// RFC 8656 §7.2: a refused claim leaves the reservation unchanged.
#[test]
fn a_refused_claim_keeps_the_reservation() {
    let resources = resources(&["127.0.2.4"], 20_000..=32_000, 2);
    let mut world = World::new(&resources);
    let token = token(&world.open("alice", true, false, PortRequest::Pair));
    let bobs: Vec<_> = (0..2).map(|_| world.open("bob", true, false, PortRequest::Any)).collect();
    assert_eq!(world.claim(1, "bob", token), Answer::Refused(Denial::Quota(2)));
    world.relays.close(key(&bobs[0], Family::V4));
    assert!(matches!(world.claim(1, "bob", token), Answer::Opened { .. }));
}

/// RFC 8656 §7.2: a claim that fails changes nothing: neither for the user who reserved the port nor for the claimer.
#[test]
fn a_failed_claim_leaves_the_quota_with_its_user() {
    let resources = resources(&["127.0.2.12"], 20_000..=32_000, 2);
    let mut world = World::new(&resources);
    let token = token(&world.open("alice", true, false, PortRequest::Pair));
    let poll = std::mem::replace(&mut world.poll, Poll::broken());
    assert_eq!(world.claim(1, "bob", token), Answer::Refused(Denial::SocketFailed));
    world.poll = poll;
    let open = |world: &mut World, user| world.open(user, true, false, PortRequest::Any);
    assert_eq!(open(&mut world, "alice"), Answer::Refused(Denial::Quota(2)), "it counts for alice");
    let bobs = open(&mut world, "bob");
    assert!(matches!(open(&mut world, "bob"), Answer::Opened { .. }), "it does not count for bob");
    world.relays.close(key(&bobs, Family::V4));
    assert!(matches!(world.claim(1, "bob", token), Answer::Opened { .. }), "the reservation is still there");
}

/// A reserved socket, which nobody reads, holds little of the memory that all UDP sockets of the machine share.
#[test]
fn a_reserved_socket_has_the_smallest_buffer_until_it_is_claimed() {
    let resources = resources(&["127.0.2.13"], 20_000..=32_000, 9);
    let mut world = World::new(&resources);
    let answer = world.open("alice", true, false, PortRequest::Pair);
    let (even, token) = (v4(&answer), token(&answer));
    let reserved = SocketAddr::new(even.ip(), even.port() + 1);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..1000 {
        peer.send_to(&[1; 1000], reserved).unwrap();
    }
    let answer = world.claim(1, "alice", token);
    let socket = world.relays.socket(key(&answer, Family::V4)).unwrap();
    let size = |socket: BorrowedFd<'_>| SockRef::from(&socket).recv_buffer_size().unwrap();
    let mut byte = [0; 1];
    let received = nix::sys::socket::recv(socket.as_raw_fd(), &mut byte, nix::sys::socket::MsgFlags::empty());
    assert_eq!(received, Err(nix::errno::Errno::EAGAIN), "what arrived before the claim is discarded");
    assert!(size(socket) > 100_000, "{}", size(socket));
    assert_eq!(world.relays.take_drops(9).count, 0, "what was dropped before the claim is no loss");
}

/// RFC 8656 §7.2: without quota for the reservation, the allocation fails and uses no quota.
#[test]
fn a_pair_needs_quota_for_both() {
    let resources = resources(&["127.0.2.5"], 20_000..=32_000, 1);
    let mut world = World::new(&resources);
    assert_eq!(world.open("alice", true, false, PortRequest::Pair), Answer::Refused(Denial::Quota(1)));
    assert_eq!(resources.ledger.total(), 0);
    assert!(matches!(
        world.open("alice", true, false, PortRequest::Even),
        Answer::Opened { token: None, .. }
    ));
}

#[test]
fn dropping_the_table_releases_everything() {
    let resources = resources(&["127.0.2.6"], 20_000..=32_000, 9);
    let mut world = World::new(&resources);
    let addr = v4(&world.open("alice", true, false, PortRequest::Any));
    drop(world);
    assert!(!resources.ports.is_live(addr));
    assert_eq!(resources.ledger.total(), 0);
    assert!(UdpSocket::bind(addr).is_ok());
}

/// Drops are polled for a number of sockets at a time, and once more when a socket is closed.
#[test]
fn drops_are_polled_in_turn() {
    let resources = resources(&["127.0.2.9", "::1"], 20_000..=32_000, 10);
    let mut world = World::new(&resources);
    let sockets: Vec<_> = (0..5)
        .map(|_| world.open("alice", true, true, PortRequest::Any))
        .flat_map(|answer| [Family::V4, Family::V6].map(|family| key(&answer, family)))
        .collect();
    let fill = |relays: &Relays, socket| {
        let socket = relays.socket(socket).unwrap();
        let addr = SockRef::from(&socket).local_addr().unwrap().as_socket().unwrap();
        overflow(socket, addr, 0)
    };
    let relays = &mut world.relays;
    assert_eq!((relays.len(), relays.take_drops(10)), (10, QueueLoss::default()));

    let first = fill(relays, sockets[0]) + fill(relays, sockets[1]);
    let last = fill(relays, sockets[9]);
    assert_eq!(relays.take_drops(0).count, 0);
    assert_eq!(relays.take_drops(6).count, first);
    assert_eq!(relays.take_drops(6).count, last, "the last four, then the first two again");
    assert_eq!(relays.take_drops(100).count, 0, "no more than there are");

    let closed = fill(relays, sockets[2]);
    relays.close(sockets[2]);
    assert_eq!(relays.take_drops(0).count, closed);
    for &socket in [3, 0, 1].map(|n| &sockets[n]) {
        relays.close(socket);
    }
    // The sockets that were moved to the indices of the closed ones are polled like the others.
    let rest: u64 = sockets[4..].iter().step_by(2).map(|&socket| fill(relays, socket)).sum();
    assert_eq!((relays.len(), relays.take_drops(6).count), (6, rest));
    for &socket in &sockets[4..] {
        relays.close(socket);
    }
    assert_eq!((relays.len(), relays.take_drops(100).count, resources.ledger.total()), (0, 0, 0));
}
