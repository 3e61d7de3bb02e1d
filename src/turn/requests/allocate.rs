//! Allocate (RFC 8656 §7.2), and what becomes of it when the relay sockets are there.

use std::sync::Arc;

use rand::Rng;

use super::{Message, Now, Output, Reject, RequestOrigin, Server, Success};
use crate::auth::Authenticated;
use crate::turn::allocation::{Allocation, RelayLease, Slot, Waiting};
use crate::turn::timers::Deadline;
use crate::turn::{
    AllocationId, Answer, Ask, Denial, Families, Opened, PortRequest, RelayId, RelayedAddr, SECOND, Shortage,
    Token,
};
use crate::wire::{self, Encoder, Family, attribute};

/// How long an Allocate request waits for its relay sockets.
const PATIENCE: u64 = 5 * SECOND;

/// REQUESTED-TRANSPORT's only value here (RFC 8656 §18.8).
const UDP: u8 = 17;

/// An Allocate request, parsed into what it means.
struct AllocateRequest {
    /// Seconds asked for.
    lifetime: Option<u32>,
    wanted: RequestedRelay,
}

/// Which relayed address is wanted.
enum RequestedRelay {
    /// The one that this token was handed out for.
    Reserved(Token),
    /// One of this family; `None` for a number that is no family.
    One(Option<Family>, PortRequest),
    /// One of each family.
    Both(PortRequest),
}

impl AllocateRequest {
    /// The checks of RFC 8656 §7.2, by their numbers there, as far as they concern the request alone.
    fn parse(message: &Message<'_>) -> Result<AllocateRequest, Reject> {
        let find = |kind| message.attribute(kind);
        // 3.
        let transport = find(attribute::REQUESTED_TRANSPORT);
        if transport.ok_or_else(|| Reject::new(400, "no REQUESTED-TRANSPORT"))?.protocol()? != UDP {
            return Err(Reject::new(442, "REQUESTED-TRANSPORT is not UDP"));
        }
        let lifetime = find(attribute::LIFETIME).map(|lifetime| lifetime.u32()).transpose()?;
        let family = find(attribute::REQUESTED_ADDRESS_FAMILY);
        let even_port = find(attribute::EVEN_PORT);
        let additional = find(attribute::ADDITIONAL_ADDRESS_FAMILY)
            .or_else(|| find(attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT));
        // 5.
        if let Some(token) = find(attribute::RESERVATION_TOKEN) {
            if even_port.is_some() || family.is_some() || additional.is_some() {
                return Err(Reject::new(400, "RESERVATION-TOKEN beside EVEN-PORT or an address family"));
            }
            return Ok(AllocateRequest { lifetime, wanted: RequestedRelay::Reserved(token.array()?) });
        }
        // 6.
        if family.is_some() && additional.is_some() {
            return Err(Reject::new(400, "REQUESTED- and ADDITIONAL-ADDRESS-FAMILY in one request"));
        }
        let port = match even_port {
            None => PortRequest::Any,
            Some(even_port) if even_port.reserve_next_port()? => PortRequest::Pair,
            Some(_) => PortRequest::Even,
        };
        let wanted = match (family, additional) {
            // 8.
            (_, Some(_)) if port == PortRequest::Pair => {
                return Err(Reject::new(400, "a port to reserve beside ADDITIONAL-ADDRESS-FAMILY"));
            }
            // 9.
            (_, Some(additional)) if additional.array::<4>()?[0] != Family::V6.code() => {
                return Err(Reject::new(400, "ADDITIONAL-ADDRESS-FAMILY is not IPv6"));
            }
            (_, Some(_)) => RequestedRelay::Both(port),
            (Some(family), None) => RequestedRelay::One(Family::from_code(family.array::<4>()?[0]), port),
            // 7.
            (None, None) => RequestedRelay::One(Some(Family::V4), port),
        };
        Ok(AllocateRequest { lifetime, wanted })
    }
}

impl Server {
    /// `repeats`: it is a retransmission of the request that made, or is making, the allocation on this 5-tuple.
    pub(super) fn allocate(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
        authenticated: &Authenticated,
        repeats: bool,
    ) -> Result<Success, Reject> {
        // RFC 8656 §7.2, 2.
        if let Some(&id) = self.by_tuple.get(&origin.tuple) {
            return match self.slots.get(id) {
                Some(Slot::Live(_)) if repeats => Ok(Success::Allocated(id)),
                Some(Slot::Waiting(_)) if repeats => Ok(Success::Later),
                _ => Err(Reject::new(437, "the 5-tuple has an allocation")),
            };
        }
        let request = AllocateRequest::parse(message)?;
        let user = authenticated.credential().user().clone();
        let (ask, unsupported) = self.ask_for(request.wanted, user)?;
        if self.slots.len() >= self.config.limits.allocations {
            return Err(Reject::new(508, "too many allocations"));
        }
        if self.waiting >= self.config.limits.waiting {
            return Err(Reject::new(508, "too many requests wait"));
        }
        let waiting = Waiting {
            origin: *origin,
            authenticated: authenticated.clone(),
            lifetime: self.config.lifetimes.grant(request.lifetime),
            unsupported,
            until: now.mono + PATIENCE,
        };
        let until = waiting.until;
        let ticket = self.slots.insert(Slot::Waiting(Box::new(waiting)));
        self.by_tuple.insert(origin.tuple, ticket);
        self.waiting += 1;
        self.timers.renew(None, until, Deadline::Waiting(ticket));
        self.outputs.push_back(Output::Ask { ticket, ask });
        Ok(Success::Later)
    }

    /// What to ask for, and the family of a dual allocation that cannot be had here.
    fn ask_for(&self, wanted: RequestedRelay, user: Arc<str>) -> Result<(Ask, Option<Family>), Reject> {
        let here = self.config.families;
        let (families, port) = match wanted {
            RequestedRelay::Reserved(token) => return Ok((Ask::ClaimReservation { user, token }, None)),
            // RFC 8656 §7.2, 7.
            RequestedRelay::One(family, port) => {
                let family = family.filter(|family| here.has(*family));
                let family = family.ok_or_else(|| Reject::new(440, "no relayed addresses of this family"))?;
                (Families { v4: family == Family::V4, v6: family == Family::V6 }, port)
            }
            RequestedRelay::Both(port) => (Families { v4: true, v6: true }, port),
        };
        let unsupported = [Family::V4, Family::V6].into_iter().find(|f| families.has(*f) && !here.has(*f));
        let (v4, v6) = (families.v4 && here.v4, families.v6 && here.v6);
        Ok((Ask::OpenRelay { user, v4, v6, port }, unsupported))
    }

    /// The answer to an [`Ask`]. If nobody waits for it any more, what was opened is closed again.
    pub fn answered(&mut self, now: Now, ticket: AllocationId, answer: Answer) {
        let waiting = self.end_waiting(ticket);
        let (v4, v6, token, denial) = match answer {
            Answer::Opened { v4, v6, token } => (v4, v6, token, Denial::Capacity),
            Answer::Refused(denial) => (None, None, None, denial),
        };
        let opened = [(Family::V4, v4), (Family::V6, v6)];
        let Some(waiting) = waiting else {
            for (family, _) in opened.into_iter().filter(|(_, relay)| matches!(relay, Some(Ok(_)))) {
                self.outputs.push_back(Output::CloseRelay(RelayId { allocation: ticket, family }));
            }
            return;
        };
        let (origin, authenticated) = (waiting.origin, waiting.authenticated.clone());
        let done = if opened.iter().any(|(_, relay)| matches!(relay, Some(Ok(_)))) {
            self.open(now, ticket, waiting, opened, token);
            Ok(Success::Allocated(ticket))
        } else {
            self.empty_slot(ticket, &origin);
            // RFC 8656 §7.2, 9. and 10.
            Err(match denial {
                Denial::Quota => Reject::new(486, "the user has all allocations that are allowed"),
                Denial::Capacity => Reject::new(508, "no relayed address is free"),
            })
        };
        self.conclude(now, origin, &authenticated, done);
    }

    /// Makes the allocation of a request that waited.
    fn open(
        &mut self,
        now: Now,
        id: AllocationId,
        waiting: Waiting,
        opened: [(Family, Option<Result<RelayedAddr, Shortage>>); 2],
        token: Option<Token>,
    ) {
        let lifetime = waiting.lifetime;
        let unsupported = waiting.unsupported.map(|family| (family, 440));
        let mut allocation = Allocation::new(waiting, now.mono, token, self.rng.next_u64());
        allocation.missing = unsupported;
        let expires = now.mono + u64::from(lifetime) * SECOND;
        for (family, relay) in opened {
            match relay {
                Some(Ok(addr)) => {
                    allocation.set_relay(id, family, RelayLease { addr, expires }, &mut self.timers);
                    *self.stats.relay_gauge(allocation.tuple.transport, family) += 1;
                }
                Some(Err(Shortage)) => allocation.missing = Some((family, 508)),
                None => {}
            }
        }
        self.stats.allocations += 1;
        self.stats.allocations_total += 1;
        self.outputs.push_back(Output::Opened(Opened {
            id,
            tuple: allocation.tuple,
            user: allocation.credential.user().clone(),
            v4: allocation.relay(Family::V4).map(|relay| relay.addr),
            v6: allocation.relay(Family::V6).map(|relay| relay.addr),
            lifetime,
        }));
        self.slots[id] = Slot::Live(Box::new(allocation));
    }

    /// The attributes of an Allocate success response (RFC 8656 §7.2). A retransmission gets the same, LIFETIME being
    /// what is left.
    pub(super) fn describe(&self, now: Now, id: AllocationId, answer: &mut Encoder) {
        let Some(Slot::Live(allocation)) = self.slots.get(id) else { return };
        for (_, relay) in allocation.relays() {
            answer.xor_address(attribute::XOR_RELAYED_ADDRESS, self.config.external.outside(relay.addr.0));
        }
        let left = allocation.relays().map(|(_, relay)| relay.expires.saturating_sub(now.mono)).min();
        answer.u32(attribute::LIFETIME, left.unwrap_or(0).div_ceil(SECOND) as u32);
        if let Some(token) = &allocation.token {
            answer.bytes(attribute::RESERVATION_TOKEN, token);
        }
        answer.xor_address(attribute::XOR_MAPPED_ADDRESS, allocation.tuple.client.0);
        if let Some((family, code)) = allocation.missing {
            answer.address_error_code(family, code, wire::reason(code));
        }
    }

    /// Gives up a request that waits: an answer that still comes will find nobody.
    pub(in crate::turn) fn stop_waiting(&mut self, now: Now, ticket: AllocationId) {
        let Some(waiting) = self.end_waiting(ticket) else { return };
        self.empty_slot(ticket, &waiting.origin);
        let done = Err(Reject::new(508, "nobody opened a relay socket in time"));
        self.conclude(now, waiting.origin, &waiting.authenticated, done);
    }

    /// Ends the waiting of a request; its caller puts the allocation into the slot or empties it.
    fn end_waiting(&mut self, ticket: AllocationId) -> Option<Waiting> {
        let Some(Slot::Waiting(waiting)) = self.slots.get(ticket) else { return None };
        self.timers.stop(waiting.until, Deadline::Waiting(ticket));
        self.waiting -= 1;
        Some(Waiting::clone(waiting))
    }

    fn empty_slot(&mut self, ticket: AllocationId, origin: &RequestOrigin) {
        self.by_tuple.remove(&origin.tuple);
        self.slots.remove(ticket);
    }
}
