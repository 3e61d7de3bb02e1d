//! What is imported: the lines of `turnserver.conf`, and what was read from coturn's database.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use super::document::{Document, Place, Weight, one_line};
use super::grammar::{self, Entry};
use super::keys::{self, Fate, Form, Key};
use crate::config::report::Finding;

/// What is imported, and how.
pub struct Input<'a> {
    /// The name of `turnserver.conf` in comments and messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// The folder that relative paths of the configuration start at.
    pub folder: &'a Path,
    /// The realm, instead of that of the configuration.
    pub realm: Option<&'a str>,
    /// What was read from the SQLite database.
    pub database: Option<&'a Database>,
    /// Why a database that may be in use was not read.
    pub missing_database: Option<&'a str>,
    /// Whether an anonymous relay is imported.
    pub anonymous: bool,
    /// A shared secret that nobody knows, for a configuration without credentials.
    pub generated: &'a str,
    /// The name of a file for many users; without it, all are in the configuration.
    pub users_file: Option<&'a str>,
    /// Whether an address is one of this machine's.
    pub is_own: &'a dyn Fn(IpAddr) -> bool,
}

/// The tables of coturn's SQLite database.
#[derive(Debug, Default)]
pub struct Database {
    /// The file.
    pub name: String,
    /// Users with keys.
    pub users: Vec<DatabaseUser>,
    /// Realms and shared secrets.
    pub secrets: Vec<(String, String)>,
    /// Realms and ranges of peers that are allowed.
    pub allowed: Vec<(String, String)>,
    /// The same of those that are denied.
    pub denied: Vec<(String, String)>,
    /// Realms, options and their values.
    pub options: Vec<(String, String, String)>,
    /// How many rows other tables have, which have no counterpart.
    pub others: Vec<(&'static str, usize)>,
}

/// A user of the database.
pub struct DatabaseUser {
    /// The realm that the key is for.
    pub realm: String,
    /// The user name.
    pub name: String,
    /// MD5(name:realm:password) in hex.
    pub key: String,
}

impl std::fmt::Debug for DatabaseUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseUser").field("name", &self.name).field("key", &"***").finish()
    }
}

/// The keys that coturn gathers; of the others the last line counts.
const REPEATED: [&str; 12] = [
    "listening-ip",
    "relay-ip",
    "external-ip",
    "aux-server",
    "user",
    "static-auth-secret",
    "allowed-peer-ip",
    "denied-peer-ip",
    "alternate-server",
    "tls-alternate-server",
    "tcp-alternate-server",
    "udp-alternate-server",
];

/// The characters of a value that are shown.
const SHOWN: usize = 60;

/// The unknown keys that are compared with those of coturn, which takes time.
const HINTS_MAX: usize = 100;

/// The lines of a configuration.
pub struct Lines<'a> {
    pub entries: Vec<Entry<'a>>,
    /// The last line of each key, by its position.
    last: HashMap<&'a str, usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Lines<'a> {
        let entries = grammar::entries(text);
        let last = entries.iter().enumerate().map(|(n, entry)| (entry.key, n)).collect();
        Lines { entries, last }
    }

    /// Every line with this key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = Entry<'a>> {
        self.entries.iter().copied().filter(move |entry| entry.key == key)
    }

    /// The line that counts.
    pub fn last(&self, key: &str) -> Option<Entry<'a>> {
        self.last.get(key).map(|n| self.entries[*n])
    }

    /// Whether a flag is on, and its line.
    pub fn on(&self, key: &str) -> Option<Entry<'a>> {
        self.last(key).filter(|entry| is_on(keys::find(key), entry))
    }

    /// A number that is not negative, and its line. `None`: there is none, or the value is no number.
    pub fn number(&self, key: &str) -> Option<(u64, Entry<'a>)> {
        let entry = self.last(key)?;
        Some((u64::try_from(entry.number()?).ok()?, entry))
    }
}

/// Whether a flag is on. One that coturn refuses to start with is off.
fn is_on(key: Option<&Key>, entry: &Entry<'_>) -> bool {
    key.is_some_and(|key| key.form == Form::Fixed) || entry.flag() == Some(true)
}

/// The comments on lines that do not become settings, and on what is odd about any line.
pub fn remark(lines: &Lines<'_>, document: &mut Document) {
    let mut unknown = 0;
    for entry in &lines.entries {
        let place = || Place::line(entry.line);
        let Some(key) = keys::find(entry.key) else {
            unknown += 1;
            let known = if unknown <= HINTS_MAX { &KEY_NAMES[..] } else { &[] };
            let near = known.iter().max_by(|a, b| similar(a, entry.key).total_cmp(&similar(b, entry.key)));
            let near = near.filter(|name| similar(name, entry.key) > 0.85);
            let hint = near.map_or(String::new(), |name| format!("; `{name}` may be meant"));
            let weight = if near.is_some() { Weight::Danger } else { Weight::Lost };
            let text = format!(
                "{} is no setting of coturn, which only warns about it and goes on{hint}",
                shown(entry.key)
            );
            document.comment("", weight, place(), text);
            continue;
        };
        odd(key, entry, lines, document);
        let (weight, section) = match key.fate {
            Fate::Lost(section) => (Weight::Lost, section),
            Fate::Danger(section) => (Weight::Danger, section),
            Fate::Note(section) => (Weight::Note, section),
            Fate::Translated | Fate::Silent => continue,
        };
        let is_flag = matches!(key.form, Form::Flag | Form::Fixed);
        let is_off = match key.name {
            // It bounds nothing.
            "bps-capacity" => entry.number() == Some(0),
            // It is what hairpin does.
            "allocation-default-address-family" => entry.value == "ipv4",
            _ => false,
        };
        if is_off || is_flag && !is_on(Some(key), entry) {
            continue;
        }
        document.comment(section, weight, place(), format!("{} {}", written(key, entry), key.says));
    }
}

static KEY_NAMES: std::sync::LazyLock<Vec<&'static str>> =
    std::sync::LazyLock::new(|| keys::KEYS.iter().map(|key| key.name).collect());

fn similar(name: &str, written: &str) -> f64 {
    // Comparing costs the product of the lengths.
    if written.len() > 64 { 0.0 } else { strsim::normalized_damerau_levenshtein(name, written) }
}

/// What is odd about a line, whatever becomes of it.
fn odd(key: &Key, entry: &Entry<'_>, lines: &Lines<'_>, document: &mut Document) {
    let section = section(key);
    let mut say = |weight, text: String| document.comment(section, weight, Place::line(entry.line), text);
    if entry.is_cut {
        say(
            Weight::Danger,
            format!(
                "{} is on a line that is longer than coturn reads: the rest is another line to it",
                key.name
            ),
        );
    }
    if matches!(key.form, Form::Value | Form::Hidden)
        && let Some(what) = entry.leftover()
    {
        let counts = matches!(key.fate, Fate::Translated) || key.form == Form::Hidden;
        let weight = if counts { Weight::Danger } else { Weight::Note };
        say(
            weight,
            format!("{}: {what}. It is read alike here; remove it if it is not meant", written(key, entry)),
        );
    }
    match key.form {
        Form::Flag if entry.flag().is_none() => say(
            Weight::Danger,
            format!("{}: coturn does not start with this value. It is taken for off", written(key, entry)),
        ),
        Form::Fixed if entry.flag() == Some(false) => {
            say(Weight::Danger, format!("{}: coturn ignores the value, and this is on", written(key, entry)));
        }
        _ => {}
    }
    let is_last = lines.last(key.name).is_some_and(|last| last == *entry);
    if !is_last && !REPEATED.contains(&key.name) && !matches!(key.fate, Fate::Silent) {
        let last = lines.last(key.name).map_or(0, |last| last.line);
        say(
            Weight::Note,
            format!("{}: line {last} sets it again, and coturn uses the last", written(key, entry)),
        );
    }
}

/// The section where a key's comments are.
pub fn section(key: &Key) -> &'static str {
    match key.fate {
        Fate::Lost(section) | Fate::Danger(section) | Fate::Note(section) => section,
        Fate::Silent => "",
        Fate::Translated => {
            let to = keys::counterparts(key.name);
            let section = to.first().and_then(|key| key.split_once('.')).map(|(section, _)| section);
            section.unwrap_or(match key.name {
                "no-udp" | "aux-server" => "listen",
                "lt-cred-mech" | "no-auth" | "rest-api-separator" | "userdb" | "db" | "no-dynamic-realms" => {
                    "auth"
                }
                "no-dynamic-ip-list" => "peers",
                "prometheus-path" => "http",
                _ => "",
            })
        }
    }
}

/// The setting as comments show it.
pub fn written(key: &Key, entry: &Entry<'_>) -> String {
    match key.form {
        _ if entry.value.is_empty() => key.name.to_owned(),
        Form::Hidden => format!("{}=***", key.name),
        _ => format!("{}={}", key.name, shown(entry.value)),
    }
}

/// A value on one line and not too long.
pub fn shown(value: &str) -> String {
    let line = one_line(value);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// The realm: the one that was asked for, that of the configuration, or the only one of the database.
pub fn realm_of(input: &Input<'_>, lines: &Lines<'_>) -> Option<String> {
    let written = || lines.last("realm").map(|entry| entry.value).filter(|realm| !realm.is_empty());
    if let Some(realm) = input.realm.or_else(written) {
        return Some(realm.to_owned());
    }
    let realms = realms(input.database?);
    let [only] = &realms[..] else { return None };
    Some(only.clone())
}

/// The realms of a database, sorted.
pub fn realms(database: &Database) -> Vec<String> {
    let users = database.users.iter().map(|user| &user.realm);
    let pairs = [&database.secrets, &database.allowed, &database.denied];
    let pairs = pairs.into_iter().flatten().map(|(realm, _)| realm);
    let options = database.options.iter().map(|(realm, ..)| realm);
    let mut realms: Vec<String> = users.chain(pairs).chain(options).cloned().collect();
    realms.sort_unstable();
    realms.dedup();
    realms.retain(|realm| !realm.is_empty());
    realms
}

/// The options of the realm in the database, which precede those of the configuration.
pub fn options<'a>(input: &Input<'a>, lines: &Lines<'_>) -> Vec<(&'a str, u64)> {
    if lines.last("no-dynamic-realms").is_some() {
        return Vec::new();
    }
    let realm = realm_of(input, lines);
    let rows = input.database.map_or(&[][..], |database: &Database| &database.options);
    let rows = rows.iter().filter(move |(of, ..)| Some(of) == realm.as_ref());
    rows.filter_map(|(_, option, value)| Some((option.as_str(), value.trim().parse().ok()?))).collect()
}

/// Refuses a database with several realms where none is named: users and secrets of one must not open another.
pub fn one_realm(input: &Input<'_>, lines: &Lines<'_>) -> Result<(), Box<Finding>> {
    let Some(database) = input.database.filter(|_| realm_of(input, lines).is_none()) else { return Ok(()) };
    let realms = realms(database);
    if realms.len() < 2 {
        return Ok(());
    }
    let list: Vec<String> = realms.iter().take(10).map(|realm| shown(realm)).collect();
    let more = if realms.len() > 10 { ", ..." } else { "" };
    let what = format!(
        "the configuration has no realm, and {} has {}: {}{more}; a relay has one realm",
        database.name,
        realms.len(),
        list.join(", ")
    );
    Err(refusal(
        input,
        None,
        "realm",
        what,
        "add --realm NAME, with the realm that clients of this relay have",
    ))
}

/// Why nothing is imported.
pub fn refusal(
    input: &Input<'_>,
    line: Option<usize>,
    key: &str,
    what: impl Into<String>,
    fix: &str,
) -> Box<Finding> {
    Box::new(Finding {
        file: one_line(input.name),
        line,
        key: key.to_owned(),
        value: String::new(),
        what: what.into(),
        fix: fix.to_owned(),
        warning: false,
    })
}
