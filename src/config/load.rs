//! From the text of a configuration file to settings. Every mistake is reported, not only the first.

use std::path::Path;

use toml_edit::Document;

use super::checks;
use super::document::{FINDINGS_MAX, FileReading, judged};
use super::files;
use super::kind::ReadContext;
use super::listener_checks;
use super::overrides::Overrides;
use super::own_addresses;
use super::report::{Disagreement, Finding, HIDDEN, Note};
use super::section::{Source, line_starts};
use super::server_certificate::{self, Wrong};
use super::settings::Settings;
use super::table::{SECRET_VARIABLE, TABLES};
use crate::auth::prepared_name;
use crate::plural::counted;

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
    let mut loading = Loading::new(TABLES.source(file, text, &lines, context));
    let mut settings = Settings::default();
    let overrides = &loading.overrides;
    let is_used = |key: &str| overrides.get(key).is_none();
    loading.file.read(&mut settings, &is_used)?;
    loading.overrides(&mut settings);
    loading.environment(&mut settings);
    loading.only_listed(&mut settings);
    loading.listed_twice(&settings);
    // The default listens for TLS, which needs a certificate. A file that does not mention TLS turns it off.
    if !["listen.tls", "tls.cert", "tls.key", "tls.certificate"]
        .iter()
        .any(|key| loading.file.places.contains_key(key))
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
    let listeners = listener_checks::agreement(&settings, loading.file.source);
    loading.file.findings.extend(listeners);
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
    let mut loading = Loading::new(TABLES.source("arguments", "", &[0], context));
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

struct Loading<'a> {
    file: FileReading<'a, Settings>,
    overrides: Overrides,
    notes: Vec<Note>,
    /// What is said about each override.
    used: Vec<Note>,
}

impl<'a> Loading<'a> {
    fn new(source: Source<'a>) -> Loading<'a> {
        let mut overrides = Overrides::collect(source.context);
        let mut file = FileReading::new(&TABLES, source);
        file.findings = std::mem::take(&mut overrides.findings);
        Loading { file, overrides, notes: Vec::new(), used: Vec::new() }
    }

    fn finish(mut self, settings: Settings) -> Result<Loaded, Vec<Finding>> {
        self.file.findings.iter_mut().for_each(|finding| self.overrides.rename(finding));
        let warnings = judged(self.file.findings)?;
        self.notes.truncate(FINDINGS_MAX);
        let (notes, overrides) = (self.notes, self.used);
        Ok(Loaded { settings, warnings, notes, overrides, has_secret: self.file.has_secret })
    }

    /// Reads the settings of arguments and the environment, and notes what of the file they replace.
    fn overrides(&mut self, settings: &mut Settings) {
        let overrides = std::mem::take(&mut self.overrides);
        let context = ReadContext {
            read: self.file.source.context.read_here,
            folder: Some(Path::new("")),
            ..*self.file.source.context
        };
        for one in overrides.iter() {
            let (key, text) = (one.setting.key, one.line());
            let in_file = self.file.places.insert(key, 0..0).filter(|span| span.end > 0);
            let place = in_file
                .map(|span| format!("{}:{}", self.file.source.name, self.file.source.line(span.start)));
            self.used.push(one.note(place));
            let source = TABLES.source(one.origin.as_str(), &text, &[0], &context);
            let Ok(document) = Document::parse(text.as_str()) else { continue };
            let Some(item) = document.get("value") else { continue };
            let found = source.setting(one.setting, key, settings, item);
            self.file.findings.extend(found.into_iter().map(|finding| Finding { line: None, ..finding }));
        }
        self.overrides = overrides;
    }

    /// Reports users of the file that a file of users has, too.
    fn listed_twice(&mut self, settings: &Settings) {
        let auth = &settings.auth;
        let mut twice: Vec<Finding> = Vec::new();
        for (name, at) in auth.names.iter().filter(|_| !auth.listed.is_empty()) {
            let Ok(prepared) = prepared_name(name) else { continue };
            let Some((file, line)) = auth.listed.place(&prepared) else { continue };
            let what = format!("this user is listed in {} too", files::place(file, Some(line)));
            let shown = if name.contains(':') { HIDDEN.to_owned() } else { format!("{name:?}") };
            let at = *at..*at + 1;
            twice.push(self.file.source.finding("auth.user.name", at, &shown, what, "remove one of them"));
        }
        self.file.findings.extend(twice);
    }

    /// Adds the secrets of the environment.
    fn environment(&mut self, settings: &mut Settings) {
        self.file.secrets_of_environment(SECRET_VARIABLE, "auth.secrets", &mut settings.auth.secrets);
    }

    /// Reports settings that disagree, at the first of them that the file has. Where one of them could not be read, only that is
    /// reported.
    fn disagreement(&mut self, disagreement: Disagreement) {
        let Disagreement { keys, what, fix, warning } = disagreement;
        if self.file.is_mistaken(&keys) {
            return;
        }
        let finding = self.place(&keys, what, fix);
        self.file.findings.push(Finding { warning, ..finding });
    }

    /// Reports what is wrong with certificates.
    fn certificates(&mut self, settings: &Settings) {
        for found in server_certificate::findings(&settings.tls, self.file.source.context.now) {
            let Wrong { label, at, is_hidden, what, fix, warning } = found;
            // A file of the environment or of an argument has no place here.
            let at = Some(at)
                .filter(|at| self.file.source.text.get(at.clone()).is_some_and(|text| !text.is_empty()));
            let at = self.file.places.get(label).cloned().or(at).unwrap_or_default();
            let text = self.file.source.text.get(at.clone()).unwrap_or_default();
            let shown = if is_hidden { HIDDEN } else { text };
            let finding = Finding { warning, ..self.file.source.finding(label, at, shown, what, fix) };
            self.file.findings.push(finding);
        }
    }

    /// What is said about the first of some settings that the file has.
    fn place(&self, keys: &[&'static str], what: String, fix: String) -> Finding {
        if let Some(one) = self.overrides.get(self.file.first(keys).0) {
            return one.finding(&what, fix);
        }
        self.file.place(keys, what, fix)
    }

    /// A file with `[[listener]]` opens what it lists and none of the defaults of `[listen]`.
    fn only_listed(&self, settings: &mut Settings) {
        if !self.file.places.contains_key("listener") {
            return;
        }
        let listen = &mut settings.listen;
        let lists = [
            ("listen.udp", &mut listen.udp),
            ("listen.tcp", &mut listen.tcp),
            ("listen.tls", &mut listen.tls),
        ];
        let unlisted = lists.into_iter().filter(|(key, _)| !self.file.places.contains_key(key));
        unlisted.for_each(|(_, list)| list.clear());
    }

    /// How many users the files of users have.
    fn users(&self, settings: &Settings) -> Option<Note> {
        let users = &settings.auth.listed;
        let what = format!("{} in {}", counted(users.len(), "user"), counted(users.files(), "file"));
        let fix = "after a change, `hairpin ctl reload` or SIGHUP reads them again".to_owned();
        let mut finding = self.place(&["auth.users_file"], what, fix);
        self.overrides.rename(&mut finding);
        (users.files() > 0).then_some(Note(finding))
    }

    /// Notes which addresses of this machine `peers.allow` does not open.
    fn note(&mut self, settings: &Settings) {
        for Disagreement { keys, what, fix, .. } in own_addresses::notes(settings, self.file.source.context) {
            let mut finding = self.place(&keys, what, fix);
            self.overrides.rename(&mut finding);
            self.notes.push(Note(finding));
        }
        self.notes.extend(listener_checks::notes(settings, self.file.source));
        self.notes.extend(self.users(settings));
    }
}
