use slotmap::SlotMap;

use super::*;
use crate::datapath::descriptors::DescriptorRoom;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn admission(connections: usize, connections_per_source: usize) -> Arc<Admission> {
    let limits = StreamLimits { connections, connections_per_source, ..Default::default() };
    let exempt = ExemptSources::new(&["10.0.0.0/8".parse().unwrap(), "2001:db8::ba1".parse().unwrap()]);
    Admission::new(limits, exempt, Descriptors::new(DescriptorRoom::UNBOUNDED))
}

/// Admits connections of a source until one is refused.
fn fill(admission: &Arc<Admission>, source: IpAddr) -> (Vec<Admitted>, Refusal) {
    let mut admitted = Vec::new();
    loop {
        match admission.admit(source) {
            Ok(one) => admitted.push(one),
            Err(refusal) => return (admitted, refusal),
        }
    }
}

fn assert_empty(admission: &Admission) {
    let state = admission.state();
    assert_eq!((state.total, state.counts.len(), state.ranking.len()), (0, 0, 0));
    assert_eq!((state.waiting.len(), state.displaced.len()), (0, 0));
}

fn worker() -> (Arc<DisplacedConnections>, StreamId) {
    (DisplacedConnections::new(Waker::new().unwrap()), SlotMap::with_key().insert(()))
}

/// Relay sockets take descriptors that connections cannot have, and the other way round.
#[test]
fn connections_and_relay_sockets_share_descriptors() {
    let descriptors = Descriptors::new(DescriptorRoom { total: 4, ..DescriptorRoom::UNBOUNDED });
    let limits = StreamLimits { connections: 50_000, connections_per_source: 1024, ..Default::default() };
    let admission = Admission::new(limits, ExemptSources::default(), descriptors.clone());
    assert!(descriptors.take_relay_sockets(2));
    let admitted: Vec<_> = (0..2).map(|_| admission.admit(ip("192.0.2.1")).unwrap()).collect();
    admitted.iter().for_each(|one| one.permit.allocated());
    let refusal = admission.admit(ip("192.0.2.2")).err().unwrap();
    assert_eq!((refusal.why, refusal.limit), (AdmissionRefusal::Connections, 2));
    assert!(refusal.by_open_files, "a higher limits.connections would not help");
    assert!(!descriptors.take_relay_sockets(1));
    drop(admitted);
    assert!(descriptors.take_relay_sockets(2));
}

#[test]
fn a_source_has_a_limit_until_it_holds_allocations() {
    let admission = admission(50_000, 1024);
    for source in ["192.0.2.1", "2001:db8::1"] {
        let (mut admitted, refusal) = fill(&admission, ip(source));
        assert_eq!((admitted.len(), refusal.limit), (1024, 1024));
        assert_eq!(refusal.why, AdmissionRefusal::ConnectionsPerSource);
        assert!(admission.admit(ip("192.0.2.2")).is_ok() && admission.admit(ip("2001:db8:0:1::1")).is_ok());
        // One of an office logs in: there is room for the next.
        admitted[7].permit.allocated();
        let next = admission.admit(ip(source)).unwrap();
        assert!(admission.admit(ip(source)).is_err());
        // Its allocation ends: it counts again.
        drop(next);
        let (worker, id) = worker();
        admitted[7].permit.deallocated(&worker, id);
        assert!(admission.admit(ip(source)).is_err());
        drop(admitted);
    }
    assert_empty(&admission);
}

/// Whoever has a /48 has 65,536 /64.
#[test]
fn ranges_around_an_ipv6_source_have_limits() {
    let admission = admission(50_000, 16);
    let from = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | bits << 64));
    let admit = |range: std::ops::Range<u128>| {
        range.map(from).map_while(|ip| admission.admit(ip).ok()).collect::<Vec<_>>()
    };
    let first = admit(0..256);
    assert_eq!(first.len(), 64, "a /56");
    let refusal = admission.admit(from(200)).err().unwrap();
    assert_eq!((refusal.source.to_string(), refusal.limit), ("2001:db8::/56".to_owned(), 64));
    let rest: Vec<_> = (1..256).flat_map(|n| admit(256 * n..256 * n + 1)).collect();
    assert_eq!(first.len() + rest.len(), 256, "a /48");
    let refusal = admission.admit(from(0xFF00)).err().unwrap();
    assert_eq!((refusal.source.to_string(), refusal.limit), ("2001:db8::/48".to_owned(), 256));
    assert!(admission.admit(ip("2001:db8:1::1")).is_ok());
    drop((first, rest));
    assert_empty(&admission);
}

#[test]
fn a_source_has_a_quarter_of_all_connections_at_most() {
    let admission = admission(100, 1024);
    let (admitted, refusal) = fill(&admission, ip("192.0.2.1"));
    assert_eq!((admitted.len(), refusal.limit, refusal.source.to_string()), (25, 25, "192.0.2.1".to_owned()));
    let limit = |connections, source| fill(&self::admission(connections, 1024), ip(source)).0.len();
    assert_eq!((limit(3, "192.0.2.1"), limit(1, "192.0.2.1")), (1, 1), "but at least one");
    assert_eq!(limit(100, "2001:db8::1"), 25);
}

/// The clients behind a balancer share its address.
#[test]
fn exempt_sources_have_limits_a_hundred_times_as_large() {
    let admission = admission(50_000, 10);
    let (admitted, refusal) = fill(&admission, ip("10.1.2.3"));
    assert_eq!((admitted.len(), refusal.limit), (1000, 1000));
    drop(admitted);
    // They may use every connection, but lock nobody out.
    let admission = self::admission(100, 10);
    let all: Vec<_> = (0..100).map(|_| admission.admit(ip("10.1.2.3")).unwrap()).collect();
    assert!(admission.admit(ip("192.0.2.1")).unwrap().displaces.is_some());
    drop(all);
}

/// `limits.exempt_sources`: the clients of an exempt IPv6 address count in no range, so its neighbours keep their own limit.
#[test]
fn an_exempt_address_takes_nothing_from_its_neighbours() {
    let admission = admission(50_000, 10);
    let (mut balanced, refusal) = fill(&admission, ip("2001:db8::ba1"));
    assert_eq!((balanced.len(), refusal.limit), (1000, 1000));
    assert_eq!(refusal.source.to_string(), "2001:db8::ba1");
    let (neighbour, refusal) = fill(&admission, ip("2001:db8::1"));
    assert_eq!((neighbour.len(), refusal.limit), (10, 10));
    assert_eq!(refusal.source.to_string(), "2001:db8::/64");
    // A connection counts where it was admitted, also if the list changes before it ends.
    let limits = admission.state().limits;
    admission.set_limits(limits, ExemptSources::default());
    let (worker, id) = worker();
    balanced[0].permit.allocated();
    balanced[0].permit.deallocated(&worker, id);
    drop((balanced, neighbour));
    assert_empty(&admission);
    // When all connections are in use, an exempt source can be the busiest one.
    let admission = self::admission(100, 10);
    let all: Vec<_> = (0..100).map(|_| admission.admit(ip("2001:db8::ba1")).unwrap()).collect();
    let newcomer = admission.admit(ip("2001:db8::1")).unwrap();
    assert_eq!(newcomer.displaces.unwrap().source.to_string(), "2001:db8::ba1");
    drop((all, newcomer));
    assert_empty(&admission);
}

/// Behind a trusted proxy are many clients: until it has named the client of a connection, that counts like an exempt source's, and
/// from then on against the client, wherever the proxy is.
#[test]
fn a_proxied_connection_counts_against_its_client() {
    let admission = admission(50_000, 10);
    for (proxy, client) in [("192.0.2.1", "198.51.100.1"), ("2001:db8:1::1", "2001:db8:2::1")] {
        let mut proxied: Vec<_> = (0..200).map(|_| admission.admit_proxied(ip(proxy)).unwrap()).collect();
        for admitted in &mut proxied[..10] {
            admitted.permit.identify(ip(client)).unwrap();
        }
        let refusal = proxied[10].permit.identify(ip(client)).unwrap_err();
        assert_eq!((refusal.why, refusal.limit), (AdmissionRefusal::ConnectionsPerSource, 10));
        assert!(admission.admit(ip(client)).is_err(), "the same limit as without a proxy");
        proxied[0].permit.allocated();
        assert!(admission.admit(ip(client)).is_ok());
        let another = if client.contains(':') { "2001:db8:3::1" } else { "198.51.100.2" };
        proxied[10].permit.identify(ip(another)).unwrap();
        drop(proxied);
    }
    assert_empty(&admission);
}

/// Who turns out to be a client itself at a trusted proxy's address has a client's limit, of which its connection takes its share
/// once. One that is refused counts as before.
#[test]
fn a_client_at_a_proxys_address_has_the_limit_of_a_client() {
    let admission = admission(50_000, 10);
    for source in ["192.0.2.1", "2001:db8:1::1"].map(ip) {
        let mut own = Vec::new();
        for n in 0..10 {
            let mut admitted = admission.admit_proxied(source).unwrap();
            admitted.permit.identify(source).unwrap_or_else(|refusal| panic!("{n}: {refusal:?}"));
            own.push(admitted);
        }
        let mut next = admission.admit_proxied(source).unwrap();
        for _ in 0..2 {
            let refusal = next.permit.identify(source).unwrap_err();
            assert_eq!((refusal.why, refusal.limit), (AdmissionRefusal::ConnectionsPerSource, 10));
        }
        own.pop();
        next.permit.identify(source).unwrap();
        drop((own, next));
    }
    assert_empty(&admission);
}

/// A connection whose client is named makes room as any other one does, and is told in its stages.
#[test]
fn a_proxied_connection_makes_room() {
    let admission = admission(2, 10);
    let mut proxied = [(); 2].map(|()| admission.admit_proxied(ip("192.0.2.1")).unwrap());
    proxied[1].permit.identify(ip("198.51.100.1")).unwrap();
    let newcomer = admission.admit(ip("203.0.113.1")).unwrap();
    assert!(newcomer.displaces.is_some());
    let told = proxied.iter_mut().filter_map(|one| one.displaced.try_recv().ok()).count();
    assert_eq!(told, 1);
    // It may hear of it after its client was named.
    let displaced = proxied
        .iter_mut()
        .position(|one| one.displaced.try_recv() != Err(oneshot::error::TryRecvError::Empty));
    proxied[displaced.unwrap()].permit.identify(ip("198.51.100.2")).unwrap();
    drop((proxied, newcomer));
    assert_empty(&admission);
}

/// The oldest connection of the busiest source makes room, wherever it is; those with an allocation stay.
#[test]
fn the_oldest_connection_of_the_busiest_source_makes_room() {
    let admission = admission(16, 2);
    let admit = |source: &str| admission.admit(ip(source)).unwrap();
    let mut calls = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(admit);
    calls.iter().for_each(|call| call.permit.allocated());
    let mut quiet: Vec<_> = (1..=9).map(|n| admit(&format!("198.51.100.{n}"))).collect();
    let (mut first, second) = (admit("2001:db8::1"), admit("2001:db8::2"));
    let (third, fourth) = (admit("2001:db8:0:1::1"), admit("2001:db8:0:1::1"));
    let (worker, id) = worker();
    assert!(first.permit.hand_over(&worker, id) && third.permit.hand_over(&worker, id));
    // All 16 are in use, and 2001:db8::/48 has most, evenly in two /64: either would do.
    let newcomer = admit("203.0.113.1");
    assert_eq!(newcomer.displaces.unwrap().source.to_string(), "2001:db8:0:1::/64");
    assert_eq!(worker.take(), [id], "the worker is told about the third");
    let next = admit("203.0.113.2");
    assert_eq!(next.displaces.unwrap().source.to_string(), "2001:db8::/64");
    assert_eq!(worker.take(), [id], "and then about the first");
    assert!(first.displaced.try_recv().is_err(), "its stages have ended");
    assert!(quiet.iter_mut().all(|one| one.displaced.try_recv().is_err()), "whoever has one keeps it");
    assert_eq!(admission.state().total, 18, "those that make room are still open");
    drop((first, third));
    assert_eq!(admission.state().total, 16);
    // An allocation that ends puts its connection back under the rule.
    calls[0].permit.deallocated(&worker, id);
    let more = ["203.0.113.3", "203.0.113.4"].map(admit);
    assert!(more.iter().all(|one| one.displaces.is_some()));
    drop((calls, quiet, second, fourth, newcomer, next, more));
    assert_empty(&admission);
}

/// If all connections hold allocations, nothing makes room.
#[test]
fn connections_with_allocations_stay() {
    let admission = admission(2, 2);
    let calls = ["192.0.2.1", "192.0.2.2"].map(|source| admission.admit(ip(source)).unwrap());
    calls.iter().for_each(|call| call.permit.allocated());
    let refusal = admission.admit(ip("192.0.2.3")).err().unwrap();
    assert_eq!((refusal.why, refusal.limit), (AdmissionRefusal::Connections, 2));
    assert!(!refusal.by_open_files);
}

/// A connection that has just got an allocation when it is told to make room keeps it.
#[test]
fn an_allocation_comes_before_making_room() {
    let admission = admission(1, 1);
    let first = admission.admit(ip("192.0.2.1")).unwrap();
    let (worker, id) = worker();
    assert!(first.permit.hand_over(&worker, id));
    let second = admission.admit(ip("192.0.2.2")).unwrap();
    first.permit.allocated();
    assert_eq!(admission.state().displaced.len(), 0);
    drop((first, second));
    assert_empty(&admission);
}

/// A connection in its stages is told, also if its worker gets it at that moment.
#[test]
fn a_connection_in_its_stages_makes_room() {
    let admission = admission(1, 1);
    let mut first = admission.admit(ip("192.0.2.1")).unwrap();
    assert!(first.displaced.try_recv().is_err());
    let _second = admission.admit(ip("192.0.2.2")).unwrap();
    assert_eq!(first.displaced.try_recv(), Ok(()));
    let (worker, id) = worker();
    assert!(!first.permit.hand_over(&worker, id));
}

/// A worker that does not close what it was told to bounds how many more connections there can be.
#[test]
fn connections_that_make_room_are_bounded() {
    let admission = admission(1000, 1000);
    let mut held: Vec<_> = (0..4).flat_map(|n| fill(&admission, [192, 0, 2, n].into()).0).collect();
    assert_eq!(held.len(), 1000);
    let mut n = 0u32;
    let refusal = loop {
        n += 1;
        match admission.admit(Ipv4Addr::from_bits(0xC633_6400 + n).into()) {
            Ok(admitted) => held.push(admitted),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.why, held.len()), (AdmissionRefusal::Connections, 1000 + MAX_DISPLACED));
    drop(held);
    assert_empty(&admission);
}

#[test]
fn limits_change_while_connections_are_open() {
    let admission = admission(4, 1);
    let _first = admission.admit(ip("192.0.2.1")).unwrap();
    assert!(admission.admit(ip("192.0.2.1")).is_err());
    let limits = StreamLimits { connections: 8, connections_per_source: 2, ..Default::default() };
    admission.set_limits(limits, ExemptSources::default());
    assert!(admission.admit(ip("192.0.2.1")).is_ok());
}

#[test]
fn a_panic_returns_permits() {
    let admission = admission(4, 1);
    let held = admission.clone();
    let thread = std::thread::spawn(move || {
        let _admitted = held.admit(ip("192.0.2.1"));
        panic!("a worker fails, as this test wants it to");
    });
    assert!(thread.join().is_err());
    assert_empty(&admission);
}

/// A table full of the worst addresses there are costs little more per connection than an empty one.
#[test]
fn many_sources_are_as_cheap_as_few() {
    let admission = admission(50_000, 1024);
    let held: Vec<_> = (0..50_000u128)
        .map(|n| admission.admit(Ipv6Addr::from_bits(n << 64 | 0x2001 << 112 | n << 80).into()).unwrap())
        .collect();
    let state = admission.state();
    assert!(state.counts.len() <= 3 * held.len() && state.ranking.len() == state.counts.len());
    drop(state);
    drop(held);
    assert_empty(&admission);
}
