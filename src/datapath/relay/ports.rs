//! Which relay ports are free, on every relay address: a bitmap of atomics that all workers share.
//!
//! RFC 8656 section 7.2 wants ports that are hard to guess, so a search begins at a random one (a generator is passed in)
//! and fails only when nothing is free. A port that another program holds is left alone for a while and then tried
//! again. A port that is taken is a [`Port`]: dropping it gives it back, also while a worker panics.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, RngExt};

use crate::turn::{LiveRelays, PortRequest};
use crate::wire::Family;

/// How long a port that another program holds is left alone, in nanoseconds.
const HELD: u64 = 60_000_000_000;

/// Ports tried at random before the search goes on in order: that keeps neighbours apart while there is room.
const GUESSES: usize = 16;

/// A bit for each of the 65,536 ports.
const WORDS: usize = 1024;

/// The ports of all relay addresses.
pub(in crate::datapath) struct Ports {
    addresses: Vec<Address>,
    range: RangeInclusive<u16>,
}

/// The ports of one relay address.
struct Address {
    ip: IpAddr,
    /// Nobody else may take it.
    taken: Box<[AtomicU64]>,
    /// It holds an allocation: packets between two clients of this relay may go there.
    live: Box<[AtomicU64]>,
    /// Taken from us by other programs, with the time to try again, in that order.
    held: Mutex<VecDeque<(u64, u16)>>,
}

/// A port that was taken. Given back when dropped.
pub(in crate::datapath) struct Port {
    ports: Arc<Ports>,
    address: usize,
    port: u16,
    /// Another program has it, so it stays taken until then.
    held_until: Option<u64>,
}

impl Ports {
    /// All ports of `range` on each address are free.
    pub(in crate::datapath) fn new(addresses: &[IpAddr], range: RangeInclusive<u16>) -> Arc<Ports> {
        let bits = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let address = |&ip| Address { ip, taken: bits(), live: bits(), held: Mutex::default() };
        Arc::new(Ports { addresses: addresses.iter().map(address).collect(), range })
    }

    /// Takes a port of a random address of a family; for [`PortRequest::Pair`] the next port too.
    pub(in crate::datapath) fn take(
        self: &Arc<Self>,
        now: u64,
        family: Family,
        wish: PortRequest,
        rng: &mut impl Rng,
    ) -> Option<(Port, Option<Port>)> {
        let count = self.addresses.len();
        let start = rng.random_range(0..count.max(1));
        (0..count).map(|n| (start + n) % count).find_map(|index| {
            let address = self.addresses.get(index).filter(|address| Family::of(address.ip) == family)?;
            address.try_again(now);
            let port = address.take(&self.range, wish, rng)?;
            let guard = |port| Port { ports: self.clone(), address: index, port, held_until: None };
            Some((guard(port), (wish == PortRequest::Pair).then(|| guard(port + 1))))
        })
    }

    /// How many ports are taken, by us or by others.
    #[cfg(test)]
    fn taken(&self) -> u32 {
        let words = self.addresses.iter().flat_map(|address| &address.taken);
        words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }
}

impl LiveRelays for Arc<Ports> {
    fn is_live(&self, relayed: SocketAddr) -> bool {
        let Some(address) = self.addresses.iter().find(|address| address.ip == relayed.ip()) else {
            return false;
        };
        let (word, bit) = place(relayed.port());
        address.live[word].load(Ordering::Relaxed) & bit != 0
    }
}

impl Address {
    fn take(&self, range: &RangeInclusive<u16>, wish: PortRequest, rng: &mut impl Rng) -> Option<u16> {
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        if first > last {
            return None;
        }
        for _ in 0..GUESSES {
            let port = rng.random_range(*range.start()..=*range.end());
            let port = if wish == PortRequest::Any { port } else { port & !1 };
            if range.contains(&port) && self.try_take(port, range, wish) {
                return Some(port);
            }
        }
        let start = rng.random_range(first..=last);
        let mut candidates = (start..=last).chain(first..start).map(|port| port as u16);
        candidates.find(|&port| self.try_take(port, range, wish))
    }

    fn try_take(&self, port: u16, range: &RangeInclusive<u16>, wish: PortRequest) -> bool {
        let (word, bit) = place(port);
        let bits = match wish {
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

    /// Frees the ports that were held by other programs long enough ago.
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
        // No half-made change can be seen: each is one call.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// The transport address it makes.
    pub(in crate::datapath) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ports.addresses[self.address].ip, self.port)
    }

    /// From now on it holds an allocation.
    pub(in crate::datapath) fn set_live(&self) {
        let (word, bit) = place(self.port);
        self.ports.addresses[self.address].live[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Another program has it: it stays taken for a while.
    pub(in crate::datapath) fn held_by_another(mut self, now: u64) {
        self.held_until = Some(now + HELD);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let address = &self.ports.addresses[self.address];
        clear(&address.live, self.port);
        match self.held_until {
            // A taken port is nobody else's, so each stands in the list once at most: that is its bound.
            Some(until) => address.held().push_back((until, self.port)),
            None => clear(&address.taken, self.port),
        }
    }
}

/// Its word, and its bit there.
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

    fn ports(addresses: &[&str], range: RangeInclusive<u16>) -> (Arc<Ports>, StdRng) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        (Ports::new(&addresses, range), StdRng::seed_from_u64(7))
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
