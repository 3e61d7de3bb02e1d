//! The sidecar `hairpin-livekit`: it makes an external LiveKit deployment use a relay. It knows no TURN but for probes of its own,
//! and passes no packet on; it gives orders to the relay over its admin API.
//!
//! - [`commands`]: `init`, `run`, `check` and `render`: their arguments, and what they print
//! - [`settings`]: what the sidecar is told; [`config`]: the file that says it
//! - [`sidecar`]: the parts of a running one and what they share
//! - [`relays`]: the relays that it registers, and what is known of them
//! - [`health`]: what works and what does not
//! - [`tags`]: what it calls participants in user names of TURN, and until when they are revoked
//! - [`ice_url`]: the URLs of TURN servers
//! - [`token`]: LiveKit's access tokens
//! - [`http`]: its HTTP server
//! - [`metrics`]: what it counts
//! - [`render`]: the sections of configurations that register relays
//! - [`server`]: LiveKit's API; [`clock`]: how far its clock differs
//! - [`webhook`]: what LiveKit tells of its own accord
//! - [`rooms`]: who is where, and what to revoke when they leave

pub mod clock;
pub mod commands;
pub mod config;
#[cfg(test)]
mod fakes;
pub mod health;
pub mod http;
pub mod ice_url;
pub mod metrics;
pub mod relays;
pub mod render;
pub mod rooms;
pub mod server;
pub mod settings;
pub mod sidecar;
pub mod tags;
pub mod token;
pub mod webhook;
