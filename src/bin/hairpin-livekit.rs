//! The `hairpin-livekit` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hairpin::livekit::commands::run()
}
