//! The accounts of this machine's users.

use nix::unistd::{Uid, User};

/// An account, by its name or its number.
pub fn by_name_or_number(name: &str) -> Option<User> {
    let by_name = User::from_name(name).ok().flatten();
    by_name.or_else(|| User::from_uid(Uid::from_raw(name.parse().ok()?)).ok().flatten())
}
