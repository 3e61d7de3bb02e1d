//! Workers end to end on loopback: real sockets, real threads, clients and peers that are plain UDP sockets.

#![cfg(test)]

mod client;
mod control;
mod isolation;
mod relaying;
mod sockets;
mod world;
