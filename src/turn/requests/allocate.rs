//! Allocate (RFC 8656 §7.2), until its relay sockets are requested and after they were opened.

use super::{Message, Now, Output, Reject, RequestOrigin, Server, Success, requested_family};
use crate::auth::{Account, AccountKind, Authenticated};
use crate::turn::allocation::{Allocation, RelayLease};
use crate::turn::pending::{PendingKind, PendingRequest};
use crate::turn::siblings::Alternate;
use crate::turn::{
    Admission, AllocationId, Answer, Ask, Denial, Families, FiveTuple, Opened, OpenedRelay, PerFamily,
    PortRequest, RefusalReason, RelayRequest, SECOND, Shortage, Ticket, Token, UserQuota,
};
use crate::wire::{self, Encoder, Family, attribute};

/// How long an Allocate request waits for its relay sockets.
const TIMEOUT: u64 = 5 * SECOND;

/// The only REQUESTED-TRANSPORT supported here (RFC 8656 §18.8).
const UDP: u8 = 17;

/// A parsed Allocate request.
struct AllocateRequest {
    /// Seconds requested.
    lifetime: Option<u32>,
    wanted: RequestedRelay,
}

/// Which relayed addresses an Allocate request asks for.
enum RequestedRelay {
    /// The one that was reserved with this token.
    Reserved(Token),
    /// One of this family; `None`: the number is not a family.
    One(Option<Family>, PortRequest),
    /// One of each family.
    Both(PortRequest),
}

impl AllocateRequest {
    /// The checks of RFC 8656 §7.2, by their numbers there, that concern the request alone.
    fn parse(message: &Message<'_>) -> Result<AllocateRequest, Reject> {
        let find = |kind| message.attribute(kind);
        // 3.
        let transport = find(attribute::REQUESTED_TRANSPORT);
        if transport.ok_or_else(|| Reject::new(RefusalReason::NoTransport))?.protocol()? != UDP {
            return Err(Reject::new(RefusalReason::TransportNotUdp));
        }
        let lifetime = find(attribute::LIFETIME).map(|lifetime| lifetime.u32()).transpose()?;
        let family = find(attribute::REQUESTED_ADDRESS_FAMILY);
        let even_port = find(attribute::EVEN_PORT);
        let additional = find(attribute::ADDITIONAL_ADDRESS_FAMILY)
            .or_else(|| find(attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT));
        // 5.
        if let Some(token) = find(attribute::RESERVATION_TOKEN) {
            if even_port.is_some() || family.is_some() || additional.is_some() {
                return Err(Reject::new(RefusalReason::TokenWithOthers));
            }
            return Ok(AllocateRequest { lifetime, wanted: RequestedRelay::Reserved(token.array()?) });
        }
        // 6.
        if family.is_some() && additional.is_some() {
            return Err(Reject::new(RefusalReason::BothFamilies));
        }
        let port = match even_port {
            None => PortRequest::Any,
            Some(even_port) if even_port.reserve_next_port()? => PortRequest::Pair,
            Some(_) => PortRequest::Even,
        };
        let wanted = match (family, additional) {
            // 8.
            (_, Some(_)) if port == PortRequest::Pair => {
                return Err(Reject::new(RefusalReason::ReserveForBoth));
            }
            // 9.
            (_, Some(additional)) => match requested_family(additional)? {
                Some(Family::V6) => RequestedRelay::Both(port),
                _ => return Err(Reject::new(RefusalReason::AdditionalNotV6)),
            },
            (Some(family), None) => RequestedRelay::One(requested_family(family)?, port),
            // 7.
            (None, None) => RequestedRelay::One(Some(Family::V4), port),
        };
        Ok(AllocateRequest { lifetime, wanted })
    }
}

impl Server {
    /// Not a retransmission of the request that made, or is making, the allocation on this 5-tuple.
    pub(super) fn allocate(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
        authenticated: &Authenticated,
    ) -> Result<Success, Reject> {
        // RFC 8656 §7.2, 2.
        if self.by_tuple.contains_key(&origin.tuple) || self.pending.allocate_on(&origin.tuple).is_some() {
            return Err(Reject::new(RefusalReason::HasAllocation));
        }
        Reject::tunnelled(origin.tuple.client, &self.snapshot.config)?;
        let request = AllocateRequest::parse(message)?;
        // A relay that drains sends clients of a removed listener to its siblings, too.
        self.admit(&origin.tuple, message)?;
        if self.snapshot.config.is_closing(&origin.tuple) {
            return Err(Reject::new(RefusalReason::ListenerRemoved));
        }
        let user = authenticated.credential().account();
        let (ask, unsupported) = self.ask_for(request.wanted, user.clone(), &origin.tuple)?;
        let limits = &self.snapshot.config.limits;
        // Probes have a bound of their own, which the owner of the sockets keeps
        let is_full = self.allocations.len() + self.pending.allocates() >= limits.allocations;
        if is_full && !user.is_probe() {
            return Err(Reject::new(RefusalReason::Allocations(limits.allocations as u64)));
        }
        if self.pending.len() >= limits.pending {
            return Err(Reject::new(RefusalReason::Pending(limits.pending as u64)));
        }
        // Last, so that only requests that would open sockets count
        let (rates, source) = (&self.snapshot.config.rates, origin.tuple.client.0.ip());
        if !user.is_probe() && !self.shared.rates.take_allocation(rates, now.mono, user, source) {
            let per_second = rates.new_allocations.per_second;
            return Err(Reject::new(RefusalReason::AllocationRate(per_second.into())));
        }
        let lifetime = self.snapshot.config.lifetimes.grant(user, request.lifetime);
        let request = PendingRequest {
            origin: *origin,
            authenticated: authenticated.clone(),
            kind: PendingKind::Allocate { lifetime, unsupported },
            until: now.mono + TIMEOUT,
        };
        let ticket = self.pending.insert(request, &mut self.timers);
        self.outputs.push_back(Output::Ask { ticket, ask });
        Ok(Success::Pending)
    }

    /// RFC 8656 §7.2, 11.: a relay that drains sends clients to its siblings. A retransmission of the request that made an
    /// allocation does not come here.
    fn admit(&self, tuple: &FiveTuple, message: &Message<'_>) -> Result<(), Reject> {
        let config = &self.snapshot.config;
        let siblings = match &config.admission {
            Admission::Open => return Ok(()),
            Admission::Draining(siblings) => siblings,
        };
        let Some(alternate) = Admission::alternate(siblings, tuple, &config.external, self.hash) else {
            let has_siblings = !siblings.is_empty();
            return Err(Reject::new(RefusalReason::Draining { has_siblings }));
        };
        // Clients of RFC 8489 know that a nonce belongs to its server.
        let nonce = message.attribute(attribute::PASSWORD_ALGORITHM).is_none();
        let alternate = Alternate { nonce, ..alternate };
        let sent = Reject::new(RefusalReason::SentToSibling);
        Err(Reject { alternate: Some(Box::new(alternate)), ..sent })
    }

    /// The question for the owner of the sockets, and the family of a dual allocation that is not available.
    fn ask_for(
        &self,
        wanted: RequestedRelay,
        user: Account,
        tuple: &FiveTuple,
    ) -> Result<(Ask, Option<Family>), Reject> {
        let available = self.snapshot.config.families;
        let (families, port) = match wanted {
            RequestedRelay::Reserved(token) => return Ok((Ask::ClaimReservation { user, token }, None)),
            // RFC 8656 §7.2, 7.
            RequestedRelay::One(family, port) => {
                let family = family.filter(|family| available[*family]);
                let family = family.ok_or_else(|| Reject::new(RefusalReason::FamilyUnsupported))?;
                (Families::from_fn(|one| one == family), port)
            }
            RequestedRelay::Both(port) => (available, port),
        };
        let is_dual = matches!(wanted, RequestedRelay::Both(_));
        let unsupported = available.into_iter().find(|(_, available)| is_dual && !available);
        let external = &self.snapshot.config.external;
        // A client that reaches this address can be reached from it, whatever others there are.
        let server = tuple.server;
        let near = [server, external.inside(server), external.outside(server)].map(|addr| addr.ip());
        let request = RelayRequest { user, client: tuple.client.0.ip(), families, port, near };
        Ok((Ask::OpenRelay(request), unsupported.map(|(family, _)| family)))
    }

    /// The answer to an [`Ask`]. If its request is not pending any more, opened sockets are closed again.
    pub fn answered(&mut self, now: Now, ticket: Ticket, answer: Answer) {
        let (relays, token, denial) = match answer {
            Answer::Opened { relays, token } => (relays, token, None),
            Answer::Refused(denial) => (PerFamily::default(), None, Some(denial)),
        };
        let opened = relays.map(|relay| relay.and_then(Result::ok));
        let Some(PendingRequest { origin, authenticated, kind, .. }) =
            self.pending.remove(ticket, &mut self.timers)
        else {
            let unused = opened.present().map(|(_, relay)| Output::CloseRelay(relay.socket));
            return self.outputs.extend(unused);
        };
        let PendingKind::Allocate { lifetime, unsupported } = kind;
        let done = if opened.present().next().is_some() {
            let mut allocation =
                Allocation::new(self.shared.names.next(), &origin, &authenticated, now.mono, self.hash);
            allocation.token = token;
            let shortage = relays.present().find(|(_, relay)| **relay == Err(Shortage));
            allocation.missing =
                shortage.map(|(family, _)| (family, 508)).or(unsupported.map(|family| (family, 440)));
            Ok(Success::Allocated(self.open(now, allocation, opened, lifetime)))
        } else {
            // RFC 8656 §7.2, 9. and 10.
            let kind = authenticated.credential().account().kind();
            Err(Reject::new(match denial {
                Some(Denial::Quota(limit)) => RefusalReason::UserQuota(match kind {
                    AccountKind::Static => UserQuota::Static(limit as u64),
                    AccountKind::Person | AccountKind::ExpiryOnly => UserQuota::Person(limit as u64),
                    AccountKind::Probe => UserQuota::Probes(limit as u64),
                }),
                Some(Denial::Total(limit)) => RefusalReason::Allocations(limit as u64),
                Some(Denial::NoPort(ports)) => RefusalReason::NoPort(ports),
                Some(Denial::OpenFiles(limit)) => RefusalReason::OpenFiles(limit as u64),
                Some(Denial::SocketFailed) | None => RefusalReason::SocketFailed,
                Some(Denial::NoAddress) => RefusalReason::NoAddress,
                Some(Denial::UserReservations(limit)) => RefusalReason::UserReservations(limit as u64),
                Some(Denial::Reservations(limit)) => RefusalReason::Reservations(limit as u64),
                Some(Denial::Token) => RefusalReason::UnknownToken,
            }))
        };
        self.conclude(now, origin, &authenticated, done);
    }

    /// Adds an allocation with its relay sockets to the tables.
    fn open(
        &mut self,
        now: Now,
        allocation: Allocation,
        opened: PerFamily<Option<OpenedRelay>>,
        lifetime: u32,
    ) -> AllocationId {
        let weight = allocation.weight();
        let (tuple, name, user) = (allocation.tuple, allocation.name, allocation.credential.user().clone());
        let id = self.allocations.insert(Box::new(allocation));
        self.by_tuple.insert(tuple, id);
        self.by_name.insert(name, id);
        if self.snapshot.auth.no_longer_accepts(&self.allocations[id].credential) {
            // It was requested before the snapshot came.
            self.sweep.add(now.mono, id);
        }
        let expires = now.mono + u64::from(lifetime) * SECOND;
        for (family, &OpenedRelay { addr, socket }) in opened.present() {
            let lease = RelayLease { addr, socket, expires };
            self.allocations[id].set_relay(id, family, lease, &mut self.timers);
            *self.stats.relay_gauge(tuple.transport, family) += weight;
        }
        self.stats.allocations += weight;
        self.stats.allocations_total += weight;
        self.stats.probe_allocations += 1 - weight;
        let is_probe = weight == 0;
        self.outputs.push_back(Output::Opened(Opened {
            id,
            session: name,
            tuple,
            user,
            relays: opened,
            lifetime,
            is_probe,
        }));
        id
    }

    /// The attributes of an Allocate success response (RFC 8656 §7.2). A retransmission gets the same ones, with the
    /// remaining LIFETIME.
    pub(super) fn describe(&self, now: Now, id: AllocationId, response: &mut Encoder) {
        let Some(allocation) = self.allocations.get(id) else { return };
        for (_, relay) in allocation.relays() {
            response.xor_address(
                attribute::XOR_RELAYED_ADDRESS,
                self.snapshot.config.external.outside(relay.addr.0),
            );
        }
        let left = allocation.relays().map(|(_, relay)| relay.expires.saturating_sub(now.mono)).min();
        response.u32(attribute::LIFETIME, left.unwrap_or(0).div_ceil(SECOND) as u32);
        if let Some(token) = &allocation.token {
            response.bytes(attribute::RESERVATION_TOKEN, token);
        }
        response.xor_address(attribute::XOR_MAPPED_ADDRESS, allocation.tuple.client.0);
        if let Some((family, code)) = allocation.missing {
            response.address_error_code(family, code, wire::reason_phrase(code));
        }
    }

    /// Gives up a pending request. An answer that comes later finds no request.
    pub(in crate::turn) fn cancel(&mut self, now: Now, ticket: Ticket) {
        let Some(request) = self.pending.remove(ticket, &mut self.timers) else { return };
        let PendingKind::Allocate { .. } = request.kind;
        let done = Err(Reject::new(RefusalReason::TooSlow));
        self.conclude(now, request.origin, &request.authenticated, done);
    }
}
