//! The `hairpin` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hairpin::cli::run()
}
