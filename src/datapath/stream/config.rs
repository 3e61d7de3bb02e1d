//! Limits and deadlines of connections. The defaults suit a relay on the open Internet.

use std::time::Duration;

/// Bounds for connections that ask too much, and deadlines for those that say too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time that have not brought a whole message yet.
    pub half_open: usize,
    /// The same from one IPv4 address or IPv6 /64.
    pub half_open_per_address: usize,
    /// Bytes that may wait for one client to read; data beyond is dropped.
    pub client_queue: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the first message may take.
    pub first_message_timeout: Duration,
    /// How long the rest of a message may take.
    pub unfinished_message_timeout: Duration,
    /// How long a client without an allocation may say nothing.
    pub idle_timeout: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        StreamLimits {
            connections: 50_000,
            half_open: 4096,
            half_open_per_address: 256,
            client_queue: 256 << 10,
            handshake_timeout: Duration::from_secs(10),
            first_message_timeout: Duration::from_secs(10),
            unfinished_message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
        }
    }
}
