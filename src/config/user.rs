//! `[[auth.user]]`: how a section becomes a user. Its keys are in the table.

use super::section::Refusal;
use super::settings::Settings;
use crate::auth::{Password, StaticUser, is_reserved};

/// A user that is being read.
#[derive(Default)]
pub struct UserDraft {
    pub name: String,
    /// Every password and key that was given; only one may be.
    pub passwords: Vec<Password>,
    /// 0 is no limit.
    pub allocations: u64,
}

/// Adds a user to the settings.
pub fn add(settings: &mut Settings, mut draft: UserDraft) -> Result<(), Refusal> {
    let refusal = |what, fix| Err(Refusal { key: "name", what, fix });
    if !settings.auth.names.insert(draft.name.clone()) {
        return refusal("this user is listed twice", "remove one");
    }
    if is_reserved(&draft.name) {
        return refusal("this name is kept for probes of the relay", "use another name");
    }
    match (draft.passwords.pop(), draft.passwords.len()) {
        (Some(password), 0) => {
            let allocations = usize::try_from(draft.allocations).expect("the table bounds it");
            settings.auth.users.push(StaticUser { name: draft.name, password, allocations });
            Ok(())
        }
        (None, _) if draft.name.contains(':') => refusal(
            "the user has no password",
            "coturn's user:password is two settings here: write name and password on lines of their own",
        ),
        (None, _) => refusal("the user has no password", "add one of password, password_file and key"),
        (Some(_), _) => {
            refusal("the user has more than one password", "keep one of password, password_file and key")
        }
    }
}
