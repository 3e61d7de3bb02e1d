//! The fast plane: one thread per core with its sockets, and the only `unsafe` code of the crate (in [`sys`]).
//!
//! A worker owns a [`turn::Server`](crate::turn::Server) and everything that packets touch, so nothing on their way takes
//! a lock, allocates, logs or reads a clock. A folder uses only what is below it here:
//!
//! - `worker`: a worker's event loop and command channel, and its restart after a panic
//! - `listen`: listener groups, the steering program, and the stages of a connection before it is TURN
//! - `splice`: connections that are not for TURN, and go to a backend
//! - [`stream`]: clients over TCP and TLS
//! - `relay`: relay sockets, ports, quota and reservations, shared by all workers, on the control path only
//! - `packet`: packets between receipt and departure
//! - [`stats`], `drops`, `line_budget`, `keepalive`, `snapshot`, `poll`, `wake`, `clock`, `cpu_clock`: what all of them use
//! - `sys`: system calls that no crate offers safely
//!
//! Not here: what to do with a message, which is `turn`'s.

mod clock;
mod cpu_clock;
mod descriptors;
mod drops;
mod keepalive;
mod line_budget;
mod listen;
mod packet;
mod poll;
mod relay;
mod snapshot;
mod splice;
pub mod stats;
pub mod stream;
mod sys;
mod wake;
mod worker;

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::wire::ChannelRange;

pub use descriptors::DescriptorRoom;
pub use listen::group::{ListenerGroup, OpenError};
pub use listen::service::{Proxies, Route, Routes, StreamService};
pub use relay::ports::{PortUsage, TooManyAddresses};
pub use snapshot::DatapathSnapshot;
pub use splice::backend::Backend;
pub use splice::limits::SpliceLimits;
pub use splice::stats::{BackendHealth, BackendStats, SpliceEnd, SpliceFailure, SpliceStats};
pub use stats::WorkerStats;
pub(crate) use sys::option::{allow_missing_address, filter_dumps};
pub(crate) use sys::yield_to_workers;
pub use worker::{
    AllocationPage, AllocationQuery, EndedAllocations, RatedAllocation, StartError, WorkerThread, Workers,
};

/// What the fast plane is started with. What can change while it runs is in [`DatapathSnapshot`].
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Threads, each with its own allocations.
    pub workers: usize,
    /// Receive datagrams with GRO.
    pub gro: bool,
    /// Send datagrams with GSO.
    pub gso: bool,
    /// Give requests and data queues of their own.
    pub steering: bool,
    /// What data begins with.
    pub channels: ChannelRange,
    /// The largest TCP segment (TCP_MAXSEG) of listeners for streams that do not leave it to the kernel, by address.
    pub mss: HashMap<SocketAddr, u16>,
}

#[cfg(test)]
impl DatapathConfig {
    /// For tests of listeners.
    fn for_workers(workers: usize) -> DatapathConfig {
        DatapathConfig {
            workers,
            gro: true,
            gso: true,
            steering: true,
            channels: ChannelRange::default(),
            mss: HashMap::new(),
        }
    }
}
