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
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::datapath::descriptors::Descriptors;
use crate::turn::{Families, LiveRelays, PerFamily, PortRequest, PortUse};
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
    /// The first port in the upper half, and the last one in the lower.
    range: AtomicU32,
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

/// The ports of relayed addresses that new allocations can have, of all addresses of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortUsage {
    /// All of them.
    pub total: u64,
    /// Those that are taken: by an allocation or a reservation, or because another program uses them.
    pub in_use: u64,
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
            range: AtomicU32::new(packed(&range)),
            descriptors,
            change: Mutex::new(()),
        })
    }

    /// Takes ports of another range from now on. Those that are taken stay until their allocations end.
    pub(in crate::datapath) fn set_range(&self, range: &RangeInclusive<u16>) {
        self.range.store(packed(range), Ordering::Relaxed);
    }

    fn range(&self) -> RangeInclusive<u16> {
        let packed = self.range.load(Ordering::Relaxed);
        (packed >> 16) as u16..=packed as u16
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
            let port = usable.then(|| slot.take(now, &self.range(), wanted.port, rng)).flatten();
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

    /// How many ports the addresses of these families have, and how many of these are in use.
    pub(in crate::datapath) fn in_use(&self, families: Families) -> PortUse {
        let usable = |slot: &&AddressSlot| slot.is_in_use() && families[Family::of(slot.ip())];
        let range = self.range();
        let (mut ports, mut in_use) = (0, 0);
        for slot in self.slots().filter(usable) {
            ports += range.len() as u64;
            in_use += slot.holders.load(Ordering::Relaxed) as u64;
        }
        PortUse { range: range.into_inner(), ports, in_use }
    }

    /// What else uses file descriptors.
    pub(in crate::datapath) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
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

    /// How many ports there are and how many of them are taken. Ports of a former range or address do not count: they are none
    /// that a new allocation can have.
    pub(in crate::datapath) fn usage(&self) -> PerFamily<PortUsage> {
        let range = self.range();
        let mut usage = PerFamily::<PortUsage>::default();
        for slot in self.slots().filter(|slot| slot.is_in_use()) {
            let of_family = &mut usage[Family::of(slot.ip())];
            of_family.total += range.len() as u64;
            of_family.in_use += slot.taken_in(&range);
        }
        usage
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

fn packed(range: &RangeInclusive<u16>) -> u32 {
    u32::from(*range.start()) << 16 | u32::from(*range.end())
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

    /// How many ports of a range are taken.
    fn taken_in(&self, range: &RangeInclusive<u16>) -> u64 {
        let (first, last) = (usize::from(*range.start()), usize::from(*range.end()));
        let words = self.taken.iter().enumerate().skip(first / 64).take_while(|(n, _)| n * 64 <= last);
        let taken = words.map(|(n, word)| {
            let below = first.saturating_sub(n * 64);
            let above = (n * 64 + 63).saturating_sub(last);
            (word.load(Ordering::Relaxed) >> below << below << above).count_ones()
        });
        taken.map(u64::from).sum()
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
mod tests;
