//! Reads the configuration with the files, environment and addresses of this machine. The loader in [`config`] is pure.
//!
//! [`config`]: crate::config

use std::net::IpAddr;
use std::path::Path;

use super::own::Own;
use super::{account, addresses, reading, unix_now};
use crate::auth::{Auth, NonceKeys, Secret};
use crate::config::files::unreadable;
use crate::config::{self, Argument, FileContents, Finding, Loaded, PREFIX, ReadContext};
use crate::text;
use crate::turn::peers::Cidr;

/// Reads a configuration file, and what these arguments and the environment set instead. `generates`: a shared secret and a
/// certificate that it does not have are generated.
///
/// # Errors
///
/// Returns a finding if the file cannot be read, otherwise every mistake in it.
pub fn read(file: &Path, arguments: &[Argument], generates: bool) -> Result<Loaded, Vec<Finding>> {
    read_by(file, ReadContext { arguments, generates, ..ReadContext::NONE })
}

/// Reads the configuration file of a running relay. Certificates that cannot be used are no mistakes: the relay keeps those that
/// it has.
///
/// # Errors
///
/// Returns a finding if the file cannot be read, otherwise every other mistake in it.
pub fn reread(file: &Path, arguments: &[Argument], generates: bool) -> Result<Loaded, Vec<Finding>> {
    read_by(file, ReadContext { arguments, generates, keeps_certificates: true, ..ReadContext::NONE })
}

/// Reads a configuration file with what `by` says about missing and unusable things.
fn read_by(file: &Path, by: ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let name = file.display().to_string();
    let contents = reading::read(file).map_err(|error| {
        let (what, fix) = unreadable(&error);
        vec![Finding::of_file(&name, None, what, fix)]
    })?;
    judge_by(file, &contents, by)
}

/// Reads the files that the contents of a configuration file name.
///
/// # Errors
///
/// Returns every mistake.
pub fn judge(
    file: &Path,
    contents: &FileContents,
    arguments: &[Argument],
    generates: bool,
) -> Result<Loaded, Vec<Finding>> {
    judge_by(file, contents, ReadContext { arguments, generates, ..ReadContext::NONE })
}

fn judge_by(file: &Path, contents: &FileContents, by: ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let name = file.display().to_string();
    let text = text::of(&contents.bytes)
        .map_err(|wrong| vec![Finding::of_file(&name, Some(wrong.line), wrong.sentence(), wrong.fix)])?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let read = |path: &Path| reading::read(&folder.join(path));
    let ReadContext { arguments, generates, keeps_certificates, .. } = by;
    let context =
        ReadContext { folder: Some(folder), arguments, generates, keeps_certificates, ..reader(&read) };
    let mut loaded = config::load(&name, text, &context)?;
    if loaded.has_secret && contents.is_public {
        let what = "the file contains a secret, and every user of this machine may read it".to_owned();
        let fix = "run `chmod o-rwx` on it";
        loaded.warnings.insert(0, Finding { warning: true, ..Finding::of_file(&name, None, what, fix) });
    }
    usable(&name, loaded)
}

/// Reads the text of a configuration that is to be written to `folder`, with files that are to be `beside` it. The environment of
/// this process does not count.
///
/// # Errors
///
/// Returns every mistake in it.
pub fn judge_text(
    name: &str,
    text: &str,
    folder: &Path,
    beside: &dyn Fn(&Path) -> Option<FileContents>,
) -> Result<Loaded, Vec<Finding>> {
    let read = |path: &Path| beside(path).map_or_else(|| reading::read(&folder.join(path)), Ok);
    let nothing = ReadContext::NONE;
    let context = ReadContext {
        folder: Some(folder),
        variables: nothing.variables,
        environment: nothing.environment,
        ..reader(&read)
    };
    usable(name, config::load(name, text, &context)?)
}

/// Settings whose names and passwords can be prepared.
fn usable(name: &str, loaded: Loaded) -> Result<Loaded, Vec<Finding>> {
    if !loaded.settings.auth.has_credentials() {
        return Ok(loaded);
    }
    // Some mistakes only show when names and passwords are prepared (RFC 8265). Those of files of users were found with their
    // lines, and deriving the keys of many takes time.
    let keys = NonceKeys { current: [0; 32], previous: None };
    let mut auth = loaded.settings.auth();
    if !std::mem::take(&mut auth.listed).is_empty() {
        auth.secrets.push(Secret::new("there are credentials"));
    }
    match Auth::new(auth, keys) {
        Ok(_) => Ok(loaded),
        Err(error) => Err(vec![Finding::of_file(name, None, error.to_string(), "change it in [auth]")]),
    }
}

/// What packets to this machine may be addressed to.
pub fn own_ranges() -> Vec<Cidr> {
    Own::read().ranges
}

/// The settings of a start without a file: the defaults, and what these arguments and the environment set.
///
/// # Errors
///
/// Returns every mistake in the arguments and in the environment.
pub fn defaults(arguments: &[Argument]) -> Result<Loaded, Vec<Finding>> {
    config::without_file(&ReadContext { arguments, ..reader(&|path| reading::read(path)) })
}

/// The names of the variables that settings can have.
fn variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Whether relay sockets could be bound to an address now.
fn is_here(address: IpAddr) -> bool {
    addresses::check(address, &Own::read()).is_ok()
}

/// What the resolver knows without DNS; nothing if it is too long, as a list of blocked names may be.
fn hosts() -> String {
    let contents = reading::read(Path::new("/etc/hosts")).unwrap_or_default();
    String::from_utf8_lossy(&contents.bytes).into_owned()
}

fn reader<'a>(read: &'a dyn Fn(&Path) -> std::io::Result<FileContents>) -> ReadContext<'a> {
    ReadContext {
        own: &|| {
            let own = Own::read();
            (own.ranges, own.widened)
        },
        discovered: &addresses::discovered,
        has_address: &is_here,
        hosts: &hosts,
        has_user: &|name| account::by_name_or_number(name).is_some(),
        read,
        read_here: &|path| reading::read(path),
        variables: &variables,
        arguments: &[],
        environment: &|name| std::env::var_os(name),
        now: unix_now(),
        ..ReadContext::NONE
    }
}
