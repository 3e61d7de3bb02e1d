//! Where the configuration goes, and how it gets there: readable for its owner and group, and never over another one by accident.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::livekit::config::{LOCAL_FILE, SYSTEM_FILE};

/// The file's mode: it names where secrets are.
const MODE: u32 = 0o640;

/// The mode of a new folder.
const FOLDER_MODE: u32 = 0o755;

/// Where the configuration goes if the arguments do not say.
pub fn default_output() -> PathBuf {
    let system = Path::new(SYSTEM_FILE);
    let folder = system.parent().unwrap_or(Path::new("/"));
    let can_be = || folder.is_dir() || DirBuilder::new().mode(FOLDER_MODE).create(folder).is_ok();
    if geteuid().is_root() && can_be() { system.into() } else { LOCAL_FILE.into() }
}

/// Writes the configuration. Another one is replaced if `force` says so, as a whole.
///
/// # Errors
/// It is there already (`AlreadyExists`), or cannot be written.
pub fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let create = |path: &Path| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    if !force {
        return create(path);
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = create(&new).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn another_file_is_replaced_by_force_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin-livekit.toml");
        write(&path, "one", false).unwrap();
        assert_eq!(write(&path, "two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        write(&path, "three", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{mode:o}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left behind");
    }
}
