//! Tests of the bitmaps: ports are taken once, released, kept while in use, and their addresses come and go.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::datapath::descriptors::DescriptorRoom;

#[test]
fn addresses_are_added_and_removed() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
    let mut take =
        || ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().map(|(port, _)| port);
    let first = take().unwrap();
    first.set_live();
    ports.set_addresses(&["192.0.2.2".parse().unwrap()]).unwrap();
    let second = take().unwrap();
    assert_eq!(second.addr(), "192.0.2.2:1000".parse().unwrap());
    assert!(take().is_none() && ports.is_live(first.addr()), "its allocation stays");
    let addr = first.addr();
    ports.set_addresses(&["192.0.2.1".parse().unwrap()]).unwrap();
    assert!(take().is_none(), "an address that returns keeps its state");
    drop(first);
    assert_eq!(take().unwrap().addr(), addr);
    assert!(!ports.is_live(addr));
}

fn ip(n: usize) -> IpAddr {
    IpAddr::from([10, 0, (n / 256) as u8, n as u8])
}

/// A machine may have any number of addresses in its life, as long as few are in use at a time.
#[test]
fn addresses_that_are_not_used_any_more_make_room() {
    let (ports, mut rng) = ports(&["2001:db8::1"], 1000..=1001);
    let kept = ports.take(0, wanted(Family::V6, PortRequest::Any), &mut rng).unwrap().0;
    kept.set_live();
    for n in 0..4 * MAX_ADDRESSES {
        ports.set_addresses(&[ip(n)]).unwrap();
        let port = ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).unwrap().0;
        port.set_live();
        assert_eq!(port.addr().ip(), ip(n));
        assert!(ports.is_live(port.addr()) && ports.is_live(kept.addr()));
    }
    assert_eq!(ports.slots().count(), 2);
    assert!(!ports.is_live(SocketAddr::new(ip(4 * MAX_ADDRESSES - 2), kept.addr().port())));
}

#[test]
fn the_number_of_addresses_in_use_is_bounded() {
    let (ports, mut rng) = ports(&[], 1000..=1001);
    let all: Vec<_> = (0..=MAX_ADDRESSES).map(ip).collect();
    assert_eq!(ports.set_addresses(&all), Err(TooManyAddresses));
    ports.set_addresses(&all[1..]).unwrap();
    // A removed address keeps its slot as long as it has an allocation.
    let mut take = || ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).unwrap().0;
    let taken: Vec<Port> = (0..MAX_ADDRESSES).map(|_| take()).collect();
    ports.set_addresses(&[]).unwrap();
    let held: HashSet<_> = taken.iter().map(|port| port.addr().ip()).collect();
    let free = MAX_ADDRESSES - held.len();
    let new: Vec<_> = (0..=free).map(|n| ip(n + 1000)).collect();
    assert_eq!(ports.set_addresses(&new), Err(TooManyAddresses));
    drop(taken);
    ports.set_addresses(&new).unwrap();
}

/// The limit on open files bounds how many ports can be taken at a time.
#[test]
fn the_number_of_ports_is_bounded() {
    let ports =
        Ports::new(1000..=1100, Descriptors::new(DescriptorRoom { total: 2, ..DescriptorRoom::UNBOUNDED }));
    ports.set_addresses(&[ip(1)]).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let mut take = |request| ports.take(0, wanted(Family::V4, request), &mut rng);
    let one = take(PortRequest::Any).unwrap();
    assert_eq!(take(PortRequest::Pair).err(), Some(NoPort::Descriptors));
    let other = take(PortRequest::Any).unwrap();
    assert_eq!(take(PortRequest::Any).err(), Some(NoPort::Descriptors));
    drop((one, other));
    assert!(take(PortRequest::Pair).is_ok());
}

/// The preferred address comes first, whatever is taken there; the others follow when it has no port left.
#[test]
fn the_address_near_the_client_is_preferred() {
    let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"];
    let (ports, mut rng) = ports(&addresses, 1000..=1003);
    let near = ["198.51.100.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    let wanted = |family, avoid| Wanted { near: &near, avoid, ..wanted(family, PortRequest::Any) };
    let mut take = |family, avoid| ports.take(0, wanted(family, avoid), &mut rng).unwrap().0;
    let first: Vec<Port> = (0..4).map(|_| take(Family::V4, &[])).collect();
    assert!(first.iter().all(|port| port.addr().ip() == near[1]));
    assert_ne!(take(Family::V4, &[]).addr().ip(), near[1], "no port is left there");
    assert_eq!(take(Family::V6, &[]).addr().ip(), "2001:db8::1".parse::<IpAddr>().unwrap());
    drop(first);
    assert_ne!(take(Family::V4, &near).addr().ip(), near[1], "it is not on this machine any more");
}

/// Without a preferred address the less used of two random ones comes first.
#[test]
fn addresses_fill_up_evenly() {
    let (ports, mut rng) = ports(&["192.0.2.1", "192.0.2.2"], 1000..=1999);
    let taken: Vec<Port> =
        (0..100).map(|_| ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).unwrap().0).collect();
    let first = taken.iter().filter(|port| port.addr().ip() == "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(first.count(), 50);
}

fn wanted(family: Family, port: PortRequest) -> Wanted<'static> {
    Wanted { family, port, near: &[], avoid: &[] }
}

fn ports(addresses: &[&str], range: RangeInclusive<u16>) -> (Arc<Ports>, StdRng) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let ports = Ports::new(range, Descriptors::new(DescriptorRoom::UNBOUNDED));
    ports.set_addresses(&addresses).unwrap();
    (ports, StdRng::seed_from_u64(7))
}

/// RFC 8656 §7.2: 508 only when no port is free; released ports can be taken again.
#[test]
fn every_port_is_taken_once() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1200);
    let mut take =
        || ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().map(|(port, _)| port);
    let taken: Vec<Port> = std::iter::from_fn(&mut take).collect();
    let addrs: HashSet<SocketAddr> = taken.iter().map(Port::addr).collect();
    assert_eq!((taken.len(), addrs.len()), (201, 201));
    assert!(addrs.iter().all(|addr| (1000..=1200).contains(&addr.port())));
    let first = taken[0].addr();
    drop(taken.into_iter().next());
    assert_eq!(ports.taken(), 0);
    assert!(std::iter::from_fn(take).any(|port| port.addr() == first));
}

/// RFC 8656 §7.2: EVEN-PORT asks for an even port, and with the R bit also for the next one.
#[test]
fn even_ports_and_pairs() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 1001..=1010);
    let mut take = |request| ports.take(0, wanted(Family::V4, request), &mut rng).ok();
    let mut pairs = Vec::new();
    while let Some((port, next)) = take(PortRequest::Pair) {
        let next = next.unwrap();
        assert_eq!((port.addr().port() % 2, next.addr().port()), (0, port.addr().port() + 1));
        pairs.push((port, next));
    }
    assert_eq!(pairs.len(), 4, "1002 to 1009; the port after 1010 is not in the range");
    let (even, none) = take(PortRequest::Even).unwrap();
    assert_eq!((even.addr().port(), none.is_none()), (1010, true));
    assert!(take(PortRequest::Even).is_none());
    let (odd, _) = take(PortRequest::Any).unwrap();
    assert_eq!(odd.addr().port(), 1001);
    assert!(take(PortRequest::Any).is_none());
}

/// RFC 8656 §7.2: the port must be hard to guess.
#[test]
fn ports_are_unpredictable() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 49152..=65535);
    let taken: Vec<u16> = (0..64)
        .map(|_| ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().unwrap().0.addr().port())
        .collect();
    let neighbours = taken.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
    assert!(neighbours < 8, "{taken:?}");
}

#[test]
fn all_addresses_of_a_family_are_used() {
    let (ports, mut rng) = ports(&["192.0.2.1", "2001:db8::1", "192.0.2.2"], 1000..=1001);
    let mut take =
        |family| ports.take(0, wanted(family, PortRequest::Any), &mut rng).ok().map(|(port, _)| port);
    let v4: Vec<Port> = std::iter::from_fn(|| take(Family::V4)).collect();
    let v6: Vec<Port> = std::iter::from_fn(|| take(Family::V6)).collect();
    assert_eq!((v4.len(), v6.len()), (4, 2));
    assert!(v6.iter().all(|port| port.addr().ip() == "2001:db8::1".parse::<IpAddr>().unwrap()));
}

#[test]
fn a_port_used_elsewhere_is_tried_again_later() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
    let mut take =
        |now| ports.take(now, wanted(Family::V4, PortRequest::Any), &mut rng).ok().map(|(port, _)| port);
    take(5).unwrap().used_elsewhere(5);
    assert!(take(6).is_none());
    assert!(take(4 + RETRY_AFTER).is_none());
    assert!(take(5 + RETRY_AFTER).is_some());
    assert!(take(5 + RETRY_AFTER).is_some(), "released when dropped");
}

/// Usage is what a new allocation finds: taken ports of the present range at the present addresses, for whatever they were
/// taken.
#[test]
fn usage_is_of_the_ports_that_new_allocations_can_have() {
    let (ports, mut rng) = ports(&["192.0.2.1", "192.0.2.2", "2001:db8::1"], 1000..=1199);
    let usage = |total, in_use| PortUsage { total, in_use };
    assert_eq!(ports.usage(), PerFamily { v4: usage(400, 0), v6: usage(200, 0) });
    let take = |request, rng: &mut StdRng| ports.take(0, wanted(Family::V4, request), rng).ok().unwrap();
    let pair = take(PortRequest::Pair, &mut rng);
    assert_eq!(ports.usage().v4, usage(400, 2), "a reserved port is in use");
    take(PortRequest::Any, &mut rng).0.used_elsewhere(0);
    assert_eq!(ports.usage(), PerFamily { v4: usage(400, 3), v6: usage(200, 0) });
    drop(pair);
    assert_eq!(ports.usage().v4, usage(400, 1));
    let all: Vec<Port> = (0..399).map(|_| take(PortRequest::Any, &mut rng).0).collect();
    assert_eq!(ports.usage().v4, usage(400, 400));
    for (range, of_it) in [(1063..=1064, 4), (1000..=1000, 2), (1100..=2000, 200), (0..=u16::MAX, 400)] {
        ports.set_range(&range);
        assert_eq!(ports.usage().v4, usage(2 * range.len() as u64, of_it), "{range:?}");
    }
    ports.set_range(&(1000..=1199));
    ports.set_addresses(&["192.0.2.1".parse().unwrap()]).unwrap();
    assert_eq!(ports.usage(), PerFamily { v4: usage(200, 200), v6: usage(0, 0) });
    drop(all);
}

#[test]
fn only_ports_with_an_allocation_are_live() {
    let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
    let (port, _) = ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().unwrap();
    let addr = port.addr();
    assert!(!ports.is_live(addr), "taken, but without an allocation");
    port.set_live();
    assert!(ports.is_live(addr));
    assert!(!ports.is_live(SocketAddr::new(addr.ip(), 1001)));
    assert!(!ports.is_live("192.0.2.2:1000".parse().unwrap()));
    drop(port);
    assert!(!ports.is_live(addr));
}

/// RFC 8656 §7.2: no two allocations have the same port, also on different workers.
#[test]
fn workers_do_not_get_the_same_port() {
    let (ports, _) = ports(&["192.0.2.1"], 2000..=2999);
    let all: Vec<Port> = std::thread::scope(|scope| {
        let worker = |seed| {
            let ports = &ports;
            move || {
                let mut rng = StdRng::seed_from_u64(seed);
                let take = || {
                    ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().map(|(port, _)| port)
                };
                std::iter::from_fn(take).collect::<Vec<_>>()
            }
        };
        let workers: Vec<_> = (0..4).map(|seed| scope.spawn(worker(seed))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let distinct: HashSet<SocketAddr> = all.iter().map(Port::addr).collect();
    assert_eq!((all.len(), distinct.len()), (1000, 1000));
}
