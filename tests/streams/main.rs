//! Workers end to end on loopback, with clients over TCP and TLS. What concerns UDP alone is tested elsewhere.

#![cfg(test)]

mod allocations;
mod changes;
mod client;
mod ends;
mod framing;
mod limits;
mod pipelined;
mod relaying;
mod tls;
mod world;
