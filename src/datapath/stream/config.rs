//! Limits and timeouts of connections. The defaults suit a relay on the open Internet.

use std::time::Duration;

/// Limits and timeouts of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Open connections.
    pub connections: usize,
    /// Connections without an allocation from one IPv4 address or IPv6 /64.
    pub connections_per_source: usize,
    /// Bytes queued for one client; data beyond that is dropped.
    pub client_queue: usize,
    /// Time allowed for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time allowed until the first message is complete.
    pub first_message_timeout: Duration,
    /// Time allowed until a message that has started is complete.
    pub unfinished_message_timeout: Duration,
    /// Time that a client without an allocation may be silent.
    pub idle_timeout: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        StreamLimits {
            connections: 50_000,
            connections_per_source: 1024,
            client_queue: 256 << 10,
            handshake_timeout: Duration::from_secs(10),
            first_message_timeout: Duration::from_secs(10),
            unfinished_message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
        }
    }
}
