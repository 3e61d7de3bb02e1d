//! The TURN server of RFC 8656 as a pure state machine: no socket, no clock, no thread.
//!
//! Feed it, drain it. Each worker owns a [`Server`]: bytes and a time go in through `from_client`, `from_peer` and
//! `answered`; forwarding decisions are returned by value, and everything slower is an [`Output`] to be polled.
//!
//! - [`server`](Server): the state, and the dispatch of inputs
//! - `forward`: data between clients and peers (RFC 8656 sections 11.2, 11.3, 12.6 and 12.7)
//! - `unsent`: data that was handed out and could not be sent
//! - `icmp`: ICMP errors from peers (section 11.5)
//! - `requests`: one file per method; [`refusal`](RefusalReason): why they are refused
//! - `expiry`: how things end
//! - [`operator`](Selector): what operators list and end; [`AllocationName`]: what they call an allocation
//! - `handover`: allocations that move to another server; `mirror`: forwarding tables outside of the server
//! - [`Snapshot`], `apply`, `sweep`: what an operator can change while the server runs
//! - `pending`: requests that wait for the answer to a question
//! - `allocation`, `channels`: an allocation with its permissions and channels (sections 6, 9 and 12)
//! - [`ListenerTable`]: what differs between listeners
//! - [`peers`]: which peers may be reached, decided by one function for everything (section 21)
//! - [`bucket`]: the rate limits of new allocations, and of responses to clients that have not authenticated
//! - `own_ports`: what of this machine an allocation has reached
//! - `siblings`: other relays that take over new clients while this one drains
//! - [`ExemptSources`]: sources that many clients share
//! - `timers`: one ordered queue of named deadlines
//! - [`stats`]: counters, plain integers
//!
//! Not here on purpose: TCP relaying (RFC 6062), mobility (RFC 8016).

mod address;
mod allocation;
mod allocation_name;
mod apply;
pub mod bucket;
mod channels;
mod config;
mod expiry;
mod external;
mod forward;
mod handover;
mod icmp;
#[cfg(test)]
mod interleaving;
mod listeners;
mod mirror;
mod operator;
mod output;
mod own_ports;
pub mod peers;
mod pending;
mod per_family;
mod refusal;
mod requests;
mod server;
mod siblings;
mod snapshot;
mod sources;
pub mod stats;
mod sweep;
mod timers;
mod unsent;

pub use address::{
    AllocationId, ClientAddr, FiveTuple, PeerAddr, RelayId, RelaySocketId, RelayedAddr, Ticket, Transport,
    Via,
};
pub use allocation::Allocation;
pub use allocation_name::{AllocationName, AllocationNameError, AllocationNames};
pub use config::{AllocationLimits, Lifetimes, TurnConfig};
pub use external::External;
pub use listeners::{ListenerPolicy, ListenerTable};
pub use operator::{AllocationRow, EndStep, EndedStep, ListStep, ListedStep, PeerRows, RelayedRow, Selector};
pub use output::{
    Answer, Ask, ChannelBound, CloseReason, Closed, ClosedPortDropped, Denial, Fix, Header, Icmp, Opened,
    OpenedRelay, Output, PortRequest, Refused, RelayRequest, Shortage, ToClient, ToPeer, Token, Totals,
};
pub use per_family::{Families, PerFamily};
pub use refusal::{Limit, PortUse, RefusalReason, UserQuota};
pub use server::{LiveRelays, OperatorCommand, Server, Shared};
pub use siblings::{Admission, Sibling};
pub use snapshot::Snapshot;
pub use sources::ExemptSources;
pub use stats::Stats;

/// The time of an input, read once per batch by the owner of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic nanoseconds since some fixed time.
    pub mono: u64,
    /// Seconds since the Unix epoch, for nonces and time-limited credentials.
    pub unix: u64,
}

/// Nanoseconds per second; lifetimes on the wire are in seconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The IPv4 TOS or IPv6 traffic class byte of a packet: DSCP in the upper six bits, ECN in the lower two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tos(pub u8);
