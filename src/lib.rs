//! hairpin, a TURN and STUN relay. The map of the house; a folder uses only what stands below it here.
//!
//! - [`cli`]: the words a person types: `serve`, `check`, `credentials`.
//! - [`daemon`]: the slow plane: start, signals, logs, HTTP for health and metrics.
//! - [`config`]: one table of settings, made into the layers' own configuration types.
//! - [`datapath`]: the fast plane, one thread a core: sockets and batches; the only `unsafe`.
//! - [`turn`]: the TURN server of RFC 8656 as a pure state machine: no socket, no clock, no thread.
//! - [`auth`]: who is this? Long-term credentials of RFC 8489 section 9.2.
//! - [`wire`]: bytes to values and back: STUN and ChannelData, without allocating on read.
//! - `counted`: enums whose values are counted, for all of them.

pub mod auth;
pub mod cli;
pub mod config;
mod counted;
pub mod daemon;
pub mod datapath;
pub mod tls;
pub mod turn;
pub mod wire;
