//! Where the configuration goes, and how it gets there: readable for its owner and group, and never over another one by accident.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::livekit::config::{LOCAL_FILE, SYSTEM_FILE};
use crate::replace;

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

/// Writes the configuration. Another one is replaced if `force` says so, or if it says nothing, like the sample of the package.
///
/// # Errors
/// It is there already (`AlreadyExists`), or cannot be written.
pub fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let says_nothing = || fs::read_to_string(path).is_ok_and(|former| has_no_setting(&former));
    replace::write(path, text, MODE, force || says_nothing())
}

/// Whether a TOML file has comments and the names of sections only.
fn has_no_setting(text: &str) -> bool {
    let is_section = |line: &str| line.starts_with('[') && !line.starts_with("[[");
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || is_section(line))
}

/// Whether a configuration is that of the service, and systemd is there to start it.
pub fn is_for_service(output: &Path) -> bool {
    let same = |path: &Path| path.canonicalize().ok();
    same(output).is_some_and(|output| same(Path::new(SYSTEM_FILE)) == Some(output))
        && Path::new("/run/systemd/system").is_dir()
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

    /// The package's sample has everything commented out, so nothing is lost with it.
    #[test]
    fn a_file_without_settings_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hairpin-livekit.toml");
        for former in ["", "\n  # a comment\n\n", include_str!("../../../conf/hairpin-livekit.toml")] {
            fs::write(&path, former).unwrap();
            write(&path, "one = 1", false).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "one = 1");
        }
        assert!(!has_no_setting("# a comment\n[livekit]\nurl = \"wss://livekit.example.org\"\n"));
    }
}
