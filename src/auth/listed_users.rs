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

struct Keys {
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
    pub(super) fn new(list: &UserList, realm: &str, origins: &OriginKey) -> ListedUsers {
        let names = list.names().clone();
        let keys = (0..names.len()).map(|n| Keys::derive(list, n, realm, origins)).collect();
        let hash = |n: usize| (prefix(&userhash(names.get(n).as_bytes(), realm.as_bytes())), n as u32);
        let mut by_hash: Vec<_> = (0..names.len()).map(hash).collect();
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

impl Keys {
    fn derive(list: &UserList, n: usize, realm: &str, origins: &OriginKey) -> Keys {
        let allocations = u32::try_from(list.allocations(n)).unwrap_or(u32::MAX);
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
        Keys { md5, sha256, origin: origins.of_password(&password), allocations }
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
