//! The state directory and what is kept in it: the shared secret and the certificate of a relay that runs without a
//! configuration, each made once. Readable by their owner alone.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::random;
use crate::auth::Secret;

/// The file with the secret.
const SECRET: &str = "secret";

/// The file with a self-signed certificate and its key.
const CERTIFICATE: &str = "self-signed.pem";

/// The most that is read of a file with secrets: whoever names /dev/zero gets a sentence.
const FILE_MAX: u64 = 64 * 1024;

/// Where state is kept: what was asked for, else what systemd made, else the place of a service or of a user.
///
/// # Errors
///
/// Returns an error if neither an argument nor the environment names a directory.
pub fn directory(
    wish: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<OsString>,
    is_service: bool,
) -> Result<PathBuf> {
    if let Some(wish) = wish {
        return Ok(wish.to_owned());
    }
    let variable = |name| environment(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    // One of several is the first (systemd.exec(5)).
    let given = variable("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    if let Some(given) = given.filter(absolute) {
        return Ok(given);
    }
    if is_service {
        return Ok("/var/lib/hairpin".into());
    }
    // XDG Base Directory Specification: relative paths are ignored.
    let home = || variable("HOME").filter(absolute).map(|home| home.join(".local/state"));
    match variable("XDG_STATE_HOME").filter(absolute).or_else(home) {
        Some(state) => Ok(state.join("hairpin")),
        None => bail!("no place to keep what a start makes: name one with --state-dir, or set HOME"),
    }
}

/// The secret kept in `directory`; made, if there is none. Also says whether it was made.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is readable by other users or is empty, or if it cannot be created.
pub fn secret_or_new(directory: &Path) -> Result<(Secret, bool)> {
    let new = || Ok(URL_SAFE_NO_PAD.encode(random::bytes::<32>()?) + "\n");
    let (text, made) = kept_or_new(directory, SECRET, new)?;
    Ok((Secret::new(text.trim()), made))
}

/// The secret kept in `directory`, if there is one.
///
/// # Errors
///
/// Returns an error if the file exists but cannot be read, is readable by other users, or is empty.
pub fn secret(directory: &Path) -> Result<Option<Secret>> {
    Ok(kept(directory, SECRET)?.map(|text| Secret::new(text.trim())))
}

/// The self-signed certificate kept in `directory` and its key, as PEM; made by `new`, if there is none. Also says
/// whether it was made.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is readable by other users or is empty, if `new` fails, or if the file
/// cannot be created.
pub fn certificate_or_new(directory: &Path, new: impl FnOnce() -> Result<String>) -> Result<(String, bool)> {
    kept_or_new(directory, CERTIFICATE, new)
}

/// What is kept under a name, or what `new` makes. Also says whether it was made.
fn kept_or_new(directory: &Path, name: &str, new: impl FnOnce() -> Result<String>) -> Result<(String, bool)> {
    if let Some(text) = kept(directory, name)? {
        return Ok((text, false));
    }
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {shown}; name another place with --state-dir"))?;
    let made = create(directory, name, &new()?)
        .with_context(|| format!("cannot write to {shown}; name another place with --state-dir"))?;
    // Somebody else may have been first.
    let text = kept(directory, name)?.with_context(|| format!("{name} in {shown} vanished; start again"))?;
    Ok((text, made))
}

fn kept(directory: &Path, name: &str) -> Result<Option<String>> {
    let path = directory.join(name);
    let shown = path.display();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let mode = file.metadata().map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        bail!(
            "{shown} can be read by others; if they may know it `chmod 600` it, else remove it and a new one is made"
        );
    }
    let text = read(file).with_context(|| format!("cannot read {shown}"))?;
    if text.trim().is_empty() {
        bail!("{shown} is empty; remove it and a new one is made");
    }
    Ok(Some(text))
}

/// The text of a file with secrets.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is too large, or is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    read(File::open(path)?)
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {FILE_MAX} bytes")));
    }
    Ok(text)
}

/// Puts a new file in place whole or not at all; false if there was one already.
fn create(directory: &Path, name: &str, text: &str) -> io::Result<bool> {
    let draft = directory.join(format!(".{name}.{}", URL_SAFE_NO_PAD.encode(random::bytes::<9>()?)));
    let written = write(&draft, text).and_then(|()| match std::fs::hard_link(&draft, directory.join(name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    let _ = std::fs::remove_file(&draft);
    let made = written?;
    File::open(directory)?.sync_all()?;
    Ok(made)
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(wish: Option<&str>, variables: &[(&str, &str)], is_service: bool) -> Option<String> {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let directory = directory(wish.map(Path::new), &variable, is_service).ok()?;
        Some(directory.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_directory_is_found_in_this_order() {
        let home = ("HOME", "/home/me");
        let given = ("STATE_DIRECTORY", "/var/lib/one:/var/lib/two");
        let state = ("XDG_STATE_HOME", "/home/me/state");
        for (wish, variables, is_service, expected) in [
            (Some("here"), &[given, state, home][..], true, Some("here")),
            (None, &[given, state, home], false, Some("/var/lib/one")),
            (None, &[home, state], true, Some("/var/lib/hairpin")),
            (None, &[home, state], false, Some("/home/me/state/hairpin")),
            (None, &[home, ("XDG_STATE_HOME", "relative")], false, Some("/home/me/.local/state/hairpin")),
            (None, &[], false, None),
        ] {
            assert_eq!(place(wish, variables, is_service).as_deref(), expected);
        }
    }

    #[test]
    fn a_secret_is_made_once_and_kept_to_oneself() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        assert!(secret(&directory).unwrap().is_none());
        let (first, made) = secret_or_new(&directory).unwrap();
        assert!(made && first.as_bytes().len() == 43);
        let (again, made) = secret_or_new(&directory).unwrap();
        assert!(!made && again.as_bytes() == first.as_bytes());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(SECRET))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "the draft is gone");
        let (other, _) = secret_or_new(&folder.path().join("c")).unwrap();
        assert_ne!(other.as_bytes(), first.as_bytes());
    }

    #[test]
    fn a_certificate_is_made_once_and_kept_to_oneself() {
        let folder = tempfile::tempdir().unwrap();
        let (first, made) = certificate_or_new(folder.path(), || Ok("one".into())).unwrap();
        assert!(made && first == "one");
        assert_eq!(certificate_or_new(folder.path(), || Ok("two".into())).unwrap(), (first, false));
        let mode = std::fs::metadata(folder.path().join(CERTIFICATE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn several_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let make = || secret_or_new(folder.path()).unwrap().0.as_bytes().to_vec();
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_secret_that_others_can_read_or_that_is_empty_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SECRET);
        std::fs::write(&path, "0123456789abcdef").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(secret(folder.path()).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(secret(folder.path()).unwrap().is_some());
        std::fs::write(&path, " \n").unwrap();
        assert!(secret(folder.path()).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn endless_files_are_not_read_to_the_end() {
        assert_eq!(read_text(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
