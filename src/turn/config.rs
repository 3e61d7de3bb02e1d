//! The settings of a server. Defaults follow the RFC, or are the safe choice.

use super::bucket::Rates;
use super::peers::PeerRules;
use super::{Admission, External, Families, ListenerTable};
use crate::auth::Account;
use crate::wire::ChannelRange;

/// Settings of a [`Server`](super::Server), read-only and shared by all workers.
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// Whether there are new allocations.
    pub admission: Admission,
    /// The address families that relayed addresses exist for (440 otherwise).
    pub families: Families,
    /// How long allocations, permissions and channels live.
    pub lifetimes: Lifetimes,
    /// How many of them there may be, and how fast they may relay.
    pub limits: AllocationLimits,
    /// How many new allocations and unauthenticated responses there may be per time.
    pub rates: Rates,
    /// The channel numbers that clients may bind (400 otherwise).
    pub channels: ChannelRange,
    /// The external addresses of relayed addresses behind a NAT.
    pub external: External,
    /// Which peers may be reached (403 otherwise), unless the listener has rules of its own.
    pub peers: PeerRules,
    /// The listeners that differ from the others.
    pub listeners: ListenerTable,
    /// The value of SOFTWARE in responses; `None` sends none (RFC 8489 section 16.1.2).
    pub software: Option<String>,
}

/// How long the allocation of a probe lives, in seconds, unless it is refreshed.
const PROBE_LIFETIME: u32 = 30;

/// Lifetimes in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an allocation, if the client asks for none or for less (RFC 8656 section 7.2).
    pub allocation_lifetime: u32,
    /// Of an allocation, at most.
    pub max_allocation_lifetime: u32,
    /// Of a permission (section 9: 300).
    pub permission_lifetime: u32,
    /// Of a channel binding (section 12: 600).
    pub channel_lifetime: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Lifetimes {
            allocation_lifetime: 600,
            max_allocation_lifetime: 3600,
            permission_lifetime: 300,
            channel_lifetime: 600,
        }
    }
}

impl Lifetimes {
    /// The lifetime granted to a client that asked for `wanted` seconds (RFC 8656 section 7.2): at most the maximum, at
    /// least the default. A probe takes seconds, and one that was cut off leaves its place to the next.
    pub fn grant(&self, user: &Account, wanted: Option<u32>) -> u32 {
        if user.is_probe() {
            return PROBE_LIFETIME;
        }
        wanted.unwrap_or(0).min(self.max_allocation_lifetime).max(self.allocation_lifetime)
    }
}

/// Bounds of a server's tables and of what one allocation may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationLimits {
    /// Allocations in this server (508).
    pub allocations: usize,
    /// Permissions per allocation (508).
    pub permissions: usize,
    /// Channels per allocation (508).
    pub channels: usize,
    /// New peer addresses and ports per second and allocation, with bursts of four times as many; 0 for no bound.
    /// Requests beyond it are refused (508) and packets dropped, so that a relay is no port scanner.
    pub new_peers: u32,
    /// Bytes of application data per second that an allocation may relay in each direction, with bursts of one second's
    /// worth; 0 for no bound. Packets beyond it are dropped (RFC 8656 section 5).
    pub bandwidth: u64,
    /// Requests that wait for the answer to a question (508).
    pub pending: usize,
}

impl Default for AllocationLimits {
    fn default() -> Self {
        AllocationLimits {
            allocations: 100_000,
            permissions: 1024,
            channels: 1024,
            new_peers: 64,
            bandwidth: 0,
            pending: 1024,
        }
    }
}
