//! Users, written into the configuration or, if there are many, into files beside it.

use toml_edit::Value;

use super::document::{Document, Place, Weight, one_line};
use super::source::Input;
use crate::config::files::FILE_MAX;
use crate::config::users_file;
use crate::plural::counted;

/// The users that are written into the configuration; more have a file of their own.
const INLINE_MAX: usize = 20;

/// A user.
pub struct User {
    /// As hairpin knows it (RFC 8265).
    pub name: String,
    pub place: Place,
    pub password: Password,
}

pub enum Password {
    Plain(String),
    /// 32 hex digits.
    Key(String),
}

/// Files of users, which are split where one would be larger than hairpin reads.
struct Files {
    name: String,
    head: String,
    /// The bytes that a file may have.
    bound: usize,
    files: Vec<(String, String)>,
}

impl Files {
    fn push(&mut self, line: &str) {
        let is_full = |(_, page): &(String, String)| page.len() + line.len() + 1 > self.bound;
        if self.files.last().is_none_or(is_full) {
            let name = match self.files.len() {
                0 => self.name.clone(),
                n => format!("{}-{}", self.name, n + 1),
            };
            self.files.push((name, self.head.clone()));
        }
        if let Some((_, page)) = self.files.last_mut() {
            page.push_str(line);
            page.push('\n');
        }
    }
}

/// Writes users into the configuration, or many of them into files, whose names and contents are returned.
pub fn write_users(
    input: &Input<'_>,
    quota: Option<u32>,
    users: Vec<User>,
    document: &mut Document,
) -> Vec<(String, String)> {
    let file = input.users_file.filter(|_| users.len() > INLINE_MAX);
    let mut files = Files {
        name: file.unwrap_or_default().to_owned(),
        head: format!(
            "# Users, imported from {} by `hairpin import-coturn`: name:password[:limit] or name:0xkey[:limit]\n",
            one_line(input.name)
        ),
        bound: FILE_MAX as usize,
        files: Vec::new(),
    };
    let mut in_file = Vec::new();
    for User { name, place, password } in users {
        let secret = match &password {
            Password::Plain(password) => password.clone(),
            Password::Key(key) => format!("0x{key}"),
        };
        let is_key = matches!(password, Password::Key(_));
        let line = file.and_then(|_| users_file::line_of(&name, &secret, is_key, quota.unwrap_or(0)));
        if let Some(line) = line {
            files.push(&line);
            in_file.push(place);
            continue;
        }
        let mut settings = vec![("name", Value::from(name))];
        settings.push(match password {
            Password::Plain(password) => ("password", password.into()),
            Password::Key(key) => ("key", key.into()),
        });
        settings.extend(quota.map(|quota| ("allocations", Value::from(i64::from(quota)))));
        document.repeated("auth.user", settings, place);
    }
    let files = files.files;
    if files.is_empty() {
        return files;
    }
    let at: Vec<usize> = in_file.iter().flat_map(Place::lines).copied().collect();
    let place = if at.is_empty() { Place::Database } else { Place::Lines(at) };
    let names = files.iter().map(|(name, _)| name.as_str());
    match &files[..] {
        [(name, _)] => document.set("auth.users_file", name.as_str(), place),
        _ => document.set("auth.users_file", names.collect::<Value>(), place),
    };
    let where_ = match files.len() {
        1 => "a file".to_owned(),
        n => format!("{n} files, because hairpin reads {} MiB of each,", FILE_MAX >> 20),
    };
    let text = format!("{} in {where_} beside this one", counted(in_file.len(), "user"));
    document.remark(Weight::Note, Place::Nowhere, text);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// hairpin reads 16 MiB of a file; every part begins with the comment.
    #[test]
    fn users_are_split_where_a_file_would_be_too_large() {
        let mut files = Files { name: "users".into(), head: "# head\n".into(), bound: 20, files: Vec::new() };
        for line in ["alice:one", "bob:two", "carol:three"] {
            files.push(line);
        }
        let expected = [
            ("users", "# head\nalice:one\n"),
            ("users-2", "# head\nbob:two\n"),
            ("users-3", "# head\ncarol:three\n"),
        ];
        let found: Vec<_> = files.files.iter().map(|(name, page)| (name.as_str(), page.as_str())).collect();
        assert_eq!(found, expected);
    }
}
