//! The fast plane: one thread per core with its sockets, and the only `unsafe` code of the crate (in [`sys`]).
//!
//! A worker owns a [`turn::Server`](crate::turn::Server) and everything that packets touch, so nothing on their way takes
//! a lock, allocates, logs or reads a clock. A folder uses only what is below it here:
//!
//! - `worker`: a worker's event loop and command channel, and its restart after a panic
//! - `listen`: listener groups, the steering program, and the stages of a connection before it is TURN
//! - [`stream`]: clients over TCP and TLS
//! - `relay`: relay sockets, ports, quota and reservations, shared by all workers, on the control path only
//! - `packet`: packets between receipt and departure
//! - [`stats`], `drops`, `line_budget`, `snapshot`, `poll`, `wake`, `clock`: what all of them use
//! - `sys`: system calls that no crate offers safely
//!
//! Not here: what to do with a message, which is `turn`'s.

mod clock;
mod descriptors;
mod drops;
mod line_budget;
mod listen;
mod packet;
mod poll;
mod relay;
mod snapshot;
pub mod stats;
pub mod stream;
mod sys;
mod wake;
mod worker;

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::wire::ChannelRange;

pub use descriptors::DescriptorRoom;
pub use listen::group::{ListenerGroup, OpenError};
pub use relay::ports::TooManyAddresses;
pub use snapshot::DatapathSnapshot;
pub use stats::WorkerStats;
pub(crate) use sys::option::{allow_missing_address, filter_dumps};
pub use worker::{StartError, WorkerThread, Workers};

/// What the fast plane is started with. What can change while it runs is in [`DatapathSnapshot`].
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Threads, each with its own allocations.
    pub workers: usize,
    /// The ports of relayed transport addresses.
    pub ports: RangeInclusive<u16>,
    /// What the limit on open files leaves room for.
    pub descriptors: DescriptorRoom,
    /// How long a reserved port waits for its token, in seconds (RFC 8656 section 7.2: at least 30).
    pub reservation_lifetime: u64,
    /// How far apart passes of a worker start while packets keep coming that the kernel does not join; zero for no
    /// gathering.
    pub gather: Duration,
    /// Receive datagrams with GRO.
    pub gro: bool,
    /// Send datagrams with GSO.
    pub gso: bool,
    /// Give requests and data queues of their own.
    pub steering: bool,
    /// What data begins with.
    pub channels: ChannelRange,
}

#[cfg(test)]
impl DatapathConfig {
    /// For tests of listeners.
    fn for_workers(workers: usize) -> DatapathConfig {
        DatapathConfig {
            workers,
            ports: 1..=1,
            descriptors: DescriptorRoom::UNBOUNDED,
            reservation_lifetime: 30,
            gather: Duration::ZERO,
            gro: true,
            gso: true,
            steering: true,
            channels: ChannelRange::default(),
        }
    }
}
