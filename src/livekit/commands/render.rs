//! `hairpin-livekit render`: which configuration it uses. What is rendered is in the folder of that name.

use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::daemon::print_findings;
use crate::livekit::config::Purpose;
pub use crate::livekit::render::arguments::RenderArgs;
use crate::livekit::render::command;

/// Renders what the arguments name. Without a configuration they must say all of it.
pub fn run(args: &RenderArgs) -> ExitCode {
    let configuration = ConfigArgs { config: args.config.clone() };
    if args.config.is_none() && configuration.path().symlink_metadata().is_err() {
        return command::run(args, None);
    }
    match configuration.read(Purpose::Render) {
        Ok(loaded) => {
            print_findings(&loaded.warnings);
            command::run(args, Some(loaded.settings))
        }
        Err(status) => status,
    }
}
