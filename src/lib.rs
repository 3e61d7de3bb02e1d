//! hairpin, a TURN and STUN relay. A folder uses only what is below it here.
//!
//! - [`cli`]: the commands that a person types: `serve`, `check`, `credentials`, `ctl`.
//! - [`livekit`]: the sidecar that registers the relay with a LiveKit server.
//! - [`admin`]: the API of a running relay: HTTP and JSON over its control socket.
//! - [`daemon`]: the slow plane: start, signals, logs, HTTP for health and metrics.
//! - [`config`]: one table of settings, made into the layers' own configuration types.
//! - [`datapath`]: the fast plane, one thread per core: sockets and batches; the only `unsafe` code.
//! - [`turn`]: the TURN server of RFC 8656 as a pure state machine: no socket, no clock, no thread.
//! - [`auth`]: who is this? The long-term credentials of RFC 8489 section 9.2.
//! - [`tls`]: who this server is to TLS clients: certificates and keys.
//! - [`http`]: what HTTP servers and clients of the slow plane share.
//! - [`wire`]: bytes to values and back: STUN and ChannelData, without allocating on read.
//! - `version`: which program this is. `build.rs` tells it the commit.
//! - `counted`: enums whose values are counted; `histogram`: durations that are counted; `exposition`: both as Prometheus reads
//!   them.
//! - `keyed`: the hash of tables whose keys clients choose; `shown`: addresses of clients and peers in the log.
//! - [`text`]: the encodings of files; `plural`: counts in sentences; `man`: the manual pages of the programs.
//!   them; `keyed`: the hash of tables whose keys clients choose; `plural`: counts in sentences; `shown`: addresses of others in
//!   the log; `replace`: files that are written as a whole; [`text`]: the encodings of files; `man`: the manual pages of the
//!   programs.

// The stories name this crate from outside, and one test of `turn` uses their world.
#[cfg(test)]
extern crate self as hairpin;

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
mod counted;
pub mod daemon;
pub mod datapath;
mod exposition;
mod histogram;
pub mod http;
mod keyed;
pub mod livekit;
mod man;
mod plural;
mod replace;
mod shown;
pub mod text;
pub mod tls;
pub mod turn;
mod version;
pub mod wire;

pub use version::{FEATURES, LONG_VERSION, VERSION};
