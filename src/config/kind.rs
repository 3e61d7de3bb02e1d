//! What a row of the table of settings is, and [`SettingKind`]: how its value is read. The kinds themselves are in `kinds`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use toml_edit::{TableLike, Value};

use super::argument::Argument;
use crate::turn::peers::Cidr;

/// One setting of a `T`: a row of the table.
pub struct Setting<T: 'static> {
    /// `section.key`, or only `key` at the top of the file and in repeated sections.
    pub key: &'static str,
    /// What values it takes and where they go.
    pub kind: &'static dyn SettingKind<T>,
    /// The value if the file does not have the setting, as TOML; empty if there is none.
    pub default: &'static str,
    /// What the sample shows where the default would not help; empty to show the default.
    pub example: &'static str,
    /// What the setting does, in Markdown.
    pub doc: &'static str,
    /// What a reload makes of a changed value.
    pub reload: Reload,
    /// Its names in `turnserver.conf`.
    pub coturn: &'static [&'static str],
}

/// What a reload makes of a changed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It holds from now on, also for running allocations and connections.
    Live,
    /// It holds for new allocations; running ones keep what they have.
    NewAllocations,
    /// It holds after a restart; the reload says so.
    Restart,
}

impl Reload {
    /// Completes "a changed value holds ...".
    pub fn describe(self) -> &'static str {
        match self {
            Reload::Live => "at once",
            Reload::NewAllocations => "for new allocations",
            Reload::Restart => "after a restart",
        }
    }
}

/// A kind of setting: how a TOML value is read, and into which field of a `T`.
pub trait SettingKind<T>: Sync {
    /// Reads `value` into `target`. A wrong value, or a wrong element of a list, is left out and returned.
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError>;

    /// Reads a section, or keys with dots, as [`read`](Self::read) does an inline table. `None`: its values are no tables.
    fn read_section(
        &self,
        _target: &mut T,
        _table: &dyn TableLike,
        _at: Range<usize>,
        _context: &ReadContext<'_>,
    ) -> Option<Vec<ValueError>> {
        None
    }

    /// The field's value, to compare it with another.
    fn value(&self, target: &mut T) -> FieldValue;

    /// How the field's value differs, if it does: both values, or only that it has changed if they must not be shown.
    fn difference(&self, old: &mut T, new: &mut T) -> Option<String> {
        let (before, after) = (self.value(old), self.value(new));
        (before != after).then(|| difference(&before, &after))
    }

    /// Copies the field's value.
    fn copy(&self, from: &mut T, to: &mut T);

    /// The values it takes, for the reference page.
    fn describe(&self) -> String;

    /// What its values look like in arguments and in the environment.
    fn shape(&self) -> Shape {
        Shape::Text
    }

    /// Whether its values must never be shown.
    fn is_secret(&self) -> bool {
        false
    }

    /// The field's value, if this kind is a plain number. It takes `&mut` because a kind knows its field only that way.
    fn number(&self, _target: &mut T) -> Option<u64> {
        None
    }
}

/// The value of a field as reloads compare and show it.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldValue {
    /// The value as TOML; empty if it must not be shown.
    pub shown: String,
    /// What is compared and never shown: secrets, and contents of files.
    pub hidden: Vec<u8>,
}

impl FieldValue {
    /// A value that may be shown.
    pub fn plain(shown: impl fmt::Display) -> FieldValue {
        FieldValue { shown: shown.to_string(), hidden: Vec::new() }
    }

    /// A list whose elements are texts in TOML.
    pub fn list<X: fmt::Display>(items: &[X]) -> FieldValue {
        let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
        FieldValue::plain(format_args!("[{}]", items.join(", ")))
    }

    /// Values that must not be shown.
    pub fn hidden<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> FieldValue {
        let mut hidden = Vec::new();
        for part in parts {
            hidden.extend(part.len().to_le_bytes());
            hidden.extend(part);
        }
        FieldValue { shown: String::new(), hidden }
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.shown.is_empty() { "***" } else { &self.shown })
    }
}

/// The characters of a value that are shown: a list may be long.
const SHOWN: usize = 200;

fn difference(before: &FieldValue, after: &FieldValue) -> String {
    if before.shown == after.shown {
        return "changed".into();
    }
    format!("{} -> {}", shortened(&before.shown), shortened(&after.shown))
}

/// The beginning of a long text.
pub fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// What a value looks like in arguments and in the environment, where text needs no quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A number, `true` or `false`.
    Plain,
    /// A single text.
    Text,
    /// A list of texts.
    List,
}

/// The world outside the file, passed in so that reading settings is a function of its inputs.
#[derive(Clone, Copy)]
pub struct ReadContext<'a> {
    /// What packets to this machine may be addressed to, as the kernel's local routing table has it, and whether ranges were
    /// widened because there are too many.
    pub own: &'a dyn Fn() -> (Vec<Cidr>, bool),
    /// The addresses to relay with if none is configured.
    pub discovered: &'a dyn Fn() -> Vec<IpAddr>,
    /// Whether this machine has an address.
    pub has_address: &'a dyn Fn(IpAddr) -> bool,
    /// The text of /etc/hosts, bounded; empty if there is none.
    pub hosts: &'a dyn Fn() -> String,
    /// Whether this machine has a user of this name or number.
    pub has_user: &'a dyn Fn(&str) -> bool,
    /// Reads a file; relative paths start at the folder of the configuration.
    pub read: &'a dyn Fn(&Path) -> io::Result<FileContents>,
    /// That folder.
    pub folder: Option<&'a Path>,
    /// Reads a file that the environment or an argument names; relative paths start at the working directory.
    pub read_here: &'a dyn Fn(&Path) -> io::Result<FileContents>,
    /// The names of the environment variables that begin with `HAIRPIN_`.
    pub variables: &'a dyn Fn() -> Vec<String>,
    /// The settings among the arguments.
    pub arguments: &'a [Argument],
    /// Reads an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// Unix seconds, to judge the validity of certificates.
    pub now: u64,
    /// Whether a shared secret and a certificate are generated where the configuration has none.
    pub generates: bool,
    /// Whether certificates are not judged here: a running relay keeps its earlier ones where new ones cannot be used.
    pub keeps_certificates: bool,
}

/// A file that was read.
#[derive(Clone, Default)]
pub struct FileContents {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether every user of the machine may read it.
    pub is_public: bool,
    /// Whether others than its owner may write it.
    pub is_writable: bool,
}

impl fmt::Debug for FileContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for FileContents {
    fn from(text: &str) -> FileContents {
        FileContents { bytes: text.into(), ..FileContents::default() }
    }
}

impl ReadContext<'static> {
    /// Has every address and no file. It reads the table's own defaults.
    pub const NONE: ReadContext<'static> = ReadContext {
        own: &|| (Vec::new(), false),
        discovered: &Vec::new,
        has_address: &|_| true,
        hosts: &String::new,
        has_user: &|_| true,
        read: &|_| Err(io::ErrorKind::Unsupported.into()),
        folder: None,
        read_here: &|_| Err(io::ErrorKind::Unsupported.into()),
        variables: &Vec::new,
        arguments: &[],
        environment: &|_| None,
        now: 0,
        generates: false,
        keeps_certificates: false,
    };
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    pub at: Range<usize>,
    /// The key inside of the setting, such as `.pass`, if the value is a table.
    pub inside: String,
    /// Whether `at` has a key, which is shown already.
    pub is_key: bool,
    pub what: String,
    pub fix: String,
    /// Whether the value has the wrong type. In `[auth]` it may then be a secret in the wrong place.
    pub wrong_type: bool,
    /// Whether the value may be a secret, although its setting does not take one.
    pub hidden: bool,
    /// Whether the relay runs nevertheless.
    pub warning: bool,
}

impl ValueError {
    /// An error that concerns all of `value`.
    pub fn of(value: &Value, what: impl Into<String>, fix: impl Into<String>) -> ValueError {
        ValueError::at(value.span().unwrap_or_default(), what, fix)
    }

    /// An error at these bytes of the file.
    pub fn at(at: Range<usize>, what: impl Into<String>, fix: impl Into<String>) -> ValueError {
        ValueError {
            at,
            inside: String::new(),
            is_key: false,
            what: what.into(),
            fix: fix.into(),
            wrong_type: false,
            hidden: false,
            warning: false,
        }
    }
}
