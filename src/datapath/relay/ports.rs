//! Allocates the ports of relayed transport addresses, with atomic bitmaps that all workers share.
//!
//! RFC 8656 section 7.2 requires ports that are hard to guess, so a search starts at a random port and fails only if no port
//! is free. A port that another program uses is skipped for a while and then tried again. [`Port`] is a guard: dropping it
//! releases the port, also when a worker panics.
//!
//! The table has a fixed number of slots, so that readers need no lock. A slot is used for another address once its own is
//! removed and the last port of it is released: a machine whose IPv6 address changes daily does not run out of them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::datapath::descriptors::Descriptors;
use crate::turn::{LiveRelays, PortRequest};
use crate::wire::Family;

/// How long a port that another program uses is skipped, in nanoseconds.
const RETRY_AFTER: u64 = 60_000_000_000;

/// Random ports tried before the search continues in order. They keep ports unpredictable while many are free.
const RANDOM_ATTEMPTS: usize = 16;

/// Words of a bitmap with one bit per port.
const WORDS: usize = 1024;

/// The maximum number of relay addresses at a time, including removed ones that still have allocations; each uses 16 KiB.
const MAX_ADDRESSES: usize = 256;

/// Added to [`AddressSlot::holders`] while a slot gets another address; there are never that many ports.
const REPLACING: usize = 1 << 32;

/// The ports of all relay addresses.
pub(in crate::datapath) struct Ports {
    slots: [OnceLock<Box<AddressSlot>>; MAX_ADDRESSES],
    range: RangeInclusive<u16>,
    /// Each port that is taken is one of a relay socket.
    descriptors: Arc<Descriptors>,
    /// Held while addresses are replaced.
    change: Mutex<()>,
}

/// There are more relay addresses than the process can use at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_ADDRESSES} relay addresses are in use, including removed ones that still have allocations; the rest is \
     left out until some of them have ended"
)]
pub struct TooManyAddresses;

/// A port was asked for, and there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum NoPort {
    /// Every port of every address that was asked for is taken, or there is no such address.
    Taken,
    /// This process has as many relay sockets and connections as its limit on open files leaves room for.
    Descriptors,
}

/// Which port is wanted, and where.
#[derive(Clone, Copy)]
pub(in crate::datapath) struct Wanted<'a> {
    pub(in crate::datapath) family: Family,
    pub(in crate::datapath) port: PortRequest,
    /// Addresses to prefer, the most preferred first.
    pub(in crate::datapath) near: &'a [IpAddr],
    /// Addresses that have turned out to be unusable.
    pub(in crate::datapath) avoid: &'a [IpAddr],
}

/// The ports of one relay address.
struct AddressSlot {
    /// Counts the addresses that the slot has had, twice each: odd while one replaces another.
    version: AtomicU64,
    /// The address, as the bits of an IPv6 address.
    ip: [AtomicU64; 2],
    /// Whether new allocations can use this address.
    in_use: AtomicBool,
    /// Guards of its ports, and searches for one. The address changes only while there are none.
    holders: AtomicUsize,
    /// Ports that are taken, by this process or by another program.
    taken: Box<[AtomicU64]>,
    /// Ports with a live allocation, to which other clients of this relay may send.
    live: Box<[AtomicU64]>,
    /// Ports that other programs use, with the time to try them again, in that order.
    in_use_elsewhere: Mutex<VecDeque<(u64, u16)>>,
}

/// A port that is taken until this guard is dropped.
pub(in crate::datapath) struct Port {
    ports: Arc<Ports>,
    slot: usize,
    addr: SocketAddr,
    /// Another program uses it, so it stays taken until then.
    retry_at: Option<u64>,
}

impl Ports {
    /// Ports in `range`, without any address yet.
    pub(in crate::datapath) fn new(range: RangeInclusive<u16>, descriptors: Arc<Descriptors>) -> Arc<Ports> {
        Arc::new(Ports {
            slots: [const { OnceLock::new() }; MAX_ADDRESSES],
            range,
            descriptors,
            change: Mutex::new(()),
        })
    }

    /// Replaces the relay addresses. Ports of a removed address are released as their allocations end.
    ///
    /// # Errors
    /// Some addresses are left out, because there is no slot for them.
    pub(in crate::datapath) fn set_addresses(&self, wanted: &[IpAddr]) -> Result<(), TooManyAddresses> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_except(wanted);
        let missing =
            wanted.iter().filter(|ip| !self.slots().any(|slot| slot.is_in_use() && slot.ip() == **ip));
        let mut fits = true;
        for &ip in missing {
            // Its former slot first, which knows the ports of allocations that are left.
            fits &= self.slots().any(|slot| slot.ip() == ip && slot.use_again())
                || self.slots().any(|slot| slot.replace(ip))
                || self.slots.iter().any(|slot| {
                    let is_free = slot.get().is_none();
                    is_free && slot.set(Box::new(AddressSlot::new(ip))).is_ok()
                });
        }
        if fits { Ok(()) } else { Err(TooManyAddresses) }
    }

    /// Lets no new allocation use an address that is not among `wanted`.
    pub(in crate::datapath) fn remove_except(&self, wanted: &[IpAddr]) {
        for slot in self.slots().filter(|slot| !wanted.contains(&slot.ip())) {
            slot.in_use.store(false, Ordering::SeqCst);
        }
    }

    /// Takes a port and, for [`PortRequest::Pair`], also the next one: on the first address of `wanted.near` that has one,
    /// otherwise on a random one. Of two random addresses, that with fewer taken ports comes first.
    pub(in crate::datapath) fn take(
        self: &Arc<Self>,
        now: u64,
        wanted: Wanted<'_>,
        rng: &mut impl Rng,
    ) -> Result<(Port, Option<Port>), NoPort> {
        let count = if wanted.port == PortRequest::Pair { 2 } else { 1 };
        if !self.descriptors.take_relay_sockets(count) {
            return Err(NoPort::Descriptors);
        }
        let taken = self.order(wanted, rng).into_iter().find_map(|index| {
            let slot = self.slots[index].get().filter(|slot| slot.hold())?;
            let ip = slot.ip();
            // The address may have been replaced since it was put in order.
            let usable = slot.is_in_use() && Family::of(ip) == wanted.family && !wanted.avoid.contains(&ip);
            let port = usable.then(|| slot.take(now, &self.range, wanted.port, rng)).flatten();
            if port.is_none() {
                slot.release();
            }
            Some((index, ip, port?))
        });
        let Some((slot, ip, port)) = taken else {
            self.descriptors.return_relay_sockets(count);
            return Err(NoPort::Taken);
        };
        let guard = |port| {
            let addr = SocketAddr::new(ip, port);
            Port { ports: self.clone(), slot, addr, retry_at: None }
        };
        let next = (wanted.port == PortRequest::Pair).then(|| {
            if let Some(slot) = self.slots[slot].get() {
                // The first port keeps the address in its place, so this cannot fail.
                slot.hold();
            }
            guard(port + 1)
        });
        Ok((guard(port), next))
    }

    /// Whether new allocations can use any address of this family.
    pub(in crate::datapath) fn has_address(&self, family: Family) -> bool {
        self.slots().any(|slot| slot.is_in_use() && Family::of(slot.ip()) == family)
    }

    /// The slots to search, in order.
    fn order(&self, wanted: Wanted<'_>, rng: &mut impl Rng) -> Vec<usize> {
        let usable = |slot: &AddressSlot| slot.is_in_use() && Family::of(slot.ip()) == wanted.family;
        let slots = self.slots().enumerate();
        let mut order: Vec<(usize, &AddressSlot)> = slots.filter(|(_, slot)| usable(slot)).collect();
        order.shuffle(rng);
        if let [(_, first), (_, second), ..] = order[..]
            && second.holders.load(Ordering::Relaxed) < first.holders.load(Ordering::Relaxed)
        {
            order.swap(0, 1);
        }
        let near = wanted.near.iter().find_map(|ip| order.iter().position(|(_, slot)| slot.ip() == *ip));
        if let Some(near) = near {
            order[..=near].rotate_right(1);
        }
        order.into_iter().map(|(index, _)| index).collect()
    }

    /// The number of ports that are taken.
    #[cfg(test)]
    pub(in crate::datapath) fn taken(&self) -> u32 {
        let words = self.slots().flat_map(|slot| &slot.taken);
        words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    fn slots(&self) -> impl Iterator<Item = &AddressSlot> {
        self.slots.iter().map_while(OnceLock::get).map(|slot| &**slot)
    }
}

impl LiveRelays for Arc<Ports> {
    fn is_live(&self, relayed: SocketAddr) -> bool {
        let wanted = halves(relayed.ip());
        let (word, bit) = position(relayed.port());
        self.slots().any(|slot| {
            let version = slot.version.load(Ordering::Acquire);
            slot.halves() == wanted
                && slot.live[word].load(Ordering::Acquire) & bit != 0
                // Otherwise the bit is that of another address.
                && slot.version.load(Ordering::Acquire) == version
        })
    }
}

impl AddressSlot {
    fn new(ip: IpAddr) -> AddressSlot {
        let bits = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        AddressSlot {
            version: AtomicU64::new(0),
            ip: halves(ip).map(AtomicU64::new),
            in_use: AtomicBool::new(true),
            holders: AtomicUsize::new(0),
            taken: bits(),
            live: bits(),
            in_use_elsewhere: Mutex::default(),
        }
    }

    /// The address. It stays the same while the slot is held or in use.
    fn ip(&self) -> IpAddr {
        let [high, low] = self.halves();
        let bits = u128::from(high) << 64 | u128::from(low);
        Ipv6Addr::from_bits(bits).to_canonical()
    }

    fn halves(&self) -> [u64; 2] {
        [self.ip[0].load(Ordering::Acquire), self.ip[1].load(Ordering::Acquire)]
    }

    fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::SeqCst)
    }

    /// Keeps the address from being replaced until [`AddressSlot::release`]; false if that happens just now.
    fn hold(&self) -> bool {
        let held = self.holders.fetch_add(1, Ordering::SeqCst) < REPLACING;
        if !held {
            self.release();
        }
        held
    }

    fn release(&self) {
        self.holders.fetch_sub(1, Ordering::SeqCst);
    }

    /// Uses an address again that was removed.
    fn use_again(&self) -> bool {
        self.in_use.store(true, Ordering::SeqCst);
        true
    }

    /// Replaces the address by another one; false if it is in use, or has ports that are taken.
    fn replace(&self, ip: IpAddr) -> bool {
        let free = !self.is_in_use()
            && self.holders.compare_exchange(0, REPLACING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if free {
            self.version.fetch_add(1, Ordering::SeqCst);
            for (half, new) in self.ip.iter().zip(halves(ip)) {
                half.store(new, Ordering::SeqCst);
            }
            // Nothing is live without a holder. What is left are ports of other programs.
            self.taken.iter().for_each(|word| word.store(0, Ordering::SeqCst));
            self.in_use_elsewhere().clear();
            self.version.fetch_add(1, Ordering::SeqCst);
            self.in_use.store(true, Ordering::SeqCst);
            self.holders.fetch_sub(REPLACING, Ordering::SeqCst);
        }
        free
    }

    fn take(
        &self,
        now: u64,
        range: &RangeInclusive<u16>,
        request: PortRequest,
        rng: &mut impl Rng,
    ) -> Option<u16> {
        self.release_expired(now);
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
        self.addr
    }

    /// Marks that an allocation uses the port.
    pub(super) fn set_live(&self) {
        let (word, bit) = position(self.addr.port());
        if let Some(slot) = self.slot() {
            slot.live[word].fetch_or(bit, Ordering::AcqRel);
        }
    }

    fn slot(&self) -> Option<&AddressSlot> {
        self.ports.slots[self.slot].get().map(|slot| &**slot)
    }

    /// Releases the port, which another program uses, after a while.
    pub(in crate::datapath) fn used_elsewhere(mut self, now: u64) {
        self.retry_at = Some(now + RETRY_AFTER);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let port = self.addr.port();
        if let Some(slot) = self.slot() {
            clear(&slot.live, port);
            match self.retry_at {
                // A port that is in the list stays taken, so it is in the list only once, which bounds the list.
                Some(at) => slot.in_use_elsewhere().push_back((at, port)),
                None => clear(&slot.taken, port),
            }
            slot.release();
        }
        self.ports.descriptors.return_relay_sockets(1);
    }
}

/// The bits of an address as those of an IPv6 address. No relay address is an IPv4-mapped one.
fn halves(ip: IpAddr) -> [u64; 2] {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64]
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
        let ports = Ports::new(
            1000..=1100,
            Descriptors::new(DescriptorRoom { total: 2, ..DescriptorRoom::UNBOUNDED }),
        );
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
        let taken: Vec<Port> = (0..100)
            .map(|_| ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).unwrap().0)
            .collect();
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
            .map(|_| {
                ports.take(0, wanted(Family::V4, PortRequest::Any), &mut rng).ok().unwrap().0.addr().port()
            })
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
                        ports
                            .take(0, wanted(Family::V4, PortRequest::Any), &mut rng)
                            .ok()
                            .map(|(port, _)| port)
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
}
