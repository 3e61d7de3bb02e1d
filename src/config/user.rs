//! `[[auth.user]]`: how a section becomes a user. Its keys are in the table, and those of `[[user]]` in files of users are the same.

use super::section::Refusal;
use super::settings::Settings;
use crate::auth::{Password, StaticUser, is_reserved};

/// A user that is being read.
#[derive(Default)]
pub struct UserDraft {
    pub name: UserName,
    /// Every password and key that was given; only one may be.
    pub passwords: Vec<Password>,
    /// 0 is no limit.
    pub allocations: u64,
}

/// A name and the byte of the file where it is.
#[derive(Clone, Default)]
pub struct UserName {
    pub text: String,
    pub at: usize,
}

/// Adds a user to the settings.
pub fn add(settings: &mut Settings, draft: UserDraft) -> Result<(), Refusal> {
    let UserName { text, at } = draft.name.clone();
    if settings.auth.names.insert(text, at).is_some() {
        return Err(Refusal { key: "name", what: "this user is listed twice", fix: "remove one" });
    }
    settings.auth.users.push(complete(draft)?);
    Ok(())
}

/// Adds a user to those of a file.
pub fn add_listed(users: &mut Vec<StaticUser>, draft: UserDraft) -> Result<(), Refusal> {
    users.push(complete(draft)?);
    Ok(())
}

fn complete(mut draft: UserDraft) -> Result<StaticUser, Refusal> {
    let refusal = |what, fix| Err(Refusal { key: "name", what, fix });
    let name = draft.name.text;
    if is_reserved(&name) {
        return refusal("this name is kept for probes of the relay", "use another name");
    }
    match (draft.passwords.pop(), draft.passwords.len()) {
        (Some(password), 0) => {
            let allocations = usize::try_from(draft.allocations).expect("the table bounds it");
            Ok(StaticUser { name, password, allocations })
        }
        (None, _) if name.contains(':') => refusal(
            "the user has no password",
            "coturn's user:password is two settings here: write name and password on lines of their own",
        ),
        (None, _) => refusal("the user has no password", "add one of password, password_file and key"),
        (Some(_), _) => {
            refusal("the user has more than one password", "keep one of password, password_file and key")
        }
    }
}
