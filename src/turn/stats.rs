//! Counters of the protocol core: plain integers, read by whoever publishes them.

use super::{PerFamily, Transport};
use crate::auth;
use crate::wire::{Family, Method};

/// How a request ended, in the order of [`Stats::requests`]: an error code, 0 for success.
pub const OUTCOMES: [u16; 13] = [0, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 508];

/// The methods that are requests, in the order of [`Stats::requests`].
pub const REQUESTS: [Method; 5] =
    [Method::Binding, Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// Packets.
    pub packets: u64,
    /// Bytes of application data, without headers.
    pub bytes: u64,
}

impl TrafficCount {
    pub(super) fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The first byte belongs to no protocol spoken here (RFC 7983).
    NotTurn,
    /// Not a STUN message, or one that is broken (RFC 8489 section 6.3).
    Malformed,
    /// A response or an indication that nobody expects.
    Unexpected,
    /// Data from a client without an allocation.
    NoAllocation,
    /// ChannelData that is too short, or on a channel that is not bound (RFC 8656 section 12.6).
    NoChannel,
    /// A Send indication that lacks something or has something unknown (section 11.2).
    BadSend,
    /// To or from a peer without a permission (sections 9 and 11.2).
    NoPermission,
    /// To a peer that would be one more in a second than allowed.
    TooManyPeers,
    /// Towards a port of this machine that is not a live allocation.
    ForbiddenPort,
    /// More than fits into the header that it needs.
    TooLong,
    /// From a peer for a relayed address that is gone.
    NoRelay,
    /// More than an allocation's bandwidth.
    Bandwidth,
    /// An ICMP message of a type that clients are not told, about a peer without a permission, or one too many.
    Icmp,
    /// An answer that the bound on answers to strangers withheld.
    AnswerWithheld,
}

impl Dropped {
    /// Every reason, in the order of [`Stats::dropped`].
    pub const ALL: [Dropped; 14] = [
        Dropped::NotTurn,
        Dropped::Malformed,
        Dropped::Unexpected,
        Dropped::NoAllocation,
        Dropped::NoChannel,
        Dropped::BadSend,
        Dropped::NoPermission,
        Dropped::TooManyPeers,
        Dropped::ForbiddenPort,
        Dropped::TooLong,
        Dropped::NoRelay,
        Dropped::Bandwidth,
        Dropped::Icmp,
        Dropped::AnswerWithheld,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::NotTurn => "not_turn",
            Dropped::Malformed => "malformed",
            Dropped::Unexpected => "unexpected",
            Dropped::NoAllocation => "no_allocation",
            Dropped::NoChannel => "no_channel",
            Dropped::BadSend => "bad_send",
            Dropped::NoPermission => "no_permission",
            Dropped::TooManyPeers => "too_many_peers",
            Dropped::ForbiddenPort => "forbidden_port",
            Dropped::TooLong => "too_long",
            Dropped::NoRelay => "no_relay",
            Dropped::Bandwidth => "bandwidth",
            Dropped::Icmp => "icmp",
            Dropped::AnswerWithheld => "answer_withheld",
        }
    }
}

/// Everything a server counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests by method ([`REQUESTS`]) and outcome ([`OUTCOMES`]).
    pub requests: [[u64; OUTCOMES.len()]; REQUESTS.len()],
    /// Authentication failures by reason.
    pub auth_failures: [u64; auth::AuthReason::COUNT],
    /// Packets that went no further, by reason ([`Dropped::ALL`]).
    pub dropped: [u64; Dropped::ALL.len()],
    /// Relayed towards peers, by the client's transport.
    pub to_peer: [TrafficCount; Transport::ALL.len()],
    /// Relayed towards clients, by the client's transport.
    pub to_client: [TrafficCount; Transport::ALL.len()],
    /// Relayed addresses that live now, by the client's transport and the address family.
    pub relays: [PerFamily<u64>; Transport::ALL.len()],
    /// Allocations that live now.
    pub allocations: u64,
    /// Allocations made since the start.
    pub allocations_total: u64,
    /// Permissions that live now.
    pub permissions: u64,
    /// Channels that are bound now.
    pub channels: u64,
}

impl Stats {
    pub(super) fn drop(&mut self, why: Dropped, packets: usize) {
        self.dropped[why as usize] += packets as u64;
    }

    /// Counts an answered request; `code` 0 is success.
    pub(super) fn answer(&mut self, method: Method, code: u16) {
        let method = REQUESTS.iter().position(|&m| m == method);
        let outcome = OUTCOMES.iter().position(|&c| c == code);
        debug_assert!(method.is_some() && outcome.is_some(), "{method:?} {code} has no counter");
        if let (Some(method), Some(outcome)) = (method, outcome) {
            self.requests[method][outcome] += 1;
        }
    }

    /// Requests of a method that ended this way; 0 is success.
    pub fn answered(&self, method: Method, code: u16) -> u64 {
        let method = REQUESTS.iter().position(|&m| m == method);
        let outcome = OUTCOMES.iter().position(|&c| c == code);
        method.zip(outcome).map_or(0, |(method, outcome)| self.requests[method][outcome])
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize]
    }

    pub(super) fn relay_gauge(&mut self, transport: Transport, family: Family) -> &mut u64 {
        &mut self.relays[transport.index()][family]
    }
}
