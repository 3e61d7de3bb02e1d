//! Where the files of an import go. They have secrets, so nobody but root, and the group of the service, may read them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::fstat;

use crate::replace;

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

/// Whether standard output was redirected to this file.
pub fn stdout_is(path: &Path) -> bool {
    let (Ok(out), Ok(file)) = (fstat(io::stdout()), path.metadata()) else { return false };
    (out.st_dev, out.st_ino) == (file.dev(), file.ino())
}

/// Writes a file as a whole, and replaces one only if `force`.
pub fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    replace::write(path, text, 0o600, force).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("hairpin.toml"), folder.path().join("link"));
        must_be_new([&path]).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(must_be_new([&path, &link]).unwrap_err().to_string().contains("--force"));
    }
}
