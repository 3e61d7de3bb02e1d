//! What is wrong with a configuration, one line each, with the place and the fix.

use std::fmt;

/// One mistake, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file's name, or `environment`.
    pub file: String,
    /// The line in it, if it is about one.
    pub line: Option<usize>,
    /// The setting.
    pub key: String,
    /// Its value as it was written, `***` for a secret; empty if it is not about one.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
    /// It runs all the same.
    pub warning: bool,
}

/// The most characters of a value that are shown.
const SHOWN: usize = 60;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.warning {
            write!(f, " warning:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
            if !self.value.is_empty() {
                write!(f, " = {}", shown(&self.value))?;
            }
            write!(f, ":")?;
        }
        write!(f, " {}; {}", self.what, self.fix)
    }
}

/// A value on one line, safe for a terminal, not too long.
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
            fix: "write it the other way round".into(),
            warning: false,
        }
    }

    #[test]
    fn a_mistake_is_one_line_with_place_and_fix() {
        assert_eq!(
            finding("\"9-8\"").to_string(),
            "hairpin.toml:7: relay.ports = \"9-8\": the range is reversed; write it the other way round"
        );
    }

    #[test]
    fn long_values_line_ends_and_escapes_do_not_get_out() {
        let line = finding(&format!("[\n  \"\u{1b}[31m{}\"\n]", "x".repeat(200))).to_string();
        assert!(!line.contains(['\n', '\u{1b}']));
        assert!(line.len() < 160, "{line}");
    }
}
