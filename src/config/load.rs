//! From the text of a configuration file to settings. Every mistake is reported, not only the first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, TableLike};

use super::checks;
use super::kind::ReadContext;
use super::listener_checks;
use super::overrides::Overrides;
use super::own_addresses;
use super::report::{Disagreement, Finding, HIDDEN, Note};
use super::secrets::shared_secret;
use super::section::{Source, key_span, line_starts};
use super::server_certificate::{self, Wrong};
use super::settings::Settings;
use super::table::{REPEATED, SECRET_VARIABLE, SECTIONS, SETTINGS};
use crate::plural::counted;
use crate::text;

/// Settings that can be used, and the warnings about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is unusual, but runs.
    pub warnings: Vec<Finding>,
    /// What does less than it seems to.
    pub notes: Vec<Note>,
    /// The settings of arguments and the environment, and what of the file they replace.
    pub overrides: Vec<Note>,
    /// Whether the file itself contains a secret.
    pub has_secret: bool,
}

/// Reads `text`, the configuration called `file`, and what arguments and the environment set instead.
///
/// # Errors
///
/// Returns every mistake in the file, the arguments and the environment, sorted by line.
pub fn load(file: &str, text: &str, context: &ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let lines = line_starts(text);
    let mut loading = Loading::new(Source { name: file, text, lines: &lines, context });
    let mut settings = Settings::default();
    match Document::parse(text) {
        Ok(document) => loading.section(&mut settings, document.as_table(), ""),
        Err(error) => return Err(vec![loading.not_toml(&error)]),
    }
    loading.overrides(&mut settings);
    loading.environment(&mut settings);
    loading.only_listed(&mut settings);
    // The default listens for TLS, which needs a certificate. A file that does not mention TLS turns it off.
    if !["listen.tls", "tls.cert", "tls.key", "tls.certificate"]
        .iter()
        .any(|key| loading.places.contains_key(key))
    {
        settings.listen.tls.clear();
    }
    let agreed = checks::agreement(&settings, context.generates);
    let agreed = agreed.into_iter().chain(own_addresses::agreement(&settings, context));
    let agreed = agreed.chain(checks::missing(&settings, context.has_address));
    let credentials = checks::credentials(&settings).filter(|_| !context.generates);
    for disagreement in agreed.chain(credentials) {
        loading.disagreement(disagreement);
    }
    loading.findings.extend(listener_checks::agreement(&settings, loading.source));
    if !context.keeps_certificates {
        loading.certificates(&settings);
    }
    loading.note(&settings);
    loading.finish(settings)
}

/// The settings of a start without a file: the defaults, and what arguments and the environment set.
///
/// # Errors
///
/// Returns every mistake in the arguments and in the environment.
pub fn without_file(context: &ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading::new(Source { name: "arguments", text: "", lines: &[0], context });
    let mut settings = Settings::default();
    loading.overrides(&mut settings);
    loading.environment(&mut settings);
    // What is missing is generated
    let agreed = checks::agreement(&settings, true);
    let agreed = agreed.into_iter().chain(own_addresses::agreement(&settings, context));
    for disagreement in agreed.chain(checks::missing(&settings, context.has_address)) {
        loading.disagreement(disagreement);
    }
    loading.note(&settings);
    loading.finish(settings)
}

/// The most findings of one kind that are reported: a file may be long.
const FINDINGS_MAX: usize = 1000;

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

struct Loading<'a> {
    source: Source<'a>,
    /// The bytes of each setting that the file has.
    places: BTreeMap<&'static str, Range<usize>>,
    overrides: Overrides,
    findings: Vec<Finding>,
    has_secret: bool,
    notes: Vec<Note>,
    /// What is said about each override.
    used: Vec<Note>,
}

impl<'a> Loading<'a> {
    fn new(source: Source<'a>) -> Loading<'a> {
        let mut overrides = Overrides::collect(source.context);
        Loading {
            source,
            places: BTreeMap::new(),
            findings: std::mem::take(&mut overrides.findings),
            overrides,
            notes: Vec::new(),
            used: Vec::new(),
            has_secret: false,
        }
    }

    fn finish(mut self, settings: Settings) -> Result<Loaded, Vec<Finding>> {
        self.findings.iter_mut().for_each(|finding| self.overrides.rename(finding));
        self.findings.sort_by_key(|finding| finding.line);
        let (warnings, mistakes): (Vec<_>, Vec<_>) =
            self.findings.into_iter().partition(|finding| finding.warning);
        let (warnings, mistakes) = (bounded(warnings, "warning"), bounded(mistakes, "mistake"));
        if mistakes.is_empty() {
            self.notes.truncate(FINDINGS_MAX);
            let (notes, overrides) = (self.notes, self.used);
            Ok(Loaded { settings, warnings, notes, overrides, has_secret: self.has_secret })
        } else {
            Err(mistakes)
        }
    }

    /// Reads the top of the file, whose `name` is empty, or one of its sections.
    fn section(&mut self, settings: &mut Settings, table: &dyn TableLike, name: &str) {
        let source = self.source;
        for (key, item) in table.iter() {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            let span = item.span().unwrap_or_default();
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == full) {
                self.places.insert(setting.key, span);
                self.has_secret |= setting.kind.is_secret();
                // What is not used may be wrong.
                if self.overrides.get(setting.key).is_none() {
                    self.findings.extend(source.setting(setting, setting.key, settings, item));
                }
            } else if let Some(repeated) = REPEATED.iter().find(|repeated| repeated.key == full) {
                self.places.insert(repeated.key, span);
                self.has_secret |= repeated.has_secret(item);
                self.findings.extend(repeated.read(settings, item, source));
            } else if SECTIONS.iter().any(|(section, _)| *section == full) {
                match item.as_table_like() {
                    Some(inner) => self.section(settings, inner, &full),
                    None => {
                        // It may be a secret.
                        let shown = "";
                        let fix = format!("write [{full}] and its settings below");
                        let at = key_span(table, key);
                        self.findings.push(source.finding(
                            &full,
                            at,
                            shown,
                            "expected a section, found a value",
                            fix,
                        ));
                    }
                }
            } else {
                let settings = SETTINGS.iter().map(|setting| (setting.key, setting.coturn));
                let repeated = REPEATED.iter().map(|repeated| (repeated.key, repeated.coturn));
                let sections = SECTIONS.iter().map(|(section, _)| (*section, [].as_slice()));
                let known = settings.chain(repeated).chain(sections);
                self.findings.push(source.unknown(&full, key_span(table, key), known));
            }
        }
    }

    /// Reads the settings of arguments and the environment, and notes what of the file they replace.
    fn overrides(&mut self, settings: &mut Settings) {
        let overrides = std::mem::take(&mut self.overrides);
        let context = ReadContext {
            read: self.source.context.read_here,
            folder: Some(Path::new("")),
            ..*self.source.context
        };
        for one in overrides.iter() {
            let (key, text) = (one.setting.key, one.line());
            let in_file = self.places.insert(key, 0..0).filter(|span| span.end > 0);
            let place = in_file.map(|span| format!("{}:{}", self.source.name, self.source.line(span.start)));
            self.used.push(one.note(place));
            let source = Source { name: one.origin.as_str(), text: &text, lines: &[0], context: &context };
            let Ok(document) = Document::parse(text.as_str()) else { continue };
            let Some(item) = document.get("value") else { continue };
            let found = source.setting(one.setting, key, settings, item);
            self.findings.extend(found.into_iter().map(|finding| Finding { line: None, ..finding }));
        }
        self.overrides = overrides;
    }

    /// Adds the secrets of the environment.
    fn environment(&mut self, settings: &mut Settings) {
        let Some(variable) = (self.source.context.environment)(SECRET_VARIABLE) else { return };
        let nowhere = Source { name: "environment", text: "", lines: &[0], ..self.source };
        let finding = |what: &str, fix: &str| nowhere.finding(SECRET_VARIABLE, 0..0, HIDDEN, what, fix);
        let Some(variable) = variable.to_str() else {
            let (what, fix) =
                ("the value is not UTF-8", "set it again; `openssl rand -base64 32` generates a good secret");
            return self.findings.push(finding(what, fix));
        };
        for text in variable.split([',', '\n']).map(str::trim_ascii).filter(|text| !text.is_empty()) {
            if text.starts_with('#') {
                let (what, fix) = (
                    "a secret begins with #, as comments of secret files do",
                    "remove it, or if it is a secret, move it to auth.secrets",
                );
                self.findings.push(finding(what, fix));
                continue;
            }
            match shared_secret(text) {
                Ok(secret)
                    if settings.auth.secrets.iter().any(|known| known.as_bytes() == secret.as_bytes()) =>
                {
                    let twice =
                        finding("a secret is listed twice, here or in the configuration", "remove one");
                    self.findings.push(Finding { warning: true, ..twice });
                }
                Ok(secret) => settings.auth.secrets.push(secret),
                Err((what, fix)) => self.findings.push(finding(&what, &fix)),
            }
        }
    }

    /// What is wrong with a file that is not TOML. The parser's messages are fixed texts, but its `Display` quotes the line.
    fn not_toml(&self, error: &toml_edit::TomlError) -> Finding {
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

    /// Reports settings that disagree, at the first of them that the file has. Where one of them could not be read, only that is
    /// reported.
    fn disagreement(&mut self, disagreement: Disagreement) {
        let Disagreement { keys, what, fix, warning } = disagreement;
        let concerns = |finding: &Finding, key: &str| {
            !finding.warning
                && finding.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.findings.iter().any(|finding| keys.iter().any(|key| concerns(finding, key))) {
            return;
        }
        let finding = self.place(&keys, what, fix);
        self.findings.push(Finding { warning, ..finding });
    }

    /// Reports what is wrong with certificates.
    fn certificates(&mut self, settings: &Settings) {
        for found in server_certificate::findings(&settings.tls, self.source.context.now) {
            let Wrong { label, at, is_hidden, what, fix, warning } = found;
            // A file of the environment or of an argument has no place here.
            let at =
                Some(at).filter(|at| self.source.text.get(at.clone()).is_some_and(|text| !text.is_empty()));
            let at = self.places.get(label).cloned().or(at).unwrap_or_default();
            let text = self.source.text.get(at.clone()).unwrap_or_default();
            let shown = if is_hidden { HIDDEN } else { text };
            let finding = Finding { warning, ..self.source.finding(label, at, shown, what, fix) };
            self.findings.push(finding);
        }
    }

    /// What is said about the first of some settings that the file has.
    fn place(&self, keys: &[&'static str], what: String, fix: String) -> Finding {
        let place = keys.iter().find_map(|key| Some((*key, self.places.get(key)?.clone())));
        let (key, span) = place.unwrap_or((keys[0], 0..0));
        if let Some(one) = self.overrides.get(key) {
            return one.finding(&what, fix);
        }
        let is_secret = SETTINGS.iter().any(|setting| setting.key == key && setting.kind.is_secret());
        let text = self.source.text.get(span.clone()).unwrap_or_default();
        // An empty list shows nothing, and explains much.
        let shown = if is_secret && text != "[]" || key == "auth.user" { HIDDEN } else { text };
        let shown = if span.is_empty() { "" } else { shown };
        self.source.finding(key, span, shown, what, fix)
    }

    /// A file with `[[listener]]` opens what it lists and none of the defaults of `[listen]`.
    fn only_listed(&self, settings: &mut Settings) {
        if !self.places.contains_key("listener") {
            return;
        }
        let listen = &mut settings.listen;
        let lists = [
            ("listen.udp", &mut listen.udp),
            ("listen.tcp", &mut listen.tcp),
            ("listen.tls", &mut listen.tls),
        ];
        let unlisted = lists.into_iter().filter(|(key, _)| !self.places.contains_key(key));
        unlisted.for_each(|(_, list)| list.clear());
    }

    /// Notes which addresses of this machine `peers.allow` does not open.
    fn note(&mut self, settings: &Settings) {
        for Disagreement { keys, what, fix, .. } in own_addresses::notes(settings, self.source.context) {
            let mut finding = self.place(&keys, what, fix);
            self.overrides.rename(&mut finding);
            self.notes.push(Note(finding));
        }
        self.notes.extend(listener_checks::notes(settings, self.source));
    }
}
