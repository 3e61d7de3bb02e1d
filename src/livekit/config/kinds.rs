//! The kinds of settings that only the sidecar has: URLs, and files with its secrets.
//!
//! No sentence quotes a value that may contain a secret.

use std::path::{Path, PathBuf};

use toml_edit::Value;

use crate::admin::client::token_in;
use crate::auth::{Password, Secret};
use crate::config::FileContents;
use crate::config::files;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, ValueError};
use crate::config::kinds::{FileKind, file, list, number, public, set, text};
use crate::config::livekit_keys::livekit_keys_in_file;
use crate::config::secrets::{WrongLine, password_in_file, secrets_in_file, shared_secret};
use crate::livekit::settings::{ApiKey, CredentialSettings, LiveKitSettings};

use super::urls::{BaseUrl, redis_url};

/// A URL of a server, without a path; kept without a final slash.
pub struct ServerUrl<T: 'static> {
    pub schemes: &'static [&'static str],
    /// Completes "write it like".
    pub example: &'static str,
    pub at: fn(&mut T) -> &mut String,
}

impl<T> SettingKind<T> for ServerUrl<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let url = text(value).and_then(|text| {
            let url = BaseUrl::parse(text, self.schemes).map(|url| url.to_string());
            url.map_err(|what| {
                let fix = format!("write it like \"{}\"", self.example);
                // It may have a password.
                ValueError { hidden: text.contains('@'), ..ValueError::of(value, what, fix) }
            })
        });
        set((self.at)(target), url)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.at)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        let schemes: Vec<_> = self.schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
        format!("URL with the scheme {}", schemes.join(" or "))
    }
}

/// The URL of a Redis server, without a password.
pub struct RedisUrl<T: 'static>(pub fn(&mut T) -> &mut String);

impl<T> SettingKind<T> for RedisUrl<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let url = text(value).and_then(|text| {
            redis_url(text).map_err(|(what, fix)| ValueError {
                hidden: text.contains('@'),
                ..ValueError::of(value, what, fix)
            })
        });
        set((self.0)(target), url)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.0)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "URL with the scheme `redis` or `rediss`".into()
    }
}

/// A number of 32 bits within a range that may include 0.
pub struct Count<T: 'static> {
    pub range: std::ops::RangeInclusive<u64>,
    pub at: fn(&mut T) -> &mut u32,
}

impl<T> SettingKind<T> for Count<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let read = number(value, &self.range).map(|n| u32::try_from(n).expect("the table bounds it"));
        set((self.at)(target), read)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        *(self.at)(to) = *(self.at)(from);
    }

    fn describe(&self) -> String {
        format!("number, {} to {}", self.range.start(), self.range.end())
    }
}

/// A path; relative ones start at the folder of the configuration. What is there is not read now.
pub struct PathName<T: 'static> {
    /// Whether it must be absolute.
    pub absolute: bool,
    pub at: fn(&mut T) -> &mut Option<PathBuf>,
}

impl<T> SettingKind<T> for PathName<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let read = text(value).and_then(|text| {
            let wrong = |what, fix| Err(ValueError::of(value, what, fix));
            match Path::new(text) {
                _ if text.is_empty() => wrong("an empty path", "write a path, or remove the line"),
                _ if text.contains(char::is_control) => {
                    wrong("contains a control character", "write the path again")
                }
                path if self.absolute && !path.is_absolute() => {
                    wrong("not an absolute path", "write it like \"/run/hairpin/control.sock\"")
                }
                path => Ok(Some(in_folder(path, context))),
            }
        });
        set((self.at)(target), read)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        path_value((self.at)(target).as_deref())
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        if self.absolute { "absolute path".into() } else { "path".into() }
    }
}

/// A PEM file that must be there and have what begins with this label. It is read again by whoever uses it.
pub struct PemPath<T: 'static> {
    /// The end of the label: `CERTIFICATE` or `PRIVATE KEY`.
    pub label: &'static str,
    pub at: fn(&mut T) -> &mut Option<PathBuf>,
}

impl<T> SettingKind<T> for PemPath<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::Pem) {
            Ok(read) => read,
            Err(error) => return vec![error],
        };
        let wanted = format!("{}-----", self.label);
        let has = |text: &[u8]| contents.bytes.windows(text.len()).any(|window| window == text);
        if !has(wanted.as_bytes()) || !has(b"-----BEGIN ") {
            let what = format!("the file has no {} in PEM", self.label.to_ascii_lowercase());
            return vec![ValueError::of(value, what, "name another file, or convert it with openssl")];
        }
        *(self.at)(target) = Some(in_folder(Path::new(name), context));
        // Certificates are no secret.
        public(value, &contents).filter(|_| has(b"PRIVATE KEY-----")).into_iter().collect()
    }

    fn value(&self, target: &mut T) -> FieldValue {
        path_value((self.at)(target).as_deref())
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// LiveKit's API keys, with the name of the file.
pub struct KeysFile<T: 'static>(pub fn(&mut T) -> &mut LiveKitSettings);

impl<T> SettingKind<T> for KeysFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::LiveKitKeys) {
            Ok(read) => read,
            Err(error) => return vec![error],
        };
        let settings = (self.0)(target);
        let read = livekit_keys_in_file(&contents.bytes);
        let keys = read.keys.into_iter().map(|(_, key)| ApiKey { key: key.name, secret: key.secret });
        settings.keys = keys.collect();
        settings.keys_file = Some(in_folder(Path::new(name), context));
        let about = |line: WrongLine| {
            ValueError::of(value, format!("{} {}", files::place(name, line.line), line.what), line.fix)
        };
        let wrong = read.wrong.into_iter().map(about);
        let weak = read.weak.into_iter().map(about).map(|weak| ValueError { warning: true, ..weak });
        public(value, &contents).into_iter().chain(wrong).chain(weak).collect()
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let keys = &(self.0)(target).keys;
        FieldValue::hidden(keys.iter().flat_map(|ApiKey { key, secret }| [key.as_bytes(), secret.as_bytes()]))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        let from = (self.0)(from).clone();
        let to = (self.0)(to);
        (to.keys, to.keys_file) = (from.keys, from.keys_file);
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// The shared secrets of a file, one per line, with its name.
pub struct SecretFile<T: 'static>(pub fn(&mut T) -> &mut CredentialSettings);

impl<T> SettingKind<T> for SecretFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::Secret) {
            Ok(read) => read,
            Err(error) => {
                let fix = "correct the path, or if this is the secret itself, move it to credentials.secret";
                return vec![with_fix(error, fix)];
            }
        };
        let settings = (self.0)(target);
        settings.secret_file = Some(in_folder(Path::new(name), context));
        let (secrets, wrong) = secrets_in_file(&contents.bytes);
        add_new(&mut settings.secrets, secrets.into_iter().map(|(_, secret)| secret));
        let wrong = wrong.into_iter().map(|wrong| {
            ValueError::of(value, format!("{} {}", files::place(name, wrong.line), wrong.what), wrong.fix)
        });
        public(value, &contents).into_iter().chain(wrong).collect()
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let CredentialSettings { secrets, secret_file, .. } = (self.0)(target);
        FieldValue::hidden(secrets.iter().filter(|_| secret_file.is_some()).map(Secret::as_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// The shared secret, written in the file.
pub struct SecretText<T: 'static>(pub fn(&mut T) -> &mut CredentialSettings);

impl<T> SettingKind<T> for SecretText<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (secrets, errors) = list(value, |one| {
            shared_secret(text(one)?).map_err(|(what, fix)| ValueError::of(one, what, fix))
        });
        add_new(&mut (self.0)(target).secrets, secrets.into_iter());
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let CredentialSettings { secrets, secret_file, .. } = (self.0)(target);
        FieldValue::hidden(secrets.iter().filter(|_| secret_file.is_none()).map(Secret::as_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "text, or a list".into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A file with a token or a password, alone on its line.
pub struct LoneSecret<T: 'static> {
    pub read: fn(&FileContents) -> Result<Secret, WrongLine>,
    pub at: fn(&mut T) -> &mut Option<Secret>,
}

/// The token of a relay's admin API: alone, or a line of the relay's own file.
pub fn relay_token(contents: &FileContents) -> Result<Secret, WrongLine> {
    let token = str::from_utf8(&contents.bytes).ok().and_then(token_in);
    token.map(Secret::new).ok_or_else(|| {
        let fix = "write the token, which is in a line NAME:admin:TOKEN of the relay's admin.tokens_file";
        WrongLine { line: None, what: "the file has no token".into(), fix: fix.into() }
    })
}

/// A password.
pub fn password(contents: &FileContents) -> Result<Secret, WrongLine> {
    match password_in_file(&contents.bytes) {
        Ok(Password::Plain(password)) => Ok(password),
        Ok(Password::Md5Key(_)) => unreachable!("a file has no keys"),
        Err(wrong) => Err(wrong),
    }
}

impl<T> SettingKind<T> for LoneSecret<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (name, contents) = match file(value, context, FileKind::Tokens) {
            Ok(read) => read,
            Err(error) => return vec![error],
        };
        let read = (self.read)(&contents).map(Some).map_err(|wrong| {
            ValueError::of(value, format!("{} {}", files::place(name, wrong.line), wrong.what), wrong.fix)
        });
        let errors = set((self.at)(target), read);
        public(value, &contents).into_iter().chain(errors).collect()
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::hidden((self.at)(target).iter().map(Secret::as_bytes))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// Adds secrets that are new.
pub fn add_new(known: &mut Vec<Secret>, new: impl Iterator<Item = Secret>) {
    for secret in new {
        if known.iter().all(|one| one.as_bytes() != secret.as_bytes()) {
            known.push(secret);
        }
    }
}

/// A path as the configuration means it.
fn in_folder(path: &Path, context: &ReadContext<'_>) -> PathBuf {
    context.folder.map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn path_value(path: Option<&Path>) -> FieldValue {
    path.map_or_else(|| FieldValue::plain("none"), |path| FieldValue::plain(format_args!("{path:?}")))
}

/// The error about a file that may be the secret itself, with the fix for that.
fn with_fix(error: ValueError, fix: &str) -> ValueError {
    match error.hidden {
        true => ValueError { fix: fix.into(), ..error },
        false => error,
    }
}
