//! Files that are written as a whole: nobody ever reads half of one, and whoever was to read the one before can read it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Writes a file, and replaces one only if `force`. A new one has this mode, unless its folder is that of a service.
///
/// # Errors
/// It is there already and not to be replaced (`AlreadyExists`), or cannot be written.
pub fn write(path: &Path, text: &str, mode: u32, force: bool) -> io::Result<()> {
    // A link leads to the file that is meant.
    let path = if force { fs::canonicalize(path).unwrap_or(path.to_owned()) } else { path.to_owned() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        keep_access(&file, &path, folder)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match force {
            true => fs::rename(&temporary, &path),
            false => match fs::hard_link(&temporary, &path) {
                Ok(()) => fs::remove_file(&temporary),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
                // The file system has no links.
                Err(_) => claim(&temporary, &path),
            },
        }
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Renames a file to a name that nothing has: an empty file claims it first, which only one program can make.
fn claim(from: &Path, to: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// Gives a file the owner and the group of the one that it replaces; a new one in a folder of root's and a service's group, like
/// /etc/hairpin, belongs to that group, too. It is never public.
fn keep_access(file: &File, path: &Path, folder: &Path) -> io::Result<()> {
    if let Ok(former) = path.metadata() {
        let is_given = fchown(file, Some(former.uid()), Some(former.gid())).is_ok();
        let mode = if is_given { former.mode() & 0o640 | 0o600 } else { 0o600 };
        return file.set_permissions(Permissions::from_mode(mode));
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
    use std::os::unix::fs::{chown, symlink};

    use nix::unistd::geteuid;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin.toml");
        write(&path, "one", 0o600, false).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one", 0o600));
        assert_eq!(write(&path, "two", 0o600, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, "three", 0o600, true).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("three", 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    /// The service can read what root writes: in the place of a file of its group, and in a folder of its group.
    #[test]
    fn a_service_can_read_its_file() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin.toml");
        write(&path, "one", 0o600, false).unwrap();
        chown(&path, None, Some(4321)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, "two", 0o600, true).unwrap();
        assert_eq!((path.metadata().unwrap().gid(), mode(&path)), (4321, 0o640));

        chown(folder.path(), None, Some(4321)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        let path = folder.path().join("new.toml");
        write(&path, "one", 0o600, false).unwrap();
        assert_eq!((path.metadata().unwrap().gid(), mode(&path)), (4321, 0o640));
    }

    /// Some file systems have no hard links (FAT, several network file systems).
    #[test]
    fn a_name_is_claimed_where_there_are_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "new").unwrap();
        claim(&from, &to).unwrap();
        assert!(fs::read_to_string(&to).unwrap() == "new" && !from.exists());
        fs::write(&from, "newer").unwrap();
        assert_eq!(claim(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
    }

    #[test]
    fn a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        write(&link, "new", 0o600, true).unwrap();
        assert!(link.is_symlink() && fs::read_to_string(&path).unwrap() == "new");
    }
}
