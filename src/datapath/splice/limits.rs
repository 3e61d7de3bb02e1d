//! Limits and timeouts of connections to backends.

use std::time::Duration;

use crate::datapath::stream::admission::{AdmissionLimits, LimitSettings};

/// Limits and timeouts of connections to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections from one IPv4 address or IPv6 /64.
    pub connections_per_source: usize,
    /// Time that both directions of a connection may be silent.
    pub idle_timeout: Duration,
    /// Time allowed to resolve a backend's name and to connect to it, over all of its addresses.
    pub connect_timeout: Duration,
    /// The limit on open files leaves room for fewer than `limits.spliced_connections`.
    pub by_open_files: bool,
}

impl SpliceLimits {
    /// Pipes for splice(2), which all connections share. Without a free one, a connection is copied.
    pub const PIPES: usize = 64;

    /// Sockets that connect to another address of a backend while one does not answer, over all connections.
    pub const AHEAD: usize = 32;

    /// File descriptors that so many connections need at most: two sockets each, the two ends of each pipe, and sockets of attempts.
    pub const fn descriptors(connections: u64) -> u64 {
        2 * connections + (2 * SpliceLimits::PIPES + SpliceLimits::AHEAD) as u64
    }
}

impl Default for SpliceLimits {
    fn default() -> Self {
        SpliceLimits {
            connections: 10_000,
            connections_per_source: 1024,
            idle_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(10),
            by_open_files: false,
        }
    }
}

impl From<SpliceLimits> for AdmissionLimits {
    fn from(limits: SpliceLimits) -> AdmissionLimits {
        AdmissionLimits {
            connections: limits.connections,
            per_source: limits.connections_per_source,
            settings: LimitSettings {
                connections: "limits.spliced_connections",
                per_source: "limits.spliced_connections_per_source",
            },
        }
    }
}
