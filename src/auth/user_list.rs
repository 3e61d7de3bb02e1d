//! The users of files, of which there may be hundreds of thousands: a few blocks of memory, so that a list costs little more
//! than its text and is dropped at once. Names and passwords are in there prepared, each checked as it is added.
//!
//! The order is that of the names, so that a user is found by a binary search and two lists are compared in one pass.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::account::is_reserved;
use super::prepare::{opaque_string, strip_quotes};

/// RFC 8489 §14.3: a USERNAME is shorter than 509 bytes.
pub(super) const NAME_MAX: usize = 508;

/// The most users of all files together.
pub const LISTED_USERS_MAX: usize = 1_000_000;

/// The most bytes of their names and passwords.
const TEXT_MAX: usize = 256 << 20;

/// A name as it is compared with that of a request.
///
/// # Errors
/// No client could use it; completes a sentence that starts with the name.
pub fn prepared_name(name: &str) -> Result<String, &'static str> {
    let name = opaque_string(name)?;
    if name.len() > NAME_MAX {
        return Err("is longer than 508 bytes");
    }
    if is_reserved(&name) {
        return Err("is kept for probes of the relay; use another name");
    }
    if strip_quotes(name.as_bytes()) != name.as_bytes() {
        return Err("is in quotes, which are not part of the name; remove them");
    }
    Ok(name)
}

/// Users of files, sorted by name.
#[derive(Default)]
pub struct UserList {
    names: Arc<ListedNames>,
    passwords: Box<[u8]>,
    /// One per name, in the same order.
    entries: Box<[Entry]>,
    files: Box<[String]>,
}

/// The names alone, without any secret.
#[derive(Default)]
pub(super) struct ListedNames {
    text: Box<str>,
    /// Where each ends.
    ends: Box<[u32]>,
}

struct Entry {
    /// Where the password ends.
    end: u32,
    is_key: bool,
    allocations: u32,
    file: u32,
    line: u32,
}

/// The password of a user of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ListedPassword<'a> {
    /// The password itself.
    Plain(&'a str),
    /// `MD5(username ":" realm ":" password)`.
    Md5Key([u8; 16]),
}

/// How one list differs from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListedChanges {
    /// Users that are new.
    pub added: usize,
    /// Users that are gone.
    pub removed: usize,
    /// Users with another password or limit.
    pub changed: usize,
}

/// A user that has two entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTwice {
    /// The name.
    pub name: String,
    /// The place of the first entry: the file's name and the line.
    pub first: (String, usize),
    /// That of the second one: the number of the file, counted from 0, and the line.
    pub second: (usize, usize),
}

impl UserList {
    /// How many users there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many files they come from.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Where a user of this prepared name is: the file and the line.
    pub fn place(&self, name: &str) -> Option<(&str, usize)> {
        let Entry { file, line, .. } = &self.entries[self.names.find(name)?];
        Some((&self.files[*file as usize], *line as usize))
    }

    /// What differs in another list.
    pub fn changes(&self, new: &UserList) -> ListedChanges {
        let mut changes = ListedChanges::default();
        let (mut old_at, mut new_at) = (0, 0);
        loop {
            let order = match (old_at < self.len(), new_at < new.len()) {
                (false, false) => return changes,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (true, true) => self.names.get(old_at).cmp(new.names.get(new_at)),
            };
            match order {
                Ordering::Less => changes.removed += 1,
                Ordering::Greater => changes.added += 1,
                Ordering::Equal => {
                    let is_same = self.password(old_at) == new.password(new_at)
                        && self.allocations(old_at) == new.allocations(new_at);
                    changes.changed += usize::from(!is_same);
                }
            }
            old_at += usize::from(order != Ordering::Greater);
            new_at += usize::from(order != Ordering::Less);
        }
    }

    /// Each user as `name password allocations line`.
    #[cfg(test)]
    pub fn shown(&self) -> Vec<String> {
        let shown = |n: usize| {
            let password = match self.password(n) {
                ListedPassword::Plain(text) => text.to_owned(),
                ListedPassword::Md5Key(key) => format!("0x{:032x}", u128::from_be_bytes(key)),
            };
            format!("{} {password} {} {}", self.names.get(n), self.allocations(n), self.entries[n].line)
        };
        (0..self.len()).map(shown).collect()
    }

    pub(super) fn names(&self) -> &Arc<ListedNames> {
        &self.names
    }

    pub(super) fn password(&self, n: usize) -> ListedPassword<'_> {
        let start = n.checked_sub(1).map_or(0, |before| self.entries[before].end as usize);
        let bytes = &self.passwords[start..self.entries[n].end as usize];
        match (self.entries[n].is_key, <[u8; 16]>::try_from(bytes)) {
            (true, Ok(key)) => ListedPassword::Md5Key(key),
            _ => ListedPassword::Plain(str::from_utf8(bytes).expect("the builder takes text")),
        }
    }

    pub(super) fn allocations(&self, n: usize) -> usize {
        self.entries[n].allocations as usize
    }
}

impl ListedNames {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, n: usize) -> &str {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[n] as usize]
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

impl fmt::Debug for UserList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserList({} users, ***)", self.len())
    }
}

/// Makes a [`UserList`] of files that are read one after the other.
#[derive(Default)]
pub struct UserListBuilder {
    text: String,
    passwords: Vec<u8>,
    drafts: Vec<Draft>,
    files: Vec<String>,
}

/// The places of a name and a password in the builder.
struct Draft {
    name: (u32, u32),
    password: (u32, u32),
    entry: Entry,
}

impl UserListBuilder {
    /// The users that follow are those of this file.
    pub fn begin(&mut self, file: &str) {
        self.files.push(file.to_owned());
    }

    /// Adds a user of the current file, whose name is prepared and whose password was checked. `allocations`: 0 is no limit.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(
        &mut self,
        name: &str,
        password: ListedPassword<'_>,
        allocations: u32,
        line: usize,
    ) -> Result<(), TooManyUsers> {
        let bytes = match &password {
            ListedPassword::Plain(text) => text.as_bytes(),
            ListedPassword::Md5Key(key) => key,
        };
        let size = self.text.len() + self.passwords.len() + name.len() + bytes.len();
        if self.drafts.len() >= LISTED_USERS_MAX || size > TEXT_MAX {
            return Err(TooManyUsers);
        }
        let (from, before) = (self.text.len() as u32, self.passwords.len() as u32);
        self.text.push_str(name);
        self.passwords.extend_from_slice(bytes);
        let entry = Entry {
            end: 0,
            is_key: matches!(password, ListedPassword::Md5Key(_)),
            allocations,
            file: self.files.len().saturating_sub(1) as u32,
            line: u32::try_from(line).unwrap_or(u32::MAX),
        };
        self.drafts.push(Draft {
            name: (from, self.text.len() as u32),
            password: (before, self.passwords.len() as u32),
            entry,
        });
        Ok(())
    }

    /// The list, and the users that have two entries: of those it has the first. `most` of them are returned, with how many more
    /// there are.
    pub fn finish(self, most: usize) -> (UserList, Vec<ListedTwice>, usize) {
        let UserListBuilder { text, passwords, mut drafts, files } = self;
        let name = |draft: &Draft| &text[draft.name.0 as usize..draft.name.1 as usize];
        // A stable sort: the first entry of a name stays the first one.
        drafts.sort_by(|one, other| name(one).cmp(name(other)));
        let (mut twice, mut more) = (Vec::new(), 0);
        let mut list = ListParts::with_room(text.len(), passwords.len(), drafts.len());
        let mut kept: Option<usize> = None;
        for n in 0..drafts.len() {
            let draft = &drafts[n];
            match kept.map(|kept| &drafts[kept]).filter(|first| name(first) == name(draft)) {
                None => {
                    let password = &passwords[draft.password.0 as usize..draft.password.1 as usize];
                    list.push(name(draft), password, &draft.entry);
                    kept = Some(n);
                }
                Some(_) if twice.len() >= most => more += 1,
                Some(first) => twice.push(ListedTwice {
                    name: name(draft).to_owned(),
                    first: (files[first.entry.file as usize].clone(), first.entry.line as usize),
                    second: (draft.entry.file as usize, draft.entry.line as usize),
                }),
            }
        }
        twice.sort_by_key(|one| one.second);
        (list.finish(files), twice, more)
    }
}

/// A list that is being written in its order.
struct ListParts {
    text: String,
    ends: Vec<u32>,
    passwords: Vec<u8>,
    entries: Vec<Entry>,
}

impl ListParts {
    fn with_room(text: usize, passwords: usize, users: usize) -> ListParts {
        ListParts {
            text: String::with_capacity(text),
            ends: Vec::with_capacity(users),
            passwords: Vec::with_capacity(passwords),
            entries: Vec::with_capacity(users),
        }
    }

    fn push(&mut self, name: &str, password: &[u8], entry: &Entry) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u32);
        self.passwords.extend_from_slice(password);
        self.entries.push(Entry { end: self.passwords.len() as u32, ..*entry });
    }

    fn finish(self, files: Vec<String>) -> UserList {
        UserList {
            names: Arc::new(ListedNames { text: self.text.into(), ends: self.ends.into() }),
            passwords: self.passwords.into(),
            entries: self.entries.into(),
            files: files.into(),
        }
    }
}

/// The files list more users than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyUsers;

/// The first few names of a long list, and how many more there are.
pub(super) fn first_of<'a>(names: impl Iterator<Item = Cow<'a, str>>, most: usize) -> String {
    let mut shown = Vec::new();
    let mut more = 0;
    for name in names {
        match shown.len() < most {
            true => shown.push(name),
            false => more += 1,
        }
    }
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    shown.join(", ") + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of lines `name password`, all in one file.
    fn list(lines: &[(&str, &str)]) -> UserList {
        let mut builder = UserListBuilder::default();
        builder.begin("users");
        for (n, (name, password)) in lines.iter().enumerate() {
            builder.add(name, ListedPassword::Plain(password), 0, n + 1).unwrap();
        }
        let (list, twice, _) = builder.finish(10);
        assert_eq!(twice, []);
        list
    }

    #[test]
    fn users_are_found_in_any_order() {
        let users = list(&[("carol", "three"), ("alice", "one"), ("bob", "two"), ("al", "")]);
        for (name, line) in [("carol", 1), ("alice", 2), ("bob", 3), ("al", 4)] {
            assert_eq!(users.place(name), Some(("users", line)), "{name}");
        }
        for name in ["", "a", "ali", "alicea", "dave"] {
            assert_eq!(users.place(name), None, "{name}");
        }
        let bob = users.names().find("bob").unwrap();
        assert!(users.password(bob) == ListedPassword::Plain("two"));
        assert_eq!(UserList::default().place("alice"), None);
        assert_eq!(format!("{users:?}"), "UserList(4 users, ***)");
    }

    /// The place of both entries is told, of a bounded number of them.
    #[test]
    fn a_user_with_two_entries_is_told_with_both_places() {
        let mut builder = UserListBuilder::default();
        for file in ["one", "two"] {
            builder.begin(file);
            for (line, name) in ["alice", "bob"].into_iter().enumerate() {
                builder.add(name, ListedPassword::Md5Key([line as u8; 16]), 7, line + 1).unwrap();
            }
        }
        builder.add("bob", ListedPassword::Plain("other"), 0, 9).unwrap();
        let (list, twice, more) = builder.finish(2);
        let said =
            |name: &str, line, second| ListedTwice { name: name.into(), first: ("one".into(), line), second };
        assert_eq!((list.len(), more), (2, 1));
        assert_eq!(twice, [said("alice", 1, (1, 1)), said("bob", 2, (1, 2))]);
        assert!(list.password(1) == ListedPassword::Md5Key([1; 16]) && list.allocations(1) == 7);
    }

    #[test]
    fn lists_are_compared() {
        let old = list(&[("alice", "one"), ("bob", "two"), ("carol", "three"), ("eve", "x")]);
        let new = list(&[("eve", "x"), ("bob", "two"), ("carol", "four"), ("zoe", "y"), ("dave", "z")]);
        let expected = ListedChanges { added: 2, removed: 1, changed: 1 };
        assert_eq!(old.changes(&new), expected);
        assert_eq!(old.changes(&old), ListedChanges::default());
        assert_eq!(UserList::default().changes(&old).added, 4);
        assert_eq!(old.changes(&UserList::default()).removed, 4);
    }

    /// A list has a bound.
    #[test]
    fn too_many_users_are_refused() {
        let mut builder = UserListBuilder::default();
        builder.begin("users");
        let long = "x".repeat(TEXT_MAX - 1);
        assert_eq!(builder.add("ab", ListedPassword::Plain(&long), 0, 1), Err(TooManyUsers));
        for n in 0..LISTED_USERS_MAX {
            builder.add("a", ListedPassword::Plain("b"), 0, n).unwrap();
        }
        assert_eq!(builder.add("a", ListedPassword::Plain("b"), 0, 1), Err(TooManyUsers));
        assert_eq!(builder.finish(3).2, LISTED_USERS_MAX - 4);
    }
}
