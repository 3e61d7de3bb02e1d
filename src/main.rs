//! The relay's entry.

use std::process::ExitCode;

fn main() -> ExitCode {
    hairpin::cli::run()
}
