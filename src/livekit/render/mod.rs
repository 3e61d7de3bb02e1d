//! `hairpin-livekit render`: the section that registers relays, printed or written into a configuration of LiveKit or MediaMTX.
//!
//! - [`sections`]: the sections, from the relays as [`servers`]
//! - [`yaml`]: a section in a YAML file, and everything else as it was; [`kinds`]: whether the file is what the section belongs to

pub mod kinds;
pub mod sections;
pub mod servers;
pub mod yaml;
