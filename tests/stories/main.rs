//! The TURN server in virtual time: each rule of RFC 8656, and of RFC 8489 as far as it concerns TURN, as a story.

#![cfg(test)]

mod allocate;
mod binding;
mod channels;
mod credentials;
mod dual;
mod external;
mod handover;
mod icmp;
mod limits;
mod listeners;
mod mirror;
mod operator;
mod overlays;
mod own;
mod permissions;
mod probes;
mod proxied;
mod refresh;
mod send_and_data;
mod siblings;
mod snapshot;
mod streams;
mod unsent;
mod world;
