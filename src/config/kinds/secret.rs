//! Secrets, passwords and the files that hold them or keys.
//!
//! A sentence from here never quotes what it is about. Nor is the value of a setting shown that names a file, unless it surely
//! does: it may be the secret itself.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use toml_edit::Value;

use super::list;
use crate::auth::{Password, Secret, password_problem};
use crate::config::files;
use crate::config::kind::{FieldValue, FileContents, ReadContext, SettingKind, Shape, ValueError};
use crate::config::report::{ERRORS_MAX, HIDDEN};
use crate::config::secrets::{md5_digits, password_in_file, secrets_in_file, shared_secret};
use crate::config::tls::Pem;
use crate::text;

/// Shared secrets, written in the file.
pub struct Secrets<T: 'static> {
    /// All shared secrets.
    pub at: fn(&mut T) -> &mut Vec<Secret>,
    /// Those of [`SecretFiles`].
    pub from_files: fn(&mut T) -> &mut Vec<Secret>,
}

impl<T> SettingKind<T> for Secrets<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (secrets, mut errors) = list(value, |one| {
            let secret = shared_secret(super::text(one)?);
            Ok((one.clone(), secret.map_err(|(what, fix)| ValueError::of(one, what, fix))?))
        });
        add_secrets(
            (self.at)(target),
            secrets,
            |one| ValueError::of(&one, LISTED_TWICE, "remove one"),
            &mut errors,
        );
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let from_files = (self.from_files)(target).clone();
        let others = (self.at)(target).iter().map(Secret::as_bytes);
        FieldValue::hidden(others.filter(|one| from_files.iter().all(|file| file.as_bytes() != *one)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
        (self.from_files)(to).clone_from((self.from_files)(from));
    }

    fn describe(&self) -> String {
        "list of secrets".into()
    }

    fn shape(&self) -> Shape {
        Shape::List
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// Files with shared secrets, one per line.
pub struct SecretFiles<T: 'static> {
    /// All shared secrets.
    pub at: fn(&mut T) -> &mut Vec<Secret>,
    /// Those of the files.
    pub from_files: fn(&mut T) -> &mut Vec<Secret>,
    /// The files.
    pub paths: fn(&mut T) -> &mut Vec<PathBuf>,
}

impl<T> SettingKind<T> for SecretFiles<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        each_file(value, context, FileKind::Secret, |one, name, contents, errors| {
            let path = context.folder.map_or_else(|| name.into(), |folder| folder.join(name));
            (self.paths)(target).push(path);
            let (secrets, wrong) = secrets_in_file(&contents.bytes);
            let at = |line: Option<usize>| files::place(name, line);
            errors.extend(
                wrong.into_iter().map(|wrong| {
                    ValueError::of(one, format!("{} {}", at(wrong.line), wrong.what), wrong.fix)
                }),
            );
            let twice =
                |line| ValueError::of(one, format!("{} {LISTED_TWICE}", at(Some(line))), "remove one");
            let known = (self.at)(target);
            let before = known.len();
            add_secrets(known, secrets, twice, errors);
            let new = known[before..].to_vec();
            (self.from_files)(target).extend(new);
            ControlFlow::Continue(())
        })
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden((self.from_files)(target).iter().map(Secret::as_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
        (self.from_files)(to).clone_from((self.from_files)(from));
        (self.paths)(to).clone_from((self.paths)(from));
    }

    fn describe(&self) -> String {
        "list of files".into()
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// A password, written in the file. The three kinds of passwords add to a list, so that a user with two of them is
/// noticed.
pub struct PasswordText<T: 'static>(pub fn(&mut T) -> &mut Vec<Password>);

impl<T> SettingKind<T> for PasswordText<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let read = super::text(value).and_then(|text| {
            let problem = if text.is_empty() {
                Some("is empty".to_owned())
            } else {
                text::invisible(text)
                    .map(|(_, name)| format!("contains {name}"))
                    .or_else(|| password_problem(text).map(Into::into))
            };
            match problem {
                None => Ok(Password::Plain(Secret::new(text))),
                Some(problem) => {
                    Err(ValueError::of(value, format!("the password {problem}"), "write another password"))
                }
            }
        });
        add((self.0)(target), read)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden((self.0)(target).iter().map(password_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "text".into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A file with a password.
pub struct PasswordFile<T: 'static>(pub fn(&mut T) -> &mut Vec<Password>);

impl<T> SettingKind<T> for PasswordFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::Password) {
            Ok(read) => read,
            Err(error) => return vec![error],
        };
        let mut errors: Vec<_> = public(value, &contents).into_iter().collect();
        let read = password_in_file(&contents.bytes).map_err(|wrong| {
            ValueError::of(value, format!("{} {}", files::place(name, wrong.line), wrong.what), wrong.fix)
        });
        errors.extend(add((self.0)(target), read));
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden((self.0)(target).iter().map(password_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// `MD5(user:realm:password)` in hex.
pub struct Md5Key<T: 'static>(pub fn(&mut T) -> &mut Vec<Password>);

impl<T> SettingKind<T> for Md5Key<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        add((self.0)(target), md5_key(value))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden((self.0)(target).iter().map(password_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "32 hex digits".into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A PEM file with certificates or a private key. That it cannot be read, and what it contains, is reported together with the
/// other one.
pub struct PemFile<T: 'static> {
    /// The name of the setting in messages about the file.
    pub label: &'static str,
    pub at: fn(&mut T) -> &mut Option<Pem>,
}

impl<T> SettingKind<T> for PemFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let name = match file_name(value) {
            Ok(name) => name,
            Err(error) => return vec![error],
        };
        let path = context.folder.map_or_else(|| name.into(), |folder| folder.join(name));
        let read = (context.read)(Path::new(name));
        let errors = read
            .as_ref()
            .ok()
            .filter(|contents| contents.bytes.windows(KEY_LABEL.len()).any(|window| window == KEY_LABEL));
        let errors = errors.and_then(|contents| public(value, contents)).into_iter().collect();
        let hidden = read.as_ref().is_err_and(|error| !is_surely_a_name(name, FileKind::Pem, error, context));
        let pem = Pem::of_file(self.label, if hidden { HIDDEN } else { name }, path, read);
        *(self.at)(target) = Some(Pem { at: value.span().unwrap_or_default(), ..pem });
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        match (self.at)(target) {
            Some(pem) => FieldValue { shown: format!("{:?}", pem.name), hidden: pem.compared() },
            None => FieldValue::plain("none"),
        }
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

const LISTED_TWICE: &str = "a secret is listed twice";

/// The label that every section with a private key has.
const KEY_LABEL: &[u8] = b"PRIVATE KEY-----";

/// Adds secrets that are new, and a warning for each other one.
fn add_secrets<P>(
    known: &mut Vec<Secret>,
    read: Vec<(P, Secret)>,
    twice: impl Fn(P) -> ValueError,
    errors: &mut Vec<ValueError>,
) {
    let mut seen: HashSet<Vec<u8>> = known.iter().map(|secret| secret.as_bytes().to_vec()).collect();
    for (place, secret) in read {
        if seen.insert(secret.as_bytes().to_vec()) {
            known.push(secret);
        } else if errors.len() < ERRORS_MAX {
            errors.push(ValueError { warning: true, ..twice(place) });
        }
    }
}

/// The warning about a file with a secret that everybody may read.
pub fn public(value: &Value, contents: &FileContents) -> Option<ValueError> {
    contents.is_public.then(|| {
        let what = "every user of this machine may read the file";
        ValueError { warning: true, ..ValueError::of(value, what, "run `chmod o-rwx` on it") }
    })
}

/// The warning about a file with a secret that others may change.
pub fn writable(value: &Value, contents: &FileContents) -> Option<ValueError> {
    contents.is_writable.then(|| {
        let what = "others than its owner may write the file, and add users with it";
        ValueError { warning: true, ..ValueError::of(value, what, "run `chmod go-w` on it") }
    })
}

fn md5_key(value: &Value) -> Result<Password, ValueError> {
    let text = super::text(value)?;
    let digits = text.strip_prefix("0x").unwrap_or(text);
    md5_digits(digits).map(Password::Md5Key).ok_or_else(|| {
        let fix = "write the 32 hex digits of MD5(user:realm:password), or use `password`";
        ValueError::of(value, "not an MD5 key", fix)
    })
}

fn password_bytes(password: &Password) -> &[u8] {
    match password {
        Password::Plain(text) => text.as_bytes(),
        Password::Md5Key(key) => key,
    }
}

/// What a file contains that a setting names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Secret,
    Password,
    Pem,
    Tokens,
    LiveKitKeys,
    Users,
}

/// Reads one file or several, and passes each to `each` until that breaks or there are enough errors. A file that every user may
/// read is warned about.
pub fn each_file<'a>(
    value: &'a Value,
    context: &ReadContext<'_>,
    kind: FileKind,
    mut each: impl FnMut(&'a Value, &'a str, FileContents, &mut Vec<ValueError>) -> ControlFlow<()>,
) -> Vec<ValueError> {
    let mut errors: Vec<ValueError> = Vec::new();
    let files: Vec<&Value> = match value {
        Value::Array(array) => array.iter().collect(),
        single => vec![single],
    };
    for one in files {
        if errors.iter().filter(|error| !error.warning).count() >= ERRORS_MAX {
            break;
        }
        match file(one, context, kind) {
            Ok((name, contents)) => {
                errors.extend(public(one, &contents));
                if each(one, name, contents, &mut errors).is_break() {
                    break;
                }
            }
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// The name of a file and what it contains.
pub fn file<'a>(
    value: &'a Value,
    context: &ReadContext<'_>,
    kind: FileKind,
) -> Result<(&'a str, FileContents), ValueError> {
    let name = file_name(value)?;
    let wrong =
        |what: &str, fix: &str, hidden| Err(ValueError { hidden, ..ValueError::of(value, what, fix) });
    (context.read)(Path::new(name)).map(|contents| (name, contents)).or_else(|error| {
        let (what, fix) = files::unreadable(&error);
        let hidden = !is_surely_a_name(name, kind, &error, context);
        wrong(&what, if hidden { OR_A_SECRET[kind as usize] } else { fix }, hidden)
    })
}

/// The name of a file.
fn file_name(value: &Value) -> Result<&str, ValueError> {
    let name = super::text(value).map_err(|error| ValueError { hidden: true, ..error })?;
    if name.contains("-----BEGIN") || name.contains(['\n', '\r']) {
        let (what, fix) = ("is not the name of a file", "write the text into a file, and its name here");
        return Err(ValueError { hidden: true, ..ValueError::of(value, what, fix) });
    }
    Ok(name)
}

/// How to fix a name that may be the secret itself.
const OR_A_SECRET: [&str; 6] = [
    "correct the path, or if this is the secret itself, move it to auth.secrets",
    "correct the path, or if this is the password itself, write it as `password`",
    "correct the path",
    "correct the path, or if this is a token itself, write it into a file, and its name here",
    "correct the path, or if this is an API key or a secret itself, write it into a file, and its name here",
    "correct the path, or if this is a user with its password, write it into a file, and its name here, or as [[auth.user]]",
];

/// Whether the name of a file that cannot be read may be shown.
fn is_surely_a_name(name: &str, kind: FileKind, error: &std::io::Error, context: &ReadContext<'_>) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    if !matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput) {
        return true;
    }
    // The names of certificates and keys have an extension; base64 has no dot.
    let has_extension = Path::new(name).extension().is_some_and(|extension| extension.len() <= 5);
    if kind == FileKind::Pem && has_extension && name.len() <= 255 {
        return true;
    }
    // A path begins with a folder that exists; a secret with slashes does not.
    let mut folders = Path::new(name).components();
    let first = match (folders.next(), folders.next()) {
        (Some(Component::RootDir), Some(Component::Normal(first))) => Path::new("/").join(first),
        (Some(first), _) => Path::new(first.as_os_str()).to_owned(),
        (None, _) => return false,
    };
    folders.next().is_some()
        && (context.read)(&first).is_err_and(|error| error.kind() == std::io::ErrorKind::IsADirectory)
        || name.starts_with("./")
        || name.starts_with("../")
}

fn add<X>(field: &mut Vec<X>, read: Result<X, ValueError>) -> Vec<ValueError> {
    match read {
        Ok(value) => {
            field.push(value);
            Vec::new()
        }
        Err(error) => vec![error],
    }
}
