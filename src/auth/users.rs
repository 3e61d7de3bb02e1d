//! The static users, found by USERNAME or USERHASH: RFC 8489 §9.2.2, §14.3, §14.4.
//!
//! Keys are derived once, and verified requests share the credential of their user. Users of files are in `listed_users`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::Account;
use super::algorithms::PasswordAlgorithm;
use super::config::{AuthConfigError, Password, StaticUser};
use super::credential::{Credential, Key, userhash};
use super::listed_users::{ListedUser, ListedUsers};
use super::origin::{Origin, OriginKey};
use super::prepare::opaque_string;
use super::user_list::{UserList, prepared_name};

/// The table of static users.
pub(super) struct StaticUsers {
    by_name: BTreeMap<Arc<str>, Arc<UserCredentials>>,
    /// Keyed by USERHASH.
    by_hash: BTreeMap<[u8; 32], Arc<UserCredentials>>,
    /// Those of files.
    listed: ListedUsers,
}

/// A user that was found.
pub(super) enum KnownUser<'a> {
    Configured(&'a UserCredentials),
    Listed(ListedUser<'a>),
}

impl KnownUser<'_> {
    /// What its credentials are made from.
    pub(super) fn origin(&self) -> Origin {
        match self {
            KnownUser::Configured(user) => user.md5.origin(),
            KnownUser::Listed(user) => user.origin(),
        }
    }

    /// Its key for an algorithm, if it has one.
    pub(super) fn key(&self, algorithm: PasswordAlgorithm) -> Option<&[u8]> {
        match self {
            KnownUser::Configured(user) => user.credential(algorithm).map(|credential| credential.key()),
            KnownUser::Listed(user) => user.key(algorithm),
        }
    }

    /// The credential of a request that this key has verified.
    pub(super) fn credential(&self, algorithm: PasswordAlgorithm) -> Option<Arc<Credential>> {
        match self {
            KnownUser::Configured(user) => user.credential(algorithm).cloned(),
            KnownUser::Listed(user) => user.credential(algorithm),
        }
    }
}

/// A user's credentials, one per algorithm for which there is a key.
pub(super) struct UserCredentials {
    md5: Arc<Credential>,
    sha256: Option<Arc<Credential>>,
}

impl UserCredentials {
    fn credential(&self, algorithm: PasswordAlgorithm) -> Option<&Arc<Credential>> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(&self.md5),
            PasswordAlgorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    fn new(
        configured: &StaticUser,
        realm: &str,
        origins: &OriginKey,
    ) -> Result<UserCredentials, AuthConfigError> {
        let refuse = |problem| AuthConfigError::UserName { name: configured.name.clone(), problem };
        let name = prepared_name(&configured.name).map_err(refuse)?;
        let account = Account::static_user(name.as_str(), configured.allocations);
        let origin = origins.of_password(&configured.password);
        let credential = |key| Arc::new(Credential::of_static_user(&account, origin, key));
        match &configured.password {
            Password::Md5Key(key) => Ok(UserCredentials { md5: credential(Key::Md5(*key)), sha256: None }),
            Password::Plain(secret) => {
                let refuse = |problem| AuthConfigError::UserPassword { name: name.clone(), problem };
                let text = str::from_utf8(secret.as_bytes()).map_err(|_| refuse("is not UTF-8"))?;
                let password = opaque_string(text).map_err(refuse)?;
                let derive =
                    |algorithm| credential(Key::derive(algorithm, &name, realm, password.as_bytes()));
                Ok(UserCredentials {
                    md5: derive(PasswordAlgorithm::Md5),
                    sha256: Some(derive(PasswordAlgorithm::Sha256)),
                })
            }
        }
    }
}

impl StaticUsers {
    pub(super) fn new(
        configured: &[StaticUser],
        listed: &UserList,
        realm: &str,
        origins: &OriginKey,
        before: Option<(&StaticUsers, &UserList)>,
    ) -> Result<StaticUsers, AuthConfigError> {
        let before = before.map(|(users, list)| (&users.listed, list));
        let listed = ListedUsers::new(listed, realm, origins, before);
        let mut users = StaticUsers { by_name: BTreeMap::new(), by_hash: BTreeMap::new(), listed };
        for one in configured {
            let user = Arc::new(UserCredentials::new(one, realm, origins)?);
            let name = Arc::clone(user.md5.username());
            users.by_hash.insert(userhash(name.as_bytes(), realm.as_bytes()), Arc::clone(&user));
            let is_listed = users.listed.by_name(&name).is_some();
            if users.by_name.insert(Arc::clone(&name), user).is_some() || is_listed {
                return Err(AuthConfigError::DuplicateUser { name: name.to_string() });
            }
        }
        Ok(users)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<KnownUser<'_>> {
        let configured = self.by_name.get(name).map(|user| KnownUser::Configured(user));
        configured.or_else(|| self.listed.by_name(name).map(KnownUser::Listed))
    }

    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<KnownUser<'_>> {
        let configured = self.by_hash.get(hash).map(|user| KnownUser::Configured(user));
        configured.or_else(|| self.listed.by_hash(hash).map(KnownUser::Listed))
    }

    /// The names of users that have only an MD5 key, each kind of user sorted.
    pub(super) fn md5_only(&self) -> impl Iterator<Item = &str> {
        let configured = self.by_name.iter().filter(|(_, user)| user.sha256.is_none());
        configured.map(|(name, _)| &**name).chain(self.listed.md5_only())
    }
}
