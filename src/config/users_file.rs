//! Files with users: TOML with `[[user]]` sections, or one user per line, `name:password[:limit]` or `name:0xKEY[:limit]`.
//!
//! A line is read so that nothing is guessed. The name ends at the first colon. What follows the last of several colons is the
//! limit, and if it cannot be one, the line is refused; a colon at the end is an empty limit, which gives every password a form.
//! A sentence from here never quotes a line.

use std::path::Path;

use toml_edit::{Document, Item, Value};

use super::files;
use super::kind::{ReadContext, ValueError};
use super::report::ERRORS_MAX;
use super::secrets::{WrongLine, leftover, lines, md5_digits, text_of};
use super::section::{About, Entry, Source, key_span, line_starts, tables};
use crate::auth::{
    LISTED_USERS_MAX, ListedPassword, Password, StaticUser, TooManyUsers, UserListBuilder, prepared_name,
    prepared_password,
};
use crate::plural::counted;
use crate::text;

/// The largest limit, as of `auth.user.allocations`.
const LIMIT_MAX: u32 = 1_000_000;

const FORM: &str = "write NAME:PASSWORD or NAME:0xKEY, or one of them with :LIMIT at the end";

/// A file with users.
pub struct UsersIn<'a> {
    /// As the setting names it.
    pub name: &'a str,
    pub bytes: &'a [u8],
    pub context: &'a ReadContext<'a>,
    /// How a `[[user]]` section is read.
    pub entry: &'static dyn Entry<Vec<StaticUser>>,
}

/// What is wrong with a file.
#[derive(Default)]
pub struct Mistakes {
    first: Vec<WrongLine>,
    more: usize,
    warnings: Vec<WrongLine>,
    /// There are more users than there may be.
    pub is_full: bool,
}

/// Adds the users of a file. Every mistake is counted, and the first ones are returned.
pub fn read_users(file: &UsersIn<'_>, users: &mut UserListBuilder) -> Mistakes {
    let mut mistakes = Mistakes::default();
    let text = match text_of(file.bytes) {
        Ok(text) => text,
        Err(wrong) => {
            mistakes.push(wrong);
            return mistakes;
        }
    };
    if text.trim().is_empty() {
        let fix = "write a user into it, or a comment if there is none for now".to_owned();
        mistakes.push(WrongLine { line: None, what: "is empty".to_owned(), fix });
    } else if is_toml(file.name, text) {
        read_sections(file, text, users, &mut mistakes);
    } else {
        read_lines(file.bytes, users, &mut mistakes);
    }
    mistakes
}

/// Whether a file is TOML, by its name or by its first line.
fn is_toml(name: &str, text: &str) -> bool {
    let has_extension = Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("toml"));
    let mut lines = text.lines().map(str::trim_start);
    has_extension
        || lines
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .is_some_and(|line| line.starts_with('['))
}

fn read_lines(bytes: &[u8], users: &mut UserListBuilder, mistakes: &mut Mistakes) {
    let lines = match lines(bytes) {
        Ok(lines) => lines,
        Err(wrong) => return mistakes.push(wrong),
    };
    for (n, line) in lines {
        match user(line) {
            Ok(user) => {
                let added = users.add(&user.name, user.password(), user.allocations, n);
                if mistakes.is_full(added, n) {
                    return;
                }
            }
            Err((what, fix)) => mistakes.push(WrongLine { line: Some(n), what, fix: fix.to_owned() }),
        }
    }
}

/// The line of a user, if it is read back as that user: with some names and passwords it would be another one, or none.
pub fn line_of(name: &str, secret: &str, is_key: bool, allocations: u32) -> Option<String> {
    let line = match allocations {
        // What follows the last of several colons is the limit.
        0 if secret.contains(':') => format!("{name}:{secret}:"),
        0 => format!("{name}:{secret}"),
        limit => format!("{name}:{secret}:{limit}"),
    };
    // A file that begins with a bracket is TOML, and a line that begins with # is a comment.
    let is_other = line.starts_with(['#', '[']);
    let read = user(&line).ok().filter(|_| !is_other)?;
    let is_same = match &read.secret {
        LineSecret::Password(text) => !is_key && text == secret,
        LineSecret::Key(key) => is_key && secret.strip_prefix("0x").and_then(md5_digits) == Some(*key),
    };
    (is_same && read.name == name && read.allocations == allocations).then_some(line)
}

/// The user of a line.
struct LineUser {
    name: String,
    secret: LineSecret,
    allocations: u32,
}

enum LineSecret {
    Password(String),
    Key([u8; 16]),
}

impl LineUser {
    fn password(&self) -> ListedPassword<'_> {
        match &self.secret {
            LineSecret::Password(text) => ListedPassword::Plain(text),
            LineSecret::Key(key) => ListedPassword::Md5Key(*key),
        }
    }
}

/// Reads a line; an error is what is wrong with it and how to fix that.
fn user(line: &str) -> Result<LineUser, (String, &'static str)> {
    let wrong = |what: &str, fix| Err((what.to_owned(), fix));
    let is_blank = |c: char| c == ' ' || c == '\t';
    if let Some((_, name)) = text::invisible(line) {
        return Err((format!("contains {name}"), "write the line again, without it"));
    }
    if line.contains('\t') {
        return wrong("contains a tab", "write the line again, without it");
    }
    if let Some(what) = leftover(line) {
        return wrong(what, FORM);
    }
    if line.contains(" #") {
        return wrong(
            "has a comment, or a password with \" #\"",
            "write comments on lines of their own, and such a password in TOML",
        );
    }
    let Some((name, rest)) = line.split_once(':') else {
        return wrong("has no colon, and so no password", FORM);
    };
    let (secret, allocations) = match rest.rsplit_once(':') {
        None => (rest, 0),
        Some((secret, limit)) => (secret, self::limit(limit)?),
    };
    if name.is_empty() {
        return wrong("has no name before the colon", FORM);
    }
    if secret.is_empty() {
        return wrong("has no password", FORM);
    }
    if name.starts_with(is_blank)
        || name.ends_with(is_blank)
        || secret.starts_with(is_blank)
        || secret.ends_with(is_blank)
    {
        let fix = "remove it; a name or a password with one can only be in TOML";
        return wrong("has a blank at the beginning or the end of the name or of the password", fix);
    }
    if name.strip_prefix("user").is_some_and(|rest| rest.trim_start().starts_with('=')) {
        return wrong("is a line of a turnserver.conf", "remove user= and write only what follows");
    }
    let quotes = |quote| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
    if quotes('"') || quotes('\'') {
        return wrong(
            "has a password in quotes, which would be a part of it",
            "remove them, or write the user in TOML",
        );
    }
    if let Some(what) = leftover(secret) {
        return wrong(what, "write the password, or the user in TOML if it looks so");
    }
    let name = prepared_name(name).map_err(|problem| (format!("has a name that {problem}"), FORM))?;
    let secret = match secret.strip_prefix("0x").or_else(|| secret.strip_prefix("0X")) {
        None => {
            let password = prepared_password(secret);
            LineSecret::Password(
                password.map_err(|problem| (format!("has a password that {problem}"), FORM))?,
            )
        }
        Some(digits) => match md5_digits(digits).filter(|_| secret.starts_with("0x")) {
            Some(key) => LineSecret::Key(key),
            None => {
                let fix = "write 0x and the 32 hex digits of MD5(user:realm:password); a password that begins so can only be in TOML";
                return wrong("has a key that is not 32 hex digits", fix);
            }
        },
    };
    Ok(LineUser { name, secret, allocations })
}

/// What follows the last of several colons.
fn limit(text: &str) -> Result<u32, (String, &'static str)> {
    if text.is_empty() {
        return Ok(0);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let what = "has after the last colon what is no number, and so no limit".to_owned();
        return Err((
            what,
            "if the colon belongs to the password, write one more colon at the end of the line",
        ));
    }
    let limit = text.parse().ok().filter(|limit| *limit <= LIMIT_MAX);
    limit.ok_or_else(|| {
        ("has a limit that is out of range".to_owned(), "write a number from 0 to 1000000; 0 is no limit")
    })
}

/// Reads sections one by one: a document of all of them would take a hundred times the memory of the text.
fn read_sections(file: &UsersIn<'_>, text: &str, users: &mut UserListBuilder, mistakes: &mut Mistakes) {
    let folder = Path::new(file.name).parent().unwrap_or(Path::new("")).to_owned();
    let read = |path: &Path| (file.context.read)(&folder.join(path));
    let context = ReadContext { read: &read, ..*file.context };
    let mut before = 0;
    for section in sections(text) {
        let lines = line_starts(section);
        let about = About { page: "docs/configuration.md", guarded: &["user"] };
        let source = Source { name: file.name, text: section, lines: &lines, context: &context, about };
        let at = |line: Option<usize>| line.map(|line| before + line);
        match Document::parse(section) {
            Ok(document) => {
                for (key, item) in document.as_table().iter() {
                    let place = at(Some(source.line(key_span(document.as_table(), key).start)));
                    if key != "user" {
                        mistakes.push(not_a_user(key, place));
                    } else if read_section(file, item, source, before, users, mistakes) {
                        return;
                    }
                }
            }
            Err(error) => {
                let what = error.message().lines().next().unwrap_or("cannot be parsed");
                let line = at(Some(source.line(error.span().unwrap_or_default().start)));
                let fix = match is_toml(file.name, "") {
                    true => {
                        "correct the syntax; one user per line is for files whose name does not end with .toml"
                    }
                    false => {
                        "correct the syntax; the file is read as TOML because its first user begins with [. If it has one user per line, \
                         put another one first"
                    }
                };
                mistakes.push(WrongLine {
                    line,
                    what: format!("is not valid TOML: {what}"),
                    fix: fix.to_owned(),
                });
            }
        }
        before += section.matches('\n').count();
    }
}

/// Reads the users of one or several sections. Returns whether there are too many.
fn read_section(
    file: &UsersIn<'_>,
    item: &Item,
    source: Source<'_>,
    before: usize,
    users: &mut UserListBuilder,
    mistakes: &mut Mistakes,
) -> bool {
    let Some(tables) = tables(item) else {
        let line = item.span().map(|span| before + source.line(span.start));
        let (what, fix) = (
            "user: expected sections that can be repeated",
            "write [[user]] with two brackets, once per user",
        );
        mistakes.push(WrongLine { line, what: what.to_owned(), fix: fix.to_owned() });
        return false;
    };
    for (table, header) in tables {
        let mut read = Vec::new();
        for finding in file.entry.read(&mut read, table, "user", header.clone(), source) {
            let line = finding.line.map(|line| before + line);
            let wrong =
                WrongLine { line, what: format!("{}: {}", finding.key, finding.what), fix: finding.fix };
            match finding.warning {
                true => mistakes.warn(wrong),
                false => mistakes.push(wrong),
            }
        }
        let place = |key: &str| table.get(key).and_then(Item::span).unwrap_or(header.clone());
        let line = before + source.line(place("name").start);
        for StaticUser { name, password, allocations } in read {
            let name = match prepared_name(&name) {
                Ok(name) => name,
                Err(problem) => {
                    let (what, fix) = (format!("user.name: {problem}"), "write another name".to_owned());
                    mistakes.push(WrongLine { line: Some(line), what, fix });
                    continue;
                }
            };
            let allocations = u32::try_from(allocations).unwrap_or(u32::MAX);
            let added = match &password {
                Password::Md5Key(key) => users.add(&name, ListedPassword::Md5Key(*key), allocations, line),
                Password::Plain(secret) => {
                    let text = str::from_utf8(secret.as_bytes()).unwrap_or_default();
                    let prepared = prepared_password(text).unwrap_or_default();
                    users.add(&name, ListedPassword::Plain(&prepared), allocations, line)
                }
            };
            if mistakes.is_full(added, line) {
                return true;
            }
        }
    }
    false
}

/// A key at the top of a file. It is not quoted: it may be anything.
fn not_a_user(key: &str, line: Option<usize>) -> WrongLine {
    let fix = match key {
        "auth" => "write [[user]] instead of [[auth.user]]",
        _ => "a file of users has only [[user]] sections, with name, password or key, and allocations",
    };
    WrongLine { line, what: "is not a user".to_owned(), fix: fix.to_owned() }
}

/// The parts of a file, each but the first one a section with its header. A text of several lines could contain what looks like
/// a header; a file with such a text is one part.
fn sections(text: &str) -> Vec<&str> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return vec![text];
    }
    let starts = line_starts(text).into_iter();
    let headers = starts.filter(|start| text[*start..].trim_start_matches([' ', '\t']).starts_with("[["));
    let mut bounds: Vec<usize> = std::iter::once(0).chain(headers).chain([text.len()]).collect();
    bounds.dedup();
    bounds.windows(2).map(|bounds| &text[bounds[0]..bounds[1]]).collect()
}

impl Mistakes {
    fn push(&mut self, wrong: WrongLine) {
        match self.first.len() < ERRORS_MAX {
            true => self.first.push(wrong),
            false => self.more += 1,
        }
    }

    fn warn(&mut self, warning: WrongLine) {
        if self.warnings.len() < ERRORS_MAX {
            self.warnings.push(warning);
        }
    }

    fn is_full(&mut self, added: Result<(), TooManyUsers>, line: usize) -> bool {
        if added == Err(TooManyUsers) {
            let what = format!("is one user too many: all files together have more than {LISTED_USERS_MAX}");
            let fix = format!(
                "keep at most {LISTED_USERS_MAX}; time-limited credentials (auth.secrets) need no list"
            );
            self.first.truncate(ERRORS_MAX - 1);
            self.push(WrongLine { line: Some(line), what, fix });
            self.is_full = true;
        }
        self.is_full
    }

    /// As errors about the setting that names the file.
    pub fn errors<'a>(&'a self, value: &'a Value, name: &'a str) -> impl Iterator<Item = ValueError> + 'a {
        let error = move |wrong: &WrongLine| {
            ValueError::of(
                value,
                format!("{} {}", files::place(name, wrong.line), wrong.what),
                wrong.fix.clone(),
            )
        };
        let warnings = self.warnings.iter().map(move |wrong| ValueError { warning: true, ..error(wrong) });
        let more = (self.more > 0).then(|| {
            let what = format!("{} has {}", files::place(name, None), counted(self.more, "more mistake"));
            ValueError::of(value, what, "correct those above first")
        });
        self.first.iter().map(error).chain(more).chain(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Draft;
    use crate::config::table::USER;
    use crate::config::user::{UserDraft, add_listed};

    static ENTRY: Draft<Vec<StaticUser>, UserDraft> =
        Draft { settings: USER, required: &["name"], add: add_listed };

    const KEY: &str = "0123456789abcdef0123456789ABCDEF";

    fn read(name: &str, bytes: &[u8]) -> (UserListBuilder, Vec<String>) {
        let mut users = UserListBuilder::default();
        users.begin(name);
        let read = |path: &Path| match path.to_str() {
            Some("folder/secret") => Ok("of a file\n".into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        let context = ReadContext { read: &read, ..ReadContext::NONE };
        let found = read_users(&UsersIn { name, bytes, context: &context, entry: &ENTRY }, &mut users);
        let value = Value::from("value");
        let said = found.errors(&value, name).map(|error| format!("{}; {}", error.what, error.fix));
        (users, said.collect())
    }

    /// The users of a file, each as `name password allocations line`.
    fn users(name: &str, text: &str) -> Vec<String> {
        let (users, wrong) = read(name, text.as_bytes());
        assert_eq!(wrong, [""; 0], "{text:?}");
        users.finish(1).0.shown()
    }

    fn wrong(name: &str, text: &str) -> Vec<String> {
        read(name, text.as_bytes()).1
    }

    /// What one line means. The name ends at the first colon; what follows the last of several is the limit.
    #[test]
    fn a_line_is_a_user() {
        let key = format!("bob:0x{KEY}");
        let limited = format!("bob:0x{KEY}:7");
        let shown = format!("0x{}", KEY.to_lowercase());
        for (line, expected) in [
            ("alice:wonder", "alice wonder 0 1"),
            ("alice:wonder:10", "alice wonder 10 1"),
            ("alice:wonder:0", "alice wonder 0 1"),
            ("alice:wonder:", "alice wonder 0 1"),
            ("alice:won:der:", "alice won:der 0 1"),
            ("alice:won:5:", "alice won:5 0 1"),
            ("alice:won:5", "alice won 5 1"),
            ("alice:won:5:5", "alice won:5 5 1"),
            ("alice:1000000:1000000", "alice 1000000 1000000 1"),
            ("alice:::", "alice : 0 1"),
            ("alice:12345", "alice 12345 0 1"),
            ("al ice@example.org:wonder land", "al ice@example.org wonder land 0 1"),
            ("alice:won#der", "alice won#der 0 1"),
            ("alice:won=der==", "alice won=der== 0 1"),
            ("1735689600:alice", "1735689600 alice 0 1"),
            ("\u{30de}\u{30c8}:p\u{e4}ss", "\u{30de}\u{30c8} p\u{e4}ss 0 1"),
            (&key, &format!("bob {shown} 0 1")),
            (&limited, &format!("bob {shown} 7 1")),
        ] {
            assert_eq!(users("users", line), [expected], "{line}");
        }
        // RFC 8265 §4.2: what is composed in another way is the same name
        assert_eq!(users("users", "A\u{30A}:x"), ["\u{C5} x 0 1"]);
    }

    /// A user is written on a line only if that is read as the same user.
    #[test]
    fn lines_are_written_if_they_are_read_back() {
        let key = KEY.to_lowercase();
        for (name, secret, is_key, limit, expected) in [
            ("alice", "wonder", false, 0, Some("alice:wonder")),
            ("alice", "wonder", false, 5, Some("alice:wonder:5")),
            ("alice", "won:5", false, 0, Some("alice:won:5:")),
            ("alice", "won:der", false, 5, Some("alice:won:der:5")),
            ("al:ice", "wonder", false, 0, None),
            ("#alice", "wonder", false, 0, None),
            ("[alice]", "wonder", false, 0, None),
            (" alice", "wonder", false, 0, None),
            ("\"alice\"", "wonder", false, 0, None),
            ("user=alice", "wonder", false, 0, None),
            ("alice", "won #der", false, 0, None),
            ("alice", "0xwonder", false, 0, None),
            ("alice", "${WONDER}", false, 0, None),
            ("alice", &format!("0x{key}"), false, 0, None),
            ("alice", &format!("0x{key}"), true, 7, Some(format!("alice:0x{key}:7").as_str())),
            ("A\u{30A}", "wonder", false, 0, None),
        ] {
            let line = line_of(name, secret, is_key, limit);
            assert_eq!(line.as_deref(), expected, "{name} {secret}");
        }
    }

    #[test]
    fn comments_marks_and_line_ends_are_no_users() {
        let text = "\u{FEFF}# ours\r\n\r\n  # indented\r\nalice:one\r\n \r\nbob:two:5\r\n";
        assert_eq!(users("users", text), ["alice one 0 4", "bob two 5 6"]);
        assert_eq!(users("users", "# nobody for now\n"), [""; 0]);
        assert_eq!(users("users.toml", "# nobody for now\n"), [""; 0]);
        assert_eq!(users("users", "alice:one"), ["alice one 0 1"]);
    }

    /// What could be meant in two ways is refused, with the line and the way out; nothing is quoted.
    #[test]
    fn wrong_lines_are_named_and_not_quoted() {
        let key = |digits: &str| format!("alice:0x{digits}");
        for (line, said) in [
            ("hush", "has no colon, and so no password; write NAME:PASSWORD"),
            (":hush", "has no name before the colon"),
            ("alice:", "has no password"),
            ("alice::5", "has no password"),
            (
                "alice:hush:hush",
                "no limit; if the colon belongs to the password, write one more colon at the end",
            ),
            ("alice:hush:5x", "no limit"),
            ("alice:hush:-1", "no limit"),
            ("alice:hush: 5", "no limit"),
            ("alice:hush:1000001", "a limit that is out of range"),
            ("alice:hush:99999999999999999999", "a limit that is out of range"),
            ("alice: hush", "has a blank at the beginning or the end"),
            ("alice:hush ", "has a blank at the beginning or the end"),
            (" alice:hush", "has a blank at the beginning or the end"),
            ("alice :hush", "has a blank at the beginning or the end"),
            ("alice:hush # comment", "write comments on lines of their own"),
            ("alice:\"hush\"", "has a password in quotes"),
            ("\"alice\":hush", "has a name that is in quotes"),
            ("hairpin-probe:hush", "has a name that is kept for probes"),
            ("user=alice:hush", "is a line of a turnserver.conf; remove user="),
            ("user = alice:hush", "is a line of a turnserver.conf"),
            ("al\tice:hush", "contains a tab"),
            ("alice:hu\u{200B}sh", "contains a zero-width character (U+200B)"),
            (
                "ali\u{378}ce:hush",
                "a name that contains characters that OpaqueString (RFC 8265) does not allow",
            ),
            ("alice:hu\u{378}sh", "a password that contains characters that OpaqueString"),
            (&format!("{}:hush", "x".repeat(509)), "a name that is longer than 508 bytes"),
            ("alice:{{ hush }}", "a template was not filled in"),
            ("alice:${hush}", "a template was not filled in"),
            ("alice:${hush}:5", "a template was not filled in"),
            ("$ANSIBLE_VAULT;1.1:hush", "ansible-vault"),
            (&key("0123456789abcdef0123456789abcde"), "has a key that is not 32 hex digits; write 0x and"),
            (&key("0123456789abcdef0123456789abcdefa"), "has a key that is not 32 hex digits"),
            (&key("hush"), "a password that begins so can only be in TOML"),
            (&format!("alice:0X{KEY}"), "has a key that is not 32 hex digits"),
        ] {
            let found = wrong("users", &format!("# users\nzoe:hush\n{line}\n"));
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            assert!(found[0].starts_with("users:3: ") && found[0].contains(said), "{line}: {found:?}");
            assert!(!found[0].contains("hush"), "{found:?}");
        }
        for (bytes, said) in [
            (&b"alice:hush\nb\xF6b:hush\n"[..], "users:2: is not UTF-8"),
            (b"alice:hush\nbob:hu\0sh and so on\n", "users:2: contains a NUL byte"),
            (b"a:hush\nb:hu\rsh\n", "users:2: the line contains a carriage return without a line feed"),
            (b"", "users: is empty; write a user into it, or a comment if there is none"),
            (b" \n\n", "users: is empty"),
        ] {
            let found = read("users", bytes).1;
            assert!(found.len() == 1 && found[0].starts_with(said), "{found:?}");
        }
    }

    /// The keys of `[[auth.user]]`, and everything that a line cannot have.
    #[test]
    fn a_file_may_be_toml() {
        let text = format!(
            "# users\n[[user]]\nname = \"al:ice\"\npassword = \" 0xa #:5 \"\n\n  [[user]] # bob\nname = 'bob'\nkey = \"0x{KEY}\"\n\
             allocations = 7\n[[user]]\nname = \"carol\"\npassword_file = \"secret\"\n"
        );
        let key = format!("bob 0x{} 7 7", KEY.to_lowercase());
        let expected = ["al:ice  0xa #:5  0 3", &key, "carol of a file 0 11"];
        for name in ["folder/users.toml", "folder/users", "folder/USERS.TOML"] {
            assert_eq!(users(name, &text), expected);
        }
        // A text of several lines may look like a header.
        let text = "[[user]]\nname = \"a\"\npassword = '''x\n[[user]]'''\n[[user]]\nname = \"b\"\npassword = \"y\"\n";
        let (list, found) = read("users.toml", text.as_bytes());
        assert_eq!(found.len(), 1, "a password has one line: {found:?}");
        assert_eq!(list.finish(1).0.shown(), ["b y 0 6"]);
        assert_eq!(users("users.toml", "user = [{ name = \"a\", password = \"x\" }]"), ["a x 0 1"]);
    }

    #[test]
    fn mistakes_in_toml_have_their_lines() {
        for (section, line, said) in [
            ("[[user]]\nname = \"x\"", 4, "user.name: the user has no password; add one of"),
            ("[[user]]\npassword = \"hush\"", 3, "user: name is missing"),
            (
                "[[user]]\nname = \"x\"\npasword = \"hush\"",
                5,
                "user.pasword: unknown setting; did you mean password?",
            ),
            ("[[user]]\nname = \"x\"\nhush = 1\npassword = \"x\"", 5, "unknown setting"),
            ("[[user]]\nname = \"x\"\npassword = 5", 5, "user.password: expected text"),
            ("[[user]]\nname = \"x\"\nkey = \"hush\"", 5, "user.key: not an MD5 key"),
            (
                "[[user]]\nname = \"x\"\npassword = \"a\"\nallocations = -1",
                6,
                "user.allocations: out of range",
            ),
            ("[[user]]\nname = \"\\\"x\\\"\"\npassword = \"a\"", 4, "user.name: is in quotes"),
            (
                "[[user]]\nname = \"hairpin-probe\"\npassword = \"a\"",
                4,
                "user.name: this name is kept for probes",
            ),
            ("[[auth.user]]\nname = \"x\"", 3, "is not a user; write [[user]] instead of [[auth.user]]"),
            ("[[hush]]\nname = \"x\"", 3, "is not a user; a file of users has only [[user]] sections"),
            ("[[user]]\nname = \"x\"\npassword = hush", 5, "is not valid TOML"),
            ("[[user]]\nhush:hush", 4, "is not valid TOML"),
            ("[[user]]\nname = \"x\"\nname = \"y\"", 5, "is not valid TOML: duplicate key"),
        ] {
            let text = format!(
                "[[user]]\nname = \"first\"\npassword = \"1\"\n{section}\n[[user]]\nname = \"z\"\npassword = \"2\"\n"
            );
            let (list, found) = read("users.toml", text.as_bytes());
            assert_eq!(found.len(), 1, "{section}: {found:?}");
            // The section begins at the fourth line.
            let place = format!("users.toml:{}: ", line + 1);
            assert!(found[0].starts_with(&place) && found[0].contains(said), "{section}: {found:?}");
            assert!(!found[0].contains("hush"), "{found:?}");
            assert_eq!(list.finish(1).0.len(), 2, "{section}: the others are read");
        }
        let found = wrong("users.toml", "alice:hush\n");
        assert!(
            found[0].contains("users.toml:1: is not valid TOML") && found[0].contains("one user per line")
        );
        assert!(!found[0].contains("hush"));
        let found = wrong("users.toml", "[user]\nname = \"x\"\n");
        assert!(found[0].contains("write [[user]] with two brackets"), "{found:?}");
        let found = wrong("users", "[al]ice:hush\nbob:hush\n");
        assert!(found[0].contains("because its first user begins with [. If it has one user per line, put"));
    }
}
