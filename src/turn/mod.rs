//! The TURN server of RFC 8656 as a pure state machine: no socket, no clock, no thread.
//!
//! Feed it, drain it. [`Server`] belongs to one worker: bytes and a time go in through `from_client`, `from_peer`
//! and `answered`; forwarding decisions come back by value, everything slower is an [`Output`] to be polled.
//!
//! - [`server`](Server): dispatch of what arrives; `requests` holds one file a method
//! - `allocation`: allocations with their permissions and channels (RFC 8656 sections 6, 9 and 12)
//! - [`peers`]: which peers may be reached, one function for all who ask (section 21)
//! - [`bucket`]: the bound on answers to strangers
//! - `timers`: one ordered queue of named deadlines
//! - [`stats`]: counters, plain integers
//!
//! Left out on purpose: TCP relaying (RFC 6062), mobility (RFC 8016), the ALTERNATE-SERVER redirection of section 7.2.

mod address;
mod allocation;
pub mod bucket;
mod config;
mod external;
mod output;
pub mod peers;
mod requests;
mod server;
pub mod stats;
mod timers;

pub use address::{AllocationId, ClientAddr, FiveTuple, PeerAddr, RelayId, RelayedAddr, Transport};
pub use config::{AllocationLimits, Families, Lifetimes, TurnConfig};
pub use external::External;
pub use output::{
    Answer, Ask, CloseReason, Closed, Denial, Header, Icmp, Opened, Output, PortRequest, Refused, Shortage,
    ToClient, ToPeer, Token, Totals,
};
pub use server::{LiveRelays, OperatorCommand, Server, Shared};
pub use stats::Stats;

/// The time of an input: read once a batch by whoever owns the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic nanoseconds since any fixed moment.
    pub mono: u64,
    /// Seconds since the Unix epoch, for nonces and time-limited credentials.
    pub unix: u64,
}

/// Nanoseconds in a second, the unit of every lifetime on the wire.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The IPv4 TOS or IPv6 traffic class byte of a packet: DSCP in the upper six bits, ECN in the lower two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tos(pub u8);
