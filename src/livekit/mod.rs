//! The sidecar `hairpin-livekit`: it makes an external LiveKit deployment use a relay. It knows no TURN but for probes of its own,
//! and passes no packet on; it gives orders to the relay over its admin API.
//!
//! - [`check`]: whether the whole path works, and what is wrong
//! - [`commands`]: `init`, `run`, `check` and `render`: their arguments, and what they print
//! - [`init`]: a first configuration, from what the relay and LiveKit say
//! - [`settings`]: what the sidecar is told; [`config`]: the file that says it
//! - [`service`]: its life; `signals`: what ends it, or reads its configuration again
//! - [`sidecar`]: the parts of a running one and what they share
//! - [`relays`]: the relays that it registers, and what is known of them
//! - [`health`]: what works and what does not; [`sfu_health`]: whether LiveKit does
//! - [`peers`]: peers only towards the SFU
//! - [`tags`]: what it calls participants in user names of TURN, and until when they are revoked
//! - [`ice_url`]: the URLs of TURN servers
//! - [`token`]: LiveKit's access tokens
//! - [`http`]: its HTTP server
//! - [`probe`]: allocations of its own, which prove that relays work
//! - [`metrics`]: what it counts
//! - [`render`]: the sections of configurations that register relays
//! - [`server`]: LiveKit's API; [`clock`]: how far its clock differs
//! - [`lifecycle`]: what happens when participants leave: [`webhook`] and [`reconcile`] tell who does, [`rooms`] decides what is
//!   revoked, [`revoke`] tells the relays, [`kept`] is what survives a restart, [`relayed`] counts who uses a relay,
//!   [`lifecycle_metrics`] counts the rest

pub mod check;
pub mod clock;
pub mod commands;
pub mod config;
#[cfg(test)]
mod fakes;
pub mod health;
pub mod http;
pub mod ice_url;
pub mod init;
pub mod kept;
pub mod lifecycle;
pub mod lifecycle_metrics;
pub mod metrics;
pub mod peers;
pub mod probe;
pub mod reconcile;
pub mod relayed;
pub mod relays;
pub mod render;
pub mod revoke;
pub mod rooms;
pub mod server;
pub mod service;
pub mod settings;
pub mod sfu_health;
pub mod sidecar;
mod signals;
pub mod tags;
pub mod token;
pub mod webhook;
