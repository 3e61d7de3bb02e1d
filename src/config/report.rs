//! What is wrong with a configuration: one line per mistake, with its place and the fix.

use std::fmt;

use crate::shown as masking;

/// One mistake, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file's name, or `environment`.
    pub file: String,
    /// The line in it, if it concerns one.
    pub line: Option<usize>,
    /// The setting.
    pub key: String,
    /// Its value as written, `***` for a secret; empty if it does not concern one.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub fix: String,
    /// Whether the relay runs nevertheless.
    pub warning: bool,
}

impl Finding {
    /// A mistake in a file that concerns no single setting.
    pub fn of_file(
        file: impl Into<String>,
        line: Option<usize>,
        what: String,
        fix: impl Into<String>,
    ) -> Finding {
        let (key, value) = (String::new(), String::new());
        Finding { file: file.into(), line, key, value, what, fix: fix.into(), warning: false }
    }
}

/// The most characters of a value that are shown.
const SHOWN: usize = 60;

/// Something that is no mistake, but may not be what it seems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(pub Finding);

/// Settings that do not fit together.
pub struct Disagreement {
    /// The settings concerned; the first of them that the file has is reported.
    pub keys: Vec<&'static str>,
    pub what: String,
    pub fix: String,
    /// Whether the relay runs nevertheless.
    pub warning: bool,
}

/// What is shown instead of a secret.
pub const HIDDEN: &str = "***";

/// The most errors about one value that are reported: a list may be long.
pub const ERRORS_MAX: usize = 100;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, if self.warning { " warning:" } else { "" })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, " note:")
    }
}

/// Whether a setting may name peers, clients, or proxies.
pub fn names_others(key: &str) -> bool {
    key.contains("peers") || key.ends_with("exempt_sources") || key.ends_with("proxy_from")
}

impl Finding {
    /// The same for the log, where addresses of others may have to be masked.
    pub fn logged(&self) -> String {
        if !names_others(&self.key) {
            return self.to_string();
        }
        // Before a long value is cut off, which could be inside of an address
        let masked = |text: &str| masking::text(text).into_owned();
        let (value, what, fix) = (masked(&self.value), masked(&self.what), masked(&self.fix));
        Finding { value, what, fix, ..self.clone() }.to_string()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, "{kind}")?;
        if !self.key.is_empty() {
            write!(f, " {}", shown(&self.key))?;
            if !self.value.is_empty() {
                write!(f, " = {}", shown(&self.value))?;
            }
            write!(f, ":")?;
        }
        write!(f, " {}; {}", self.what, self.fix)
    }
}

impl Disagreement {
    /// What keeps the relay from running.
    pub fn mistake(keys: &[&'static str], what: impl Into<String>, fix: impl Into<String>) -> Disagreement {
        Disagreement { keys: keys.to_vec(), what: what.into(), fix: fix.into(), warning: false }
    }

    /// What the relay runs with nevertheless.
    pub fn warning(keys: &[&'static str], what: impl Into<String>, fix: impl Into<String>) -> Disagreement {
        Disagreement { warning: true, ..Disagreement::mistake(keys, what, fix) }
    }
}

/// A value on one line, without control characters and not too long.
fn shown(value: &str) -> String {
    let words: Vec<&str> =
        value.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(value: &str) -> Finding {
        Finding {
            file: "hairpin.toml".into(),
            line: Some(7),
            key: "relay.ports".into(),
            value: value.into(),
            what: "the range is reversed".into(),
            fix: "write \"8-9\"".into(),
            warning: false,
        }
    }

    #[test]
    fn a_mistake_is_one_line_with_place_and_fix() {
        assert_eq!(
            finding("\"9-8\"").to_string(),
            "hairpin.toml:7: relay.ports = \"9-8\": the range is reversed; write \"8-9\""
        );
    }

    #[test]
    fn values_are_shortened_and_lose_line_breaks_and_escapes() {
        let line = finding(&format!("[\n  \"\u{1b}[31m{}\"\n]", "x".repeat(200))).to_string();
        assert!(!line.contains(['\n', '\u{1b}']));
        assert!(line.len() < 160, "{line}");
    }
}
