//! Peers only towards the SFU: the sidecar finds the SFU's addresses and ports, and sets them as the peer overlay of each relay.
//!
//! - [`sfu`]: what LiveKit's own configuration says; [`machine`]: the addresses of this machine
//! - [`nodes`], [`store`]: the nodes of a distributed deployment, in Redis
//! - [`addresses`]: what becomes of it all: exact addresses with ports
//! - `tell`: what each relay is told, at the start, on change, and when it has lost it
//! - [`run`]: the part of the sidecar that follows all this

pub mod addresses;
pub mod machine;
pub mod nodes;
mod overlay;
pub mod sfu;
mod store;
mod tell;
mod watch;

pub use watch::run;
