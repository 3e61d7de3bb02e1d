//! Allocates the ports of relayed transport addresses, with atomic bitmaps that all workers share.
//!
//! RFC 8656 section 7.2 requires ports that are hard to guess, so a search starts at a random port and fails only if no port
//! is free. A port that another program uses is skipped for a while and then tried again. [`Port`] is a guard: dropping it
//! releases the port, also when a worker panics.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::{Rng, RngExt};

use crate::turn::{LiveRelays, PortRequest};
use crate::wire::Family;

/// How long a port that another program uses is skipped, in nanoseconds.
const RETRY_AFTER: u64 = 60_000_000_000;

/// Random ports tried before the search continues in order. They keep ports unpredictable while many are free.
const RANDOM_ATTEMPTS: usize = 16;

/// Words of a bitmap with one bit per port.
const WORDS: usize = 1024;

/// The maximum number of relay addresses in the lifetime of a process; each uses 16 KiB.
const MAX_ADDRESSES: usize = 256;

/// The ports of all relay addresses. Entries are never removed, so that readers need no lock.
pub(in crate::datapath) struct Ports {
    addresses: [OnceLock<Arc<AddressPorts>>; MAX_ADDRESSES],
    range: RangeInclusive<u16>,
}

/// The process has had its maximum number of relay addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process has had {MAX_ADDRESSES} relay addresses, and cannot add another one until it is restarted"
)]
pub struct TooManyAddresses;

/// The ports of one relay address.
struct AddressPorts {
    ip: IpAddr,
    /// Whether new allocations can use this address.
    in_use: AtomicBool,
    /// Ports that are taken, by this process or by another program.
    taken: Box<[AtomicU64]>,
    /// Ports with a live allocation, to which other clients of this relay may send.
    live: Box<[AtomicU64]>,
    /// Ports that other programs use, with the time to try them again, in that order.
    in_use_elsewhere: Mutex<VecDeque<(u64, u16)>>,
}

/// A port that is taken until this guard is dropped.
pub(in crate::datapath) struct Port {
    address: Arc<AddressPorts>,
    port: u16,
    /// Another program uses it, so it stays taken until then.
    retry_at: Option<u64>,
}

impl Ports {
    /// Ports in `range`, without any address yet.
    pub(in crate::datapath) fn new(range: RangeInclusive<u16>) -> Arc<Ports> {
        Arc::new(Ports { addresses: [const { OnceLock::new() }; MAX_ADDRESSES], range })
    }

    /// Replaces the relay addresses. Ports of a removed address are released as their allocations end, and its state is used
    /// again if the address returns.
    pub(in crate::datapath) fn set_addresses(&self, wanted: &[IpAddr]) -> Result<(), TooManyAddresses> {
        let known = self.addresses().count();
        let new = wanted.iter().filter(|ip| self.addresses().all(|address| address.ip != **ip));
        if known + new.count() > MAX_ADDRESSES {
            return Err(TooManyAddresses);
        }
        for address in self.addresses() {
            address.in_use.store(wanted.contains(&address.ip), Ordering::Relaxed);
        }
        for &ip in wanted {
            let mut slots = self.addresses.iter();
            // The search ends at the existing slot of this address, or initialises the first free one.
            slots.any(|slot| slot.get_or_init(|| Arc::new(AddressPorts::new(ip))).ip == ip);
        }
        Ok(())
    }

    /// Takes a port on a random address of a family and, for [`PortRequest::Pair`], also the next port.
    pub(in crate::datapath) fn take(
        &self,
        now: u64,
        family: Family,
        request: PortRequest,
        rng: &mut impl Rng,
    ) -> Option<(Port, Option<Port>)> {
        let usable = |address: &&Arc<AddressPorts>| Family::of(address.ip) == family && address.is_in_use();
        let count = self.addresses().filter(usable).count();
        let start = rng.random_range(0..count.max(1));
        let all = self.addresses().filter(usable).chain(self.addresses().filter(usable));
        all.skip(start).take(count).find_map(|address| {
            address.release_expired(now);
            let port = address.take(&self.range, request, rng)?;
            let guard = |port| Port { address: address.clone(), port, retry_at: None };
            Some((guard(port), (request == PortRequest::Pair).then(|| guard(port + 1))))
        })
    }

    /// The number of ports that are taken.
    #[cfg(test)]
    pub(in crate::datapath) fn taken(&self) -> u32 {
        let words = self.addresses().flat_map(|address| &address.taken);
        words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    fn addresses(&self) -> impl Iterator<Item = &Arc<AddressPorts>> {
        self.addresses.iter().map_while(OnceLock::get)
    }
}

impl LiveRelays for Arc<Ports> {
    fn is_live(&self, relayed: SocketAddr) -> bool {
        let Some(address) = self.addresses().find(|address| address.ip == relayed.ip()) else { return false };
        let (word, bit) = position(relayed.port());
        address.live[word].load(Ordering::Relaxed) & bit != 0
    }
}

impl AddressPorts {
    fn new(ip: IpAddr) -> AddressPorts {
        let bits = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        AddressPorts {
            ip,
            in_use: AtomicBool::new(true),
            taken: bits(),
            live: bits(),
            in_use_elsewhere: Mutex::default(),
        }
    }

    fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    fn take(&self, range: &RangeInclusive<u16>, request: PortRequest, rng: &mut impl Rng) -> Option<u16> {
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        if first > last {
            return None;
        }
        for _ in 0..RANDOM_ATTEMPTS {
            let port = rng.random_range(*range.start()..=*range.end());
            let port = if request == PortRequest::Any { port } else { port & !1 };
            if range.contains(&port) && self.try_take(port, range, request) {
                return Some(port);
            }
        }
        let start = rng.random_range(first..=last);
        let mut candidates = (start..=last).chain(first..start).map(|port| port as u16);
        candidates.find(|&port| self.try_take(port, range, request))
    }

    fn try_take(&self, port: u16, range: &RangeInclusive<u16>, request: PortRequest) -> bool {
        let (word, bit) = position(port);
        let bits = match request {
            PortRequest::Any => bit,
            _ if port % 2 == 1 => return false,
            PortRequest::Even => bit,
            PortRequest::Pair if !range.contains(&(port + 1)) => return false,
            // An even port and the next one are in the same word, so both are taken atomically.
            PortRequest::Pair => bit | bit << 1,
        };
        let word = &self.taken[word];
        word.load(Ordering::Relaxed) & bits == 0
            && word
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| {
                    (taken & bits == 0).then_some(taken | bits)
                })
                .is_ok()
    }

    /// Releases the ports that are to be tried again.
    fn release_expired(&self, now: u64) {
        let mut ports = self.in_use_elsewhere();
        while let Some(&(at, port)) = ports.front()
            && at <= now
        {
            ports.pop_front();
            clear(&self.taken, port);
        }
    }

    fn in_use_elsewhere(&self) -> MutexGuard<'_, VecDeque<(u64, u16)>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
        self.in_use_elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// The transport address with this port.
    pub(in crate::datapath) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip, self.port)
    }

    /// Marks that an allocation uses the port.
    pub(super) fn set_live(&self) {
        let (word, bit) = position(self.port);
        self.address.live[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Releases the port, which another program uses, after a while.
    pub(in crate::datapath) fn used_elsewhere(mut self, now: u64) {
        self.retry_at = Some(now + RETRY_AFTER);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let address = &self.address;
        clear(&address.live, self.port);
        match self.retry_at {
            // A port that is in the list stays taken, so it is in the list only once, which bounds the list.
            Some(at) => address.in_use_elsewhere().push_back((at, self.port)),
            None => clear(&address.taken, self.port),
        }
    }
}

/// The index of the word of a port in a bitmap, and its bit in that word.
fn position(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

fn clear(bits: &[AtomicU64], port: u16) {
    let (word, bit) = position(port);
    bits[word].fetch_and(!bit, Ordering::AcqRel);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn addresses_are_added_and_removed() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let mut take = || ports.take(0, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
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

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let (ports, _) = ports(&[], 1000..=1000);
        let ip = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, n as u8]);
        (0..MAX_ADDRESSES).for_each(|n| ports.set_addresses(&[ip(n)]).unwrap());
        assert_eq!(ports.set_addresses(&[ip(MAX_ADDRESSES)]), Err(TooManyAddresses));
        ports.set_addresses(&[ip(7)]).unwrap();
    }

    fn ports(addresses: &[&str], range: RangeInclusive<u16>) -> (Arc<Ports>, StdRng) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let ports = Ports::new(range);
        ports.set_addresses(&addresses).unwrap();
        (ports, StdRng::seed_from_u64(7))
    }

    /// RFC 8656 §7.2: 508 only when no port is free; released ports can be taken again.
    #[test]
    fn every_port_is_taken_once() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1200);
        let mut take = || ports.take(0, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
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
        let mut take = |request| ports.take(0, Family::V4, request, &mut rng);
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
            .map(|_| ports.take(0, Family::V4, PortRequest::Any, &mut rng).unwrap().0.addr().port())
            .collect();
        let neighbours = taken.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
        assert!(neighbours < 8, "{taken:?}");
    }

    #[test]
    fn all_addresses_of_a_family_are_used() {
        let (ports, mut rng) = ports(&["192.0.2.1", "2001:db8::1", "192.0.2.2"], 1000..=1001);
        let mut take = |family| ports.take(0, family, PortRequest::Any, &mut rng).map(|(port, _)| port);
        let v4: Vec<Port> = std::iter::from_fn(|| take(Family::V4)).collect();
        let v6: Vec<Port> = std::iter::from_fn(|| take(Family::V6)).collect();
        assert_eq!((v4.len(), v6.len()), (4, 2));
        assert!(v6.iter().all(|port| port.addr().ip() == "2001:db8::1".parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_port_used_elsewhere_is_tried_again_later() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let mut take = |now| ports.take(now, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
        take(5).unwrap().used_elsewhere(5);
        assert!(take(6).is_none());
        assert!(take(4 + RETRY_AFTER).is_none());
        assert!(take(5 + RETRY_AFTER).is_some());
        assert!(take(5 + RETRY_AFTER).is_some(), "released when dropped");
    }

    #[test]
    fn only_ports_with_an_allocation_are_live() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let (port, _) = ports.take(0, Family::V4, PortRequest::Any, &mut rng).unwrap();
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
                    let take = || ports.take(0, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
                    std::iter::from_fn(take).collect::<Vec<_>>()
                }
            };
            let workers: Vec<_> = (0..4).map(|seed| scope.spawn(worker(seed))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let distinct: HashSet<SocketAddr> = all.iter().map(Port::addr).collect();
        assert_eq!((all.len(), distinct.len()), (1000, 1000));
    }
}
