//! Probes of a relay: two allocations of the sidecar's own that meet on the relay, as two clients of a call would. A probe dials the
//! listener itself, so that it works behind a NAT that does not hairpin; what DNS says is checked apart.
//!
//! - [`targets`]: what is dialled, and by which name TLS is verified
//! - [`link`]: messages over UDP, TCP and TLS
//! - [`tls`]: who the relay must be for browsers, and why they would refuse it
//! - [`client`]: requests of a TURN client, and their responses
//! - [`meeting`]: the probe itself
//! - [`failure`]: what is wrong, as one sentence with the fix
//! - [`rounds`]: probes over and over, for a running sidecar; [`metrics`]: what they show
//!
//! It speaks TURN by the encoder of `wire`, and uses nothing of the relay's own server: a mistake there must not hide here.

pub mod client;
pub mod failure;
pub mod link;
pub mod meeting;
pub mod metrics;
pub mod rounds;
pub mod targets;
pub mod tls;
