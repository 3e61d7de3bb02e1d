//! `hairpin-livekit check`: its arguments, and what it prints about the configuration. What it proves is in the parts of the sidecar.

use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::daemon::print_findings;
use crate::livekit::config::Purpose;

/// Prove the whole path of a call over the relay, and say what is wrong
///
/// First it reports every mistake in the configuration. The exit status is 0 if nothing is wrong, 1 if something is, and 2 for
/// mistakes in the arguments or the configuration.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit check
  hairpin-livekit check --config /etc/hairpin/hairpin-livekit.toml")]
pub struct CheckArgs {
    #[command(flatten)]
    pub configuration: ConfigArgs,
}

/// Checks what the arguments name.
pub fn run(args: &CheckArgs) -> ExitCode {
    match args.configuration.read(Purpose::Run) {
        Ok(loaded) => {
            print_findings(&loaded.warnings);
            ExitCode::SUCCESS
        }
        Err(status) => status,
    }
}
