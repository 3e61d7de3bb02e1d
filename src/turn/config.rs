//! What the protocol core can be told. Defaults are the RFC's or the safe ones.

use super::External;
use super::peers::PeerRules;
use crate::wire::Family;

/// Settings of a [`Server`](super::Server), read-only and shared by all workers.
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// The address families that relayed addresses exist for (440 otherwise).
    pub families: Families,
    /// How long things live.
    pub lifetimes: Lifetimes,
    /// How many of them there may be.
    pub limits: AllocationLimits,
    /// What relayed addresses are called outside, behind a NAT.
    pub external: External,
    /// Which peers may be reached (403 otherwise).
    pub peers: PeerRules,
    /// The value of SOFTWARE in answers; `None` sends none (RFC 8489 section 16.1.2).
    pub software: Option<String>,
}

/// The address families of relayed addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4 relayed addresses can be had.
    pub v4: bool,
    /// IPv6 relayed addresses can be had.
    pub v6: bool,
}

impl Families {
    /// Whether relayed addresses of `family` can be had.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Lifetimes in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// An allocation's, when the client asks for none or for less (RFC 8656 section 7.2).
    pub default: u32,
    /// An allocation's, at most.
    pub max: u32,
    /// A permission's (section 9: 300).
    pub permission: u32,
    /// A channel binding's (section 12: 600).
    pub channel: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Lifetimes { default: 600, max: 3600, permission: 300, channel: 600 }
    }
}

impl Lifetimes {
    /// The lifetime granted to a client that asked for `wanted` seconds (RFC 8656 section 7.2): at most the maximum, at
    /// least the default.
    pub fn grant(&self, wanted: Option<u32>) -> u32 {
        wanted.unwrap_or(0).min(self.max).max(self.default)
    }
}

/// Bounds of a server's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationLimits {
    /// Allocations in this server (508).
    pub allocations: usize,
    /// Permissions an allocation (508).
    pub permissions: usize,
    /// Channels an allocation (508).
    pub channels: usize,
    /// New peer addresses and ports an allocation may turn to in a second, four times as many at once; 0 for no bound.
    /// What exceeds it is refused (508) or dropped: a relay is no port scanner.
    pub new_peers: u32,
    /// Bytes of application data a second that an allocation may relay in each direction, with a second's worth at
    /// once; 0 for no bound. What exceeds it is dropped (RFC 8656 section 5).
    pub bandwidth: u64,
    /// Allocate requests that wait for a relay socket at a time (508).
    pub waiting: usize,
}

impl Default for AllocationLimits {
    fn default() -> Self {
        AllocationLimits {
            allocations: 100_000,
            permissions: 256,
            channels: 256,
            new_peers: 64,
            bandwidth: 0,
            waiting: 1024,
        }
    }
}
