//! `hairpin-livekit run`: its arguments.

use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::livekit::service;

/// Run the sidecar
///
/// It runs beside the relay, gives clients ICE servers, follows LiveKit's rooms, and tells the relay which peers to reach and whom to
/// refuse. It starts whether or not the relay and LiveKit can be reached, and goes on when they can; /readyz says what is missing. It
/// logs to standard error.
///
/// SIGHUP reads the configuration again: a mistake changes nothing. SIGTERM and SIGINT stop the sidecar; calls go on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit run
  hairpin-livekit run --config /etc/hairpin/hairpin-livekit.toml
  HAIRPIN_LIVEKIT_SECRET=... hairpin-livekit run --config hairpin-livekit.toml

The shared secret is never an argument. It comes from a file that the configuration names, or from HAIRPIN_LIVEKIT_SECRET.")]
pub struct RunArgs {
    #[command(flatten)]
    pub configuration: ConfigArgs,
}

/// Runs the sidecar until a signal stops it.
pub fn run(args: &RunArgs) -> ExitCode {
    service::run(&args.configuration.path())
}
