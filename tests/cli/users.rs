//! Users in files, as `hairpin check` reports them: how many, and every mistake with file and line, in bounded output.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::place::{Place, hairpin, text};

/// A configuration with a file of users, which only its owner may read.
fn place(name: &str, users: &str) -> Place {
    let place = Place::new(&format!("users_file = {name:?}\n"));
    let file = place.folder.path().join(name);
    fs::write(&file, users).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
    place
}

fn check(place: &Place) -> (Option<i32>, String) {
    let output = hairpin(&["check", place.config()]);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    (output.status.code(), text(&output.stdout).to_owned())
}

#[test]
fn check_counts_users() {
    let lines: String = (0..100_000).map(|n| format!("user-{n}:a password:5\n")).collect();
    let (status, said) = check(&place("users", &lines));
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("note: auth.users_file = \"users\": 100000 users in 1 file")
            && said.ends_with(": ok\n")
    );
    let (status, said) = check(&place("users.toml", "[[user]]\nname = \"alice\"\npassword = \"wonder\"\n"));
    assert!(status == Some(0) && said.contains("1 user in 1 file"), "{said}");
}

/// The path is relative to the folder of the configuration, and no line is quoted.
#[test]
fn check_names_file_and_line_of_every_mistake() {
    let place = place("users", "alice:wonder\nhushhush\nalice:hushhush\n\nbob:0xhushhush\ncarol:hush:hush\n");
    let (status, said) = check(&place);
    assert_eq!(status, Some(2), "{said}");
    for (line, what) in [
        (2, "has no colon"),
        (3, "the user \"alice\" is listed already in users:1; remove one of them"),
        (5, "has a key that is not 32 hex digits"),
        (6, "if the colon belongs to the password, write one more colon at the end of the line"),
    ] {
        let expected = format!("auth.users_file = \"users\": users:{line}: ");
        let found = said.lines().find(|said| said.contains(&expected));
        assert!(found.is_some_and(|found| found.contains(what)), "{line}: {said}");
    }
    assert!(!said.contains("hush"), "{said}");
}

/// A hundred thousand mistakes are a hundred lines, and how many more there are.
#[test]
fn the_output_of_check_is_bounded() {
    let (status, said) = check(&place("users", &"nonsense\n".repeat(100_000)));
    assert_eq!(status, Some(2));
    assert!(said.contains("users: has 99900 more mistakes") && said.lines().count() < 110, "{said}");
}

#[test]
fn check_warns_about_a_file_that_others_may_read_or_write() {
    let place = place("users", "alice:wonder\n");
    let file = place.folder.path().join("users");
    for (mode, said) in [
        (0o640, None),
        (0o644, Some("every user of this machine may read the file; run `chmod o-rwx` on it")),
        (
            0o660,
            Some("others than its owner may write the file, and add users with it; run `chmod go-w` on it"),
        ),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (status, output) = check(&place);
        assert_eq!(status, Some(0));
        let warned = output.lines().find(|line| line.contains(" warning: auth.users_file"));
        assert_eq!(warned.is_some(), said.is_some(), "{mode:o}: {output}");
        assert!(said.is_none_or(|said| output.contains(said)), "{mode:o}: {output}");
    }
}

/// A file that is too large says so, and how large it may be.
#[test]
fn a_file_has_a_bound() {
    let place = place("users", "");
    let file = fs::File::create(place.folder.path().join("users")).unwrap();
    file.set_len(16 * 1024 * 1024 + 1).unwrap();
    let (status, said) = check(&place);
    assert!(status == Some(2) && said.contains("it is larger than 16 MiB"), "{said}");
}
