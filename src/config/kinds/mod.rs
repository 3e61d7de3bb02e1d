//! The kinds of settings, which tables of settings of any type use. Here are plain values; `network` has addresses and ports,
//! `secret` has credentials and files, `users` files with users, `livekit` files with LiveKit's API keys, `admin` has those of `[admin]`, `listener` and `service` those of
//! `[[listener]]`.

mod account;
mod admin;
mod listener;
mod livekit;
mod network;
mod secret;
mod service;
mod users;

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use toml_edit::Value;

use super::kind::{FieldValue, ReadContext, SettingKind, Shape, ValueError};
use super::report::ERRORS_MAX;
use crate::plural::counted;

pub use account::Account;
pub use admin::{HOST_NAMES, SocketPath, TokensFile};
pub use listener::{ListenAddress, ListenTransports, PeerLists, PublicHost};
pub use livekit::LiveKitKeysFile;
pub use network::{
    ADDRESSES, CertificateNames, DomainName, EXTERNAL_ADDRESSES, FamilyAddress, Host, NAT64_PREFIXES,
    PEER_RANGES, PREFIXES, PortRange, Sockets, port_range,
};
pub use secret::{FileKind, Md5Key, PasswordFile, PasswordText, PemFile, SecretFiles, Secrets, file, public};
pub use service::{BackendServer, ProxyHeaderMode, ProxySources, RouteTable, SegmentSize, SpokenProtocols};
pub use users::{Placed, UsersFiles};

/// The longest lifetime: a year.
const LIFETIME_MAX: u64 = 31_536_000;

/// On or off.
pub struct Switch<T: 'static>(pub fn(&mut T) -> &mut bool);

impl<T> SettingKind<T> for Switch<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let read = value
            .as_bool()
            .ok_or_else(|| wrong_type(value, "true or false", "write true or false, without quotes"));
        set((self.0)(target), read)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain((self.0)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.0)(to).clone_from((self.0)(from));
    }

    fn describe(&self) -> String {
        "`true` or `false`".into()
    }

    fn shape(&self) -> Shape {
        Shape::Plain
    }
}

/// A whole number within a range.
pub struct Number<T: 'static> {
    pub range: RangeInclusive<u64>,
    pub at: fn(&mut T) -> &mut u64,
}

impl<T> SettingKind<T> for Number<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        set((self.at)(target), number(value, &self.range))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        format!("number, {} to {}", self.range.start(), self.range.end())
    }

    fn shape(&self) -> Shape {
        Shape::Plain
    }

    fn number(&self, target: &mut T) -> Option<u64> {
        Some(*(self.at)(target))
    }
}

/// A time. A value that an RFC advises against is used, with a warning.
pub struct Seconds<T: 'static> {
    pub advice: Advice,
    pub at: fn(&mut T) -> &mut u32,
}

/// What an RFC says about a lifetime.
#[derive(Clone, Copy)]
pub struct Advice {
    /// Whether this many seconds follow it.
    pub follows: fn(u32) -> bool,
    /// The warning for values that do not.
    pub says: &'static str,
}

impl Advice {
    /// No RFC says anything.
    pub const NONE: Advice = Advice { follows: |_| true, says: "" };
}

impl<T> SettingKind<T> for Seconds<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let read = number(value, &(1..=LIFETIME_MAX))
            .map(|seconds| u32::try_from(seconds).expect("a year of seconds fits"));
        let place = (self.at)(target);
        let mut errors = set(place, read);
        if errors.is_empty() && !(self.advice.follows)(*place) {
            let fix = "the relay uses this value, but clients rely on the RFC's";
            errors.push(ValueError { warning: true, ..ValueError::of(value, self.advice.says, fix) });
        }
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "seconds, from 1".into()
    }

    fn shape(&self) -> Shape {
        Shape::Plain
    }
}

/// Text with bounds on its number of characters.
pub struct Text<T: 'static> {
    pub range: RangeInclusive<usize>,
    pub at: fn(&mut T) -> &mut String,
}

impl<T> SettingKind<T> for Text<T> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let check = |text: &str| {
            let length = text.chars().count();
            if self.range.contains(&length) {
                return Ok(text.to_owned());
            }
            let fix = format!("write {} to {} characters", self.range.start(), self.range.end());
            Err(ValueError::of(value, format!("has {}", counted(length, "character")), fix))
        };
        set((self.at)(target), text(value).and_then(check))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(format_args!("{:?}", (self.at)(target)))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "text".into()
    }
}

/// One of several words.
pub struct Choice<T: 'static, X: 'static> {
    /// Each word, and what it stands for.
    pub words: &'static [(&'static str, X)],
    pub at: fn(&mut T) -> &mut X,
}

impl<T, X: Copy + PartialEq + Sync> SettingKind<T> for Choice<T, X> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let find = |text: &str| {
            let found = self.words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
            let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
            found.ok_or_else(|| {
                ValueError::of(value, "unknown value", format!("use one of {}", words.join(", ")))
            })
        };
        set((self.at)(target), text(value).and_then(find))
    }

    fn value(&self, target: &mut T) -> FieldValue {
        let meaning = *(self.at)(target);
        let word = self.words.iter().find(|(_, one)| *one == meaning).map_or("", |(word, _)| *word);
        FieldValue::plain(format_args!("\"{word}\""))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        *(self.at)(to) = *(self.at)(from);
    }

    fn describe(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
        format!("one of {}", words.join(", "))
    }
}

/// A list.
pub struct List<T: 'static, X: 'static> {
    /// What it consists of.
    pub of: Elements<X>,
    pub at: fn(&mut T) -> &mut Vec<X>,
}

/// What a list consists of.
pub struct Elements<X> {
    /// Reads one.
    pub read: fn(&Value) -> Result<X, ValueError>,
    /// Whether it is a mistake to list one twice.
    pub differ: bool,
    /// Their name on the reference page.
    pub name: &'static str,
}

impl<T, X: Clone + Display> SettingKind<T> for List<T, X> {
    fn read(&self, target: &mut T, value: &Value, _: &ReadContext<'_>) -> Vec<ValueError> {
        let (items, errors) = match self.of.differ {
            true => set_of(value, self.of.read),
            false => list(value, self.of.read),
        };
        *(self.at)(target) = items;
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::list((self.at)(target))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        format!("list of {}", self.of.name)
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// Sets a field to what was read, or returns the error.
pub fn set<X>(field: &mut X, read: Result<X, ValueError>) -> Vec<ValueError> {
    match read {
        Ok(value) => {
            *field = value;
            Vec::new()
        }
        Err(error) => vec![error],
    }
}

/// Reads every element of a list; a single value is a list of one.
pub fn list<X>(value: &Value, read: impl Fn(&Value) -> Result<X, ValueError>) -> (Vec<X>, Vec<ValueError>) {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    let mut element = |element| match read(element) {
        Ok(item) => items.push(item),
        Err(error) if errors.len() < ERRORS_MAX => errors.push(error),
        Err(_) => {}
    };
    match value {
        Value::Array(array) => array.iter().for_each(&mut element),
        single => element(single),
    }
    (items, errors)
}

/// Reads a list whose elements must differ.
pub fn set_of<X: Display>(
    value: &Value,
    read: impl Fn(&Value) -> Result<X, ValueError>,
) -> (Vec<X>, Vec<ValueError>) {
    let (items, mut errors) = list(value, read);
    let mut seen = HashSet::new();
    for item in &items {
        if !seen.insert(item.to_string()) {
            errors.push(ValueError::of(value, format!("{item} is listed twice"), "remove one"));
        }
    }
    (items, errors)
}

pub fn number(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, ValueError> {
    let Some(n) = value.as_integer() else {
        return Err(wrong_type(value, "a number", "write a whole number, without quotes"));
    };
    u64::try_from(n).ok().filter(|n| range.contains(n)).ok_or_else(|| {
        let fix = format!("write a number from {} to {}", range.start(), range.end());
        ValueError::of(value, "out of range", fix)
    })
}

pub fn text(value: &Value) -> Result<&str, ValueError> {
    value.as_str().ok_or_else(|| wrong_type(value, "text", "write it in quotes"))
}

pub fn wrong_type(value: &Value, expected: &str, fix: &str) -> ValueError {
    let found = match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    };
    ValueError {
        wrong_type: true,
        ..ValueError::of(value, format!("expected {expected}, found {found}"), fix)
    }
}
