//! The file with the shared secret. The relay takes each line for a secret; LiveKit takes the whole file, so it must have one line.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::auth::Secret;
use crate::config::files::place;
use crate::config::secrets_in_file;

/// The first secret of a file.
///
/// # Errors
///
/// The file cannot be read, or a line of it is no secret.
pub fn first_in(file: &Path) -> Result<Secret, String> {
    let shown = file.display().to_string();
    let bytes = fs::read(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let (secrets, wrong) = secrets_in_file(&bytes);
    if let Some(wrong) = wrong.into_iter().next() {
        return Err(format!("{} {}; {}", place(&shown, wrong.line), wrong.what, wrong.fix));
    }
    secrets.into_iter().next().map(|(_, secret)| secret).ok_or_else(|| format!("{shown} has no secret"))
}

/// Checks a file as LiveKit does at its start, if this process can see it; returns what could not be checked. `wanted` is the
/// secret that credentials are made from, if that is known otherwise.
///
/// # Errors
///
/// LiveKit would not start with it, or make credentials that the relay refuses.
pub fn check_for_livekit(file: &Path, wanted: Option<&Secret>) -> Result<Option<String>, String> {
    let shown = file.display();
    let unchecked = |why: &str| {
        Ok(Some(format!(
            "{shown} {why}, so it was not checked: LiveKit must be able to read it, others must have no permissions, and it must \
             contain the relay's secret alone"
        )))
    };
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return unchecked("is not on this machine"),
        Err(_) => return unchecked("cannot be read here"),
    };
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!(
            "{shown} gives permissions to others, and LiveKit does not start with such a secret_file; use `chmod o= {shown}`"
        ));
    }
    let Ok(bytes) = fs::read(file) else { return unchecked("cannot be read by this user") };
    let first = first_in(file)?;
    if bytes.trim_ascii() != first.as_bytes() {
        return Err(format!(
            "{shown} has more than the secret, and LiveKit takes all of it for one secret; name a file with the secret alone with \
             --secret-file, or use --inline"
        ));
    }
    match wanted {
        Some(wanted) if wanted.as_bytes() != first.as_bytes() => Err(format!(
            "{shown} has another secret than the one that credentials are made from, which comes first in the sidecar's \
             configuration"
        )),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn livekit_reads_the_file_as_a_whole_and_wants_it_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let check = |text: &str, mode, wanted: Option<&str>| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            check_for_livekit(&file, wanted.map(Secret::new).as_ref())
        };
        let one = "a secret of this file";
        assert_eq!(check(&format!("{one}\n"), 0o640, None), Ok(None));
        assert_eq!(check(one, 0o600, Some(one)), Ok(None));
        for (text, mode, wanted, expected) in [
            (one, 0o644, None, "chmod o="),
            (one, 0o601, None, "chmod o="),
            ("# mine\na secret of this file\n", 0o600, None, "has more than the secret"),
            ("a secret of this file\nanother of this file\n", 0o600, None, "has more than the secret"),
            (one, 0o600, Some("another of this file"), "another secret than the one"),
            ("short", 0o600, None, "can be guessed"),
        ] {
            let error = check(text, mode, wanted).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret of this file"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(check_for_livekit(&file, None).unwrap().unwrap().contains("is not on this machine"));
        assert!(first_in(&file).unwrap_err().contains("cannot be read"));
    }
}
