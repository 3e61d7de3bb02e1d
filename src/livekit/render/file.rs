//! A file of another program, replaced as a whole: a reader sees the old text or the new one, and never a part.
//!
//! Owner and mode stay, and so do symbolic links, because what they lead to is replaced. A file that has changed since it was
//! read is left alone.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, eaccess};

use super::yaml::FILE_MAX;

/// A file as it was when it was read.
pub struct Existing {
    /// What it is called.
    named: PathBuf,
    /// Where it is, without symbolic links.
    path: PathBuf,
    metadata: Metadata,
    /// What it contains.
    pub bytes: Vec<u8>,
}

impl Existing {
    /// Reads a file, up to one byte more than one that can be edited has.
    ///
    /// # Errors
    ///
    /// There is no such file, or it cannot be read.
    pub fn read(named: &Path) -> Result<Existing> {
        let shown = named.display();
        let path = named.canonicalize().with_context(|| format!("{shown} cannot be read"))?;
        // A FIFO would hold up everything, and be no configuration anyway.
        if !fs::metadata(&path).with_context(|| format!("{shown} cannot be read"))?.is_file() {
            bail!("{shown} is not a file");
        }
        let (metadata, bytes) = contents(&path).with_context(|| format!("{shown} cannot be read"))?;
        Ok(Existing { named: named.to_owned(), path, metadata, bytes })
    }

    /// Whether others than its owner and its group may read it.
    pub fn is_open(&self) -> bool {
        self.metadata.mode() & 0o004 != 0
    }

    /// Replaces it; on disk when this returns.
    ///
    /// # Errors
    ///
    /// It has changed, or cannot be replaced. It is as it was then.
    pub fn replace(&self, text: &str) -> Result<()> {
        let shown = self.named.display();
        if let Err(error) = eaccess(&self.path, AccessFlags::W_OK) {
            bail!("{shown} is not writable for this user ({error}); run this as its owner or as root");
        }
        let folder = self.path.parent().context("a file has a folder")?;
        let (temporary, mut file) = self.beside(folder).with_context(|| {
            format!(
                "{shown} is replaced as a whole, and no file can be created beside it; make {} writable",
                folder.display()
            )
        })?;
        let written = self.write(&mut file, text).and_then(|()| self.unchanged()).and_then(|()| {
            fs::rename(&temporary, &self.path).map_err(|error| match error.raw_os_error() {
                Some(nix::libc::EBUSY | nix::libc::EXDEV) => anyhow::anyhow!(
                    "{shown} is a mount of its own, as container engines mount a single file; write into the file that is \
                     mounted, outside of the container"
                ),
                _ => anyhow::Error::new(error).context(format!("{shown} cannot be replaced")),
            })
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("{shown} was replaced, but its disk has not confirmed that"))
    }

    /// A new file in this folder, for its owner only until it has the owner and the mode of the other.
    fn beside(&self, folder: &Path) -> io::Result<(PathBuf, File)> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut attempts = 0..8;
        loop {
            let attempt = attempts.next().unwrap_or(8);
            let path = folder.join(format!(".{name}.hairpin-{}-{attempt}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 8 => {}
                opened => return opened.map(|file| (path, file)),
            }
        }
    }

    fn write(&self, file: &mut File, text: &str) -> Result<()> {
        let shown = self.named.display();
        let now = file.metadata().with_context(|| format!("{shown} cannot be replaced"))?;
        let (uid, gid) = (self.metadata.uid(), self.metadata.gid());
        if (now.uid(), now.gid()) != (uid, gid) {
            fchown(&*file, Some(uid), Some(gid)).with_context(|| {
                format!("{shown} belongs to user {uid} and group {gid}, and would not any more; run this as that user or as root")
            })?;
        }
        let permissions = fs::Permissions::from_mode(self.metadata.mode() & 0o7777);
        let written = file.set_permissions(permissions).and_then(|()| file.write_all(text.as_bytes()));
        written
            .and_then(|()| file.sync_all())
            .with_context(|| format!("the new text of {shown} cannot be written"))
    }

    /// Whether it is still what was read.
    fn unchanged(&self) -> Result<()> {
        let is_same = |metadata: &Metadata, bytes: &[u8]| {
            let identity = |of: &Metadata| (of.dev(), of.ino(), of.mode(), of.uid(), of.gid());
            identity(metadata) == identity(&self.metadata) && bytes == self.bytes
        };
        let now = self.named.canonicalize().and_then(|path| Ok((contents(&path)?, path)));
        match now {
            Ok(((metadata, bytes), path)) if path == self.path && is_same(&metadata, &bytes) => Ok(()),
            _ => bail!(
                "{} was changed by another program meanwhile, so it was left alone; try again",
                self.named.display()
            ),
        }
    }
}

fn contents(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok((metadata, bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("livekit.yaml");
        fs::write(&path, "old").unwrap();
        (folder, path)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn mode_and_owner_stay() {
        let (folder, path) = place();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root can give files away.
        let owner = if nix::unistd::geteuid().is_root() {
            (4711, 4712)
        } else {
            (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
        };
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        Existing::read(&path).unwrap().replace("new").unwrap();
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.mode() & 0o7777, now.uid(), now.gid()), (0o640, owner.0, owner.1));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), files(folder.path())), ("new", 1));
    }

    #[test]
    fn symbolic_links_are_followed_and_stay() {
        let (folder, path) = place();
        let elsewhere = tempfile::tempdir().unwrap();
        let (first, second) = (elsewhere.path().join("first"), folder.path().join("second"));
        symlink(&path, &second).unwrap();
        symlink(&second, &first).unwrap();
        Existing::read(&first).unwrap().replace("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(first.is_symlink() && second.is_symlink() && !path.is_symlink());
        assert_eq!((files(folder.path()), files(elsewhere.path())), (2, 1));
    }

    /// Whoever edits the file at the same time loses nothing.
    #[test]
    fn a_file_that_has_changed_is_left_alone() {
        let changes: [fn(&Path); 4] = [
            |path| fs::write(path, "mine").unwrap(),
            |path| {
                fs::write(path.with_extension("new"), "old").unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let (folder, path) = place();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let read = Existing::read(&path).unwrap();
            change(&path);
            let before = fs::read_to_string(&path).ok();
            let error = format!("{:#}", read.replace("new").unwrap_err());
            assert!(
                error.contains("changed by another program") || error.contains("not writable"),
                "{n}: {error}"
            );
            assert_eq!(fs::read_to_string(&path).ok(), before, "{n}");
            assert_eq!(files(folder.path()), usize::from(before.is_some()), "{n}: nothing is left behind");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (folder, path) = place();
        let error = |path: &Path| format!("{:#}", Existing::read(path).map(drop).unwrap_err());
        assert!(error(folder.path()).contains("is not a file"));
        assert!(error(&folder.path().join("none")).contains("No such file"));
        nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(error(&folder.path().join("fifo")).contains("is not a file"));
        fs::write(&path, vec![b'a'; FILE_MAX + 7]).unwrap();
        assert_eq!(Existing::read(&path).unwrap().bytes.len(), FILE_MAX + 1);
    }
}
