//! Words a person types: `serve`, `check`, `credentials`. Arguments are read here; what they set going is the daemon's.

mod credentials;
mod words;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::daemon::{self, MISTAKES, ServeArgs, configuration};

/// Reads the arguments, does what they say, and returns the exit status: 0, 1 for what went wrong, 2 for mistakes in
/// arguments or configuration.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        CliCommand::Serve { config, domain, cert, key, state_dir } => {
            daemon::serve(&ServeArgs { config, domain, certificate: cert.zip(key), state_dir })
        }
        CliCommand::Check { file } => check(&file),
        CliCommand::Credentials(wish) => credentials::run(&wish),
    }
}

/// A TURN and STUN relay: what calls go through when they cannot connect directly.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  hairpin serve                          a safe relay at once; prints ICE servers for a browser
  hairpin serve --config hairpin.toml    a relay as the file says
  hairpin check hairpin.toml             every mistake in the file, nothing else happens
  hairpin credentials --user alice       ICE servers for one user, valid for a day

`hairpin help serve` and so on tell more. Settings: docs/configuration.md."
)]
struct Arguments {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run a relay
    ///
    /// Without --config it listens on port 3478 (UDP and TCP) and 5349 (TLS) of every address, relays with the addresses of the default route and
    /// ports 49152-65535, serves metrics on 127.0.0.1:9641, and keeps a shared secret and a self-signed certificate that it makes once. It prints ICE
    /// servers with credentials for 24 hours on standard output, unless it runs as a service, and logs to standard error.
    ///
    /// SIGTERM and SIGINT end every allocation and then the relay; a second one ends it at once.
    #[command(after_help = "\
Examples:
  hairpin serve
  hairpin serve --domain turn.example.org --cert fullchain.pem --key privkey.pem
  HAIRPIN_AUTH_SECRET=... hairpin serve --config /etc/hairpin/hairpin.toml

Secrets are never arguments: they come from the configuration, from files of their own or from HAIRPIN_AUTH_SECRET
(several separated by commas or line ends).")]
    Serve {
        /// Run with this configuration
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The name that clients reach this relay by; also its realm
        #[arg(long, value_name = "NAME", value_parser = words::domain, conflicts_with = "config")]
        domain: Option<String>,
        /// The certificate for TLS and those that vouch for it, as PEM [default: a self-signed one, which browsers refuse]
        #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "config")]
        cert: Option<PathBuf>,
        /// Its private key, as PEM
        #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "config")]
        key: Option<PathBuf>,
        /// Where the shared secret and a self-signed certificate are kept [default: $STATE_DIRECTORY, else ~/.local/state/hairpin, /var/lib/hairpin as
        /// a service]
        #[arg(long, value_name = "DIR", conflicts_with = "config")]
        state_dir: Option<PathBuf>,
    },
    /// Report every mistake in a configuration, and do nothing else
    ///
    /// One line for each mistake, with the place and the fix. The exit status is 0 if there is none, else 2.
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Print ICE servers for a user, as a browser takes them
    ///
    /// The credentials are made from the first shared secret: of the configuration, or else of the relay that
    /// `hairpin serve` runs without one. A running relay accepts them at once.
    #[command(after_help = "\
Examples:
  hairpin credentials --user alice
  hairpin credentials --user alice --ttl 1h --config /etc/hairpin/hairpin.toml --domain turn.example.org")]
    Credentials(CredentialsArgs),
}

/// What `credentials` was told.
#[derive(clap::Args)]
struct CredentialsArgs {
    /// Whom they are for: what logs and quotas go by
    #[arg(long, value_name = "NAME", value_parser = words::user)]
    user: String,
    /// How long they can open calls: seconds, or like 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = words::duration, default_value = "24h")]
    ttl: Duration,
    /// Take the secret and the addresses from this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the secret from here [default: where `hairpin serve` keeps it]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state_dir: Option<PathBuf>,
    /// The name that clients reach the relay by [default: its addresses]
    #[arg(long, value_name = "NAME", value_parser = words::domain)]
    domain: Option<String>,
}

fn check(file: &Path) -> ExitCode {
    let (lines, status) = match configuration::read(file) {
        Ok(loaded) => (loaded.warnings, ExitCode::SUCCESS),
        Err(mistakes) => (mistakes, MISTAKES.into()),
    };
    let mut stdout = io::stdout().lock();
    for line in &lines {
        let _ = writeln!(stdout, "{line}");
    }
    if status == ExitCode::SUCCESS {
        let _ = writeln!(stdout, "{}: ok", file.display());
    }
    status
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_argument_takes_a_secret() {
        for command in Arguments::command().get_subcommands() {
            // The name of a file is no secret, even if the file is.
            let is_file =
                |argument: &clap::Arg| argument.get_value_names().is_some_and(|names| names == ["FILE"]);
            for argument in command.get_arguments().filter(|argument| !is_file(argument)) {
                let name = argument.get_id().as_str();
                assert!(!["secret", "password", "key"].iter().any(|word| name.contains(word)), "{name}");
            }
        }
    }
}
