//! What the relay keeps in its state directory so that it holds after a restart: small files, each replaced as a whole or
//! appended to, and on disk before the call returns.
//!
//! The directory is created when something has to be kept. One process changes its files: the first that locks it. Others that
//! share it read what is there when they start, and cannot change anything, because neither would know what the other does.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::state::{ReplaceError, StateDirectory};

/// The file that is locked by the process that may change the others.
const LOCK: &str = "lock";

/// What to do with a file that cannot be trusted.
const REMEDY: &str = "move it away to start without what it keeps";

/// The files that a relay keeps.
pub struct Store {
    /// The directory, or why there is none.
    path: Result<PathBuf, String>,
    access: Mutex<Access>,
    /// Files that did not exist when they were read.
    missing: Mutex<BTreeSet<String>>,
}

/// A file is replaced, but its disk has not confirmed that it stays so.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file} was written, but may be the old one again after a power failure: {error}; check its disk, then try again"
)]
pub struct Unconfirmed {
    file: String,
    error: io::Error,
}

enum Access {
    /// The directory does not exist yet.
    Missing,
    /// This process may change its files.
    Locked(StateDirectory, #[allow(dead_code, reason = "held until the process ends")] Flock<File>),
    /// Nothing can be changed; why, and what to do.
    ReadOnly(String),
}

/// A file that is appended to.
pub struct Appender {
    file: File,
    /// How long the file is when all that was appended is complete; `None` after an error that left this unknown.
    len: Option<u64>,
    shown: String,
}

impl Store {
    /// The store in `path`, which need not exist yet. If there is no path, only changes fail.
    pub fn open(path: Result<PathBuf>) -> Store {
        let path = path.map_err(|error| format!("{error:#}"));
        let access = match &path {
            Ok(path) => access(path),
            Err(why) => Access::ReadOnly(why.clone()),
        };
        Store { path, access: Mutex::new(access), missing: Mutex::default() }
    }

    /// Why nothing can be changed, if the directory exists.
    pub fn problem(&self) -> Option<String> {
        match (&self.path, &*self.access.lock().unwrap_or_else(PoisonError::into_inner)) {
            (Ok(_), Access::ReadOnly(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// The path of a file, for messages.
    pub fn shown(&self, name: &str) -> String {
        match &self.path {
            Ok(path) => path.join(name).display().to_string(),
            Err(_) => name.to_owned(),
        }
    }

    /// A file for reading, if it exists.
    ///
    /// # Errors
    /// It cannot be read, or cannot be trusted because others may have written it.
    pub fn file(&self, name: &str) -> Result<Option<File>> {
        let file = match &self.path {
            Ok(path) => file(path, name)?,
            Err(_) => None,
        };
        if file.is_none() {
            self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        }
        Ok(file)
    }

    /// The contents of a file, if it exists.
    ///
    /// # Errors
    /// As [`Store::file`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", self.shown(name)))?;
        Ok(Some(bytes))
    }

    /// Replaces a file as a whole. It is on disk when this returns, and after a failure other than [`Unconfirmed`] the old one is
    /// still there. It blocks.
    ///
    /// # Errors
    /// This process cannot change the files, or the disk refused.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace_with(name, |file| file.write_all(bytes))
    }

    /// The same with contents that are written piece by piece.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub fn replace_with(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        self.changing(|directory| {
            directory.replace(name, write).map_err(|error| match error {
                ReplaceError::Unchanged(error) => anyhow::Error::new(error)
                    .context(format!("cannot write {}, so nothing has changed", self.shown(name))),
                ReplaceError::Unconfirmed(error) => Unconfirmed { file: self.shown(name), error }.into(),
            })
        })
    }

    /// Opens a file for appending; it is created if it does not exist. What follows its first `len` bytes is removed. It
    /// blocks.
    ///
    /// # Errors
    /// This process cannot change the files, or the disk refused.
    pub fn append(&self, name: &str, len: u64) -> Result<Appender> {
        let shown = self.shown(name);
        self.changing(|directory| {
            let file = directory.appendable(name).and_then(|file| {
                if file.metadata()?.len() != len {
                    file.set_len(len)?;
                }
                Ok(file)
            });
            let file = file.with_context(|| format!("cannot write {shown}, so nothing has changed"))?;
            Ok(Appender { file, len: Some(len), shown: shown.clone() })
        })
    }

    /// Does something with the directory, which is created and locked first if that is still to be done.
    fn changing<T>(&self, change: impl FnOnce(&StateDirectory) -> Result<T>) -> Result<T> {
        let path = self.path.as_ref().map_err(|why| anyhow!("{why}"))?;
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*access, Access::Missing) {
            let directory = StateDirectory::open_or_create(path)?;
            let lock = lock(path, &directory).map_err(|why| anyhow!("{why}"))?;
            // Another process may have made the directory since this one has looked.
            let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(name) = missing.iter().find(|name| !matches!(directory.file(name, REMEDY), Ok(None)))
            {
                bail!(
                    "{} was written by another process since this one has started; restart this one to take it over",
                    path.join(name).display()
                );
            }
            *access = Access::Locked(directory, lock);
        }
        match &*access {
            Access::Locked(directory, _) => change(directory),
            Access::ReadOnly(why) => bail!("{why}"),
            Access::Missing => unreachable!("it was created"),
        }
    }
}

impl Appender {
    /// Appends, and waits until it is on disk. After an error nothing has been appended.
    ///
    /// # Errors
    /// The disk refused. If even that is uncertain, every later call fails, until the file is replaced.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len.take().with_context(|| {
            format!("an earlier write to {} failed; make room on its disk and restart", self.shown)
        })?;
        let shown = &self.shown;
        let failed = || format!("cannot write {shown}, so nothing has changed");
        if let Err(error) = self.file.write_all(bytes) {
            // A part of it must not become the start of the next line.
            if self.file.set_len(len).and_then(|()| self.file.sync_data()).is_ok() {
                self.len = Some(len);
            }
            return Err(error).with_context(failed);
        }
        // After an error it is unknown what the disk has, and the kernel reports it once (fsync(2)).
        self.file.sync_data().with_context(failed)?;
        self.len = Some(len + bytes.len() as u64);
        Ok(())
    }

    /// How long the file is; `None` if that is uncertain.
    pub fn complete(&self) -> Option<u64> {
        self.len
    }
}

/// What this process may do with a directory.
fn access(path: &Path) -> Access {
    let opened = match StateDirectory::open(path) {
        Ok(None) => return Access::Missing,
        Ok(Some(opened)) => opened,
        Err(error) => return Access::ReadOnly(format!("{error:#}")),
    };
    match lock(path, &opened) {
        Ok(lock) => Access::Locked(opened, lock),
        Err(why) => Access::ReadOnly(why),
    }
}

/// Locks a directory for this process, until it ends.
fn lock(path: &Path, directory: &StateDirectory) -> Result<Flock<File>, String> {
    directory.may_create().map_err(|error| format!("{error:#}"))?;
    let shown = path.display();
    let file = directory.appendable(LOCK).map_err(|error| {
        format!("cannot write to {shown}: {error}; choose another directory with --state-dir")
    })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(format!(
            "another hairpin process uses the state directory {shown}; start each with a --state-dir of its own"
        )),
        Err((_, error)) => Err(format!("cannot lock {}: {error}", path.join(LOCK).display())),
    }
}

/// A file of a directory for reading, if it exists.
fn file(path: &Path, name: &str) -> Result<Option<File>> {
    match StateDirectory::open(path) {
        Ok(None) => Ok(None),
        Ok(Some(directory)) => directory.file(name, REMEDY),
        // Nothing is kept in a directory that is not used, unless it was used before.
        Err(error) if path.join(name).symlink_metadata().is_ok() => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store(path: &Path) -> Store {
        Store::open(Ok(path.to_owned()))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// A relay that keeps nothing leaves no trace. What it keeps is for its owner only.
    #[test]
    fn the_directory_is_created_with_the_first_thing_to_keep() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = store(&path);
        assert_eq!(first.read("peers").unwrap(), None);
        assert!(first.problem().is_none() && !path.exists());
        first.replace("peers", b"one").unwrap();
        first.replace("peers", b"two").unwrap();
        assert_eq!(first.read("peers").unwrap().unwrap(), b"two");
        assert_eq!((mode(&path), mode(&path.join("peers"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "temporary files are removed");
        drop(first);
        assert_eq!(store(&path).read("peers").unwrap().unwrap(), b"two");
    }

    #[test]
    fn what_is_appended_follows_what_was_complete() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut log = store.append("log", 0).unwrap();
        log.append(b"one\n").unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!((log.complete(), mode(&folder.path().join("log"))), (Some(8), 0o600));
        drop(log);
        let mut log = store.append("log", 4).unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(store.read("log").unwrap().unwrap(), b"one\nthree\n");
    }

    /// A disk that refuses half a line must not make the next one unreadable.
    #[test]
    fn a_failed_write_leaves_no_part_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut log = store.append("log", 0).unwrap();
        log.append(b"one\n").unwrap();
        log.file = File::open(folder.path().join("log")).unwrap();
        let error = format!("{:#}", log.append(b"two\n").unwrap_err());
        assert!(error.contains("so nothing has changed"), "{error}");
        let error = format!("{:#}", log.append(b"two\n").unwrap_err());
        assert!(error.contains("an earlier write"), "what is uncertain stays refused: {error}");
        assert_eq!(store.read("log").unwrap().unwrap(), b"one\n");
    }

    /// Two relays on one directory: the first may change it, the second reads it and says what to do.
    #[test]
    fn the_second_process_reads_and_cannot_change() {
        let folder = tempfile::tempdir().unwrap();
        let first = store(folder.path());
        first.replace("peers", b"one").unwrap();
        let second = store(folder.path());
        let problem = second.problem().unwrap();
        assert!(problem.contains("another hairpin process uses") && problem.contains("--state-dir"));
        assert_eq!(second.read("peers").unwrap().unwrap(), b"one");
        assert_eq!(format!("{:#}", second.replace("peers", b"two").unwrap_err()), problem);
        assert_eq!(first.read("peers").unwrap().unwrap(), b"one");
        drop((first, second));
        assert!(store(folder.path()).problem().is_none(), "the lock ends with its process");
    }

    /// Both have looked before there was a directory, so the second does not know what the first has kept.
    #[test]
    fn what_another_process_has_written_since_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (first, second) = (store(&path), store(&path));
        for store in [&first, &second] {
            assert_eq!(store.read("peers").unwrap(), None);
        }
        first.replace("peers", b"one").unwrap();
        let error = format!("{:#}", second.replace("peers", b"two").unwrap_err());
        assert!(error.contains("another hairpin process uses"), "{error}");
        drop(first);
        let error = format!("{:#}", second.replace("peers", b"two").unwrap_err());
        assert!(error.contains("restart this one"), "{error}");
        assert_eq!(fs::read(path.join("peers")).unwrap(), b"one");
    }

    #[test]
    fn without_a_directory_changes_say_what_to_set() {
        let store = Store::open(Err(anyhow!("there is no state directory; set --state-dir or HOME")));
        assert_eq!((store.read("peers").unwrap(), store.problem()), (None, None));
        let error = format!("{:#}", store.replace("peers", b"one").unwrap_err());
        assert!(error.contains("set --state-dir or HOME"), "{error}");
    }

    /// What others may have written is not believed, and a relay without it would let in whom it has revoked.
    #[test]
    fn a_kept_file_in_a_directory_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = store(folder.path());
        first.replace("peers", b"one").unwrap();
        drop(first);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let store = store(folder.path());
        assert!(store.read("peers").is_err());
        assert_eq!(store.read("other").unwrap(), None);
        assert!(store.problem().unwrap().contains("other users may write"));
    }
}
