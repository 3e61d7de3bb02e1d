//! Secrets, passwords and the files that hold them or keys.

use std::path::Path;

use toml_edit::Value;

use super::{list, set, text};
use crate::auth::{Password, Secret};
use crate::config::kind::{ReadContext, SettingKind, ValueError};
use crate::config::tls::Pem;

/// The fewest characters of a shared secret: whoever has one credential can try guesses without asking the relay.
const SECRET_MIN: usize = 16;

/// Shared secrets, written in the file.
pub struct Secrets<T: 'static>(pub fn(&mut T) -> &mut Vec<Secret>);

impl<T> SettingKind<T> for Secrets<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (secrets, errors) = list(value, |one| {
            shared_secret(text(one)?).map_err(|(what, fix)| ValueError::of(one, what, fix))
        });
        (self.0)(target).extend(secrets);
        errors
    }

    fn describe(&self) -> String {
        "list of secrets".into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// Files with shared secrets, one per line.
pub struct SecretFiles<T: 'static>(pub fn(&mut T) -> &mut Vec<Secret>);

impl<T> SettingKind<T> for SecretFiles<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let (secrets, errors) = list(value, |one| secret_file(one, context));
        (self.0)(target).extend(secrets.into_iter().flatten());
        errors
    }

    fn describe(&self) -> String {
        "list of files".into()
    }
}

/// A password, written in the file. The three kinds of passwords add to a list, so that a user with two of them is
/// noticed.
pub struct PasswordText<T: 'static>(pub fn(&mut T) -> &mut Vec<Password>);

impl<T> SettingKind<T> for PasswordText<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        add((self.0)(target), text(value).and_then(|text| password(value, text, "the password is empty")))
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
        let read = file(value, context).and_then(|text| {
            // Editors end a file with one line ending; any other white space may belong to the password.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            password(value, text.strip_suffix('\r').unwrap_or(text), "the file is empty")
        });
        add((self.0)(target), read)
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

    fn describe(&self) -> String {
        "32 hex digits".into()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A PEM file with certificates or a private key.
pub struct PemFile<T: 'static>(pub fn(&mut T) -> &mut Option<Pem>);

impl<T> SettingKind<T> for PemFile<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.0)(target), file(value, context).map(|text| Some(Pem::new(text))))
    }

    fn describe(&self) -> String {
        "file".into()
    }
}

/// A shared secret, or what is wrong with it and how to fix that.
pub fn shared_secret(text: &str) -> Result<Secret, (String, String)> {
    let length = text.chars().count();
    if length < SECRET_MIN {
        let what = format!("a secret of {length} characters can be guessed");
        let fix = format!("use at least {SECRET_MIN}; `openssl rand -base64 32` generates a good one");
        return Err((what, fix));
    }
    Ok(Secret::new(text))
}

fn secret_file(value: &Value, context: &ReadContext<'_>) -> Result<Vec<Secret>, ValueError> {
    let text = file(value, context)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<Secret> = lines
        .map(shared_secret)
        .collect::<Result<_, _>>()
        .map_err(|(what, fix)| ValueError::of(value, what, fix))?;
    if secrets.is_empty() {
        let fix = "write a secret into it; `openssl rand -base64 32` generates one";
        return Err(ValueError::of(value, "the file is empty", fix));
    }
    Ok(secrets)
}

fn password(value: &Value, text: &str, if_empty: &str) -> Result<Password, ValueError> {
    if text.is_empty() {
        return Err(ValueError::of(value, if_empty, "write the password"));
    }
    Ok(Password::Plain(Secret::new(text)))
}

fn md5_key(value: &Value) -> Result<Password, ValueError> {
    let text = text(value)?;
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let key = u128::from_str_radix(digits, 16).ok();
    // from_str_radix accepts a sign, and any number of digits.
    let key = key.filter(|_| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    key.map(|key| Password::Md5Key(key.to_be_bytes())).ok_or_else(|| {
        let fix = "write the 32 hex digits of MD5(user:realm:password), or use `password`";
        ValueError::of(value, "not an MD5 key", fix)
    })
}

fn file(value: &Value, context: &ReadContext<'_>) -> Result<String, ValueError> {
    (context.read)(Path::new(text(value)?)).map_err(|error| {
        let fix = "correct the path, or allow the user that runs hairpin to read the file";
        ValueError::of(value, format!("cannot be read: {error}"), fix)
    })
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
