//! `hairpin-livekit check`: its arguments, and how it prints what [`check`](crate::livekit::check) finds.

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::daemon::print_findings;
use crate::livekit::check::{self, Finding};
use crate::livekit::config::Purpose;
use crate::livekit::settings::Settings;

/// Prove the whole path of a call over the relay, and say what is wrong
///
/// First it reports every mistake in the configuration. The exit status is 0 if nothing is wrong, 1 if something is, and 2 for
/// mistakes in the arguments or the configuration.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit check
  hairpin-livekit check --config /etc/hairpin/hairpin-livekit.toml --json")]
pub struct CheckArgs {
    #[command(flatten)]
    pub configuration: ConfigArgs,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks what the arguments name.
pub fn run(args: &CheckArgs) -> ExitCode {
    match args.configuration.read(Purpose::Run) {
        Ok(loaded) => {
            print_findings(&loaded.warnings);
            check(&loaded.settings, args.json)
        }
        Err(status) => status,
    }
}

/// Checks everything that these settings name, and prints a line for each finding, or JSON.
fn check(settings: &Settings, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "hairpin-livekit: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = runtime.block_on(check::run(settings));
    // The resolver may still wait on a thread of its own.
    runtime.shutdown_background();
    let mut text = String::new();
    match json {
        true => text = format!("{}\n", check::json(&findings)),
        false => findings.iter().for_each(|finding| text += &format!("{finding}\n")),
    }
    // Whoever has closed the output does not want it.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if findings.iter().any(Finding::is_wrong) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
