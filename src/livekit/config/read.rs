//! Reads the configuration with the files and the environment of this machine. The loader is pure.

use std::path::{Path, PathBuf};

use super::{Loaded, Purpose, load};
use crate::config::files::unreadable;
use crate::config::{Finding, ReadContext};
use crate::daemon::{reading, unix_now, variable};
use crate::text;

/// Where the configuration of a machine is.
pub const SYSTEM_FILE: &str = "/etc/hairpin/hairpin-livekit.toml";

/// Where it is otherwise.
pub const LOCAL_FILE: &str = "hairpin-livekit.toml";

/// The configuration that is used if the arguments name none: that of the machine, otherwise that of the working directory.
pub fn default_path() -> PathBuf {
    let system = Path::new(SYSTEM_FILE);
    // One that may not be read is reported, and not passed over.
    let is_there = system.symlink_metadata().is_ok();
    if is_there { system.into() } else { LOCAL_FILE.into() }
}

/// Reads a configuration file.
///
/// # Errors
/// Returns a finding if the file cannot be read, otherwise every mistake in it.
pub fn read(file: &Path, purpose: Purpose) -> Result<Loaded, Vec<Finding>> {
    let name = file.display().to_string();
    let finding = |line, what: String, fix: &str| Finding::of_file(&name, line, what, fix);
    let contents = reading::read(file).map_err(|error| {
        let (what, fix) = unreadable(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                vec![finding(
                    None,
                    what,
                    "correct the path, or let `hairpin-livekit init` write a configuration",
                )]
            }
            _ => vec![finding(None, what, fix)],
        }
    })?;
    let text = text::of(&contents.bytes)
        .map_err(|wrong| vec![finding(Some(wrong.line), wrong.sentence(), wrong.fix)])?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let context = ReadContext {
        read: &|path| reading::read(&folder.join(path)),
        read_here: &|path| reading::read(path),
        folder: Some(folder),
        environment: &variable,
        now: unix_now(),
        ..ReadContext::NONE
    };
    let mut loaded = load(&name, text, purpose, &context)?;
    if loaded.has_secret && contents.is_public {
        let what = "the file contains a secret, and every user of this machine may read it".to_owned();
        let fix = "run `chmod o-rwx` on it";
        loaded.warnings.insert(0, Finding { warning: true, ..finding(None, what, fix) });
    }
    Ok(loaded)
}
