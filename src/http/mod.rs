//! HTTP/1.1 beside the packets: what its servers and clients share. Everything has a bound.
//!
//! - [`accept`]: new connections, also when there is hardly a file descriptor left
//! - [`connections`]: a bounded set of connections to a server, and how a request of one is served
//! - [`body`]: the body of a request or a response
//! - [`lines`]: log lines that clients cause

pub mod accept;
pub mod bearer;
pub mod body;
pub mod connections;
pub mod lines;
