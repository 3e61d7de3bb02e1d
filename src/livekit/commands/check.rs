//! `hairpin-livekit check`: its arguments, and what it prints. What it proves is in [`check`].

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::configuration::ConfigArgs;
use crate::livekit::check::{self, Finding, Verdict};
use crate::livekit::config::Purpose;

/// Prove the whole path of a call over the relay, and say what is wrong
///
/// First it reports every mistake in the configuration. Then it prints a line for each check: `ok`, `FAILED` with the fix, or `hint` for
/// what cannot be told from here. The exit status is 0 if nothing is wrong, 1 if something is, and 2 for mistakes in the arguments or
/// the configuration.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit check
  hairpin-livekit check --config /etc/hairpin/hairpin-livekit.toml
  hairpin-livekit check --json | jq '.checks[] | select(.result == \"failed\")'")]
pub struct CheckArgs {
    #[command(flatten)]
    pub configuration: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks what the arguments name.
pub fn run(args: &CheckArgs) -> ExitCode {
    let loaded = match args.configuration.read(Purpose::Run) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "hairpin-livekit: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut findings = vec![Finding::new("configuration", "", Verdict::Good("it has no mistake".into()))];
    let unusual = |warning: &crate::config::Finding| {
        Finding::new("configuration", "", Verdict::Hint(warning.to_string()))
    };
    findings.extend(loaded.warnings.iter().map(unusual));
    findings.extend(runtime.block_on(check::run(&loaded.settings)));
    // The resolver may still wait on a thread of its own.
    runtime.shutdown_background();
    let text = match args.json {
        true => format!("{}\n", check::json(&findings)),
        false => findings.iter().map(|finding| format!("{finding}\n")).collect(),
    };
    // Whoever has closed the output does not want it.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if findings.iter().any(Finding::is_wrong) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
