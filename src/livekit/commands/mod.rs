//! The commands of `hairpin-livekit`: their arguments, and what they print. Each has a file of its own.

mod check;
mod configuration;
mod init;
mod render;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::prctl;

use crate::man::{self, ManArgs, Manual};

/// Makes a LiveKit server use a hairpin relay
#[derive(Parser)]
#[command(
    name = "hairpin-livekit",
    version,
    long_version = crate::LONG_VERSION,
    after_help = "\
From nothing to a call, beside a relay that `hairpin serve` runs:
  hairpin-livekit init --livekit-url wss://livekit.example.org --api-key-file /etc/hairpin/livekit-keys
  hairpin-livekit run

Examples:
  hairpin-livekit check                  prove the whole path, and say what is wrong
  hairpin-livekit render                 print the section of livekit.yaml that registers the relay

See `hairpin-livekit help COMMAND` for the options of a command, docs/livekit.md for the ways to register a relay and when to use
which, and docs/livekit-configuration.md for the settings."
)]
struct Arguments {
    #[command(subcommand)]
    command: LiveKitCommand,
}

#[derive(Subcommand)]
enum LiveKitCommand {
    Init(Box<init::InitArgs>),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Render(Box<render::RenderArgs>),
    /// Print a script that completes the commands and options of hairpin-livekit in a shell
    #[command(after_help = "\
Examples:
  hairpin-livekit completions bash > /etc/bash_completion.d/hairpin-livekit
  hairpin-livekit completions zsh > /usr/local/share/zsh/site-functions/_hairpin-livekit
  hairpin-livekit completions fish > ~/.config/fish/completions/hairpin-livekit.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    #[command(after_help = "\
Examples:
  hairpin-livekit man | man -l -
  hairpin-livekit man check | man -l -
  hairpin-livekit man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// Runs the command of the arguments and returns the exit status: 0, 1 for a failure, 2 for mistakes in the arguments or the
/// configuration.
pub fn run() -> ExitCode {
    // As the relay does: a core dump would contain secrets. It cannot fail on Linux.
    let _ = prctl::set_dumpable(false);
    match Arguments::parse().command {
        LiveKitCommand::Init(args) => init::run(&args),
        LiveKitCommand::Run(args) => run::run(&args),
        LiveKitCommand::Check(args) => check::run(&args),
        LiveKitCommand::Render(args) => render::run(&args),
        LiveKitCommand::Completions { shell } => {
            // Not written at once: whoever reads it may stop reading, and that is an error there.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "hairpin-livekit", &mut script);
            let _ = io::stdout().lock().write_all(&script);
            ExitCode::SUCCESS
        }
        LiveKitCommand::Man(args) => man::run(&args, Arguments::command(), &MANUAL),
    }
}

const MANUAL: Manual = Manual {
    files: &[
        ("/etc/hairpin/hairpin-livekit.toml", "The configuration of hairpin-livekit.service."),
        ("/var/lib/hairpin-livekit", "Its state."),
        ("/run/hairpin/control.sock", "The control socket of the relay beside it."),
    ],
    see_also: &["hairpin"],
};

/// The manual pages, which are compared with those of the repository together with the relay's.
#[cfg(test)]
pub fn manual_pages() -> Vec<man::Page> {
    man::pages(Arguments::command(), &MANUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    /// The arguments of a process can be read by every user of the machine.
    #[test]
    fn no_argument_takes_a_secret() {
        for command in Arguments::command().get_subcommands() {
            // The name of a file is not a secret, even if its contents are.
            let is_file =
                |argument: &clap::Arg| argument.get_value_names().is_some_and(|names| names == ["FILE"]);
            for argument in command.get_arguments().filter(|argument| !is_file(argument)) {
                let name = argument.get_id().as_str();
                let has = |word: &&str| name.contains(*word);
                assert!(!["secret", "password", "key", "token"].iter().any(has), "{name}");
            }
        }
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  hairpin-livekit "), "{}", command.get_name());
        }
    }
}
