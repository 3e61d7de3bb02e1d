//! `hairpin import-coturn`: files, exit statuses, and what is said where.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use super::place::{command, text};

const CONF: &str = "use-auth-secret\nstatic-auth-secret=a secret of these tests\nrealm=example.org\nmobility\ncli-password=hidden\n";

struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

/// A folder with a configuration of coturn.
fn folder(conf: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("turnserver.conf"), conf).unwrap();
    folder
}

fn import(folder: &Path, arguments: &[&str]) -> Run {
    let all = [&["import-coturn", "turnserver.conf"], arguments].concat();
    let output = command(&all).current_dir(folder).output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: text(&output.stdout).to_owned(),
        stderr: text(&output.stderr).to_owned(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// It writes hairpin.toml, private, and says what is dangerous and what became of how many settings.
#[test]
fn hairpin_toml_is_written_and_passes_the_check() {
    let folder = folder(CONF);
    let run = import(folder.path(), &[]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let out = folder.path().join("hairpin.toml");
    assert_eq!(mode(&out), 0o600);
    let written = fs::read_to_string(&out).unwrap();
    assert!(written.contains("secrets = [\"a secret of these tests\"]"), "{written}");
    assert!(run.stderr.contains("turnserver.conf:5: danger: cli-password=***"), "{}", run.stderr);
    assert!(run.stderr.contains("turnserver.conf: 5 settings, 3 of them translated; "), "{}", run.stderr);
    assert!(
        run.stderr.ends_with("hairpin.toml: written, and `hairpin check` accepts it\n"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("hidden") && !run.stderr.contains("a secret of"), "{}", run.stderr);
    let check = command(&["check", "hairpin.toml"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
}

/// A file that exists is only replaced by --force, and keeps its group and what others may do at most.
#[test]
fn files_are_not_overwritten_without_force() {
    let folder = folder(CONF);
    let out = folder.path().join("hairpin.toml");
    fs::write(&out, "mine").unwrap();
    let run = import(folder.path(), &[]);
    assert_eq!(run.status, 1);
    assert!(
        run.stderr.contains("hairpin.toml exists already") && run.stderr.contains("--force"),
        "{}",
        run.stderr
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    assert_eq!(import(folder.path(), &["--force"]).status, 0);
    assert!(fs::read_to_string(&out).unwrap().starts_with("# Imported from turnserver.conf"));
    assert_eq!(mode(&out) & 0o007, 0);
    assert_eq!(import(folder.path(), &["--out", "other.toml"]).status, 0);
    let run = import(folder.path(), &["--out", "missing/hairpin.toml"]);
    assert!(
        run.status == 1 && run.stderr.contains("missing/hairpin.toml cannot be written"),
        "{}",
        run.stderr
    );
}

#[test]
fn standard_output_gets_it_where_it_is_asked_for_or_the_file_itself() {
    let folder = folder(CONF);
    let run = import(folder.path(), &["--out", "-"]);
    assert!(run.status == 0 && run.stdout.starts_with("# Imported from turnserver.conf"), "{}", run.stdout);
    // A log gets no secrets; the file that is meant anyway gets them by either way.
    for (name, text) in [("log", ""), ("hairpin.toml", &*run.stdout)] {
        let path = folder.path().join(name);
        let status = command(&["import-coturn", "turnserver.conf"])
            .current_dir(folder.path())
            .stdout(fs::File::create(&path).unwrap())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_to_string(folder.path().join("hairpin.toml")).unwrap(), run.stdout);
        fs::remove_file(folder.path().join("hairpin.toml")).unwrap();
    }
}

/// An anonymous relay is refused with 2 and nothing is written; with the word it gets a secret of its own.
#[test]
fn an_anonymous_relay_needs_a_word() {
    let folder = folder("realm=example.org\nno-auth\n");
    let run = import(folder.path(), &[]);
    assert_eq!(run.status, 2);
    assert!(
        run.stderr.starts_with("turnserver.conf:2: no-auth: coturn relays for everybody"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("--allow-anonymous") && run.stderr.ends_with("nothing was written\n"),
        "{}",
        run.stderr
    );
    assert!(!folder.path().join("hairpin.toml").exists());
    let secrets: Vec<String> = (0..2)
        .map(|_| {
            let run = import(folder.path(), &["--allow-anonymous", "--out", "-"]);
            assert_eq!(run.status, 0, "{}", run.stderr);
            run.stdout.lines().find(|line| line.starts_with("secrets = ")).unwrap().to_owned()
        })
        .collect();
    assert!(secrets[0] != secrets[1] && secrets[0].len() > 40);
}

#[test]
fn what_cannot_be_read_is_told_with_a_status() {
    let folder = folder(CONF);
    let run = |arguments: &[&str]| {
        let output = command(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (status, said) = run(&["import-coturn", "missing.conf"]);
    assert!(status == Some(2) && said.contains("missing.conf: cannot be read: No such file"), "{said}");
    fs::write(folder.path().join("binary.conf"), b"realm=\xff\xfe\n").unwrap();
    let (status, said) = run(&["import-coturn", "binary.conf"]);
    assert!(status == Some(2) && said.contains("binary.conf:1:"), "{said}");
    for (name, content, expected) in [
        ("damaged", &b"SQLite format 3\0 and then nothing of it, which is more than a hundred bytes long, as the header of a database is"[..], "cannot be read"),
        ("text", b"a text that is long enough for the header of a database, which has a hundred bytes; this has more than these", "no SQLite database"),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
        let (status, said) = run(&["import-coturn", "turnserver.conf", "--turndb", name]);
        assert!(status == Some(1) && said.contains(name) && said.contains(expected), "{said}");
    }
    let (status, said) = run(&["import-coturn", "turnserver.conf", "--turndb", "nowhere"]);
    assert!(status == Some(1) && said.contains("nowhere cannot be read: "), "{said}");
    assert!(!folder.path().join("hairpin.toml").exists());
    assert_eq!(run(&["import-coturn"]).0, Some(2));
}

/// A comment of another time may be in Latin-1; a value may not.
#[test]
fn comments_in_another_encoding_are_skipped() {
    let folder = folder("");
    let write = |bytes: &[u8]| fs::write(folder.path().join("turnserver.conf"), bytes).unwrap();
    write(&[b" # f\xfcr uns\n", CONF.as_bytes()].concat());
    let run = import(folder.path(), &["--out", "-"]);
    assert!(run.status == 0 && run.stdout.contains("# turnserver.conf:4\n"), "{}{}", run.stderr, run.stdout);
    write(&[CONF.as_bytes(), b"realm=f\xfcr\n"].concat());
    let run = import(folder.path(), &["--out", "-"]);
    assert!(
        run.status == 2 && run.stderr.contains("turnserver.conf:6: the line is not UTF-8"),
        "{}",
        run.stderr
    );
}

/// Where nothing is left to listen on, the reason comes first, and nothing else is opened.
#[test]
fn a_relay_for_tls_alone_needs_its_certificate() {
    let folder = folder(&format!("{CONF}no-udp\nno-tcp\ncert=/nowhere/cert.pem\npkey=/nowhere/key.pem\n"));
    let run = import(folder.path(), &[]);
    assert_eq!(run.status, 2, "{}", run.stderr);
    assert!(run.stderr.contains("turnserver.conf:8: tls.cert: "), "{}", run.stderr);
    assert!(run.stderr.contains("there is no listener") && run.stderr.ends_with("nothing was written\n"));
    assert!(!folder.path().join("hairpin.toml").exists());
}

/// A database that the configuration names and that is not here is said; the rest is imported.
#[test]
fn a_missing_database_is_a_danger() {
    let folder = folder(&format!("{CONF}userdb=/nowhere/turndb\n"));
    let run = import(folder.path(), &[]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("/nowhere/turndb does not exist on this machine. Name it with --turndb"),
        "{}",
        run.stderr
    );
}
