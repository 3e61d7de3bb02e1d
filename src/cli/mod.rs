//! The commands `serve`, `check`, `credentials`, `ctl`, `import-coturn`, `completions` and `man`: their arguments, and what
//! they print. The relay itself is in [`daemon`].

mod credentials;
mod ctl;
mod import_coturn;
mod parse;

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::prctl;

use crate::admin;
use crate::config::{Argument, Loaded};
use crate::daemon::{self, MISTAKES, ServeArgs, configuration};
use crate::man::{self, ManArgs, Manual};
use crate::turn::peers::PeerRule;

/// Runs the command of the arguments and returns the exit status: 0, 1 for a failure, 2 for mistakes in the arguments or the
/// configuration.
pub fn run() -> ExitCode {
    // Every command reads secrets. Without this a core dump would contain them, and other processes of the same user could
    // read them with ptrace(2). It cannot fail on Linux.
    let _ = prctl::set_dumpable(false);
    match Arguments::parse().command {
        CliCommand::Serve {
            config,
            domain,
            cert,
            key,
            state_dir,
            print_ice_servers,
            allow_peer,
            relay_ports,
            set,
        } => {
            let args = ServeArgs {
                config,
                domain,
                certificate: cert.zip(key),
                state_dir,
                settings: settings(&set, &allow_peer, relay_ports),
                print_ice_servers,
            };
            daemon::serve(&args, admin::api)
        }
        CliCommand::Check { file, state_dir, set } => {
            check(file.as_deref(), &arguments(&set), state_dir.is_some())
        }
        CliCommand::Credentials(args) => credentials::run(&args),
        CliCommand::Ctl(args) => ctl::run(&args),
        CliCommand::ImportCoturn(args) => import_coturn::run(&args),
        CliCommand::Completions { shell } => {
            // Not written at once: whoever reads it may stop reading, and that is an error there.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "hairpin", &mut script);
            let _ = io::stdout().lock().write_all(&script);
            ExitCode::SUCCESS
        }
        CliCommand::Man(args) => man::run(&args, Arguments::command(), &MANUAL),
    }
}

const MANUAL: Manual = Manual {
    files: &[
        ("/etc/hairpin/hairpin.toml", "The configuration of hairpin.service."),
        (
            "/var/lib/hairpin",
            "Its state: the generated secret and certificate, who is revoked, and peers that programs have set.",
        ),
        ("/run/hairpin/control.sock", "Its control socket, for root and the group hairpin."),
    ],
    see_also: &["hairpin-livekit"],
};

/// A TURN and STUN relay for calls that cannot connect directly
#[derive(Parser)]
#[command(
    version,
    long_version = crate::LONG_VERSION,
    after_help = "\
Examples:
  hairpin serve                          run a relay with safe defaults and print ICE servers for a browser
  hairpin serve --config hairpin.toml    run a relay with this configuration
  hairpin check hairpin.toml             report every mistake in a configuration
  hairpin credentials --user alice       print ICE servers for one user, valid for a day
  hairpin ctl status                     show what a running relay is and does

See `hairpin help COMMAND` for the options of a command, and docs/configuration.md for the settings."
)]
struct Arguments {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run a relay
    ///
    /// Without --config, it listens on port 3478 (UDP and TCP) and 5349 (TLS) of every address, relays with the addresses
    /// of the default route and ports 49152-65535, and serves metrics on 127.0.0.1:9641. It generates a shared secret and
    /// a self-signed certificate once and keeps them. If standard output is a terminal, it prints ICE servers with
    /// credentials for 24 hours. It logs to standard error.
    ///
    /// SIGHUP reloads the configuration. SIGUSR1 drains: the relay takes no new allocations and stops when the last one has
    /// ended. SIGTERM, SIGINT and SIGQUIT end every allocation and stop the relay; a second one stops it immediately. Other
    /// signals are ignored, with a line in the log.
    #[command(after_help = "\
Examples:
  hairpin serve
  hairpin serve --domain turn.example.org --cert fullchain.pem --key privkey.pem
  hairpin serve --relay-ports 40000-49999 --allow-peer 203.0.113.7:50000-60000    beside a LiveKit server on 203.0.113.7
  HAIRPIN_AUTH_SECRET=... hairpin serve --config /etc/hairpin/hairpin.toml --set log.level=debug
  HAIRPIN_AUTH_SECRET=... HAIRPIN_RELAY_PORTS=50000-59999 hairpin serve --set listen.udp=0.0.0.0:3478,[::]:3478

Every setting but secrets can be given as --set KEY=VALUE or as an environment variable like HAIRPIN_LISTEN_UDP or
HAIRPIN_WORKERS. Flags precede the environment, and the environment precedes the configuration; `hairpin check` says which
value is used.

Secrets are never arguments. They come from the configuration, from separate files, or from HAIRPIN_AUTH_SECRET (several
are separated by commas or line breaks).")]
    Serve {
        /// The configuration file [default: none, see above]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The host name that clients use for this relay; also its realm
        #[arg(long, value_name = "NAME", value_parser = parse::domain, conflicts_with = "config")]
        domain: Option<String>,
        /// The certificate chain for TLS, as PEM [default: a self-signed certificate, which browsers refuse]
        #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "config")]
        cert: Option<PathBuf>,
        /// The private key of the certificate, as PEM
        #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "config")]
        key: Option<PathBuf>,
        /// The directory of the generated secret and certificate [default: $STATE_DIRECTORY, otherwise
        /// $XDG_STATE_HOME/hairpin or ~/.local/state/hairpin, or /var/lib/hairpin for a service]. With --config, what the
        /// configuration lacks is generated and kept there: a shared secret if it has no credentials, a certificate if it
        /// sets only `listen.tls`
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        // Not a doc comment, where rustdoc would take the brackets for a link.
        #[arg(
            long,
            value_name = "ADDR[:PORTS]",
            value_parser = parse::peer,
            conflicts_with = "config",
            help = "A peer that clients may reach although peers like it are refused: a private network like \
                    10.20.0.0/16, or a media server on this machine by its exact address and ports, like \
                    203.0.113.7:50000-60000 or [2001:db8::7]:7882. May be repeated"
        )]
        allow_peer: Vec<PeerRule>,
        /// The ports of relayed addresses. A media server on this machine needs ports of its own [default: 49152-65535]
        #[arg(long, value_name = "FIRST-LAST", value_parser = parse::ports, conflicts_with = "config")]
        relay_ports: Option<RangeInclusive<u16>>,
        /// A setting, like listen.udp=0.0.0.0:3478, instead of what the configuration or the environment says. Every key of
        /// docs/configuration.md but secrets and sections that can be repeated. May be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print ICE servers with credentials even if standard output is not a terminal, or there is a --config
        #[arg(long)]
        print_ice_servers: bool,
    },
    /// Report every mistake in a configuration
    ///
    /// Prints one line per mistake, with its place and how to fix it. The exit status is 0 if there is none, otherwise 2.
    /// Flags precede the environment, and the environment precedes the file: for each setting given by a flag or a variable, a
    /// line says which value is used. Without a file, what `hairpin serve` without --config would use is checked.
    #[command(after_help = "\
Examples:
  hairpin check /etc/hairpin/hairpin.toml
  HAIRPIN_RELAY_PORTS=50000-59999 hairpin check hairpin.toml --set log.level=debug")]
    Check {
        /// The configuration file
        file: Option<PathBuf>,
        /// A setting as for `serve --set`. May be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// The configuration is for `serve --state-dir`, so credentials and a certificate may be missing
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Print ICE servers for a user, in the format of browsers
    ///
    /// The credentials are made from the first shared secret of the configuration, or from the secret that `hairpin serve`
    /// generated when it ran without one. A running relay accepts them immediately.
    #[command(after_help = "\
Examples:
  hairpin credentials --user alice
  hairpin credentials --user alice --ttl 1h --config /etc/hairpin/hairpin.toml --domain turn.example.org")]
    Credentials(CredentialsArgs),
    /// Look at a running relay, and change it
    ///
    /// It uses the control socket of the relay, which root and its group may open, or with --url the API over TCP. The exit
    /// status is 0 if the relay has done what was asked, 1 if not, and 2 for a mistake in the arguments.
    #[command(after_help = "\
Examples:
  hairpin ctl status
  hairpin ctl list --user alice --json
  hairpin ctl end 0123456789a
  hairpin ctl revoke alice --for 7d
  hairpin ctl drain --deadline 1h --wait
  hairpin ctl peers set livekit 203.0.113.7:50000-60000
  hairpin ctl --url https://turn.example.org:9642 --token-file token status

docs/api.md describes the API.")]
    Ctl(ctl::CtlArgs),
    /// Write a configuration from one of coturn
    ///
    /// Every setting of turnserver.conf with a counterpart is translated, and the users, shared secrets and peers of coturn's SQLite
    /// database are imported. Comments say what is lost and what is dangerous, with the line. The result is what `hairpin check`
    /// accepts: a setting that it refuses is commented out. Secrets are in the result, which only its owner may read.
    ///
    /// The exit status is 0 if it was written, 1 if a file could not be read or written, and 2 for a mistake in the arguments or the
    /// configuration.
    #[command(after_help = "\
Examples:
  hairpin import-coturn /etc/turnserver.conf
  hairpin import-coturn /etc/turnserver.conf --out /etc/hairpin/hairpin.toml --force
  hairpin import-coturn turnserver.conf --turndb turndb --realm example.org --out -

docs/from-coturn.md describes the move.")]
    ImportCoturn(import_coturn::ImportArgs),
    /// Print a script that completes the commands and options of hairpin in a shell
    #[command(after_help = "\
Examples:
  hairpin completions bash > /etc/bash_completion.d/hairpin
  hairpin completions zsh > /usr/local/share/zsh/site-functions/_hairpin
  hairpin completions fish > ~/.config/fish/completions/hairpin.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    #[command(after_help = "\
Examples:
  hairpin man | man -l -
  hairpin man ctl drain | man -l -
  hairpin man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// The arguments of `hairpin credentials`.
#[derive(clap::Args)]
struct CredentialsArgs {
    /// The user, as in logs and quotas
    #[arg(long, value_name = "NAME", value_parser = parse::user)]
    user: String,
    /// How long the credentials can create allocations: seconds, or a time like 30m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "24h")]
    ttl: Duration,
    /// Use the secret and the addresses of this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the secret in this directory [default: that of `hairpin serve`]. With --config, it is used if the configuration has none
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The host name that clients use for the relay [default: its addresses]
    #[arg(long, value_name = "NAME", value_parser = parse::domain)]
    domain: Option<String>,
    /// A setting as for `serve --set`. May be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The settings among the arguments, of `--set` and of flags of their own.
fn settings(set: &[String], peers: &[PeerRule], ports: Option<RangeInclusive<u16>>) -> Vec<Argument> {
    let mut settings = arguments(set);
    if !peers.is_empty() {
        let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
        settings.push(Argument::flag("--allow-peer", "peers.allow", peers.join(",")));
    }
    if let Some(ports) = ports {
        let ports = format!("{}-{}", ports.start(), ports.end());
        settings.push(Argument::flag("--relay-ports", "relay.ports", ports));
    }
    settings
}

fn arguments(set: &[String]) -> Vec<Argument> {
    set.iter().map(|text| Argument::set(text)).collect()
}

fn check(file: Option<&Path>, set: &[Argument], generates: bool) -> ExitCode {
    let loaded = match file {
        Some(file) => configuration::read(file, set, generates),
        None => configuration::defaults(set),
    };
    let (lines, notes, status) = match loaded {
        Ok(Loaded { warnings, notes, overrides, .. }) => {
            (warnings, [overrides, notes].concat(), ExitCode::SUCCESS)
        }
        Err(mistakes) => (mistakes, Vec::new(), MISTAKES.into()),
    };
    let mut stdout = io::stdout().lock();
    for line in &lines {
        let _ = writeln!(stdout, "{line}");
    }
    for note in &notes {
        let _ = writeln!(stdout, "{note}");
    }
    if status == ExitCode::SUCCESS {
        let name = file.map_or("without a file".into(), |file| file.display().to_string());
        let _ = writeln!(stdout, "{name}: ok");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pages::assert_current;
    use crate::livekit;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    /// `HAIRPIN_WRITE_PAGES=1 cargo test --lib cli::tests` writes them.
    #[test]
    fn the_manual_pages_are_up_to_date() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/man");
        if std::env::var_os("HAIRPIN_WRITE_PAGES").is_some() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        let pages = [man::pages(Arguments::command(), &MANUAL), livekit::commands::manual_pages()].concat();
        for page in &pages {
            assert_current(&format!("conf/man/{}.1", page.name), &page.text);
        }
        let stored = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(stored, pages.len(), "conf/man has pages of commands that do not exist");
    }

    #[test]
    fn no_argument_takes_a_secret() {
        fn all(command: &clap::Command) -> Vec<&clap::Command> {
            [vec![command], command.get_subcommands().flat_map(all).collect()].concat()
        }
        for command in all(&Arguments::command()) {
            // The name of a file is not a secret, even if its contents are.
            let is_file =
                |argument: &clap::Arg| argument.get_value_names().is_some_and(|names| names == ["FILE"]);
            for argument in command.get_arguments().filter(|argument| !is_file(argument)) {
                let name = argument.get_id().as_str();
                assert!(
                    !["secret", "password", "key", "token"].iter().any(|word| name.contains(word)),
                    "{name}"
                );
            }
        }
    }
}
