//! Requests that wait for the answer to a question. They have tickets of their own: a pending Allocate is not yet an
//! allocation, and other questions may concern an allocation that exists.

use std::collections::HashMap;

use slotmap::SlotMap;

use super::timers::{Deadline, Timers};
use super::{FiveTuple, Ticket};
use crate::auth::Authenticated;
use crate::keyed::KeyedState;
use crate::wire::{Family, Method, TransactionId};

/// The sender of a request, and what its response must repeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestOrigin {
    pub(super) tuple: FiveTuple,
    pub(super) method: Method,
    pub(super) id: TransactionId,
    /// The request had a FINGERPRINT, so the response gets one.
    pub(super) fingerprint: bool,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) origin: RequestOrigin,
    pub(super) authenticated: Authenticated,
    pub(super) kind: PendingKind,
    /// When the request times out, in monotonic nanoseconds.
    pub(super) until: u64,
}

/// What a request waits for, and what is needed to continue it.
#[derive(Debug)]
pub(super) enum PendingKind {
    /// An Allocate request that waits for its relay sockets.
    Allocate {
        /// Seconds granted.
        lifetime: u32,
        /// The response needs ADDRESS-ERROR-CODE 440 for this family of a dual allocation.
        unsupported: Option<Family>,
    },
}

/// All pending requests of a server.
#[derive(Debug)]
pub(super) struct PendingRequests {
    requests: SlotMap<Ticket, PendingRequest>,
    /// The pending Allocate on each 5-tuple, so that a retransmission finds it.
    allocates: HashMap<FiveTuple, Ticket, KeyedState>,
}

impl PendingRequests {
    /// An empty table.
    pub(super) fn new(hash: KeyedState) -> PendingRequests {
        PendingRequests { requests: SlotMap::with_key(), allocates: HashMap::with_hasher(hash) }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many Allocate requests wait: each may become an allocation.
    pub(super) fn allocates(&self) -> usize {
        self.allocates.len()
    }

    /// All tickets.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.requests.keys().collect()
    }

    /// A request, unless it has timed out or was cancelled.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&PendingRequest> {
        self.requests.get(ticket)
    }

    /// The timeouts of all requests.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (u64, Deadline)> {
        self.requests.iter().map(|(ticket, request)| (request.until, Deadline::Pending(ticket)))
    }

    /// The pending Allocate on a 5-tuple.
    pub(super) fn allocate_on(&self, tuple: &FiveTuple) -> Option<(Ticket, &PendingRequest)> {
        let ticket = *self.allocates.get(tuple)?;
        Some((ticket, self.requests.get(ticket)?))
    }

    /// Adds a request and starts its timeout.
    pub(super) fn insert(&mut self, request: PendingRequest, timers: &mut Timers) -> Ticket {
        let (tuple, until) = (request.origin.tuple, request.until);
        let is_allocate = matches!(request.kind, PendingKind::Allocate { .. });
        let ticket = self.requests.insert(request);
        if is_allocate {
            self.allocates.insert(tuple, ticket);
        }
        timers.renew(None, until, Deadline::Pending(ticket));
        ticket
    }

    /// Removes a request and its timeout. `None`: it has timed out or was cancelled.
    pub(super) fn remove(&mut self, ticket: Ticket, timers: &mut Timers) -> Option<PendingRequest> {
        let request = self.requests.remove(ticket)?;
        match request.kind {
            PendingKind::Allocate { .. } => self.allocates.remove(&request.origin.tuple),
        };
        timers.stop(request.until, Deadline::Pending(ticket));
        Some(request)
    }
}
