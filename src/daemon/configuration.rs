//! Reads the configuration with the files, environment and addresses of this machine. The loader in [`config`] is pure.
//!
//! [`config`]: crate::config

use std::path::Path;

use super::{addresses, relay, state, unix_now};
use crate::auth::{Auth, NonceKeys};
use crate::config::{self, Finding, Loaded, ReadContext, Settings};

/// Reads a configuration file.
///
/// # Errors
///
/// Returns a finding if the file cannot be read, otherwise every mistake in it.
pub fn read(file: &Path) -> Result<Loaded, Vec<Finding>> {
    let name = file.display().to_string();
    let text = state::read_text(file).map_err(|error| {
        let what = format!("cannot be read: {error}");
        vec![finding(&name, &what, "correct the path, or allow the user that runs hairpin to read the file")]
    })?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let loaded = config::load(&name, &text, &reader(&|path| state::read_text(&folder.join(path))))?;
    // Some mistakes only show when names and passwords are prepared (RFC 8265).
    let keys = NonceKeys { current: [0; 32], previous: None };
    match Auth::new(loaded.settings.auth(), keys) {
        Ok(_) => Ok(loaded),
        Err(error) => Err(vec![finding(&name, &error.to_string(), "change it in [auth]")]),
    }
}

/// The settings of a start without a file: the defaults and what the arguments `set`.
///
/// # Errors
///
/// Returns every mistake in the environment and in the arguments.
pub fn defaults(set: impl FnOnce(&mut Settings)) -> Result<Loaded, Vec<Finding>> {
    config::without_file(&reader(&|path| state::read_text(path)), set)
}

fn reader<'a>(read: &'a dyn Fn(&Path) -> std::io::Result<String>) -> ReadContext<'a> {
    ReadContext {
        own: &|| relay::own().unwrap_or_default(),
        discovered: &addresses::discovered,
        has_address: &addresses::is_here,
        read,
        environment: &|name| std::env::var(name).ok(),
        now: unix_now(),
    }
}

fn finding(file: &str, what: &str, fix: &str) -> Finding {
    Finding {
        file: file.to_owned(),
        line: None,
        key: String::new(),
        value: String::new(),
        what: what.to_owned(),
        fix: fix.to_owned(),
        warning: false,
    }
}
