//! `hairpin-livekit init`: its arguments.

use std::path::PathBuf;
use std::process::ExitCode;

/// Write a configuration for this machine, and print what to put where
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit init --livekit-url wss://livekit.example.org --api-key-file /etc/hairpin/livekit-keys")]
pub struct InitArgs {
    /// The URL that clients connect to
    #[arg(long, value_name = "URL")]
    pub livekit_url: String,
    /// The file with LiveKit's API keys, in the format of its own key_file: a line `API_KEY: SECRET` for each
    #[arg(long, value_name = "FILE")]
    pub api_key_file: PathBuf,
}

/// Writes the configuration.
pub fn run(_: &InitArgs) -> ExitCode {
    ExitCode::FAILURE
}
