//! Reads parts of a TOML file by rows of the table: single values and repeated sections.

use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use super::kind::{ReadContext, Reload, Setting};
use super::report::{Finding, HIDDEN};

/// The file that is read.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// Where the lines of the text begin.
    pub lines: &'a [usize],
    pub context: &'a ReadContext<'a>,
    pub about: About,
}

/// What messages about a file know of its settings.
#[derive(Clone, Copy)]
pub struct About {
    /// The page that lists them.
    pub page: &'static str,
    /// What the keys begin with where a value of the wrong type, or an unknown key, may be a secret in the wrong place.
    pub guarded: &'static [&'static str],
}

impl About {
    /// Whether a misplaced text at this key may be a secret.
    pub fn is_guarded(self, key: &str) -> bool {
        self.guarded.iter().any(|section| key.starts_with(section))
    }
}

/// A section that may be written several times, such as `[[auth.user]]`: a row of the table.
pub struct RepeatedSection<T: 'static> {
    pub key: &'static str,
    /// How one section is read.
    pub entry: &'static dyn Entry<T>,
    pub doc: &'static str,
    pub coturn: &'static [&'static str],
}

/// Reads one section into a `T`. It hides the type of the draft.
pub trait Entry<T>: Sync {
    /// Reads `table`, the section `key` whose header is at `header`.
    fn read(
        &self,
        target: &mut T,
        table: &dyn TableLike,
        key: &str,
        header: Range<usize>,
        source: Source<'_>,
    ) -> Vec<Finding>;

    /// Whether a section contains a secret.
    fn has_secret(&self, table: &dyn TableLike) -> bool;

    /// Its settings, for the reference page and the sample.
    fn rows(&self) -> Vec<Row>;
}

/// A section that is first read into a draft `D`, which is then checked and added to a `T`.
pub struct Draft<T: 'static, D: 'static> {
    pub settings: &'static [Setting<D>],
    /// The keys that every section must have.
    pub required: &'static [&'static str],
    /// Adds a complete draft.
    pub add: fn(&mut T, D) -> Result<(), Refusal>,
}

/// Why a draft cannot be added.
pub struct Refusal {
    /// The key of the section that is to blame.
    pub key: &'static str,
    pub what: &'static str,
    pub fix: &'static str,
}

/// What the pages show of a [`Setting`], without its type.
pub struct Row {
    pub key: &'static str,
    /// The values it takes.
    pub values: String,
    pub default: &'static str,
    pub example: &'static str,
    pub doc: &'static str,
    pub reload: Reload,
    pub coturn: &'static [&'static str],
}

impl<T> Setting<T> {
    pub fn row(&self) -> Row {
        let Setting { key, kind, default, example, doc, reload, coturn } = *self;
        Row { key, values: kind.describe(), default, example, doc, reload, coturn }
    }
}

impl<T> RepeatedSection<T> {
    /// Reads every section of `item`.
    pub fn read(&self, target: &mut T, item: &Item, source: Source<'_>) -> Vec<Finding> {
        let Some(tables) = tables(item) else {
            let fix = format!("write [[{}]] with two brackets, once per entry", self.key);
            let span = item.span().unwrap_or_default();
            return vec![source.finding(self.key, span, "", "expected sections that can be repeated", fix)];
        };
        let read = |(table, header)| self.entry.read(target, table, self.key, header, source);
        tables.into_iter().flat_map(read).collect()
    }

    /// Whether one of the sections of `item` contains a secret.
    pub fn has_secret(&self, item: &Item) -> bool {
        tables(item).is_some_and(|tables| tables.iter().any(|(table, _)| self.entry.has_secret(*table)))
    }
}

impl<T, D: Default> Entry<T> for Draft<T, D> {
    fn read(
        &self,
        target: &mut T,
        table: &dyn TableLike,
        key: &str,
        header: Range<usize>,
        source: Source<'_>,
    ) -> Vec<Finding> {
        let mut draft = D::default();
        let mut findings = Vec::new();
        self.read_table(&mut draft, table, key, "", source, &mut findings);
        // A mistyped key would also be reported as missing.
        if findings.iter().any(|finding| !finding.warning) {
            return findings;
        }
        let missing =
            |setting: &&Setting<D>| self.required.contains(&setting.key) && !table.contains_key(setting.key);
        if let Some(setting) = self.settings.iter().find(missing) {
            let what = format!("{} is missing", setting.key);
            let fix = format!("add a line like {} = {}", setting.key, setting.example);
            findings.push(source.finding(key, header, "", what, fix));
        } else if let Err(Refusal { key: name, what, fix }) = (self.add)(target, draft) {
            let value = table.get(name).and_then(Item::span);
            let shown = value.clone().and_then(|value| source.text.get(value)).unwrap_or_default();
            let value = value.unwrap_or(header);
            let shown = if source.about.is_guarded(key) && shown.contains(':') { HIDDEN } else { shown };
            findings.push(source.finding(&format!("{key}.{name}"), value, shown, what, fix));
        }
        findings
    }

    fn has_secret(&self, table: &dyn TableLike) -> bool {
        self.settings.iter().any(|setting| setting.kind.is_secret() && table.contains_key(setting.key))
    }

    fn rows(&self) -> Vec<Row> {
        self.settings.iter().map(Setting::row).collect()
    }
}

impl<T, D> Draft<T, D> {
    /// Reads the section `key`, or the table inside it that `prefix` names, such as `peers.`.
    fn read_table(
        &self,
        draft: &mut D,
        table: &dyn TableLike,
        key: &str,
        prefix: &str,
        source: Source<'_>,
        findings: &mut Vec<Finding>,
    ) {
        for (name, item) in table.iter() {
            let (inside, full) = (format!("{prefix}{name}"), format!("{key}.{prefix}{name}"));
            let is_inside = |setting: &Setting<D>| {
                setting.key.strip_prefix(&*inside).is_some_and(|rest| rest.starts_with('.'))
            };
            if let Some(setting) = self.settings.iter().find(|setting| setting.key == inside) {
                findings.extend(source.setting(setting, &full, draft, item));
            } else if let Some(example) = self.settings.iter().find(|setting| is_inside(setting)) {
                match item.as_table_like() {
                    Some(table) => {
                        self.read_table(draft, table, key, &format!("{inside}."), source, findings);
                    }
                    None => {
                        let fix = format!("write {key}.{} = ...", example.key);
                        let what = "expected a section, found a value";
                        findings.push(source.finding(&full, key_span(table, name), "", what, fix));
                    }
                }
            } else {
                let known = self.settings.iter().map(|setting| (setting.key, setting.coturn));
                findings.push(source.unknown(&full, key_span(table, name), known));
            }
        }
    }
}

impl Source<'_> {
    /// Reads one value. `key` is its name in messages.
    pub fn setting<T>(self, setting: &Setting<T>, key: &str, target: &mut T, item: &Item) -> Vec<Finding> {
        let span = item.span().unwrap_or_default();
        let mut errors = match (item.as_value(), item.as_table_like()) {
            (Some(value), _) => setting.kind.read(target, value, self.context),
            (None, table) => {
                let read = |table| setting.kind.read_section(target, table, span.clone(), self.context);
                let Some(errors) = table.and_then(read) else {
                    let fix = format!("write {key} = ...");
                    return vec![self.finding(key, span, "", "expected a value, found a section", fix)];
                };
                errors
            }
        };
        // Only limits of sizes are numbers that do not take 0.
        if key.starts_with("limits.") && item.as_integer() == Some(0) && setting.kind.number(target).is_some()
        {
            for error in errors.iter_mut().filter(|error| !error.warning) {
                error.what += ": 0 does not mean no limit here, because memory and time must have a bound";
            }
        }
        let errors = errors.into_iter();
        let finding = errors.map(|error| {
            let text = self.text.get(error.at.clone()).unwrap_or_default();
            // A value of the wrong type may be a secret that was written in the wrong place.
            let hidden =
                setting.kind.is_secret() || error.hidden || error.wrong_type && self.about.is_guarded(key);
            // So may a name that has coturn's form, user:password.
            let hidden = hidden || key == "auth.user.name" && text.contains(':');
            let shown = match (hidden, error.is_key) {
                (true, _) => HIDDEN,
                (false, true) => "",
                (false, false) => text,
            };
            let key = &format!("{key}{}", error.inside);
            Finding { warning: error.warning, ..self.finding(key, error.at, shown, error.what, error.fix) }
        });
        finding.collect()
    }

    /// Reports a key that does not exist, with the closest one that does. Known keys come with coturn's names for them.
    pub fn unknown(
        self,
        key: &str,
        at: Range<usize>,
        known: impl Iterator<Item = (&'static str, &'static [&'static str])> + Clone,
    ) -> Finding {
        let last = key.rsplit('.').next().unwrap_or(key);
        let of_coturn = known.clone().find(|(_, coturn)| coturn.contains(&last)).map(|(key, _)| key);
        let closest = || {
            let (distance, closest) = known.map(|(known, _)| (distance(key, last, known), known)).min()?;
            (distance <= 2.max(last.len() / 3)).then_some(closest)
        };
        let fix = match of_coturn.or_else(closest) {
            Some(key) => format!("did you mean {key}?"),
            None => format!("remove it; {} lists every setting", self.about.page),
        };
        // A key that is like no other may be a secret that was written in the wrong place.
        match (self.about.is_guarded(key) && fix.starts_with("remove"), key.rsplit_once('.')) {
            (true, Some((section, _))) => {
                self.finding(&format!("{section}.{HIDDEN}"), at, "", "unknown setting", fix)
            }
            _ => self.finding(key, at, "", "unknown setting", fix),
        }
    }

    /// The line of the byte at `at`, counted from 1.
    pub fn line(self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// A mistake at these bytes of the file; an empty range is nowhere in it.
    pub fn finding(
        self,
        key: &str,
        at: Range<usize>,
        shown: &str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        let line = (at.end > 0).then(|| self.line(at.start));
        Finding {
            file: self.name.to_owned(),
            line,
            key: key.to_owned(),
            value: shown.to_owned(),
            what: what.into(),
            fix: fix.into(),
            warning: false,
        }
    }
}

/// Where the lines of a text begin.
pub fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

pub fn key_span(table: &dyn TableLike, key: &str) -> Range<usize> {
    table.key(key).and_then(|key| key.span()).unwrap_or_default()
}

/// The sections that `item` consists of and the bytes of their headers, however they are written.
pub fn tables(item: &Item) -> Option<Vec<(&dyn TableLike, Range<usize>)>> {
    match item {
        Item::ArrayOfTables(tables) => {
            let table = |table: &toml_edit::Table| table.span().unwrap_or_default();
            Some(tables.iter().map(|one| (one as &dyn TableLike, table(one))).collect())
        }
        Item::Value(Value::Array(array)) => array
            .iter()
            .map(|value| {
                let table = value.as_inline_table()?;
                Some((table as &dyn TableLike, value.span().unwrap_or_default()))
            })
            .collect(),
        _ => None,
    }
}

/// How far a mistyped key is from a known one: as a whole, or as the right key in the wrong section.
fn distance(key: &str, last: &str, known: &str) -> usize {
    let (key, last) = (&key.to_lowercase(), &last.to_lowercase());
    let known_last = known.rsplit('.').next().unwrap_or(known);
    let misplaced = strsim::damerau_levenshtein(last, known_last) + usize::from(known_last != known);
    strsim::damerau_levenshtein(key, known).min(misplaced)
}

#[cfg(test)]
mod tests {
    use toml_edit::Document;

    use super::*;
    use crate::config::kinds::{Number, Text};

    /// A name and a number.
    type Pair = (String, u64);

    static PAIRS: RepeatedSection<Vec<Pair>> = RepeatedSection {
        key: "pair",
        entry: &Draft {
            settings: &[
                Setting {
                    key: "name",
                    kind: &Text { range: 1..=9, at: |pair: &mut Pair| &mut pair.0 },
                    default: "",
                    example: "\"a\"",
                    doc: "",
                    reload: Reload::Live,
                    coturn: &[],
                },
                Setting {
                    key: "number",
                    kind: &Number { range: 0..=9, at: |pair: &mut Pair| &mut pair.1 },
                    default: "",
                    example: "",
                    doc: "",
                    reload: Reload::Live,
                    coturn: &["old-number"],
                },
            ],
            required: &["name"],
            add: |pairs: &mut Vec<Pair>, pair| {
                if pairs.contains(&pair) {
                    return Err(Refusal {
                        key: "number",
                        what: "this pair is listed twice",
                        fix: "remove one",
                    });
                }
                pairs.push(pair);
                Ok(())
            },
        },
        doc: "",
        coturn: &[],
    };

    fn read(text: &str) -> (Vec<Pair>, Vec<String>) {
        let mut pairs = Vec::new();
        let document = Document::parse(text).unwrap();
        let lines = line_starts(text);
        let about = About { page: "a page", guarded: &[] };
        let source = Source { name: "file", text, lines: &lines, context: &ReadContext::NONE, about };
        let findings = PAIRS.read(&mut pairs, &document["pair"], source);
        (pairs, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn sections_are_read_by_their_own_rows() {
        let sections = "[[pair]]\nname = \"a\"\n[[pair]]\nname = \"b\"\nnumber = 7\n";
        let inline = "pair = [{ name = \"a\" }, { name = \"b\", number = 7 }]";
        for text in [sections, inline] {
            assert_eq!(read(text), (vec![("a".into(), 0), ("b".into(), 7)], vec![]));
        }
    }

    #[test]
    fn every_mistake_has_its_line() {
        for (text, expected) in [
            ("number = 1", "file:4: pair: name is missing; add a line like name = \"a\""),
            ("nmae = \"b\"", "file:5: pair.nmae: unknown setting; did you mean name?"),
            ("old-number = 1", "file:5: pair.old-number: unknown setting; did you mean number?"),
            ("name = 5", "file:5: pair.name = 5: expected text, found a number; write it in quotes"),
            (
                "name = \"b\"\nnumber = 10",
                "file:6: pair.number = 10: out of range; write a number from 0 to 9",
            ),
            ("name = \"a\"\nnumber = 1", "file:6: pair.number = 1: this pair is listed twice; remove one"),
            ("[pair.name]", "file:5: pair.name: expected a value, found a section; write pair.name = ..."),
        ] {
            let (pairs, findings) = read(&format!("[[pair]]\nname = \"a\"\nnumber = 1\n[[pair]]\n{text}\n"));
            assert_eq!(pairs.len(), 1, "{text}");
            assert_eq!(findings, [expected], "{text}");
        }
        let (_, findings) = read("[pair]\nname = \"a\"");
        let expected = "file:1: pair: expected sections that can be repeated; write [[pair]] with two brackets, once per entry";
        assert_eq!(findings, [expected]);
    }
}
