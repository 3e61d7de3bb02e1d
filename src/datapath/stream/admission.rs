//! How many connections there may be: in total, and per source while they hold no allocation.
//!
//! A connection counts against its source until it holds an allocation, and again after that has ended. A source is an IPv4
//! address or an IPv6 /64; the /56 and the /48 around it have limits of their own, because whoever has one of those has many
//! /64. An exempt source is an address: it counts in no range, so its clients take nothing from its neighbours. No source has
//! more than a quarter of all connections. When all of them are in use, the oldest connection without an allocation of the
//! source that has most of them makes room for a new one, so that nobody can lock others out.
//!
//! One ledger of the process is for connections that are or may become TURN, another one for those that go to backends, so that
//! neither kind locks out the other. A ledger is used when connections open and close and when allocations begin and end, never
//! for a packet. Permits are guards, so whatever ends, a worker that panics too, returns them. Its tables are ordered trees: no
//! choice of addresses makes them slow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::StreamLimits;
use super::stats::AdmissionRefusal;
use crate::datapath::descriptors::Descriptors;
use crate::datapath::poll::StreamId;
use crate::datapath::wake::Waker;
use crate::shown::{self, Shown};
use crate::turn::ExemptSources;

/// The share of all connections that one source may have, as a divisor.
const SHARE: usize = 4;

/// What sets the limit where open files are fewer than the settings allow.
const OPEN_FILES: &str = "LimitNOFILE";

/// Connections that have been told to make room and are not closed yet.
const MAX_DISPLACED: usize = 256;

/// How many connections a ledger admits.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::datapath) struct AdmissionLimits {
    pub(in crate::datapath) connections: usize,
    /// Those without an allocation from one IPv4 address or IPv6 /64.
    pub(in crate::datapath) per_source: usize,
    pub(in crate::datapath) settings: LimitSettings,
}

/// The names of the settings that set the limits.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::datapath) struct LimitSettings {
    pub(in crate::datapath) connections: &'static str,
    pub(in crate::datapath) per_source: &'static str,
}

impl From<StreamLimits> for AdmissionLimits {
    fn from(limits: StreamLimits) -> AdmissionLimits {
        AdmissionLimits {
            connections: limits.connections,
            per_source: limits.connections_per_source,
            settings: LimitSettings {
                connections: "limits.connections",
                per_source: "limits.connections_per_source",
            },
        }
    }
}

/// Counts connections against their limits.
pub(in crate::datapath) struct Admission {
    state: Mutex<AdmissionState>,
    /// Relay sockets need some of them.
    descriptors: Arc<Descriptors>,
}

/// No count is 0, so the tables are no larger than the number of connections, times the levels of an IPv6 source.
#[derive(Default)]
struct AdmissionState {
    limits: AdmissionLimits,
    exempt: ExemptSources,
    /// Open connections.
    total: usize,
    /// The number that the next connection gets. Those without an allocation get another one when theirs ends.
    next: u64,
    /// Connections without an allocation per source and per range around it.
    counts: BTreeMap<Prefix, usize>,
    /// The same in an order that shows which one within a range has most.
    ranking: BTreeSet<(Prefix, usize, Prefix)>,
    /// Connections without an allocation by their source, the oldest first, and how to reach each.
    waiting: BTreeMap<(Prefix, u64), Holder>,
    /// Connections that have been told to make room.
    displaced: BTreeSet<u64>,
}

/// Who holds a connection without an allocation, and closes it when it has to make room.
enum Holder {
    /// The task of its stages.
    Stages(oneshot::Sender<()>),
    /// A worker.
    Worker(Arc<DisplacedConnections>, StreamId),
}

/// The connections of a worker that have to make room.
pub(in crate::datapath) struct DisplacedConnections {
    ids: Mutex<Vec<StreamId>>,
    waker: Waker,
}

/// A connection that has been admitted.
pub(in crate::datapath) struct Admitted {
    pub(in crate::datapath) permit: ConnectionPermit,
    /// Completes when the connection has to make room before a worker has it.
    pub(in crate::datapath) displaced: oneshot::Receiver<()>,
    /// Whose oldest connection makes room for this one.
    pub(in crate::datapath) displaces: Option<Displacing>,
}

/// A connection has to make room for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Displacing {
    /// The busiest source, which has the connection.
    pub(in crate::datapath) source: Prefix,
    /// How many connections there may be.
    pub(in crate::datapath) limit: usize,
    /// The limit on open files bounds connections, not `limits.connections`.
    pub(in crate::datapath) by_open_files: bool,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Refusal {
    pub(in crate::datapath) why: AdmissionRefusal,
    /// Whose connections are too many.
    pub(in crate::datapath) source: Prefix,
    /// How many it may have, or how many there may be.
    pub(in crate::datapath) limit: usize,
    /// What sets that.
    pub(in crate::datapath) setting: &'static str,
    /// The limit on open files bounds connections, not `limits.connections`.
    pub(in crate::datapath) by_open_files: bool,
}

/// Counts as a connection until it is dropped.
pub(in crate::datapath) struct ConnectionPermit {
    admission: Arc<Admission>,
    source: Source,
    number: u64,
    connection: ConnectionId,
}

/// A connection in log lines: the number that it was admitted with, which no other one of the process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct ConnectionId(pub(in crate::datapath) u64);

impl Admission {
    /// No connection is counted yet.
    pub(in crate::datapath) fn new(
        limits: impl Into<AdmissionLimits>,
        exempt: ExemptSources,
        descriptors: Arc<Descriptors>,
    ) -> Arc<Admission> {
        let state = AdmissionState { limits: limits.into(), exempt, ..AdmissionState::default() };
        Arc::new(Admission { state: Mutex::new(state), descriptors })
    }

    /// Replaces the limits. Connections beyond them stay.
    pub(in crate::datapath) fn set_limits(&self, limits: impl Into<AdmissionLimits>, exempt: ExemptSources) {
        let mut state = self.state();
        (state.limits, state.exempt) = (limits.into(), exempt);
    }

    /// Admits a new connection of a client, for which another one may have to make room.
    pub(in crate::datapath) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Admitted, Refusal> {
        let is_exempt = self.state().exempt.contains(client);
        self.admit_as(client, is_exempt)
    }

    /// The same for a connection of a trusted proxy, which will name the client: until then it counts like that of an exempt
    /// source, since many clients are behind the proxy.
    pub(in crate::datapath) fn admit_proxied(self: &Arc<Self>, proxy: IpAddr) -> Result<Admitted, Refusal> {
        self.admit_as(proxy, true)
    }

    fn admit_as(self: &Arc<Self>, client: IpAddr, is_exempt: bool) -> Result<Admitted, Refusal> {
        let mut state = self.state();
        let source = Source::of(client, is_exempt);
        state.check(source, is_exempt)?;
        let displaces = state.make_room(source, &self.descriptors)?;
        state.total += 1;
        self.descriptors.set_connections(state.total);
        let (sender, displaced) = oneshot::channel();
        let number = state.wait(source, Holder::Stages(sender));
        drop(state);
        Ok(Admitted {
            permit: ConnectionPermit {
                admission: self.clone(),
                source,
                number,
                connection: ConnectionId(number),
            },
            displaced,
            displaces,
        })
    }

    /// How many connections there are.
    pub(in crate::datapath) fn total(&self) -> usize {
        self.state().total
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        // Nothing panics between the changes of one lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdmissionState {
    /// Whether the source, and each range around it, may have one more connection without an allocation.
    fn check(&self, source: Source, is_exempt: bool) -> Result<(), Refusal> {
        let AdmissionLimits { connections, per_source, settings } = self.limits;
        for level in source.levels() {
            let (own, share) = if is_exempt {
                // Behind an exempt source are many clients, so their oldest connections make room for them at a full table.
                (per_source * ExemptSources::FACTOR as usize * level.factor, connections)
            } else {
                (per_source * level.factor, (connections / SHARE).max(1))
            };
            let limit = own.min(share);
            let setting = if own <= share { settings.per_source } else { settings.connections };
            if self.counts.get(&level.prefix).is_some_and(|&count| count >= limit) {
                return Err(Refusal {
                    why: AdmissionRefusal::ConnectionsPerSource,
                    source: level.prefix,
                    limit,
                    setting,
                    by_open_files: false,
                });
            }
        }
        Ok(())
    }

    /// Makes sure that there is room for one more connection. Returns whose connection has to make room.
    fn make_room(
        &mut self,
        source: Source,
        descriptors: &Descriptors,
    ) -> Result<Option<Displacing>, Refusal> {
        let room = descriptors.room_for_connections();
        let limit = self.limits.connections.min(room);
        let by_open_files = descriptors.lower_connections() || room < self.limits.connections;
        if self.total - self.displaced.len() < limit {
            return Ok(None);
        }
        let busiest = if self.displaced.len() < MAX_DISPLACED { self.busiest() } else { None };
        let oldest = busiest.and_then(|busiest| {
            let (&(_, number), _) = self.waiting.range((busiest, 0)..=(busiest, u64::MAX)).next()?;
            Some((busiest, number))
        });
        let Some((busiest, number)) = oldest else {
            let (why, source) = (AdmissionRefusal::Connections, source.prefix());
            let setting = if by_open_files { OPEN_FILES } else { self.limits.settings.connections };
            return Err(Refusal { why, source, limit, setting, by_open_files });
        };
        if let Some(holder) = self.waiting.remove(&(busiest, number)) {
            self.count(Source::at(busiest), false);
            self.displaced.insert(number);
            match holder {
                // A task that is gone has dropped its permit, or is about to.
                Holder::Stages(sender) => drop(sender.send(())),
                Holder::Worker(connections, id) => connections.push(id),
            }
        }
        Ok(Some(Displacing { source: busiest, limit, by_open_files }))
    }

    /// The source with most connections: in the range with most, the smaller range with most, and so on.
    fn busiest(&self) -> Option<Prefix> {
        let mut at = None;
        loop {
            let range = at.unwrap_or(Prefix::EVERYTHING);
            let within = (range, 0, Prefix::EVERYTHING)..=(range, usize::MAX, Prefix::LAST);
            match self.ranking.range(within).next_back() {
                Some(&(_, _, busiest)) => at = Some(busiest),
                None => return at,
            }
        }
    }

    /// Adds a connection without an allocation; returns its number.
    fn wait(&mut self, source: Source, holder: Holder) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert((source.prefix(), number), holder);
        self.count(source, true);
        number
    }

    /// The connection is no longer one without an allocation.
    fn leave(&mut self, source: Source, number: u64) {
        if self.waiting.remove(&(source.prefix(), number)).is_some() {
            self.count(source, false);
        } else {
            self.displaced.remove(&number);
        }
    }

    /// Counts a connection of a source, or no longer.
    fn count(&mut self, source: Source, more: bool) {
        let mut range = Prefix::EVERYTHING;
        for Level { prefix, .. } in source.levels() {
            let before = self.counts.get(&prefix).copied().unwrap_or(0);
            let after = if more { before + 1 } else { before.saturating_sub(1) };
            self.ranking.remove(&(range, before, prefix));
            if after == 0 {
                self.counts.remove(&prefix);
            } else {
                self.counts.insert(prefix, after);
                self.ranking.insert((range, after, prefix));
            }
            range = prefix;
        }
    }
}

impl ConnectionPermit {
    /// Its connection, for the log.
    pub(in crate::datapath) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// It is known who the client of a trusted proxy's connection is, which counts against that source from now on. If that has too
    /// many others, the connection counts as before.
    pub(in crate::datapath) fn identify(&mut self, client: IpAddr) -> Result<(), Refusal> {
        let mut state = self.admission.state();
        let is_exempt = state.exempt.contains(client);
        let source = Source::of(client, is_exempt);
        // If it has to make room, its stages are about to hear of that.
        let Some(holder) = state.waiting.remove(&(self.source.prefix(), self.number)) else { return Ok(()) };
        // It takes no room from itself where the source is the same, or in a range around both.
        state.count(self.source, false);
        if let Err(refusal) = state.check(source, is_exempt) {
            state.waiting.insert((self.source.prefix(), self.number), holder);
            state.count(self.source, true);
            return Err(refusal);
        }
        self.number = state.wait(source, holder);
        self.source = source;
        Ok(())
    }

    /// A worker has the connection from now on; false if it has to make room already.
    #[must_use]
    pub(in crate::datapath) fn hand_over(&self, worker: &Arc<DisplacedConnections>, id: StreamId) -> bool {
        let mut state = self.admission.state();
        match state.waiting.get_mut(&(self.source.prefix(), self.number)) {
            Some(holder) => {
                *holder = Holder::Worker(worker.clone(), id);
                true
            }
            None => false,
        }
    }

    /// The connection holds an allocation, so it does not count against its source.
    pub(in crate::datapath) fn allocated(&self) {
        self.admission.state().leave(self.source, self.number);
    }

    /// The allocation of the connection has ended, so it counts against its source again.
    pub(in crate::datapath) fn deallocated(&mut self, worker: &Arc<DisplacedConnections>, id: StreamId) {
        let mut state = self.admission.state();
        self.number = state.wait(self.source, Holder::Worker(worker.clone(), id));
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.total -= 1;
        self.admission.descriptors.set_connections(state.total);
        state.leave(self.source, self.number);
    }
}

impl DisplacedConnections {
    /// None yet; `waker` wakes the worker.
    pub(in crate::datapath) fn new(waker: Waker) -> Arc<DisplacedConnections> {
        Arc::new(DisplacedConnections { ids: Mutex::default(), waker })
    }

    /// Those that were added since the last call.
    pub(in crate::datapath) fn take(&self) -> Vec<StreamId> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, id: StreamId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.waker.wake();
    }
}

/// A range of addresses: IPv6, or IPv4 as IPv4-mapped. It is formatted for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::datapath) struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    /// It contains all others, and comes first.
    const EVERYTHING: Prefix = Prefix { bits: 0, len: 0 };

    /// It comes last.
    const LAST: Prefix = Prefix { bits: u128::MAX, len: u8::MAX };

    fn of(ip: Ipv6Addr, len: u8) -> Prefix {
        Prefix { bits: ip.to_bits() & (u128::MAX << (128 - u32::from(len))), len }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = Ipv6Addr::from_bits(self.bits);
        let shown = Shown(IpAddr::V6(ip).to_canonical());
        match ip.to_ipv4_mapped() {
            Some(_) => shown.fmt(f),
            None if self.len == 128 || shown::are_masked() => shown.fmt(f),
            None => write!(f, "{ip}/{}", self.len),
        }
    }
}

/// Whom a connection counts against.
#[derive(Clone, Copy, Debug)]
enum Source {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// Its clients count for itself alone: its neighbours have smaller limits.
    ExemptV6(Ipv6Addr),
}

/// A range that a source is in, and how many times as much it may have as a source.
struct Level {
    prefix: Prefix,
    factor: usize,
}

impl Source {
    fn of(client: IpAddr, is_exempt: bool) -> Source {
        match client {
            IpAddr::V4(ip) => Source::V4(ip),
            IpAddr::V6(ip) if is_exempt => Source::ExemptV6(ip),
            IpAddr::V6(ip) => Source::V6(ip),
        }
    }

    fn at(prefix: Prefix) -> Source {
        let ip = Ipv6Addr::from_bits(prefix.bits);
        match ip.to_ipv4_mapped() {
            Some(v4) => Source::V4(v4),
            None if prefix.len == 128 => Source::ExemptV6(ip),
            None => Source::V6(ip),
        }
    }

    /// The source itself.
    fn prefix(self) -> Prefix {
        match self {
            Source::V4(ip) => Prefix::of(ip.to_ipv6_mapped(), 128),
            Source::V6(ip) => Prefix::of(ip, 64),
            Source::ExemptV6(ip) => Prefix::of(ip, 128),
        }
    }

    /// The source and what is around it, the widest first.
    fn levels(self) -> impl Iterator<Item = Level> {
        let around = match self {
            Source::V4(_) | Source::ExemptV6(_) => [None, None],
            Source::V6(ip) => [
                Some(Level { prefix: Prefix::of(ip, 48), factor: 16 }),
                Some(Level { prefix: Prefix::of(ip, 56), factor: 4 }),
            ],
        };
        around.into_iter().flatten().chain([Level { prefix: self.prefix(), factor: 1 }])
    }
}

#[cfg(test)]
mod tests;
