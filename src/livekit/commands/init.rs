//! `hairpin-livekit init`: its arguments, and what it prints.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::daemon::MISTAKES;
use crate::livekit::config::default_path;
use crate::livekit::config::urls::BaseUrl;
use crate::livekit::init::{Wish, document, look, paste, place};

/// Write a configuration for this machine, and print what to put where
///
/// It looks at the relay, by its control socket, and at LiveKit, and writes what it finds into a complete, commented configuration.
/// What is missing gets a sentence each, and can be added later. Then `hairpin-livekit run` works without options.
///
/// The exit status is 0 if nothing is missing, 1 if something is or the configuration cannot be written, and 2 for mistakes in the
/// arguments.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  hairpin-livekit init --livekit-url wss://livekit.example.org --api-key-file /etc/hairpin/livekit-keys
  hairpin-livekit init --livekit-url wss://livekit.example.org --api-key-file keys --livekit-config /etc/livekit.yaml
  hairpin-livekit init --livekit-url ws://127.0.0.1:7880 --api-key-file keys --output sidecar.toml --force

The file with API keys has the format of LiveKit's own key_file: a line `API_KEY: SECRET` for each, with a blank after the colon. Secrets
are never arguments, and none is printed or written into the configuration.")]
pub struct InitArgs {
    /// The URL that clients connect to
    #[arg(long, value_name = "URL")]
    pub livekit_url: String,
    /// The file with LiveKit's API keys
    #[arg(long, value_name = "FILE")]
    pub api_key_file: PathBuf,
    /// Where this machine reaches LiveKit, if not at --livekit-url
    #[arg(
        long,
        value_name = "URL",
        help = "Where this machine reaches LiveKit, if not at --livekit-url [default: the port of --livekit-config on 127.0.0.1]"
    )]
    pub livekit_api_url: Option<String>,
    /// LiveKit's own configuration, if LiveKit runs on this machine: the sidecar reads its addresses and ports there
    #[arg(long, value_name = "FILE")]
    pub livekit_config: Option<PathBuf>,
    /// Certificates of authorities for LiveKit, as PEM
    #[arg(
        long,
        value_name = "FILE",
        help = "Certificates of authorities for LiveKit, as PEM [default: those of this machine]"
    )]
    pub livekit_ca_file: Option<PathBuf>,
    /// The control socket of the relay
    #[arg(
        long,
        value_name = "FILE",
        help = "The control socket of the relay [default: where `hairpin serve` has it]"
    )]
    pub socket: Option<PathBuf>,
    /// The file with the relay's shared secret
    #[arg(
        long,
        value_name = "FILE",
        help = "The file with the relay's shared secret [default: the one that the relay names]"
    )]
    pub secret_file: Option<PathBuf>,
    /// Where the configuration goes
    #[arg(
        long,
        value_name = "FILE",
        help = "Where the configuration goes [default: /etc/hairpin/hairpin-livekit.toml for root, otherwise hairpin-livekit.toml \
                in the working directory]"
    )]
    pub output: Option<PathBuf>,
    /// Replace a configuration that is there; one without settings, like the sample of the package, is always replaced
    #[arg(long)]
    pub force: bool,
}

/// The schemes of LiveKit's URLs.
const SCHEMES: &[&str] = &["wss", "ws", "https", "http"];

/// Writes the configuration.
pub fn run(args: &InitArgs) -> ExitCode {
    let (wish, url) = match wish(args) {
        Ok(wish) => wish,
        Err(mistake) => return failed(&mistake, MISTAKES),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string(), 1),
    };
    let found = runtime.block_on(look::look(&wish, &url));
    let output = args.output.clone().unwrap_or_else(place::default_output);
    if let Err(error) = place::write(&output, &document::text(&wish, &found), args.force) {
        let shown = output.display();
        return match error.kind() {
            io::ErrorKind::AlreadyExists => failed(
                &format!(
                    "{shown} is there already; use --force to replace it, or --output to write elsewhere"
                ),
                1,
            ),
            _ => failed(&format!("{shown} cannot be written: {error}; use --output to write elsewhere"), 1),
        };
    }
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "The configuration is in {}.\n", output.display());
    let runs_as =
        paste::Place { is_default: is_default(&output), is_for_service: place::is_for_service(&output) };
    let _ = write!(stdout, "{}", paste::text(&wish, &found, &output, runs_as));
    if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the other commands find the configuration without being told.
fn is_default(output: &Path) -> bool {
    let same = |path: &Path| path.canonicalize().ok();
    same(output).is_some_and(|output| same(&default_path()) == Some(output))
}

/// What the arguments say, with absolute paths: the configuration may be elsewhere.
fn wish(args: &InitArgs) -> Result<(Wish, BaseUrl), String> {
    let parse = |name: &str, text: &str| {
        BaseUrl::parse(text, SCHEMES).map_err(|what| {
            format!("{name}: {what}; write it like wss://livekit.example.org, without a path")
        })
    };
    let url = parse("--livekit-url", &args.livekit_url)?;
    let api_url = args.livekit_api_url.as_deref().map(|text| parse("--livekit-api-url", text)).transpose()?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let wish = Wish {
        livekit_url: url.to_string(),
        api_url: api_url.map(|url| url.to_string()),
        keys_file: absolute(&args.api_key_file),
        livekit_config: args.livekit_config.as_deref().map(absolute),
        ca_file: args.livekit_ca_file.as_deref().map(absolute),
        socket: args.socket.as_deref().map(absolute),
        secret_file: args.secret_file.as_deref().map(absolute),
    };
    Ok((wish, url))
}

fn failed(message: &str, status: u8) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "hairpin-livekit: {message}");
    status.into()
}
