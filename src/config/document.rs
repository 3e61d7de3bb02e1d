//! Reads a TOML file by tables of settings, those of the relay or of the sidecar, and knows where each setting is in it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, TableLike, TomlError};

use super::kind::{ReadContext, Setting};
use super::report::{Disagreement, Finding, HIDDEN};
use super::secrets::shared_secret;
use super::section::{About, RepeatedSection, Source, key_span};
use crate::auth::Secret;
use crate::plural::counted;
use crate::text;

/// Everything that a file may set.
pub struct Tables<T: 'static> {
    /// The sections in the order of the reference page, each with its introduction. The empty name is the top of the file.
    pub sections: &'static [(&'static str, &'static str)],
    /// Every setting, in the order of the reference page.
    pub settings: &'static [Setting<T>],
    /// Every section that may be repeated.
    pub repeated: &'static [RepeatedSection<T>],
    pub about: About,
}

/// The most findings of one kind that are reported: a file may be long.
pub const FINDINGS_MAX: usize = 1000;

/// A file that is read, and what was found in it.
pub struct FileReading<'a, T: 'static> {
    tables: &'static Tables<T>,
    pub source: Source<'a>,
    /// The bytes of each setting that the file has.
    pub places: BTreeMap<&'static str, Range<usize>>,
    pub findings: Vec<Finding>,
    /// Whether the file itself contains a secret.
    pub has_secret: bool,
}

impl<T> Tables<T> {
    /// The file called `name`. `lines` are where the lines of its text begin.
    pub fn source<'a>(
        &self,
        name: &'a str,
        text: &'a str,
        lines: &'a [usize],
        context: &'a ReadContext<'a>,
    ) -> Source<'a> {
        Source { name, text, lines, context, about: self.about }
    }

    /// Sets what has a default.
    pub fn defaults(&self, target: &mut T) {
        for setting in self.settings.iter().filter(|setting| !setting.default.is_empty()) {
            let value = setting.default.parse().expect("a default of the table is TOML");
            let errors = setting.kind.read(target, &value, &ReadContext::NONE);
            assert!(errors.is_empty(), "the default of {} is refused: {errors:?}", setting.key);
        }
    }

    fn is_secret(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key && setting.kind.is_secret())
    }
}

impl<'a, T> FileReading<'a, T> {
    pub fn new(tables: &'static Tables<T>, source: Source<'a>) -> FileReading<'a, T> {
        FileReading { tables, source, places: BTreeMap::new(), findings: Vec::new(), has_secret: false }
    }

    /// Reads the whole file. What is not used may be wrong.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn read(&mut self, target: &mut T, is_used: &dyn Fn(&str) -> bool) -> Result<(), Vec<Finding>> {
        match Document::parse(self.source.text) {
            Ok(document) => {
                self.section(target, document.as_table(), "", is_used);
                Ok(())
            }
            Err(error) => Err(vec![self.not_toml(&error)]),
        }
    }

    /// Reads the top of the file, whose `name` is empty, or one of its sections.
    fn section(&mut self, target: &mut T, table: &dyn TableLike, name: &str, is_used: &dyn Fn(&str) -> bool) {
        let (source, tables) = (self.source, self.tables);
        for (key, item) in table.iter() {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            let span = item.span().unwrap_or_default();
            if let Some(setting) = tables.settings.iter().find(|setting| setting.key == full) {
                self.places.insert(setting.key, span);
                self.has_secret |= setting.kind.is_secret();
                if is_used(setting.key) {
                    self.findings.extend(source.setting(setting, setting.key, target, item));
                }
            } else if let Some(repeated) = tables.repeated.iter().find(|repeated| repeated.key == full) {
                self.places.insert(repeated.key, span);
                self.has_secret |= repeated.has_secret(item);
                self.findings.extend(repeated.read(target, item, source));
            } else if tables.sections.iter().any(|(section, _)| *section == full) {
                match item.as_table_like() {
                    Some(inner) => self.section(target, inner, &full, is_used),
                    None => {
                        // The value is not shown: it may be a secret.
                        let fix = format!("write [{full}] and its settings below");
                        let (at, what) = (key_span(table, key), "expected a section, found a value");
                        self.findings.push(source.finding(&full, at, "", what, fix));
                    }
                }
            } else {
                let settings = tables.settings.iter().map(|setting| (setting.key, setting.coturn));
                let repeated = tables.repeated.iter().map(|repeated| (repeated.key, repeated.coturn));
                let sections = tables.sections.iter().map(|(section, _)| (*section, [].as_slice()));
                let known = settings.chain(repeated).chain(sections);
                self.findings.push(source.unknown(&full, key_span(table, key), known));
            }
        }
    }

    /// What is wrong with a file that is not TOML. The parser's messages are fixed texts, but its `Display` quotes the line.
    fn not_toml(&self, error: &TomlError) -> Finding {
        let what = error.message().lines().next().unwrap_or("cannot be parsed");
        let span = error.span().unwrap_or_default();
        let line = self.source.line(span.start);
        let (start, end) = (self.source.lines[line - 1], self.source.lines.get(line).copied());
        let text = &self.source.text[start..end.unwrap_or(self.source.text.len())];
        let invisible = text::invisible(text.trim_end_matches(['\r', '\n']));
        let (hint, fix) = match invisible {
            Some((_, name)) => {
                (format!(" (the line contains {name})"), "write the line again, without that character")
            }
            None => (String::new(), "correct the syntax"),
        };
        // At the end of an empty file the span is empty.
        let at = span.start..span.end.max(1);
        self.source.finding("", at, "", format!("not valid TOML: {what}{hint}"), fix)
    }

    /// Adds the shared secrets of the environment. `key` is the setting that can hold any secret.
    pub fn secrets_of_environment(&mut self, name: &str, key: &str, secrets: &mut Vec<Secret>) {
        let Some(variable) = (self.source.context.environment)(name) else { return };
        let nowhere = Source { name: "environment", text: "", lines: &[0], ..self.source };
        let finding = |what: &str, fix: &str| nowhere.finding(name, 0..0, HIDDEN, what, fix);
        let Some(variable) = variable.to_str() else {
            let (what, fix) =
                ("the value is not UTF-8", "set it again; `openssl rand -base64 32` generates a good secret");
            return self.findings.push(finding(what, fix));
        };
        for text in variable.split([',', '\n']).map(str::trim_ascii).filter(|text| !text.is_empty()) {
            if text.starts_with('#') {
                let what = "a secret begins with #, as comments of secret files do";
                let fix = format!("remove it, or if it is a secret, move it to {key}");
                self.findings.push(finding(what, &fix));
                continue;
            }
            match shared_secret(text) {
                Ok(secret) if secrets.iter().any(|known| known.as_bytes() == secret.as_bytes()) => {
                    let twice =
                        finding("a secret is listed twice, here or in the configuration", "remove one");
                    self.findings.push(Finding { warning: true, ..twice });
                }
                Ok(secret) => secrets.push(secret),
                Err((what, fix)) => self.findings.push(finding(&what, &fix)),
            }
        }
    }

    /// Reports settings that disagree, at the first of them that the file has. Where one of them could not be read, only that is
    /// reported.
    pub fn disagreement(&mut self, disagreement: Disagreement) {
        let Disagreement { keys, what, fix, warning } = disagreement;
        if !self.is_mistaken(&keys) {
            let finding = self.place(&keys, what, fix);
            self.findings.push(Finding { warning, ..finding });
        }
    }

    /// Whether one of these settings could not be read.
    pub fn is_mistaken(&self, keys: &[&'static str]) -> bool {
        let concerns = |finding: &Finding, key: &str| {
            !finding.warning
                && finding.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.findings.iter().any(|finding| keys.iter().any(|key| concerns(finding, key)))
    }

    /// The first of some settings that the file has, with its bytes.
    pub fn first(&self, keys: &[&'static str]) -> (&'static str, Range<usize>) {
        let place = keys.iter().find_map(|key| Some((*key, self.places.get(key)?.clone())));
        place.unwrap_or((keys[0], 0..0))
    }

    /// What is said about the first of some settings that the file has.
    pub fn place(&self, keys: &[&'static str], what: String, fix: String) -> Finding {
        let (key, span) = self.first(keys);
        let text = self.source.text.get(span.clone()).unwrap_or_default();
        // An empty list shows nothing, and explains much.
        let is_secret = self.tables.is_secret(key) && text != "[]";
        let is_repeated = self.tables.repeated.iter().any(|repeated| repeated.key == key);
        let is_hidden = is_secret || is_repeated && self.source.about.is_guarded(key);
        let shown = if is_hidden { HIDDEN } else { text };
        let shown = if span.is_empty() { "" } else { shown };
        self.source.finding(key, span, shown, what, fix)
    }
}

/// Sorts findings by line, and separates warnings from mistakes.
///
/// # Errors
/// There are mistakes.
pub fn judged(mut findings: Vec<Finding>) -> Result<Vec<Finding>, Vec<Finding>> {
    findings.sort_by_key(|finding| finding.line);
    let (warnings, mistakes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.warning);
    match mistakes.is_empty() {
        true => Ok(bounded(warnings, "warning")),
        false => Err(bounded(mistakes, "mistake")),
    }
}

/// The first findings, and how many more there are.
fn bounded(mut findings: Vec<Finding>, what: &str) -> Vec<Finding> {
    let Some(more) = findings.len().checked_sub(FINDINGS_MAX).filter(|more| *more > 0) else {
        return findings;
    };
    findings.truncate(FINDINGS_MAX);
    if let Some(last) = findings.last().cloned() {
        let what = format!("there {} {} more", if more == 1 { "is" } else { "are" }, counted(more, what));
        let fix = "look at those above first".to_owned();
        findings.push(Finding { key: String::new(), value: String::new(), line: None, what, fix, ..last });
    }
    findings
}
