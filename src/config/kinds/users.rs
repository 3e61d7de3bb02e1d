//! The kinds of `auth.users_file` and of the names of users.

use std::ops::ControlFlow;
use std::sync::Arc;

use toml_edit::Value;

use super::secret::{FileKind, each_file, writable};
use crate::auth::{ListedChanges, ListedTwice, StaticUser, UserList, UserListBuilder};
use crate::config::files;
use crate::config::kind::{FieldValue, ReadContext, SettingKind, Shape, ValueError};
use crate::config::report::{ERRORS_MAX, HIDDEN};
use crate::config::section::Entry;
use crate::config::users_file::{UsersIn, read_users};
use crate::plural::counted;

/// One or several files with users.
pub struct UsersFiles<T: 'static> {
    /// How a section of a file in TOML is read.
    pub entry: &'static dyn Entry<Vec<StaticUser>>,
    pub at: fn(&mut T) -> &mut Arc<UserList>,
}

impl<T> SettingKind<T> for UsersFiles<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        let mut builder = UserListBuilder::default();
        let mut known: Vec<(&Value, &str)> = Vec::new();
        let mut errors = each_file(value, context, FileKind::Users, |one, name, contents, errors| {
            errors.extend(writable(one, &contents));
            known.push((one, name));
            builder.begin(name);
            let text = UsersIn { name, bytes: &contents.bytes, context, entry: self.entry };
            let found = read_users(&text, &mut builder);
            errors.extend(found.errors(one, name));
            if found.is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let (list, twice, more) = builder.finish(ERRORS_MAX);
        errors.extend(twice.iter().map(|twice| {
            let (value, name) = known[twice.second.0];
            ValueError::of(value, said(twice, name), "remove one of them")
        }));
        errors.extend((more > 0).then(|| {
            let what = format!("{} more are listed twice", counted(more, "user"));
            ValueError::of(value, what, "look at those above first")
        }));
        *(self.at)(target) = Arc::new(list);
        errors
    }

    fn value(&self, target: &mut T) -> FieldValue {
        FieldValue::plain(counted((self.at)(target).len(), "user"))
    }

    fn difference(&self, old: &mut T, new: &mut T) -> Option<String> {
        let (old, new) = ((self.at)(old), (self.at)(new));
        if Arc::ptr_eq(old, new) {
            return None;
        }
        let ListedChanges { added, removed, changed } = old.changes(new);
        let parts = [(added, "added"), (removed, "removed"), (changed, "changed")];
        let parts: Vec<_> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        (!parts.is_empty()).then(|| format!("{}, {} now", parts.join(", "), counted(new.len(), "user")))
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        (self.at)(to).clone_from((self.at)(from));
    }

    fn describe(&self) -> String {
        "file, or list of files".into()
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// What is wrong with a user that has two entries. A name of coturn's form, `user:password`, may contain a password.
fn said(twice: &ListedTwice, file: &str) -> String {
    let ListedTwice { name, first, second } = twice;
    let name = if name.contains(':') { HIDDEN.to_owned() } else { format!("{name:?}") };
    let (place, first) = (files::place(file, Some(second.1)), files::place(&first.0, Some(first.1)));
    format!("{place} the user {name} is listed already in {}", first.trim_end_matches(':'))
}

/// A kind of setting whose place in the file is kept, too.
pub struct Placed<T: 'static> {
    pub kind: &'static dyn SettingKind<T>,
    /// The byte where the value begins.
    pub place: fn(&mut T) -> &mut usize,
}

impl<T> SettingKind<T> for Placed<T> {
    fn read(&self, target: &mut T, value: &Value, context: &ReadContext<'_>) -> Vec<ValueError> {
        *(self.place)(target) = value.span().unwrap_or_default().start;
        self.kind.read(target, value, context)
    }

    fn value(&self, target: &mut T) -> FieldValue {
        self.kind.value(target)
    }

    fn copy(&self, from: &mut T, to: &mut T) {
        *(self.place)(to) = *(self.place)(from);
        self.kind.copy(from, to);
    }

    fn describe(&self) -> String {
        self.kind.describe()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{FileContents, Finding, Loaded, load};

    fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
        let read = |path: &Path| match path.to_str() {
            Some("one") => Ok("alice:hush\nbob:0x00112233445566778899aabbccddeeff:5\n".into()),
            Some("two") => Ok("# two\ncarol:hush\nalice:hush\n".into()),
            Some("other") => Ok("alice:shush\ndave:hush\nbob:0x00112233445566778899aabbccddeeff:6\n".into()),
            Some("bad") => Ok("alice:hush\nhush\n".into()),
            Some("users.toml") => Ok("[[user]]\nname = \"zoe\"\npassword = \"hush\"\n".into()),
            Some("public") => {
                Ok(FileContents { is_public: true, is_writable: true, bytes: "al:hush".into() })
            }
            Some("long") => Ok("hush\n".repeat(100_000).as_str().into()),
            Some("same") => Ok("alice:hush\n".repeat(1000).as_str().into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        load("file", text, &ReadContext { read: &read, ..ReadContext::NONE })
    }

    fn users(value: &str) -> Arc<UserList> {
        read(&format!("[auth]\nusers_file = {value}")).unwrap().settings.auth.listed
    }

    fn mistakes(text: &str) -> Vec<String> {
        read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    /// The users of one file or of several are credentials: no others are needed. `hairpin check` says how many there are.
    #[test]
    fn users_come_from_one_file_or_several() {
        let one = users("\"one\"");
        assert_eq!((one.len(), one.place("bob")), (2, Some(("one", 2))));
        let both = users("[\"one\", \"users.toml\"]");
        assert_eq!((both.len(), both.place("zoe")), (3, Some(("users.toml", 2))));
        let notes = read("[auth]\nusers_file = [\"one\", \"users.toml\"]").unwrap().notes;
        assert!(notes.iter().any(|note| note.to_string().contains("3 users in 2 files")), "{notes:?}");
        let missing = mistakes("[auth]\nusers_file = []");
        assert!(missing[0].contains("there are no credentials") && missing[0].contains("auth.users_file"));
    }

    #[test]
    fn mistakes_have_file_line_and_fix_and_quote_nothing() {
        for (value, said) in [
            ("\"bad\"", "file:2: auth.users_file = \"bad\": bad:2: has no colon, and so no password; write"),
            (
                "[\"one\", \"two\"]",
                "two:3: the user \"alice\" is listed already in one:1; remove one of them",
            ),
            ("[\"one\", \"one\"]", "one:1: the user \"alice\" is listed already in one:1"),
            ("\"./missing\"", "auth.users_file = \"./missing\": cannot be read: No such file or directory"),
            ("\"alice:hush\"", "auth.users_file = ***: cannot be read"),
            ("7", "auth.users_file"),
        ] {
            let found = mistakes(&format!("[auth]\nusers_file = {value}"));
            assert!(found[0].contains(said) && !found[0].contains("hush"), "{found:?}");
        }
    }

    /// The user of a file and one of the configuration, in either order: both places are told.
    #[test]
    fn a_user_of_the_configuration_is_in_no_file() {
        let user = "[[auth.user]]\nname = \"bob\"\npassword = \"hush\"\n";
        for (text, line) in [
            (format!("[auth]\nusers_file = \"one\"\n{user}"), 4),
            (format!("{user}[auth]\nusers_file = \"one\"\n"), 2),
        ] {
            let found = read(&text);
            // TOML may refuse the second form by itself.
            let Err(found) = found else { panic!("{text} is accepted") };
            let said = found[0].to_string();
            if line == 2 && said.contains("not valid TOML") {
                continue;
            }
            let expected =
                format!("file:{line}: auth.user.name = \"bob\": this user is listed in one:2: too");
            assert!(said.starts_with(&expected), "{said}");
        }
    }

    /// A file may be long, and what is said about it is bounded.
    #[test]
    fn the_errors_about_one_file_are_bounded() {
        let found = mistakes("[auth]\nusers_file = \"long\"");
        assert_eq!(found.len(), ERRORS_MAX + 1, "{:?}", &found[ERRORS_MAX..]);
        assert!(found.iter().any(|one| one.contains("long: has 99900 more mistakes")), "{found:?}");
        let found = mistakes("[auth]\nusers_file = \"same\"");
        assert_eq!(found.len(), ERRORS_MAX + 1);
        assert!(found.iter().any(|one| one.contains("899 users more are listed twice")), "{found:?}");
    }

    #[test]
    fn a_private_file_is_asked_for() {
        let Loaded { warnings, .. } = read("[auth]\nusers_file = \"public\"").unwrap();
        let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("every user of this machine may read the file; run `chmod o-rwx` on it"));
        assert!(
            said[1].contains("others than its owner may write the file") && said[1].contains("chmod go-w")
        );
    }

    /// A reload says how many users have changed, and no more.
    #[test]
    fn changes_are_counted_and_not_shown() {
        let settings = |text: &str| read(&format!("[auth]\nusers_file = {text}")).unwrap().settings;
        let changes = settings("\"one\"").changes(&settings("\"other\""));
        let said: Vec<_> = changes.iter().map(|change| (change.key, &*change.what)).collect();
        assert_eq!(said, [("auth.users_file", "1 added, 2 changed, 3 users now")]);
        assert_eq!(settings("\"one\"").changes(&settings("\"one\"")), []);
        let debug = format!("{:?}", settings("\"one\""));
        assert!(!debug.contains("hush") && !debug.contains("alice"), "{debug}");
    }
}
