//! Limits and timeouts of connections that are passed on to a backend. They count apart from those of TURN.

use std::time::Duration;

/// Limits and timeouts of connections that are passed on to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceLimits {
    /// Connections in total.
    pub connections: usize,
    /// Connections from one IPv4 address or IPv6 /64.
    pub connections_per_source: usize,
    /// Time for which neither side may send anything.
    pub idle_timeout: Duration,
    /// Time to resolve the name of a backend and to connect to it.
    pub connect_timeout: Duration,
}

impl Default for SpliceLimits {
    fn default() -> Self {
        SpliceLimits {
            connections: 10_000,
            connections_per_source: 1024,
            idle_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(10),
        }
    }
}
