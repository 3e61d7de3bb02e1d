//! From the text of a configuration file to settings, reporting every mistake at once.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

use super::checks;
use super::field::{Field, ReadContext, UserDraft, ValueError};
use super::report::Finding;
use super::settings::Settings;
use super::table::{SECTIONS, SETTINGS, Setting, USER};
use super::values;
use crate::auth::StaticUser;

/// Settings that can be run, and what to say about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is unusual, but runs.
    pub warnings: Vec<Finding>,
}

/// The variable that shared secrets may come from.
pub const SECRET_VARIABLE: &str = "HAIRPIN_AUTH_SECRET";

/// Reads the `text` of the configuration called `file`, and secrets from the environment. On mistakes, all of them.
///
/// # Errors
///
/// Returns every mistake in the file and in the environment, sorted by line.
pub fn load(file: &str, text: &str, reader: &ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading { file, text, reader, places: BTreeMap::new(), findings: Vec::new() };
    let mut settings = Settings::default();
    match Document::parse(text) {
        Ok(document) => loading.section(&mut settings, document.as_table(), ""),
        // The grammar is broken from here on, so that nothing else can be judged.
        Err(error) => {
            let what = error.message().lines().next().unwrap_or("cannot be understood").to_owned();
            loading.wrong(
                "",
                error.span().unwrap_or_default(),
                String::new(),
                format!("not TOML: {what}"),
                "mend it",
            );
            return Err(loading.findings);
        }
    }
    loading.environment(&mut settings);
    // Nobody asked for TLS, so the default does not either.
    if !["listen.tls", "tls.cert", "tls.key"].iter().any(|key| loading.places.contains_key(key)) {
        settings.listen.tls.clear();
    }
    let agreed = checks::agreement(&settings, reader.now);
    for check in agreed.into_iter().chain(checks::credentials(&settings)) {
        loading.disagreement(check);
    }
    loading.finish(settings)
}

/// The settings of a start without a file: defaults, and secrets from the environment.
///
/// # Errors
///
/// Returns every mistake in the environment.
pub fn without_file(reader: &ReadContext<'_>) -> Result<Loaded, Vec<Finding>> {
    let mut loading = Loading { file: "", text: "", reader, places: BTreeMap::new(), findings: Vec::new() };
    let mut settings = Settings::default();
    loading.environment(&mut settings);
    loading.finish(settings)
}

struct Loading<'a> {
    file: &'a str,
    text: &'a str,
    reader: &'a ReadContext<'a>,
    /// Where the settings that the file has stand.
    places: BTreeMap<&'static str, Range<usize>>,
    findings: Vec<Finding>,
}

impl Loading<'_> {
    fn finish(mut self, settings: Settings) -> Result<Loaded, Vec<Finding>> {
        self.findings.sort_by_key(|finding| finding.line);
        let (warnings, mistakes): (Vec<_>, Vec<_>) =
            self.findings.into_iter().partition(|finding| finding.warning);
        if mistakes.is_empty() { Ok(Loaded { settings, warnings }) } else { Err(mistakes) }
    }

    /// Reads the file's top (an empty `name`) or one of its sections.
    fn section(&mut self, settings: &mut Settings, table: &dyn TableLike, name: &str) {
        for (key, item) in table.iter() {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == full) {
                self.places.insert(setting.key, item.span().unwrap_or_default());
                match &setting.field {
                    Field::Users(at) => self.users(at(settings), item),
                    _ => self.setting(setting, setting.key, settings, item),
                }
            } else if SECTIONS.iter().any(|(section, _)| *section == full) {
                match item.as_table_like() {
                    Some(inner) => self.section(settings, inner, &full),
                    None => {
                        let fix = format!("write [{full}] and its settings below");
                        self.wrong(
                            &full,
                            self.span_of(table, key),
                            self.raw(item),
                            "a value where a section belongs",
                            fix,
                        );
                    }
                }
            } else {
                let sections = SECTIONS.iter().map(|(section, _)| (*section, [].as_slice()));
                let names = SETTINGS.iter().map(|setting| (setting.key, setting.coturn)).chain(sections);
                self.unknown(&full, self.span_of(table, key), names);
            }
        }
    }

    /// Reads one value. `shown` is the name that mistakes tell.
    fn setting<T>(&mut self, setting: &Setting<T>, shown: &str, target: &mut T, item: &Item) {
        let Some(value) = item.as_value() else {
            let span = item.span().unwrap_or_default();
            self.wrong(
                shown,
                span,
                String::new(),
                "a section where a value belongs",
                format!("write {shown} = ..."),
            );
            return;
        };
        for wrong in setting.field.apply(target, value, self.reader) {
            let value = match setting.field.is_secret() {
                true => "***".to_owned(),
                false => self.text.get(wrong.at.clone()).unwrap_or_default().to_owned(),
            };
            self.report(shown, value, wrong);
        }
    }

    /// Reads every `[[auth.user]]`.
    fn users(&mut self, users: &mut Vec<StaticUser>, item: &Item) {
        let tables: Vec<&dyn TableLike> = match item {
            Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
            Item::Value(Value::Array(array)) if array.iter().all(Value::is_inline_table) => {
                array.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike).collect()
            }
            _ => {
                let span = item.span().unwrap_or_default();
                let fix = "write [[auth.user]] with two brackets, once for each user";
                self.wrong("auth.user", span, String::new(), "users are sections that repeat", fix);
                return;
            }
        };
        for table in tables {
            self.user(users, table);
        }
    }

    fn user(&mut self, users: &mut Vec<StaticUser>, table: &dyn TableLike) {
        let before = self.findings.len();
        let mut draft = UserDraft::default();
        let mut place = 0..0;
        for (key, item) in table.iter() {
            let full = format!("auth.user.{key}");
            let span = self.span_of(table, key);
            if place.start == 0 || key == "name" {
                place = span.clone();
            }
            match USER.iter().find(|setting| setting.key == key) {
                Some(setting) => self.setting(setting, &full, &mut draft, item),
                None => self.unknown(&full, span, USER.iter().map(|setting| (setting.key, setting.coturn))),
            }
        }
        if self.findings.len() > before {
            return;
        }
        let shown = format!("\"{}\"", draft.name);
        let one_of = "give one of password, password_file and key";
        if draft.name.is_empty() {
            self.wrong("auth.user", place, String::new(), "a user without a name", "give it a name");
        } else if users.iter().any(|user| user.name == draft.name) {
            self.wrong("auth.user.name", place, shown, "this user stands here twice", "remove one");
        } else if draft.passwords.len() > 1 {
            self.wrong("auth.user.name", place, shown, "a user with more than one password", one_of);
        } else if let Some(password) = draft.passwords.pop() {
            users.push(StaticUser { name: draft.name, password });
        } else {
            self.wrong("auth.user.name", place, shown, "a user without a password", one_of);
        }
    }

    /// Adds the secrets of the environment.
    fn environment(&mut self, settings: &mut Settings) {
        let Some(variable) = (self.reader.environment)(SECRET_VARIABLE) else { return };
        for text in variable.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty()) {
            match values::long_enough(text) {
                Ok(secret) => settings.auth.secrets.push(secret),
                Err((what, fix)) => self.findings.push(Finding {
                    file: "environment".into(),
                    line: None,
                    key: SECRET_VARIABLE.into(),
                    value: "***".into(),
                    what,
                    fix,
                    warning: false,
                }),
            }
        }
    }

    /// Reports a check that settings failed together, at the first of them that stands in the file. Where one of them
    /// could not be read, that is the mistake.
    fn disagreement(&mut self, check: checks::Disagreement) {
        let is_about = |finding: &Finding, key: &str| {
            !finding.warning
                && finding.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.findings.iter().any(|finding| check.keys.iter().any(|key| is_about(finding, key))) {
            return;
        }
        let place = check.keys.iter().find_map(|key| Some((*key, self.places.get(key)?.clone())));
        let (key, span) = place.unwrap_or((check.keys[0], 0..0));
        let value = self.text.get(span.clone()).unwrap_or_default().to_owned();
        self.report(
            key,
            value,
            ValueError { at: span, what: check.what, fix: check.fix, warning: check.warning },
        );
    }

    /// Reports a key that does not exist, with the nearest one that does.
    fn unknown(
        &mut self,
        full: &str,
        at: Range<usize>,
        known: impl Iterator<Item = (&'static str, &'static [&'static str])> + Clone,
    ) {
        let last = full.rsplit('.').next().unwrap_or(full);
        let cousin = known.clone().find(|(_, coturn)| coturn.contains(&last)).map(|(key, _)| key);
        let near = || {
            let mut distances = known.map(|(key, _)| (distance(full, last, key), key)).collect::<Vec<_>>();
            distances.sort();
            distances.first().filter(|(distance, _)| *distance <= 2.max(last.len() / 3)).map(|(_, key)| *key)
        };
        let fix = match cousin.or_else(near) {
            Some(key) => format!("did you mean {key}?"),
            None => "remove it; docs/configuration.md lists all".to_owned(),
        };
        self.wrong(full, at, String::new(), "no such setting", fix);
    }

    fn wrong(
        &mut self,
        key: &str,
        at: Range<usize>,
        value: String,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.report(key, value, ValueError { at, what: what.into(), fix: fix.into(), warning: false });
    }

    fn report(&mut self, key: &str, value: String, wrong: ValueError) {
        let line = (wrong.at.end > 0).then(|| self.text[..wrong.at.start].matches('\n').count() + 1);
        self.findings.push(Finding {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            value,
            what: wrong.what,
            fix: wrong.fix,
            warning: wrong.warning,
        });
    }

    fn span_of(&self, table: &dyn TableLike, key: &str) -> Range<usize> {
        table.key(key).and_then(|key| key.span()).unwrap_or_default()
    }

    fn raw(&self, item: &Item) -> String {
        item.span().and_then(|span| self.text.get(span)).unwrap_or_default().to_owned()
    }
}

/// How far a mistyped key is from a known one: as a whole, or as the right key in the wrong section.
fn distance(full: &str, last: &str, known: &str) -> usize {
    let (full, last) = (&full.to_lowercase(), &last.to_lowercase());
    let known_last = known.rsplit('.').next().unwrap_or(known);
    let misplaced = strsim::damerau_levenshtein(last, known_last) + usize::from(known_last != known);
    strsim::damerau_levenshtein(full, known).min(misplaced)
}
