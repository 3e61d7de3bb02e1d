//! Which relay ports are free, on every relay address: bitmaps of atomics that all workers share.
//!
//! RFC 8656 section 7.2 wants ports that are hard to guess, so a search starts at a random one (a generator is passed in)
//! and fails only when nothing is free. A port that another program holds is left alone for a while and then tried
//! again. A port that is taken is a [`Port`]: dropping it releases it, also while a worker panics.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::{Rng, RngExt};

use crate::turn::{LiveRelays, PortRequest};
use crate::wire::Family;

/// How long a port that another program holds is left alone, in nanoseconds.
const HELD: u64 = 60_000_000_000;

/// Ports tried at random before the search goes on in order, which keeps neighbours apart while there is room.
const GUESSES: usize = 16;

/// Words of a bitmap with a bit per port.
const WORDS: usize = 1024;

/// Relay addresses that a process can have in its life: 16 KiB each.
const ADDRESSES: usize = 256;

/// The ports of all relay addresses. Entries are added and never removed, so that reading them takes no lock.
pub(in crate::datapath) struct Ports {
    addresses: [OnceLock<Arc<AddressPorts>>; ADDRESSES],
    range: RangeInclusive<u16>,
}

/// There are more relay addresses than [`ADDRESSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process has had {ADDRESSES} relay addresses, and can take no new one until it is restarted")]
pub struct TooManyAddresses;

/// The ports of one relay address.
struct AddressPorts {
    ip: IpAddr,
    /// Whether new ports are taken here.
    in_use: AtomicBool,
    /// Ports that are taken, by us or by another program.
    taken: Box<[AtomicU64]>,
    /// Ports that hold an allocation: packets between two clients of this relay may go there.
    live: Box<[AtomicU64]>,
    /// Ports that other programs hold, each with the time to try it again, in that order.
    held: Mutex<VecDeque<(u64, u16)>>,
}

/// A port that was taken. Dropping it releases it.
pub(in crate::datapath) struct Port {
    address: Arc<AddressPorts>,
    port: u16,
    /// Another program holds it, so it stays taken until then.
    held_until: Option<u64>,
}

impl Ports {
    /// All ports of `range` are free; there is no address yet.
    pub(in crate::datapath) fn new(range: RangeInclusive<u16>) -> Arc<Ports> {
        Arc::new(Ports { addresses: [const { OnceLock::new() }; ADDRESSES], range })
    }

    /// Replaces the relay addresses. Ports of an address that stays keep their state; ports of one that is removed are
    /// released as their allocations end.
    pub(in crate::datapath) fn set_addresses(&self, wanted: &[IpAddr]) -> Result<(), TooManyAddresses> {
        for address in self.addresses() {
            address.in_use.store(wanted.contains(&address.ip), Ordering::Relaxed);
        }
        for &ip in wanted {
            let mut slots = self.addresses.iter();
            // It ends at the slot of this address: the one that it had, or the first that was free.
            let found = slots.any(|slot| slot.get_or_init(|| Arc::new(AddressPorts::new(ip))).ip == ip);
            if !found {
                return Err(TooManyAddresses);
            }
        }
        Ok(())
    }

    /// Takes a port of a random address of a family; for [`PortRequest::Pair`] the next port too.
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
            address.try_again(now);
            let port = address.take(&self.range, request, rng)?;
            let guard = |port| Port { address: address.clone(), port, held_until: None };
            Some((guard(port), (request == PortRequest::Pair).then(|| guard(port + 1))))
        })
    }

    /// How many ports are taken, by us or by others.
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
        let (word, bit) = place(relayed.port());
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
            held: Mutex::default(),
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
        for _ in 0..GUESSES {
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
        let (word, bit) = place(port);
        let bits = match request {
            PortRequest::Any => bit,
            _ if port % 2 == 1 => return false,
            PortRequest::Even => bit,
            PortRequest::Pair if !range.contains(&(port + 1)) => return false,
            // An even port and the next one are in one word, so both are taken at once.
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

    /// Frees the ports that other programs held long enough ago.
    fn try_again(&self, now: u64) {
        let mut held = self.held();
        while let Some(&(at, port)) = held.front()
            && at <= now
        {
            held.pop_front();
            clear(&self.taken, port);
        }
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<(u64, u16)>> {
        // Each change is one call, so no half-made change can be seen.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// The transport address that it is part of.
    pub(in crate::datapath) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip, self.port)
    }

    /// It holds an allocation from now on.
    pub(super) fn set_live(&self) {
        let (word, bit) = place(self.port);
        self.address.live[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Another program holds it: it stays taken for a while.
    pub(in crate::datapath) fn held_by_another(mut self, now: u64) {
        self.held_until = Some(now + HELD);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let address = &self.address;
        clear(&address.live, self.port);
        match self.held_until {
            // A port is taken once, so it is in the list once at most, which bounds the list.
            Some(until) => address.held().push_back((until, self.port)),
            None => clear(&address.taken, self.port),
        }
    }
}

/// The word of a port in a bitmap, and its bit in it.
fn place(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

fn clear(bits: &[AtomicU64], port: u16) {
    let (word, bit) = place(port);
    bits[word].fetch_and(!bit, Ordering::AcqRel);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn addresses_come_and_go() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let mut take = || ports.take(0, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
        let first = take().unwrap();
        first.set_live();
        ports.set_addresses(&["192.0.2.2".parse().unwrap()]).unwrap();
        let second = take().unwrap();
        assert_eq!(second.addr(), "192.0.2.2:1000".parse().unwrap());
        assert!(take().is_none() && ports.is_live(first.addr()), "its allocation lives on");
        let held = first.addr();
        ports.set_addresses(&["192.0.2.1".parse().unwrap()]).unwrap();
        assert!(take().is_none(), "an address that returns has its ports as they were");
        drop(first);
        assert_eq!(take().unwrap().addr(), held);
        assert!(!ports.is_live(held));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let (ports, _) = ports(&[], 1000..=1000);
        let ip = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, n as u8]);
        (0..ADDRESSES).for_each(|n| ports.set_addresses(&[ip(n)]).unwrap());
        assert_eq!(ports.set_addresses(&[ip(ADDRESSES)]), Err(TooManyAddresses));
        ports.set_addresses(&[ip(7)]).unwrap();
    }

    fn ports(addresses: &[&str], range: RangeInclusive<u16>) -> (Arc<Ports>, StdRng) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let ports = Ports::new(range);
        ports.set_addresses(&addresses).unwrap();
        (ports, StdRng::seed_from_u64(7))
    }

    /// RFC 8656 §7.2: 508 only when nothing is free; what is given back can be taken again.
    #[test]
    fn every_port_is_handed_out_once() {
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

    /// RFC 8656 §7.2: EVEN-PORT wants an even port, with R also the next one.
    #[test]
    fn even_ports_and_pairs() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1001..=1010);
        let mut take = |wish| ports.take(0, Family::V4, wish, &mut rng);
        let mut pairs = Vec::new();
        while let Some((port, next)) = take(PortRequest::Pair) {
            let next = next.unwrap();
            assert_eq!((port.addr().port() % 2, next.addr().port()), (0, port.addr().port() + 1));
            pairs.push((port, next));
        }
        assert_eq!(pairs.len(), 4, "1002 to 1009; 1010 has no next one in the range");
        let (even, none) = take(PortRequest::Even).unwrap();
        assert_eq!((even.addr().port(), none.is_none()), (1010, true));
        assert!(take(PortRequest::Even).is_none());
        let (odd, _) = take(PortRequest::Any).unwrap();
        assert_eq!(odd.addr().port(), 1001);
        assert!(take(PortRequest::Any).is_none());
    }

    /// RFC 8656 §7.2: the port must be hard to guess.
    #[test]
    fn ports_are_spread() {
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
    fn a_port_that_another_program_holds_rests() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let mut take = |now| ports.take(now, Family::V4, PortRequest::Any, &mut rng).map(|(port, _)| port);
        take(5).unwrap().held_by_another(5);
        assert!(take(6).is_none());
        assert!(take(4 + HELD).is_none());
        assert!(take(5 + HELD).is_some());
        assert!(take(5 + HELD).is_some(), "given back when dropped");
    }

    #[test]
    fn only_set_ports_of_our_addresses_live() {
        let (ports, mut rng) = ports(&["192.0.2.1"], 1000..=1000);
        let (port, _) = ports.take(0, Family::V4, PortRequest::Any, &mut rng).unwrap();
        let addr = port.addr();
        assert!(!ports.is_live(addr), "taken, but no allocation has it");
        port.set_live();
        assert!(ports.is_live(addr));
        assert!(!ports.is_live(SocketAddr::new(addr.ip(), 1001)));
        assert!(!ports.is_live("192.0.2.2:1000".parse().unwrap()));
        drop(port);
        assert!(!ports.is_live(addr));
    }

    /// RFC 8656 §7.2: no two allocations get one port, whichever workers they are on.
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
