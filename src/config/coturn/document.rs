//! The configuration that an import writes: settings and comments, each with the lines of `turnserver.conf` that it comes from. A
//! setting that `hairpin check` refuses is commented out, with the reason.

use std::collections::HashMap;
use std::fmt::Write;

use toml_edit::Value;

use crate::config::table::{SECTIONS, SETTINGS};

/// The settings that open listeners. Without one its default would open more than was meant, so an empty list stands for it.
const LISTENERS: [&str; 3] = ["listen.udp", "listen.tcp", "listen.tls"];

/// The sections whose defaults are said where a setting is commented out.
const DEFAULTS: [&str; 3] = ["listen", "relay", "http"];

/// How much a comment matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing is lost.
    Note,
    /// Something that coturn does is lost.
    Lost,
    /// It is dangerous, or clients may be refused.
    Danger,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Weight::Note => "note",
            Weight::Lost => "lost",
            Weight::Danger => "danger",
        }
    }
}

/// Where something comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// These lines of the configuration.
    Lines(Vec<usize>),
    /// The database.
    Database,
    /// Neither: it is about what is missing.
    Nowhere,
}

impl Place {
    pub fn line(line: usize) -> Place {
        Place::Lines(vec![line])
    }
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub weight: Weight,
    pub place: Place,
    pub text: String,
}

/// A setting, or only comments.
struct Item {
    /// The section; `auth.user` for a `[[auth.user]]`.
    section: &'static str,
    /// Keys without the section, and their values as TOML. Empty: only comments.
    settings: Vec<(&'static str, String)>,
    place: Place,
    remarks: Vec<Remark>,
    /// Why it is commented out.
    refused: Option<String>,
    is_secret: bool,
    /// Its lines in the text that was rendered last.
    lines: std::ops::Range<usize>,
}

/// The configuration.
pub struct Document {
    /// The name of `turnserver.conf` in comments.
    source: String,
    items: Vec<Item>,
}

/// A text that grows, and the number of its lines.
#[derive(Default)]
struct Page {
    text: String,
    /// The bytes whose lines were counted, so that each is counted once.
    counted: usize,
    lines: usize,
}

impl Page {
    /// The line that comes next.
    fn line(&mut self) -> usize {
        self.lines += self.text[self.counted..].matches('\n').count();
        self.counted = self.text.len();
        self.lines + 1
    }
}

/// The width of comments.
const WIDTH: usize = 110;

impl Document {
    pub fn new(source: &str) -> Document {
        Document { source: one_line(source), items: Vec::new() }
    }

    /// Adds a setting, by its full key.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>, place: Place) -> &mut Document {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        self.push(section, vec![(key, toml(value))], place);
        self
    }

    /// The same for a secret.
    pub fn set_secret(&mut self, key: &'static str, value: impl Into<Value>, place: Place) {
        self.set(key, value, place);
        if let Some(item) = self.items.last_mut() {
            item.is_secret = true;
        }
    }

    /// Adds a section that can be repeated. Its values may be secrets.
    pub fn repeated(&mut self, section: &'static str, settings: Vec<(&'static str, Value)>, place: Place) {
        let settings = settings.into_iter().map(|(key, value)| (key, toml(value))).collect();
        self.push(section, settings, place);
        if let Some(item) = self.items.last_mut() {
            item.is_secret = true;
        }
    }

    /// Adds a comment to the item that was added last.
    pub fn remark(&mut self, weight: Weight, place: Place, text: impl Into<String>) {
        if let Some(item) = self.items.last_mut() {
            item.remarks.push(Remark { weight, place, text: text.into() });
        }
    }

    /// Adds a comment to a section.
    pub fn comment(&mut self, section: &'static str, weight: Weight, place: Place, text: impl Into<String>) {
        self.push(section, Vec::new(), Place::Nowhere);
        self.remark(weight, place, text);
    }

    /// Every comment, with the reasons of settings that are commented out.
    pub fn remarks(&self) -> impl Iterator<Item = Remark> {
        self.items.iter().flat_map(|item| {
            let refused = item.refused.iter().map(|why| Remark {
                weight: Weight::Danger,
                place: item.place.clone(),
                text: match item.is_secret {
                    true => format!("a user is left out: {why}"),
                    false => format!("{} is commented out: {why}", item.name()),
                },
            });
            item.remarks.iter().cloned().chain(refused)
        })
    }

    /// How many lines have become settings.
    pub fn translated(&self) -> usize {
        let used = self.items.iter().filter(|item| !item.settings.is_empty() && item.refused.is_none());
        let mut lines: Vec<usize> = used.flat_map(|item| item.place.lines()).copied().collect();
        lines.sort_unstable();
        lines.dedup();
        lines.len()
    }

    /// Comments out the setting at a line of the text that was rendered last. `false`: there is none that can be, because it is a
    /// secret, is commented out already, or is a list of no listeners. A user is left out.
    pub fn refuse(&mut self, line: usize, why: &str) -> bool {
        let is_fixed = |item: &Item| {
            let is_secret = item.is_secret && !item.section.contains('.');
            is_secret || item.is_listener() && item.settings.iter().all(|(_, value)| value == "[]")
        };
        let here = |item: &&mut Item| item.lines.contains(&line) && item.refused.is_none() && !is_fixed(item);
        let Some(item) = self.items.iter_mut().find(here) else { return false };
        let name = item.name();
        let mut why = one_line(why);
        if item.is_secret {
            item.settings.clear();
        } else if !item.is_listener() && DEFAULTS.contains(&item.section) {
            let default = SETTINGS.iter().find(|row| row.key == name).map_or("", |row| row.default);
            why = format!("{why}; without it the default holds: {default}");
        }
        item.refused = Some(why);
        true
    }

    /// The settings that are commented out: key, line of `turnserver.conf`, and why.
    pub fn refused(&self) -> Vec<(String, Option<usize>, String)> {
        let refused = self.items.iter().filter_map(|item| {
            let why = item.refused.clone()?;
            Some((item.name(), item.place.lines().first().copied(), why))
        });
        refused.collect()
    }

    /// The text of the configuration.
    pub fn render(&mut self, head: &str) -> String {
        let mut page = Page::default();
        head.split("\n\n").for_each(|paragraph| comment(&mut page.text, paragraph));
        let rows: HashMap<&str, usize> = SETTINGS.iter().enumerate().map(|(n, row)| (row.key, n)).collect();
        let order = |item: &Item| match item.settings.is_empty() {
            true => usize::MAX,
            false => rows.get(item.name().as_str()).copied().unwrap_or(usize::MAX - 1),
        };
        let line = |item: &Item| {
            let remarks = item.remarks.iter().flat_map(|remark| remark.place.lines());
            remarks.copied().min().unwrap_or(usize::MAX)
        };
        // Settings are in the order of the reference, and the comments after them in that of their lines.
        self.items
            .sort_by_cached_key(|item| (order(item), if item.settings.is_empty() { line(item) } else { 0 }));
        let source = self.source.clone();
        for (section, _) in SECTIONS {
            let is_here = |item: &&mut Item| item.section == *section;
            if self.items.iter_mut().any(|item| is_here(&item)) && !section.is_empty() {
                let _ = write!(page.text, "\n[{section}]\n");
            }
            for item in self.items.iter_mut().filter(is_here) {
                item.render(&mut page, &source);
            }
            let inner =
                |item: &&mut Item| item.section.rsplit_once('.').is_some_and(|(outer, _)| outer == *section);
            for item in self.items.iter_mut().filter(inner) {
                item.render(&mut page, &source);
            }
        }
        page.text
    }

    fn push(&mut self, section: &'static str, settings: Vec<(&'static str, String)>, place: Place) {
        self.items.push(Item {
            section,
            settings,
            place,
            remarks: Vec::new(),
            refused: None,
            is_secret: false,
            lines: 0..0,
        });
    }
}

impl Item {
    fn name(&self) -> String {
        let key = self.settings.first().map_or("", |(key, _)| *key);
        match (self.section, key) {
            ("", key) => key.to_owned(),
            // A user that is left out has no settings.
            (section, "") => section.to_owned(),
            (section, key) => format!("{section}.{key}"),
        }
    }

    fn is_listener(&self) -> bool {
        LISTENERS.contains(&self.name().as_str())
    }

    fn render(&mut self, counted: &mut Page, source: &str) {
        let page = &mut counted.text;
        let _ = writeln!(page);
        if !self.settings.is_empty()
            && let Some(place) = self.place.shown(source)
        {
            comment(page, &place);
        }
        for Remark { weight, place, text } in &self.remarks {
            let place = place.shown(source).map_or(String::new(), |place| format!("{place}: "));
            comment(page, &format!("{place}{}: {text}", weight.word()));
        }
        if let Some(why) = &self.refused {
            let what = if self.is_secret { "a user is left out" } else { "this is commented out" };
            comment(page, &format!("{}: {what}: {why}", Weight::Danger.word()));
        }
        let start = counted.line();
        let page = &mut counted.text;
        let mark = if self.refused.is_some() { "#" } else { "" };
        if self.section.contains('.') && !self.settings.is_empty() {
            let _ = writeln!(page, "{mark}[[{}]]", self.section);
        }
        for (key, value) in &self.settings {
            for line in format!("{key} = {value}").lines() {
                let _ = writeln!(page, "{mark}{line}");
            }
        }
        self.lines = start..counted.line();
        if self.refused.is_some() && self.is_listener() {
            for (key, _) in &self.settings {
                let _ = writeln!(counted.text, "{key} = []");
            }
        }
    }
}

impl Place {
    pub fn lines(&self) -> &[usize] {
        match self {
            Place::Lines(lines) => lines,
            Place::Database | Place::Nowhere => &[],
        }
    }

    /// `turnserver.conf:3`, with the other lines after it.
    pub fn shown(&self, source: &str) -> Option<String> {
        match self {
            Place::Lines(lines) => {
                let mut lines = lines.clone();
                lines.sort_unstable();
                lines.dedup();
                let shown = lines.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(",");
                let more = if lines.len() > 10 { ",..." } else { "" };
                (!lines.is_empty()).then(|| format!("{source}:{shown}{more}"))
            }
            Place::Database => Some("the database".to_owned()),
            Place::Nowhere => None,
        }
    }
}

/// A value as TOML, on one line.
fn toml(value: impl Into<Value>) -> String {
    let value: Value = value.into();
    match &value {
        // A multi-line literal would be harder to find by its line.
        Value::String(text) => {
            let mut quoted = String::from("\"");
            for c in text.value().chars() {
                match c {
                    '"' | '\\' => quoted.extend(['\\', c]),
                    c if c.is_control() => {
                        let _ = write!(quoted, "\\u{:04X}", u32::from(c));
                    }
                    c => quoted.push(c),
                }
            }
            quoted + "\""
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| toml(item.clone())).collect();
            let line = format!("[{}]", items.join(", "));
            if line.len() <= WIDTH { line } else { format!("[\n  {},\n]", items.join(",\n  ")) }
        }
        other => other.to_string().trim().to_owned(),
    }
}

/// Writes a comment, wrapped.
fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in one_line(text).split(' ') {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(page, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}

/// Text that cannot leave its comment, and that no terminal interprets.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_setting_is_commented_out_with_every_line_of_it() {
        let mut document = Document::new("turnserver.conf");
        let many: Vec<String> = (0..20).map(|n| format!("192.0.2.{n}/32")).collect();
        document.set("peers.deny", many.iter().map(String::as_str).collect::<Value>(), Place::line(7));
        document.set("workers", 4, Place::line(2));
        let text = document.render("Head.");
        assert!(text.contains("# turnserver.conf:2\nworkers = 4\n"), "{text}");
        let line = text.lines().position(|line| line == "deny = [").unwrap() + 1;
        assert!(document.refuse(line + 3, "of a\nreason"));
        assert!(!document.refuse(line + 3, "again"));
        let text = document.render("Head.");
        let loaded: toml_edit::DocumentMut = text.parse().unwrap();
        assert!(!text.contains("\ndeny") && loaded["peers"].as_table().unwrap().is_empty(), "{text}");
        assert!(text.contains("# danger: this is commented out: of a reason\n"), "{text}");
    }

    /// The default of a listener would open more than was meant; that of another setting is said.
    #[test]
    fn a_refused_listener_opens_nothing() {
        let mut document = Document::new("turnserver.conf");
        document.set("listen.udp", Value::from_iter(["192.0.2.1:0"]), Place::line(1));
        document.set("listen.tcp", Value::from_iter([""; 0]), Place::line(2));
        document.set("relay.ports", "9-1", Place::line(3));
        let text = document.render("Head.");
        let line = |what: &str| text.lines().position(|line| line.starts_with(what)).unwrap() + 1;
        assert!(document.refuse(line("udp"), "wrong") && document.refuse(line("ports"), "wrong"));
        assert!(!document.refuse(line("tcp"), "there is no listener"));
        let text = document.render("Head.");
        assert!(
            text.contains("#udp = [\"192.0.2.1:0\"]\nudp = []\n") && text.contains("\ntcp = []\n"),
            "{text}"
        );
        assert!(text.contains("wrong; without it the default holds: \"49152-65535\"\n"), "{text}");
    }

    #[test]
    fn values_are_toml_on_one_line_whatever_is_in_them() {
        for value in ["plain", "with \"quotes\" and 'these'", "back\\slash", "tab\there", "\u{1b}[31m", "'''"]
        {
            let line = format!("x = {}", toml(value));
            let read: toml_edit::DocumentMut = line.parse().unwrap();
            assert!(!line.contains('\n') && read["x"].as_str() == Some(value), "{line}");
        }
    }

    #[test]
    fn comments_stay_comments() {
        let mut document = Document::new("turn\nserver.conf");
        document.comment("peers", Weight::Danger, Place::line(3), "a\nallow = [\"0.0.0.0/0\"]\u{1b}[31m");
        let text = document.render("Head\u{7}.");
        assert!(
            text.lines().all(|line| line.is_empty() || line.starts_with('#') || line == "[peers]"),
            "{text}"
        );
        assert!(!text.contains(['\u{1b}', '\u{7}']));
    }
}
