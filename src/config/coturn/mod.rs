//! `turnserver.conf`, and what was read from coturn's database, made into a configuration of hairpin. Every setting with a
//! counterpart is translated; what is lost, and what is dangerous, is said in comments that name its line.
//!
//! - `grammar`: the lines, as coturn reads them
//! - `keys`: every key and what becomes of it
//! - `source`: what is imported, and the comments on keys without a counterpart
//! - `network`, `auth`, `users`, `peers`, `operation`: the translation, by subject
//! - `document`: the configuration that is written
//! - `page`: the table of keys in `docs/from-coturn.md`
//!
//! Nothing here reads a file: `cli/import_coturn` does.

mod auth;
mod document;
mod grammar;
mod keys;
mod network;
mod operation;
#[cfg(test)]
mod page;
mod peers;
mod source;
#[cfg(test)]
mod tests;
mod users;

pub use document::Weight;
pub use source::{Database, DatabaseUser, Input};

use document::Document;
use source::Lines;

use super::report::Finding;

/// An imported configuration.
pub struct Import {
    document: Document,
    head: String,
    source: String,
    /// The names and contents of files for users, if there are too many for the configuration.
    pub users: Vec<(String, String)>,
    /// The lines of `turnserver.conf` with settings.
    pub settings: usize,
}

/// What is said about an import: how much it matters, and the sentence with its place.
pub struct Said {
    /// How much it matters.
    pub weight: Weight,
    /// The sentence.
    pub text: String,
}

/// Translates a configuration.
///
/// # Errors
///
/// Why it is not imported: nobody may use the result, or everybody.
pub fn import(input: &Input<'_>) -> Result<Import, Box<Finding>> {
    let lines = Lines::new(input.text);
    source::one_realm(input, &lines)?;
    let mut document = Document::new(input.name);
    network::translate(input, &lines, &mut document);
    let users = auth::translate(input, &lines, &mut document)?;
    operation::translate(input, &lines, &mut document);
    peers::translate(input, &lines, &mut document);
    source::remark(&lines, &mut document);
    let head = format!(
        "Imported from {} by `hairpin import-coturn`. Each setting has the line that it comes from. Comments say what differs: \
         \"danger\" wants to be looked at, \"lost\" is what coturn does and hairpin does not, \"note\" is good to know.\n\n\
         docs/from-coturn.md describes the move, docs/configuration.md every setting.",
        document::one_line(input.name)
    );
    Ok(Import {
        document,
        head,
        source: document::one_line(input.name),
        users,
        settings: lines.entries.len(),
    })
}

/// The database that a configuration names.
#[derive(Debug, PartialEq, Eq)]
pub enum DatabaseOf {
    /// None, so that coturn uses SQLite in the place that it was built for.
    Default,
    /// The SQLite file of `userdb` or `db`.
    File(String),
    /// PostgreSQL, MySQL, MongoDB or Redis: coturn uses no SQLite then.
    Other,
}

/// Which database coturn uses: the last line about one counts.
pub fn database_of(text: &str) -> DatabaseOf {
    let lines = Lines::new(text);
    let named = lines.entries.iter().rev().find_map(|entry| match entry.key {
        "userdb" | "db" => Some(match entry.value {
            "" => DatabaseOf::Default,
            name => DatabaseOf::File(name.to_owned()),
        }),
        "psql-userdb" | "sql-userdb" | "mysql-userdb" | "mongo-userdb" | "redis-userdb" => {
            Some(DatabaseOf::Other)
        }
        _ => None,
    });
    named.unwrap_or(DatabaseOf::Default)
}

impl Import {
    /// The text of the configuration.
    pub fn text(&mut self) -> String {
        self.document.render(&self.head)
    }

    /// Comments out the settings that these mistakes are about, in the text that was made last. `false`: nothing changed.
    pub fn refuse(&mut self, mistakes: &[Finding]) -> bool {
        let mut changed = false;
        for Finding { line, what, fix, .. } in mistakes.iter().filter(|finding| !finding.warning) {
            changed |= line.is_some_and(|line| self.document.refuse(line, &format!("{what}; {fix}")));
        }
        changed
    }

    /// Why settings are commented out, for a configuration that cannot be used without them.
    pub fn refused(&self) -> Vec<Finding> {
        self.document
            .refused()
            .into_iter()
            .map(|(key, line, why)| Finding {
                file: self.source.clone(),
                line,
                key,
                value: String::new(),
                what: why,
                fix: "correct it, and import again".to_owned(),
                warning: false,
            })
            .collect()
    }

    /// How many lines have become settings.
    pub fn translated(&self) -> usize {
        self.document.translated()
    }

    /// Everything that the comments say.
    pub fn said(&self) -> Vec<Said> {
        let mut said: Vec<_> = self.document.remarks().collect();
        said.sort_by_key(|remark| remark.place.lines().first().copied().unwrap_or(usize::MAX));
        let shown = |remark: document::Remark| {
            let place = remark.place.shown(&self.source).map_or(String::new(), |place| format!("{place}: "));
            Said { weight: remark.weight, text: format!("{place}{}", remark.text) }
        };
        said.into_iter().map(shown).collect()
    }
}
