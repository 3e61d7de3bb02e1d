//! Counters of the server: plain integers, read by whoever publishes them.

use std::ops::Add;
use std::time::Duration;

use super::{CloseReason, PerFamily, Transport};
use crate::auth::AuthReason;
use crate::counted::{Counters, counted};
use crate::histogram::{self, Histogram};
use crate::wire::{Family, Method};

/// The outcomes of requests, in the order of [`Stats::responses`]: an error code, or 0 for success.
pub const OUTCOMES: [u16; 14] = [0, 300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 508];

/// The methods of requests, in the order of [`Stats::requests`] and [`Stats::responses`].
pub const REQUESTS: [Method; 5] =
    [Method::Binding, Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];

/// Where the traffic of probes is counted: behind that of clients.
pub const PROBE_TRAFFIC: usize = Transport::ALL.len();

/// The bounds of [`Stats::lifetimes`]: from a second, which is a client that only tests, to a day.
pub const LIFETIMES: [Duration; 13] =
    histogram::seconds([1, 5, 15, 60, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400]);

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// Packets.
    pub packets: u64,
    /// Bytes of application data, without headers.
    pub bytes: u64,
}

impl TrafficCount {
    pub(crate) fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }

    /// Removes what was counted and has not left after all.
    pub(crate) fn subtract(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_sub(packets);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Add for TrafficCount {
    type Output = TrafficCount;

    fn add(mut self, other: TrafficCount) -> TrafficCount {
        TrafficCount::add(&mut self, other.packets, other.bytes);
        self
    }
}

counted! {
    /// Why a packet was dropped.
    pub enum Dropped {
        /// The first byte belongs to no protocol spoken here (RFC 7983).
        NotTurn = "not_turn",
        /// Not a STUN message, or a malformed one (RFC 8489 section 6.3).
        Malformed = "malformed",
        /// A response, or an indication that a server does not expect.
        Unexpected = "unexpected",
        /// Data from a client without an allocation.
        NoAllocation = "no_allocation",
        /// ChannelData that is too short, or on a channel that is not bound (RFC 8656 section 12.6).
        NoChannel = "no_channel",
        /// A Send indication that lacks an attribute or has an unknown one (section 11.2).
        BadSend = "bad_send",
        /// To or from a peer without a permission (sections 9 and 11.2).
        NoPermission = "no_permission",
        /// To one new peer per second more than allowed.
        TooManyPeers = "new_peers",
        /// To or from a port of the peer that is not allowed: of this machine's own addresses, those without an allocation.
        ForbiddenPort = "forbidden_port",
        /// Longer than a message with its header may be.
        TooLong = "too_long",
        /// From a peer to a relayed address that has ended.
        NoRelay = "no_relay",
        /// Beyond the bandwidth of the allocation.
        Bandwidth = "bandwidth",
        /// An ICMP message of a type that clients are not told about, about a peer without a permission, or beyond the rate limit.
        Icmp = "icmp",
        /// A request that came from a live relayed address of this relay: an allocation inside another would multiply each
        /// packet.
        Nested = "nested",
        /// A response that the rate limit of unauthenticated responses withheld.
        ResponseWithheld = "unauthenticated_rate",
    }
}

/// Everything that a server counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests received, by method ([`REQUESTS`]), also those that get no response.
    pub requests: [u64; REQUESTS.len()],
    /// Responses by method ([`REQUESTS`]) and outcome ([`OUTCOMES`]).
    pub responses: [[u64; OUTCOMES.len()]; REQUESTS.len()],
    /// Authentication failures by reason.
    pub auth_failures: Counters<AuthReason>,
    /// Packets that were dropped, by reason.
    pub dropped: Counters<Dropped>,
    /// Relayed towards peers, by the client's transport; at last, for probes ([`PROBE_TRAFFIC`]).
    pub to_peer: [TrafficCount; PROBE_TRAFFIC + 1],
    /// Relayed towards clients, in the same way.
    pub to_client: [TrafficCount; PROBE_TRAFFIC + 1],
    /// Relayed addresses that exist now, by the client's transport and the address family.
    pub relays: [PerFamily<u64>; Transport::ALL.len()],
    /// Allocations that exist now.
    pub allocations: u64,
    /// Allocations created since the start.
    pub allocations_total: u64,
    /// Allocations that have ended, by reason.
    pub closed: Counters<CloseReason>,
    /// How long they lived.
    pub lifetimes: Histogram<{ LIFETIMES.len() }>,
    /// Permissions that exist now.
    pub permissions: u64,
    /// Channels that are bound now.
    pub channels: u64,
    /// Allocations of probes, created since the start. They are not among the others.
    pub probe_allocations: u64,
}

impl Stats {
    pub(super) fn drop(&mut self, why: Dropped, packets: usize) {
        self.dropped[why] += packets as u64;
    }

    /// Counts a request that was received.
    pub(super) fn receive(&mut self, method: Method) {
        let method = REQUESTS.iter().position(|&m| m == method);
        debug_assert!(method.is_some(), "a method without requests");
        if let Some(method) = method {
            self.requests[method] += 1;
        }
    }

    /// Counts a response; `code` 0 is success.
    pub(super) fn answer(&mut self, method: Method, code: u16) {
        let method = REQUESTS.iter().position(|&m| m == method);
        let outcome = OUTCOMES.iter().position(|&c| c == code);
        debug_assert!(method.is_some() && outcome.is_some(), "{method:?} {code} has no counter");
        if let (Some(method), Some(outcome)) = (method, outcome) {
            self.responses[method][outcome] += 1;
        }
    }

    /// How many requests of a method were received.
    pub fn received(&self, method: Method) -> u64 {
        REQUESTS.iter().position(|&m| m == method).map_or(0, |method| self.requests[method])
    }

    /// How many requests of a method had this outcome; 0 is success.
    pub fn answered(&self, method: Method, code: u16) -> u64 {
        let method = REQUESTS.iter().position(|&m| m == method);
        let outcome = OUTCOMES.iter().position(|&c| c == code);
        method.zip(outcome).map_or(0, |(method, outcome)| self.responses[method][outcome])
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why]
    }

    pub(super) fn relay_gauge(&mut self, transport: Transport, family: Family) -> &mut u64 {
        &mut self.relays[transport.index()][family]
    }
}
