//! Workers end to end on loopback, with clients over TCP and TLS. What concerns UDP alone is tested elsewhere.

#![cfg(test)]

mod allocations;
mod client;
mod ends;
mod framing;
mod limits;
mod relaying;
mod tls;
mod world;
