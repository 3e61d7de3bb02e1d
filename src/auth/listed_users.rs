//! The keys of the users of files, derived once. What a verified request needs beyond its key is made then, since most of many
//! users are not there at any time.

use std::sync::Arc;

use super::account::Account;
use super::algorithms::PasswordAlgorithm;
use super::config::{Password, Secret};
use super::credential::{Credential, Key, userhash};
use super::origin::{Origin, OriginKey};
use super::user_list::{ListedNames, ListedPassword, UserList};

/// The users of files with their keys, and without their passwords.
#[derive(Default)]
pub(super) struct ListedUsers {
    names: Arc<ListedNames>,
    /// One per name, in the same order.
    keys: Box<[Keys]>,
    /// The first bytes of each USERHASH with the number of its user, sorted.
    by_hash: Box<[(u64, u32)]>,
    realm: Box<str>,
}

#[derive(Clone)]
struct Keys {
    /// The first bytes of the USERHASH.
    hash: u64,
    md5: [u8; 16],
    sha256: Option<[u8; 32]>,
    origin: Origin,
    allocations: u32,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct ListedUser<'a> {
    name: &'a str,
    keys: &'a Keys,
}

impl ListedUsers {
    /// Derives the keys of these users. `before` is what was derived from an earlier list, with the same realm and the same key for
    /// origins: whoever has the same password keeps the keys.
    pub(super) fn new(
        list: &UserList,
        realm: &str,
        origins: &OriginKey,
        before: Option<(&ListedUsers, &UserList)>,
    ) -> ListedUsers {
        let names = list.names().clone();
        let mut known = before.map(|(users, list)| Known { users, list, at: 0 });
        let keys = |n: usize| match known.as_mut().and_then(|known| known.keys(list, n)) {
            Some(keys) => Keys { allocations: limit(list, n), ..keys.clone() },
            None => Keys::derive(list, n, realm, origins),
        };
        let keys: Box<[Keys]> = (0..names.len()).map(keys).collect();
        let mut by_hash: Vec<_> = keys.iter().enumerate().map(|(n, keys)| (keys.hash, n as u32)).collect();
        by_hash.sort_unstable();
        ListedUsers { keys, by_hash: by_hash.into(), realm: realm.into(), names }
    }

    pub(super) fn by_name(&self, name: &str) -> Option<ListedUser<'_>> {
        self.names.find(name).map(|n| self.user(n))
    }

    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<ListedUser<'_>> {
        let wanted = prefix(hash);
        let first = self.by_hash.partition_point(|(known, _)| *known < wanted);
        let candidates = self.by_hash[first..].iter().take_while(|(known, _)| *known == wanted);
        let mut users = candidates.map(|(_, n)| self.user(*n as usize));
        users.find(|user| userhash(user.name.as_bytes(), self.realm.as_bytes()) == *hash)
    }

    /// The names of users that have only an MD5 key, sorted.
    pub(super) fn md5_only(&self) -> impl Iterator<Item = &str> {
        let only = self.keys.iter().enumerate().filter(|(_, keys)| keys.sha256.is_none());
        only.map(|(n, _)| self.names.get(n))
    }

    fn user(&self, n: usize) -> ListedUser<'_> {
        ListedUser { name: self.names.get(n), keys: &self.keys[n] }
    }
}

/// An earlier list, which is walked beside a new one: both are sorted.
struct Known<'a> {
    users: &'a ListedUsers,
    list: &'a UserList,
    at: usize,
}

impl<'a> Known<'a> {
    /// The keys of the user `n` of the new list, if it had the same password.
    fn keys(&mut self, new: &UserList, n: usize) -> Option<&'a Keys> {
        let name = new.names().get(n);
        while self.at < self.list.len() && self.list.names().get(self.at) < name {
            self.at += 1;
        }
        let is_same = self.at < self.list.len()
            && self.list.names().get(self.at) == name
            && self.list.password(self.at) == new.password(n);
        if is_same { self.users.keys.get(self.at) } else { None }
    }
}

fn limit(list: &UserList, n: usize) -> u32 {
    u32::try_from(list.allocations(n)).unwrap_or(u32::MAX)
}

impl Keys {
    fn derive(list: &UserList, n: usize, realm: &str, origins: &OriginKey) -> Keys {
        let allocations = limit(list, n);
        let name = list.names().get(n);
        let (md5, sha256, password) = match list.password(n) {
            ListedPassword::Md5Key(key) => (key, None, Password::Md5Key(key)),
            ListedPassword::Plain(text) => {
                let password = Password::Plain(Secret::new(text));
                let key = |algorithm| Key::derive(algorithm, name, realm, text.as_bytes());
                let (Key::Md5(md5), Key::Sha256(sha256)) =
                    (key(PasswordAlgorithm::Md5), key(PasswordAlgorithm::Sha256))
                else {
                    unreachable!("each algorithm has its own kind of key");
                };
                (md5, Some(sha256), password)
            }
        };
        let hash = prefix(&userhash(name.as_bytes(), realm.as_bytes()));
        Keys { hash, md5, sha256, origin: origins.of_password(&password), allocations }
    }
}

impl<'a> ListedUser<'a> {
    pub(super) fn origin(&self) -> Origin {
        self.keys.origin
    }

    pub(super) fn key(&self, algorithm: PasswordAlgorithm) -> Option<&'a [u8]> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(&self.keys.md5),
            PasswordAlgorithm::Sha256 => self.keys.sha256.as_ref().map(|key| &key[..]),
        }
    }

    /// The credential of a request that this key has verified.
    pub(super) fn credential(&self, algorithm: PasswordAlgorithm) -> Option<Arc<Credential>> {
        let key = match algorithm {
            PasswordAlgorithm::Md5 => Key::Md5(self.keys.md5),
            PasswordAlgorithm::Sha256 => Key::Sha256(self.keys.sha256?),
        };
        let account = Account::static_user(self.name, self.keys.allocations as usize);
        Some(Arc::new(Credential::of_static_user(&account, self.keys.origin, key)))
    }
}

fn prefix(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::super::nonce::NonceKeys;
    use super::super::user_list::UserListBuilder;
    use super::*;

    fn list(users: &[(&str, &str, u32)]) -> UserList {
        let mut builder = UserListBuilder::default();
        builder.begin("users");
        for (line, (name, password, limit)) in users.iter().enumerate() {
            builder.add(name, ListedPassword::Plain(password), *limit, line + 1).unwrap();
        }
        builder.finish(1).0
    }

    /// Keys that are kept are those that would have been derived, for whoever has the same name and password; limits are new.
    #[test]
    fn a_reload_keeps_the_keys_of_unchanged_users() {
        let origins = OriginKey::new(&NonceKeys { current: [7; 32], previous: None });
        let old = list(&[("alice", "one", 0), ("bob", "two", 1), ("dave", "four", 0), ("zoe", "z", 0)]);
        let new = list(&[
            ("abe", "zero", 0),
            ("bob", "two", 5),
            ("carol", "c", 0),
            ("dave", "other", 0),
            ("zoe", "z", 0),
        ]);
        let before = ListedUsers::new(&old, "realm", &origins, None);
        let kept = ListedUsers::new(&new, "realm", &origins, Some((&before, &old)));
        let derived = ListedUsers::new(&new, "realm", &origins, None);
        for name in ["abe", "bob", "carol", "dave", "zoe"] {
            let [one, other] = [&kept, &derived].map(|users| users.by_name(name).unwrap());
            assert!(one.origin() == other.origin(), "{name}");
            for algorithm in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
                assert_eq!(one.key(algorithm), other.key(algorithm), "{name}");
                let hash = userhash(name.as_bytes(), b"realm");
                assert_eq!(kept.by_hash(&hash).unwrap().key(algorithm), one.key(algorithm), "{name}");
            }
        }
        assert_eq!(kept.by_name("bob").unwrap().keys.allocations, 5);
        assert!(kept.by_name("alice").is_none() && kept.by_hash(&userhash(b"alice", b"realm")).is_none());
    }
}
