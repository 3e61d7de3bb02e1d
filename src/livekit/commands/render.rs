//! `hairpin-livekit render`: its arguments. What is rendered is in the folder of that name.

use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::livekit::config::Purpose;

/// Print the section that registers the relay
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit render")]
pub struct RenderArgs {
    #[command(flatten)]
    pub configuration: ConfigArgs,
}

/// Renders what the arguments name.
pub fn run(args: &RenderArgs) -> ExitCode {
    args.configuration.read(Purpose::Render).map_or_else(|status| status, |_| ExitCode::FAILURE)
}
