//! `hairpin-livekit render`: the section that registers relays, printed or written into a configuration of LiveKit or MediaMTX.
//!
//! - [`command`]: the command from its [`arguments`] to its exit status
//! - [`sections`]: the sections, from the relays as [`servers`] and the [`secret`]
//! - [`yaml`]: a section in a YAML file, and everything else as it was; [`kinds`]: whether the file is what the section belongs
//!   to; [`diff`]: what would change; [`file`](mod@file): a file replaced as a whole
//! - [`restart`]: the command that restarts LiveKit, and whether LiveKit comes back; [`mediamtx`]: a running MediaMTX;
//!   [`endpoint`]: the ports of both

pub mod arguments;
pub mod command;
pub mod diff;
pub mod endpoint;
pub mod file;
pub mod kinds;
pub mod mediamtx;
pub mod restart;
pub mod secret;
pub mod sections;
pub mod servers;
pub mod yaml;
