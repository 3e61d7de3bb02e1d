//! Writes the files of an import. They have secrets, so nobody but root, and the group of the service, may read them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Refuses to replace files.
pub fn must_be_new<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    for path in paths {
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already; name another file with --out, or add --force to replace it",
                path.display()
            );
        }
    }
    Ok(())
}

/// Whether standard output was redirected to a file.
pub fn stdout_is_a_file() -> bool {
    File::options()
        .write(true)
        .open("/dev/stdout")
        .and_then(|out| out.metadata())
        .is_ok_and(|out| out.is_file())
}

/// Writes a file as a whole, and replaces one only if `force`.
pub fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    try_write(path, text, force).with_context(|| format!("{} cannot be written", path.display()))
}

fn try_write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    // A link leads to the file that is meant.
    let path = if force { fs::canonicalize(path).unwrap_or(path.to_owned()) } else { path.to_owned() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        keep_access(&file, &path, folder)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match force {
            true => fs::rename(&temporary, &path),
            false => fs::hard_link(&temporary, &path).and_then(|()| fs::remove_file(&temporary)),
        }
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Gives a file the owner and the group of the one that it replaces; a new one in a folder of root's and a service's group, like
/// /etc/hairpin, belongs to that group, too. It is never public.
fn keep_access(file: &File, path: &Path, folder: &Path) -> io::Result<()> {
    if let Ok(former) = path.metadata() {
        if fchown(file, Some(former.uid()), Some(former.gid())).is_ok() {
            return file.set_permissions(Permissions::from_mode(former.mode() & 0o640 | 0o600));
        }
        return Ok(());
    }
    let folder = folder.metadata()?;
    let is_service = folder.uid() == 0 && folder.gid() != 0 && folder.mode() & 0o007 == 0;
    if is_service && fchown(file, None, Some(folder.gid())).is_ok() {
        return file.set_permissions(Permissions::from_mode(0o640));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin.toml");
        write(&path, "one", false).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one", 0o600));
        assert!(must_be_new([&path]).unwrap_err().to_string().contains("--force"));
        assert!(write(&path, "two", false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, "three", true).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("three", 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(must_be_new([&link]).is_err());
        write(&link, "new", true).unwrap();
        assert!(link.is_symlink() && fs::read_to_string(&path).unwrap() == "new");
    }
}
