//! The server of one worker: its state, and the dispatch of its inputs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use slotmap::SlotMap;

use super::allocation::Allocation;
use super::allocation_name::{AllocationName, AllocationNames};
use super::bucket::RateLimiter;
use super::pending::PendingRequests;
use super::snapshot::Snapshot;
use super::stats::{Dropped, Stats};
use super::sweep::Sweep;
use super::timers::Timers;
use super::{AllocationId, CloseReason, FiveTuple, Now, Output, ToPeer, Tos};
use crate::keyed::KeyedState;
use crate::wire::{ChannelRange, Class, Message};

/// What all servers of a process share. Nothing in it blocks.
pub struct Shared {
    /// The buckets of the rate limits of new allocations, and of responses to clients that have not authenticated.
    pub rates: RateLimiter,
    /// Knows which relayed addresses hold an allocation.
    pub live: Box<dyn LiveRelays>,
    /// Names new allocations.
    pub names: AllocationNames,
}

/// Tells whether a relayed transport address holds an allocation of any worker. Must not block.
pub trait LiveRelays: Send + Sync {
    /// Whether `relayed` holds an allocation now.
    fn is_live(&self, relayed: SocketAddr) -> bool;
}

/// A TURN server: the allocations of the clients that one worker serves.
pub struct Server {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) sweep: Sweep,
    pub(super) shared: Arc<Shared>,
    pub(super) rng: StdRng,
    pub(super) allocations: SlotMap<AllocationId, Box<Allocation>>,
    /// Keys the hashes of every table.
    pub(super) hash: KeyedState,
    /// The allocation on each 5-tuple: each message from a client looks here.
    pub(super) by_tuple: HashMap<FiveTuple, AllocationId, KeyedState>,
    /// Operators walk over allocations in this order.
    pub(super) by_name: BTreeMap<AllocationName, AllocationId>,
    pub(super) pending: PendingRequests,
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
    pub(super) stats: Stats,
}

/// An operator's command.
pub enum OperatorCommand {
    /// End every allocation: the server is shutting down.
    EndAll,
}

impl Server {
    /// A server without allocations. `rng` is seeded from the operating system.
    pub fn new(snapshot: Arc<Snapshot>, shared: Arc<Shared>, mut rng: StdRng) -> Server {
        let hash = KeyedState::from_rng(&mut rng);
        Server {
            snapshot,
            sweep: Sweep::default(),
            shared,
            rng,
            allocations: SlotMap::with_key(),
            hash,
            by_tuple: HashMap::with_hasher(hash),
            by_name: BTreeMap::new(),
            pending: PendingRequests::new(hash),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Bytes from a client: one STUN message (`segment_size` is its length), or a run of ChannelData messages of
    /// `segment_size` bytes each that all begin with the same four bytes. Data to relay is returned; everything else is an
    /// [`Output`].
    pub fn from_client(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        segment_size: usize,
        bytes: &[u8],
    ) -> Option<ToPeer> {
        self.expire(now);
        // RFC 8656 §12, Table 3; RFC 7983 §7; RFC 5766 §11
        match bytes.first() {
            Some(0x40..=0x4F) => self.channel_data(now, tuple, tos, segment_size, bytes),
            Some(0..=3) => match Message::parse(bytes) {
                Ok(message) if message.class() == Class::Request => {
                    self.request(now, tuple, &message);
                    None
                }
                Ok(message) if message.class() == Class::Indication => {
                    self.indication(now, tuple, tos, bytes, &message)
                }
                // RFC 8489 §6.3: a response must match a transaction, and a server has none
                Ok(_) => self.drop(Dropped::Unexpected, 1),
                Err(_) => self.drop(Dropped::Malformed, 1),
            },
            Some(0x50..=0x7F) if self.snapshot.config.channels == ChannelRange::Rfc5766 => {
                self.channel_data(now, tuple, tos, segment_size, bytes)
            }
            _ => self.drop(Dropped::NotTurn, bytes.len().div_ceil(segment_size.max(1)).max(1)),
        }
    }

    /// A client's stream has ended, and its allocation with it: RFC 8656 section 5 needs the 5-tuple to be in use.
    pub fn client_gone(&mut self, now: Now, tuple: &FiveTuple) {
        if let Some((ticket, _)) = self.pending.allocate_on(tuple) {
            self.cancel(now, ticket);
        }
        if let Some(&id) = self.by_tuple.get(tuple) {
            self.close(now, id, CloseReason::ClientGone);
        }
    }

    /// An operator's command.
    pub fn command(&mut self, now: Now, command: OperatorCommand) {
        match command {
            OperatorCommand::EndAll => {
                for ticket in self.pending.tickets() {
                    self.cancel(now, ticket);
                }
                for id in self.allocations.keys().collect::<Vec<_>>() {
                    self.close(now, id, CloseReason::Shutdown);
                }
            }
        }
    }

    /// The name of the allocation on a 5-tuple, for the log.
    pub fn session(&self, tuple: &FiveTuple) -> Option<AllocationName> {
        Some(self.allocations.get(*self.by_tuple.get(tuple)?)?.name)
    }

    /// The name of an allocation, for the log.
    pub fn session_of(&self, id: AllocationId) -> Option<AllocationName> {
        Some(self.allocations.get(id)?.name)
    }

    /// Every allocation of a client with its user, for the log. Nothing changes.
    pub fn sessions(&self) -> impl Iterator<Item = (AllocationName, FiveTuple, &str)> {
        let of_clients = self.allocations.values().filter(|allocation| !allocation.is_probe());
        of_clients.map(|one| (one.name, one.tuple, &**one.credential.user()))
    }

    /// The channel numbers that clients may bind: what ChannelData begins with.
    pub fn channels(&self) -> ChannelRange {
        self.snapshot.config.channels
    }

    /// The next thing to be done outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn drop<T>(&mut self, why: Dropped, packets: usize) -> Option<T> {
        self.stats.drop(why, packets);
        None
    }
}
