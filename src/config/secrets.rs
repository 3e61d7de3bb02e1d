//! The text of shared secrets and passwords, and of the files that hold them: what is accepted, and why not.
//!
//! A sentence from here never quotes what it is about.

use super::report::ERRORS_MAX;
use crate::auth::{Password, Secret, password_problem};
use crate::plural::counted;
use crate::text;

/// The fewest characters of a shared secret: whoever has one credential can try guesses without asking the relay.
const SECRET_MIN: usize = 16;

/// The example of `auth.secrets`, which is in the sample configuration.
pub const SAMPLE: &str = "at least 16 characters, from a random source";

const GOOD: &str = "`openssl rand -base64 32` generates a good one";

/// A line of a file that is wrong.
pub struct WrongLine {
    /// Counted from 1; `None` if it concerns the whole file.
    pub line: Option<usize>,
    /// Completes a sentence.
    pub what: String,
    /// How to fix it.
    pub fix: String,
}

/// A shared secret, or what is wrong with it and how to fix that.
pub fn shared_secret(text: &str) -> Result<Secret, (String, String)> {
    let length = text.chars().count();
    if let Some((_, name)) = text::invisible(text) {
        return Err((format!("a secret contains {name}"), "write it again, without that character".into()));
    }
    if text.trim() != text {
        return Err(("a secret begins or ends with a blank".into(), "remove the blank".into()));
    }
    if length < SECRET_MIN {
        let what = format!("a secret of {} can be guessed", counted(length, "character"));
        return Err((what, format!("use at least {SECRET_MIN}; {GOOD}")));
    }
    if let Some(what) = leftover(text) {
        return Err((what.to_owned(), format!("write only the secret; {GOOD}")));
    }
    Ok(Secret::new(text))
}

/// The shared secrets of a file with their lines, and the lines that are wrong.
pub fn secrets_in_file(bytes: &[u8]) -> (Vec<(usize, Secret)>, Vec<WrongLine>) {
    let (mut secrets, mut wrong) = (Vec::new(), Vec::new());
    let lines = match lines(bytes) {
        Ok(lines) => lines,
        Err(error) => return (secrets, vec![error]),
    };
    for &(n, line) in &lines {
        let line = line.trim_matches([' ', '\t']);
        let plain = || match no_plain_line(line) {
            Some(what) => {
                let fix = format!("write only the secret; one like this can be in the configuration; {GOOD}");
                Err((what.to_owned(), fix))
            }
            None => Ok(()),
        };
        match shared_secret(line).and_then(|secret| plain().map(|()| secret)) {
            Ok(secret) => secrets.push((n, secret)),
            Err((what, fix)) if wrong.len() < ERRORS_MAX => {
                wrong.push(WrongLine { line: Some(n), what, fix });
            }
            Err(_) => {}
        }
    }
    if lines.is_empty() {
        let (what, fix) = nothing(bytes, "secret", "`openssl rand -base64 32` generates one");
        wrong.push(WrongLine { line: None, what, fix });
    }
    (secrets, wrong)
}

/// The password that is alone in a file.
pub fn password_in_file(bytes: &[u8]) -> Result<Password, WrongLine> {
    let lines = lines(bytes)?;
    let wrong = |line, what: String, fix: &str| Err(WrongLine { line, what, fix: fix.into() });
    match lines[..] {
        [] => {
            let (what, fix) = nothing(bytes, "password", "it must be alone on its line");
            wrong(None, what, &fix)
        }
        [(n, line)] => {
            if let Some((_, name)) = text::invisible(line) {
                return wrong(
                    Some(n),
                    format!("the password contains {name}"),
                    "write the line again, without it",
                );
            }
            if line.trim_matches([' ', '\t']) != line {
                let fix =
                    "remove the blank; a password with one can only be in the configuration, as `password`";
                return wrong(Some(n), "the password begins or ends with a blank".into(), fix);
            }
            if let Some(what) = leftover(line).or_else(|| no_plain_line(line)) {
                let fix = "write only the password; one like this can be in the configuration, as `password`";
                return wrong(Some(n), what.into(), fix);
            }
            match password_problem(line) {
                Some(problem) => wrong(Some(n), format!("the password {problem}"), "write another password"),
                None => Ok(Password::Plain(Secret::new(line))),
            }
        }
        [(one, _), (other, _), ..] => wrong(
            Some(other),
            format!("is one line too many: line {one} has a password, too"),
            "leave only the password; lines that begin with # are comments",
        ),
    }
}

/// The key of 32 hex digits.
pub(super) fn md5_digits(digits: &str) -> Option<[u8; 16]> {
    let key = u128::from_str_radix(digits, 16).ok();
    // from_str_radix accepts a sign, and any number of digits.
    let key = key.filter(|_| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    key.map(u128::to_be_bytes)
}

/// The text of a file.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, WrongLine> {
    text::of(bytes).map_err(|wrong| WrongLine {
        line: Some(wrong.line),
        what: if wrong.is_encoding { wrong.sentence() } else { wrong.what.to_owned() },
        fix: wrong.fix.to_owned(),
    })
}

/// The lines of a file that are neither blank nor comments.
pub(super) fn lines(bytes: &[u8]) -> Result<Vec<(usize, &str)>, WrongLine> {
    let text = text_of(bytes)?;
    // Lines of old Macs end with CR alone.
    let lines: Vec<&str> =
        if text.contains('\n') { text.lines().collect() } else { text.split('\r').collect() };
    // Otherwise what follows a comment would be a part of it.
    if let Some(n) = lines.iter().position(|line| line.contains('\r')) {
        return Err(WrongLine {
            line: Some(n + 1),
            what: "the line contains a carriage return without a line feed".into(),
            fix: "save the file with one kind of line ends".into(),
        });
    }
    let blank_or_comment =
        |line: &str| matches!(line.trim_start_matches([' ', '\t']).bytes().next(), None | Some(b'#'));
    let lines = lines.into_iter().enumerate().map(|(n, line)| (n + 1, line));
    Ok(lines.filter(|(_, line)| !blank_or_comment(line)).collect())
}

/// Why a file has nothing: it is empty, or has only comments.
fn nothing(bytes: &[u8], what: &str, hint: &str) -> (String, String) {
    if bytes.contains(&b'#') {
        let found = format!("the file has only comments and no {what}");
        return (
            found,
            format!("write the {what} into it; one that begins with # can only be in the configuration"),
        );
    }
    ("the file is empty".to_owned(), format!("write a {what} into it; {hint}"))
}

/// What is left by tools that should have replaced or removed it, or is published in the documentation. Everybody knows it, so
/// it is no secret.
pub(super) fn leftover(text: &str) -> Option<&'static str> {
    let begins = |marks: &[&str]| marks.iter().any(|mark| text.starts_with(mark));
    if text == SAMPLE {
        return Some("the secret of the sample configuration is known to everybody");
    }
    if begins(&["$ANSIBLE_VAULT"]) {
        return Some("the file is encrypted by ansible-vault, and was not decrypted");
    }
    if text.contains("ENC[") || begins(&["vault:v"]) {
        return Some("an encrypted value was not decrypted");
    }
    if begins(&["-----BEGIN ", "-----END "]) {
        return Some("a line of PEM is not a secret");
    }
    (text.contains("{{") && text.contains("}}") || text.contains("<%") || begins(&["${"]))
        .then_some("a template was not filled in")
}

/// A line of a file that is more than a secret, or something else: a setting, a comment, a part of another format.
fn no_plain_line(line: &str) -> Option<&'static str> {
    let begins = |marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
    let quotes = |quote| line.len() > 1 && line.starts_with(quote) && line.ends_with(quote);
    if quotes('"') || quotes('\'') {
        return Some("the line is in quotes, which would be a part of it");
    }
    if line.contains('\t') {
        return Some("the line contains a tab");
    }
    if line.contains(" #") {
        return Some("a comment needs a line of its own");
    }
    if begins(&["<<<<<<< ", ">>>>>>> ", "||||||| "]) {
        return Some("the mark of a merge conflict is not a secret");
    }
    if begins(&["{", "[", "- "]) {
        return Some("a line that reads like JSON, YAML or TOML is not a secret");
    }
    if begins(&["//", ";", "/* ", "<!-- ", "-- ", "! ", "% "]) {
        return Some("a line that reads like a comment is not a secret; comments begin with #");
    }
    is_setting(line).then_some("a line that reads like a setting is not a secret")
}

/// Whether a line is `NAME=value` or `NAME: value`, with a name as settings and variables for secrets have.
fn is_setting(line: &str) -> bool {
    let line =
        ["export ", "set ", "$env:"].into_iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line);
    let Some((name, value)) = line.split_once(['=', ':']) else { return false };
    // Base64 ends with equals signs.
    if value.trim_matches('=').is_empty() {
        return false;
    }
    let name = name.trim().trim_matches(['"', '\'']);
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let lower = name.to_ascii_lowercase();
    let of_secrets = ["secret", "password", "key", "token", "auth"].iter().any(|word| lower.contains(word));
    is_name && (of_secrets || name.len() > 2 && name == name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(bytes: &[u8]) -> Vec<String> {
        let (secrets, wrong) = secrets_in_file(bytes);
        assert!(wrong.is_empty(), "{}", wrong[0].what);
        secrets
            .iter()
            .map(|(line, secret)| format!("{line} {}", str::from_utf8(secret.as_bytes()).unwrap()))
            .collect()
    }

    /// The first thing that is wrong with a file: its line and a sentence.
    fn wrong(bytes: &[u8]) -> (Option<usize>, String) {
        let (_, wrong) = secrets_in_file(bytes);
        let first = wrong
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("{:?} is accepted", String::from_utf8_lossy(bytes)));
        (first.line, first.what)
    }

    /// What editors and configuration management leave in a file is understood: comments, marks, line ends, blanks.
    #[test]
    fn comments_marks_and_blanks_are_no_secrets() {
        for text in [
            "# Ansible managed\na secret of this file\n",
            "\u{FEFF}# Ansible managed\r\na secret of this file\r\n",
            "#\n  a secret of this file \t\n\n \n",
            "\n\ta secret of this file",
            "# of an old Mac\ra secret of this file\r",
            "\n\ta secret of this file\n# vim: set ft=text :\n#an old secret, commented out\n",
        ] {
            assert_eq!(secrets(text.as_bytes()), ["2 a secret of this file"], "{text:?}");
        }
    }

    /// Base64 and hex, as generated.
    #[test]
    fn generated_secrets_are_accepted() {
        for secret in [
            "3q2+7wABAgMEBQYHCAkKCw==",
            "AB/+CDEFGHIJKLMNOPQRSTUVWXYZ012=",
            "00112233445566778899aabbccddeeff",
            "AUTHKEY+TOKENSECRETSECRETSECRET=",
            "AUTHKEYSECRETSECRETSECRETSECRE==",
        ] {
            assert_eq!(secrets(secret.as_bytes()), [format!("1 {secret}")]);
        }
    }

    /// In the configuration and in the environment nothing else is beside a secret.
    #[test]
    fn the_rules_for_lines_of_files_are_only_for_files() {
        for secret in [
            "my pass #1 for the relay",
            "key=of the relay and more",
            "[in brackets, and long]",
            "a\ttab in a secret",
        ] {
            assert!(shared_secret(secret).is_ok(), "{secret}");
            assert!(secrets_in_file(secret.as_bytes()).0.is_empty(), "{secret}");
        }
        for wrong in [SAMPLE, "{{ turn_shared_secret }}", "x: ENC[AES256_GCM,data]"] {
            assert!(shared_secret(wrong).is_err(), "{wrong}");
        }
    }

    /// What is not understood is an error that names line and reason, and never the text.
    #[test]
    fn what_is_not_understood_names_line_and_reason() {
        let utf16: Vec<u8> =
            "\u{FEFF}a secret of this file\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, line, reason) in [
            (&utf16[..], Some(1), "the file is text in UTF-16"),
            (b"a secret of this file\na s\xE9cret of this file\n", Some(2), "is not UTF-8"),
            (b"a secret of this file\na secret\0 of this file\n", Some(2), "contains a NUL byte"),
            ("a secret\u{200B} of this file".as_bytes(), Some(1), "a zero-width character (U+200B)"),
            ("\n\na secret\u{A0}of this file".as_bytes(), Some(3), "a non-breaking space (U+00A0)"),
            ("a secret of this file\u{A0}\n".as_bytes(), Some(1), "a non-breaking space (U+00A0)"),
            (b"a secret of this file\x1B[0m", Some(1), "a control character (U+001B)"),
            (b"# old\n# new\ra secret of this file\n", Some(2), "a carriage return without a line feed"),
            (b"a secret of this file\n\ra\n", Some(2), "a carriage return without a line feed"),
            (
                b"a secret of this file\nfifteen letters\n",
                Some(2),
                "a secret of 15 characters can be guessed",
            ),
            (b"x", Some(1), "a secret of 1 character can be guessed"),
            (b"$ANSIBLE_VAULT;1.1;AES256\n6138", Some(1), "ansible-vault"),
            (b"secret = {{ turn_secret }}\n", Some(1), "a template was not filled in"),
            (b"<<<<<<< HEAD of this\n", Some(1), "merge conflict"),
            (b"// managed by our own scripts\n", Some(1), "comments begin with #"),
            (b"-----BEGIN PRIVATE KEY-----\n", Some(1), "a line of PEM"),
            (b"\"a secret of this file\"\n", Some(1), "in quotes"),
            (b"a secret of this file # of last year\n", Some(1), "a comment needs a line of its own"),
            (b"TURN_SECRET=a secret of this file\n", Some(1), "reads like a setting"),
            (b"static-auth-secret=a secret of this file\n", Some(1), "reads like a setting"),
            (b"secret: a secret of this file\n", Some(1), "reads like a setting"),
            (b"secrets = [\"a secret of this file\"]\n", Some(1), "reads like a setting"),
            (b"turn_secret=a secret of this file\n", Some(1), "reads like a setting"),
            (b"export TURN_SECRET=a secret of this file\n", Some(1), "reads like a setting"),
            (b"export TURN=a secret of this file\n", Some(1), "reads like a setting"),
            (b"turn.authToken:a secret of this file\n", Some(1), "reads like a setting"),
            (b"\"secret\": \"a secret of this file\",\n", Some(1), "reads like a setting"),
            (b"{\"secret\": \"a secret of this file\"}\n", Some(1), "reads like JSON"),
            (b"[\"a secret of this file\"]\n", Some(1), "reads like JSON"),
            (b"- a secret of this file\n", Some(1), "reads like JSON, YAML"),
            (b"a secret of this file\t# old\n", Some(1), "contains a tab"),
            (b"; a secret of this file\n", Some(1), "reads like a comment"),
            (b";a secret of this file\n", Some(1), "reads like a comment"),
            (b"//a secret of this file\n", Some(1), "reads like a comment"),
            (b"! a secret of this file\n", Some(1), "reads like a comment"),
            (b"% a secret of this file\n", Some(1), "reads like a comment"),
            (b"x: ENC[AES256_GCM,data:of this file]\n", Some(1), "was not decrypted"),
            (b"at least 16 characters, from a random source\n", Some(1), "sample configuration"),
            (b"", None, "the file is empty"),
            (b" \r\n\n", None, "the file is empty"),
            (b"# Ansible managed\n", None, "the file has only comments and no secret"),
            (b"#a secret that begins with a hash\n", None, "the file has only comments and no secret"),
        ] {
            let found = wrong(bytes);
            assert!(found.0 == line && found.1.contains(reason), "{found:?} instead of {reason}");
            assert!(!found.1.contains("of this file"), "{found:?}");
        }
    }

    #[test]
    fn a_password_file_has_one_line() {
        let read = |bytes: &[u8]| match password_in_file(bytes) {
            Ok(Password::Plain(password)) => Ok(String::from_utf8(password.as_bytes().to_vec()).unwrap()),
            Ok(Password::Md5Key(_)) => panic!("not a key"),
            Err(wrong) => Err((wrong.line, wrong.what)),
        };
        for text in
            ["wonder land", "wonder land\n", "\u{FEFF}wonder land\r\n\r\n", "# of alice\n\nwonder land\n"]
        {
            assert_eq!(read(text.as_bytes()).as_deref(), Ok("wonder land"), "{text:?}");
        }
        for (bytes, line, reason) in [
            (&b"wonder\n\nland\n"[..], Some(3), "is one line too many: line 1 has a password, too"),
            (b"wonder \n", Some(1), "begins or ends with a blank"),
            (b"# of alice\n wonder\n", Some(2), "begins or ends with a blank"),
            ("won\u{200B}der".as_bytes(), Some(1), "contains a zero-width character"),
            ("wonder\u{A0}".as_bytes(), Some(1), "contains a non-breaking space"),
            (b"won\xE9der", Some(1), "is not UTF-8"),
            (b"wonder # of alice\n", Some(1), "a comment needs a line of its own"),
            (b"wonder\t# of alice\n", Some(1), "contains a tab"),
            (b"password=wonder\n", Some(1), "reads like a setting"),
            (b"\"wonder\"\n", Some(1), "in quotes"),
            (b"{{ wonder }}\n", Some(1), "a template was not filled in"),
            (b"$ANSIBLE_VAULT;1.1;AES256\n", Some(1), "ansible-vault"),
            (b"# of alice\rwonder\n", Some(1), "a carriage return without a line feed"),
            (b"\n", None, "the file is empty"),
            (b"#wonder\n", None, "only comments"),
        ] {
            let found = read(bytes).unwrap_err();
            assert!(found.0 == line && found.1.contains(reason), "{found:?} instead of {reason}");
        }
    }

    /// A file may be long, and its errors are bounded.
    #[test]
    fn the_errors_about_one_file_are_bounded() {
        let (secrets, wrong) = secrets_in_file("short\n".repeat(100_000).as_bytes());
        assert_eq!((secrets.len(), wrong.len()), (0, ERRORS_MAX));
    }
}
