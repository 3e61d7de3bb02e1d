//! The configuration that a command uses: that of `--config`, otherwise that of the machine or of the working directory.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::daemon::{MISTAKES, print_findings};
use crate::livekit::config::{self, Loaded, Purpose};

/// The argument that names the configuration.
#[derive(clap::Args)]
pub struct ConfigArgs {
    // Not a doc comment, where rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "FILE",
        help = "The configuration file [default: /etc/hairpin/hairpin-livekit.toml if it exists, otherwise \
                hairpin-livekit.toml in the working directory]"
    )]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(config::default_path)
    }

    /// Reads it. Mistakes are printed, and the exit status for them is returned.
    pub fn read(&self, purpose: Purpose) -> Result<Loaded, ExitCode> {
        config::read(&self.path(), purpose).map_err(|mistakes| {
            print_findings(&mistakes);
            MISTAKES.into()
        })
    }
}
