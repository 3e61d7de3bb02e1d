//! The commands of `hairpin-livekit`: their arguments, and what they print.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::prctl;

/// Registers a hairpin relay with a LiveKit server
#[derive(Parser)]
#[command(
    name = "hairpin-livekit",
    version,
    long_version = crate::LONG_VERSION,
    after_help = "\
Examples:
  hairpin-livekit init --livekit-url wss://livekit.example.org --api-key-file /etc/hairpin/livekit-keys
  hairpin-livekit run --config /etc/hairpin/hairpin-livekit.toml

docs/livekit.md describes the ways to register a relay and when to use which."
)]
struct Arguments {
    #[command(subcommand)]
    command: LiveKitCommand,
}

#[derive(Subcommand)]
enum LiveKitCommand {
    /// Run the sidecar
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Runs the command of the arguments and returns the exit status: 0, 1 for a failure, 2 for mistakes in the arguments or the
/// configuration.
pub fn run() -> ExitCode {
    // As the relay does: a core dump would contain secrets. It cannot fail on Linux.
    let _ = prctl::set_dumpable(false);
    match Arguments::parse().command {
        LiveKitCommand::Run { config: _ } => ExitCode::FAILURE,
    }
}
