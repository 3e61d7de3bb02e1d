//! Tests of running workers on loopback, with clients over UDP, TCP and TLS.

#![cfg(test)]

mod changes;
mod client;
mod control;
mod counts;
mod isolation;
mod operator;
mod pipelined;
mod protocols;
mod relaying;
mod sockets;
mod stream_ends;
mod stream_framing;
mod stream_limits;
mod stream_relaying;
mod tls;
mod world;
