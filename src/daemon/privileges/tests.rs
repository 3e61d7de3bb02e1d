use std::os::unix::net::UnixListener;

use super::*;

/// A directory is handed over only if all of it is a relay's: what is left of a write counts, and nothing else, whoever owns it.
#[test]
fn only_what_a_relay_keeps_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let ours = [
        "lock",
        "secret",
        "revocations",
        "overlays.json",
        "self-signed.pem",
        ".secret.AbC_-1",
        ".self-signed.pem.x",
    ];
    ours.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
    let owner = fs::metadata(folder.path()).unwrap().uid();
    let refusal =
        || kept_files(folder.path(), owner).map(|files| files.len()).map_err(|error| error.to_string());
    assert_eq!(refusal(), Ok(ours.len()));
    assert_eq!(
        kept_files(folder.path(), owner + 1).unwrap(),
        Vec::<OsString>::new(),
        "those of others stay theirs"
    );
    for name in ["hairpin.toml", "secret.old", ".secret", ".bashrc", ".ssh.secret.x", "lock "] {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        let refused = format!("it has more than a relay keeps in it: {}", path.display());
        assert_eq!(refusal(), Err(refused));
        fs::remove_file(&path).unwrap();
    }
    fs::remove_file(folder.path().join("secret")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", folder.path().join("secret")).unwrap();
    assert!(refusal().unwrap_err().ends_with("/secret"), "a link is not a file of its own");
}

/// Every entry is judged, or the directory is refused.
#[test]
fn a_directory_with_too_many_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let owner = fs::metadata(folder.path()).unwrap().uid();
    for n in 0..FILES_MAX {
        fs::write(folder.path().join(format!(".secret.{n}")), "").unwrap();
    }
    assert_eq!(kept_files(folder.path(), owner).unwrap().len(), FILES_MAX);
    fs::write(folder.path().join(".secret.last"), "").unwrap();
    assert!(kept_files(folder.path(), owner).unwrap_err().to_string().contains("more than 64 files"));
}

/// The folder of a control socket is one that nothing else uses.
#[test]
fn a_folder_with_something_else_is_not_for_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let is_for = |name: &str| {
        let path = folder.path().join(name);
        is_for_socket(&path, &path.join("control.sock")).unwrap()
    };
    for name in ["hairpin", "run"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        assert_eq!(is_for(name), name == "hairpin");
    }
    let _socket = UnixListener::bind(folder.path().join("hairpin/control.sock")).unwrap();
    fs::write(folder.path().join("hairpin/control.sock.lock"), "").unwrap();
    assert!(is_for("hairpin"), "a killed relay leaves these");
    fs::write(folder.path().join("hairpin/hairpin.toml"), "").unwrap();
    assert!(!is_for("hairpin"));
}

#[test]
fn a_file_that_only_root_may_read_serves_for_now() {
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let (what, fix) = crate::config::files::unreadable(&denied);
    assert_eq!(
        with_consequence(&format!("hairpin.toml:3: tls.key = \"key.pem\": {what}; {fix}"), "hairpin"),
        format!(
            "hairpin.toml:3: tls.key = \"key.pem\": the user \"hairpin\" cannot read it: what root has read serves until a \
             reload, or a renewal of the certificate, which will fail; {fix}"
        )
    );
}
