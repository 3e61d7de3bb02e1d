//! `hairpin-livekit init`: looks at the relay and at LiveKit, writes a configuration, and says what to put where. Whatever is missing
//! gets one sentence with the fix; what can still be written is written.
//!
//! - [`look`]: what the relay, LiveKit and this machine say
//! - [`document`]: the configuration; [`paste`]: what is printed; both pure
//! - [`place`]: where the configuration goes

pub mod document;
pub mod look;
pub mod paste;
pub mod place;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What the arguments say.
#[derive(Clone, Debug)]
pub struct Wish {
    /// `--livekit-url`
    pub livekit_url: String,
    /// `--livekit-api-url`
    pub api_url: Option<String>,
    /// `--api-key-file`, absolute.
    pub keys_file: PathBuf,
    /// `--livekit-config`, absolute.
    pub livekit_config: Option<PathBuf>,
    /// `--livekit-ca-file`, absolute.
    pub ca_file: Option<PathBuf>,
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--secret-file`, absolute.
    pub secret_file: Option<PathBuf>,
}

/// What was found, and what goes into the configuration.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where the sidecar reaches LiveKit, if not at the URL of clients.
    pub api_url: Option<String>,
    /// The file with the relays' shared secret.
    pub secret_file: Option<PathBuf>,
    /// The URLs of the relay for clients.
    pub ice_urls: Vec<String>,
    /// The names in the relay's certificates.
    pub names: Vec<String>,
    /// The SFU's addresses and ports, if LiveKit runs here and its configuration is not known.
    pub sfu: Vec<IpAddr>,
    /// Its ports.
    pub ports: Option<RangeInclusive<u16>>,
    /// The name of the first API key.
    pub api_key: Option<String>,
    /// What is missing or wrong, each with the fix.
    pub problems: Vec<String>,
    /// What to know besides.
    pub notes: Vec<String>,
}
