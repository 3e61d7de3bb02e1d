//! What a connection goes through before it is TURN (RFC 8489 sections 6.2.2 and 6.2.3), or goes to another server.
//!
//! Stages run as tasks on a thread beside each worker, never in the packet loop: a handshake takes as much time as
//! hundreds of packets. The thread has a tenth of a worker's weight, so handshakes take little CPU time from packets, and a flood
//! of packets leaves them a share of it. The limit per source bounds how many connections anybody has in these
//! stages. In order:
//!
//! - `accept`: accepting and admission; `thread`: the thread that does this, and its commands
//! - `pipeline`: the way of a connection (`pending`) through the stages that follow
//! - `proxy`: the header of a trusted proxy
//! - `sniff`: what the connection speaks, by its first bytes
//! - `tls`: the ClientHello (`client_hello`), where its name leads (`route`), the handshake, for which connections
//!   take turns (`handshake_queue`), and what the connection speaks inside
//! - `splice`: the handover to another server
//! - `not_served`, `log`: what operators are told about the others
//!
//! Each stage has a deadline as a whole, whatever arrives meanwhile. Bytes that were read and not consumed travel with the
//! connection (`prefixed`): whoever serves it gets each of them. A connection that is silent holds no buffer, one that speaks at
//! most [`CLIENT_HELLO_MAX`](crate::tls::client_hello::CLIENT_HELLO_MAX) bytes and what rustls keeps of a handshake.
//!
//! The thread lives as long as the worker's thread, also while the worker restarts. Not here: messages and their framing,
//! which start when the worker has the connection.

mod accept;
mod client_hello;
mod config;
mod context;
mod handshake_queue;
mod log;
mod not_served;
mod pending;
mod pipeline;
mod prefixed;
mod proxy;
mod route;
mod sniff;
mod splice;
mod thread;
mod tls;

pub(in crate::datapath) use config::StageConfig;
pub(in crate::datapath) use context::Sink;
pub(in crate::datapath) use thread::{StageCommand, Stages};
