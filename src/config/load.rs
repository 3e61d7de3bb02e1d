//! From the text of a configuration file to settings. Every mistake is reported, not only the first.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, TableLike};

use super::checks::{self, Disagreement};
use super::kind::ReadContext;
use super::kinds;
use super::own_addresses;
use super::report::Finding;
use super::section::{Source, key_span};
use super::settings::Settings;
use super::table::{REPEATED, SECRET_VARIABLE, SECTIONS, SETTINGS};

/// Settings that can be used, and the warnings about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is unusual, but runs.
    pub warnings: Vec<Finding>,
}

/// Reads `text`, the configuration called `file`, and the secrets of the environment.
///
/// # Errors
///
/// Returns every mistake in the file and in the environment, sorted by line.
pub fn load(file: &str, text: &str, context: &ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading::new(Source { name: file, text, context });
    let mut settings = Settings::default();
    match Document::parse(text) {
        Ok(document) => loading.section(&mut settings, document.as_table(), ""),
        Err(error) => {
            let what = error.message().lines().next().unwrap_or("cannot be parsed");
            let what = format!("not valid TOML: {what}");
            let span = error.span().unwrap_or_default();
            return Err(vec![loading.source.finding("", span, "", what, "correct the syntax")]);
        }
    }
    loading.environment(&mut settings);
    // The default listens for TLS, which needs a certificate. A file that does not mention TLS turns it off.
    if !["listen.tls", "tls.cert", "tls.key"].iter().any(|key| loading.places.contains_key(key)) {
        settings.listen.tls.clear();
    }
    let agreed = checks::agreement(&settings, context.now);
    let agreed = agreed.into_iter().chain(own_addresses::agreement(&settings, context));
    for disagreement in agreed.chain(checks::credentials(&settings)) {
        loading.disagreement(disagreement);
    }
    loading.finish(settings)
}

/// The settings of a start without a file: the defaults, the secrets of the environment, and what the arguments `set`.
///
/// # Errors
///
/// Returns every mistake in the environment and in the arguments.
pub fn without_file(
    context: &ReadContext<'_>,
    set: impl FnOnce(&mut Settings),
) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading::new(Source { name: "arguments", text: "", context });
    let mut settings = Settings::default();
    set(&mut settings);
    loading.environment(&mut settings);
    let agreed = checks::agreement(&settings, context.now);
    // The certificate comes later
    let agreed = agreed.into_iter().filter(|found| found.keys.iter().all(|key| !key.contains("tls")));
    for disagreement in agreed.chain(own_addresses::agreement(&settings, context)) {
        loading.disagreement(disagreement);
    }
    loading.finish(settings)
}

struct Loading<'a> {
    source: Source<'a>,
    /// The bytes of each setting that the file has.
    places: BTreeMap<&'static str, Range<usize>>,
    findings: Vec<Finding>,
}

impl<'a> Loading<'a> {
    fn new(source: Source<'a>) -> Loading<'a> {
        Loading { source, places: BTreeMap::new(), findings: Vec::new() }
    }

    fn finish(mut self, settings: Settings) -> Result<Loaded, Vec<Finding>> {
        self.findings.sort_by_key(|finding| finding.line);
        let (warnings, mistakes): (Vec<_>, Vec<_>) =
            self.findings.into_iter().partition(|finding| finding.warning);
        if mistakes.is_empty() { Ok(Loaded { settings, warnings }) } else { Err(mistakes) }
    }

    /// Reads the top of the file, whose `name` is empty, or one of its sections.
    fn section(&mut self, settings: &mut Settings, table: &dyn TableLike, name: &str) {
        let source = self.source;
        for (key, item) in table.iter() {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            let span = item.span().unwrap_or_default();
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == full) {
                self.places.insert(setting.key, span);
                self.findings.extend(source.setting(setting, setting.key, settings, item));
            } else if let Some(repeated) = REPEATED.iter().find(|repeated| repeated.key == full) {
                self.places.insert(repeated.key, span);
                self.findings.extend(repeated.read(settings, item, source));
            } else if SECTIONS.iter().any(|(section, _)| *section == full) {
                match item.as_table_like() {
                    Some(inner) => self.section(settings, inner, &full),
                    None => {
                        let shown = source.text.get(span).unwrap_or_default();
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

    /// Adds the secrets of the environment.
    fn environment(&mut self, settings: &mut Settings) {
        let Some(variable) = (self.source.context.environment)(SECRET_VARIABLE) else { return };
        let nowhere = Source { name: "environment", text: "", ..self.source };
        for text in variable.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty()) {
            match kinds::shared_secret(text) {
                Ok(secret) => settings.auth.secrets.push(secret),
                Err((what, fix)) => {
                    self.findings.push(nowhere.finding(SECRET_VARIABLE, 0..0, "***", what, fix));
                }
            }
        }
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
        let place = keys.iter().find_map(|key| Some((*key, self.places.get(key)?.clone())));
        let (key, span) = place.unwrap_or((keys[0], 0..0));
        let shown = self.source.text.get(span.clone()).unwrap_or_default();
        self.findings.push(Finding { warning, ..self.source.finding(key, span, shown, what, fix) });
    }
}
