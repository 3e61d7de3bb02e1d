//! Reads the files of an operator: the configuration and the files that it names.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::config::FileContents;
use crate::config::files::FILE_MAX;

/// Reads a file, up to a bound, so that /dev/zero causes an error and not an endless read.
///
/// # Errors
///
/// Returns an error if the file is a directory or a FIFO, cannot be read, or is too large.
pub fn read(path: &Path) -> io::Result<FileContents> {
    // /dev/stdin, and what a shell makes of <(...): somebody writes to it.
    let is_open = path.starts_with("/dev");
    // Opening a FIFO would otherwise wait for somebody who writes to it (fifo(7)).
    let flags = if is_open { 0 } else { libc::O_NONBLOCK };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_fifo() && !is_open {
        return Err(io::ErrorKind::NotSeekable.into());
    }
    let has = |bits| metadata.is_file() && metadata.permissions().mode() & bits != 0;
    Ok(FileContents { is_public: has(0o004), is_writable: has(0o022), bytes: bytes(file)? })
}

/// The rest of a file, up to the same bound.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or is too large.
pub fn bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_files_and_directories_are_refused() {
        let kind =
            |path: &str| read(Path::new(path)).map(|contents| contents.bytes.len()).unwrap_err().kind();
        assert_eq!(kind("/dev/zero"), io::ErrorKind::FileTooLarge);
        assert_eq!(kind("/proc"), io::ErrorKind::IsADirectory);
        assert_eq!(kind("/proc/version/x"), io::ErrorKind::NotADirectory);
    }

    /// A FIFO holds up neither a start nor a reload.
    #[test]
    fn fifos_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = read(&path).map(|_| ()).unwrap_err();
        let (what, fix) = crate::config::files::unreadable(&error);
        assert!(what.contains("it is a FIFO") && fix == "name a regular file", "{what}; {fix}");
    }

    #[test]
    fn files_up_to_the_bound_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_MAX).unwrap();
        assert_eq!(read(file.path()).unwrap().bytes.len() as u64, FILE_MAX);
        file.as_file().set_len(FILE_MAX + 1).unwrap();
        assert!(read(file.path()).is_err());
    }
}
