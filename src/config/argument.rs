//! A setting among the arguments. What it does to the settings is in `overrides`.

use std::fmt;

/// A setting among the arguments of the program. `Debug` does not show its value, which may be a secret by mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct Argument {
    /// What was written before the value: `--set listen.udp` or `--relay-ports`.
    pub(super) flag: String,
    pub(super) key: String,
    /// `None` without an equals sign.
    pub(super) value: Option<String>,
}

impl Argument {
    /// An argument of `--set`, `key=value`; the loader reports one without a value.
    pub fn set(text: &str) -> Argument {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value)),
            None => (text, None),
        };
        Argument { flag: format!("--set {key}"), key: key.to_owned(), value: value.map(str::to_owned) }
    }

    /// Whether it is the setting `key`.
    pub fn sets(&self, key: &str) -> bool {
        self.key == key
    }

    /// A flag of its own for the setting `key`.
    pub fn flag(flag: &str, key: &'static str, value: impl Into<String>) -> Argument {
        Argument { flag: flag.to_owned(), key: key.to_owned(), value: Some(value.into()) }
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--set ***")
    }
}
