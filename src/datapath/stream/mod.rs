//! Clients over TCP and TLS (RFC 8489 sections 6.2.2 and 6.2.3) once a worker has their connection.
//!
//! A connection is admitted ([`admission`]) and passes its stages before it comes here ([`incoming`]). Then it is one more
//! socket ([`connection`]) in the worker's epoll set ([`table`]): its messages are reassembled ([`reassembly`]), what it is
//! sent waits in whole messages ([`outgoing`]), and it is closed if it is silent for too long ([`deadlines`]), of which a
//! line tells ([`closed`]).
//!
//! Not here: what to do with a message, which is the core's.

pub(in crate::datapath) mod admission;
pub(in crate::datapath) mod closed;
mod config;
mod connection;
mod deadlines;
pub(in crate::datapath) mod incoming;
mod outgoing;
mod pool;
mod reassembly;
pub mod stats;
pub(in crate::datapath) mod table;

/// Bytes that the kernel may hold unsent: older data should wait where it can be dropped by whole messages.
pub(in crate::datapath) const UNSENT: u32 = 64 << 10;

/// The same for a connection without an allocation, which gets nothing but responses.
pub(in crate::datapath) const UNSENT_WITHOUT_ALLOCATION: u32 = 4 << 10;

/// The kernel's send buffer of a connection without an allocation; otherwise the kernel would let it grow to megabytes.
pub(in crate::datapath) const SEND_BUFFER_WITHOUT_ALLOCATION: usize = 16 << 10;

pub use config::StreamLimits;
pub use connection::{Connection, ReadOutcome};
pub use pool::Pool;
pub use reassembly::{MessageRun, Reassembly, StreamError, next};
