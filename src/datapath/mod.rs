//! The fast plane: one thread a core with its sockets, and the only `unsafe` of the house (in [`sys`]).
//!
//! A worker owns a [`turn::Server`](crate::turn::Server) and everything that packets touch, so nothing on their way takes
//! a lock, allocates, logs or reads a clock. What the daemon owns and lends are the [`ListenerGroup`]s of listener sockets.
//!
//! - `group`, `steering`: listener sockets, and how the kernel chooses among them
//! - `workers`, `worker`, `alarm`: threads, the loop of each, and what wakes it beside packets
//! - `traffic`, `arena`, `cut`, `outbox`, `segmentation`: the way of packets, batches in and batches out
//! - [`stream`], [`tls`]: clients over TCP and TLS
//! - `relay`, `ports`, `quota`, `reservations`: relay sockets and what they cost; shared by all workers, control path only
//! - [`stats`], `losses`, `log`, `clock`: what is counted, told and timed
//!
//! Left out on purpose: what to do with a message. That is `turn`'s.

mod clock;
mod event_source;
mod listen;
mod packet;
mod relay;
pub mod stats;
pub mod stream;
mod sys;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

pub use listen::group::{ListenerGroup, OpenError};
pub use stats::WorkerStats;
pub use worker::{StartError, Workers};

/// What the fast plane can be told.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Threads, each with its own allocations.
    pub workers: usize,
    /// Where UDP clients are listened to, one [`ListenerGroup`] for each.
    pub listen: Vec<SocketAddr>,
    /// Clients over TCP and TLS, a [`ListenerGroup`] for each address too.
    pub streams: stream::StreamConfig,
    /// The addresses that relayed transport addresses are made of, several of a family if wanted.
    pub relay: Vec<IpAddr>,
    /// Their ports.
    pub ports: RangeInclusive<u16>,
    /// Allocations and reservations of one user at a time (486).
    pub user_allocations: usize,
    /// Allocations and reservations at a time (508).
    pub total_allocations: usize,
    /// How long a reserved port waits for its token, in seconds (RFC 8656 section 7.2: at least 30).
    pub reservation_lifetime: u64,
    /// Receive datagrams joined.
    pub gro: bool,
    /// Send datagrams joined.
    pub gso: bool,
    /// Give requests and data queues of their own.
    pub steering: bool,
}

#[cfg(test)]
impl DatapathConfig {
    /// For tests of listeners.
    fn for_workers(workers: usize) -> DatapathConfig {
        DatapathConfig {
            workers,
            listen: vec![],
            streams: stream::StreamConfig::default(),
            relay: vec![],
            ports: 1..=1,
            user_allocations: 1,
            total_allocations: 1,
            reservation_lifetime: 30,
            gro: true,
            gso: true,
            steering: true,
        }
    }
}
