//! The static users, found by USERNAME or USERHASH: RFC 8489 §9.2.2, §14.3, §14.4.
//!
//! Keys are derived once, and verified requests share the credential of their user.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::Account;
use super::algorithms::PasswordAlgorithm;
use super::config::{AuthConfigError, Password, StaticUser};
use super::credential::{Credential, Key, userhash};
use super::origin::OriginKey;
use super::prepare::{opaque_string, strip_quotes};
use super::probe::is_reserved;

/// RFC 8489 §14.3: a USERNAME is shorter than 509 bytes.
const NAME_MAX: usize = 508;

/// The table of static users.
pub(super) struct StaticUsers {
    by_name: BTreeMap<Arc<str>, Arc<UserCredentials>>,
    /// Keyed by USERHASH.
    by_hash: BTreeMap<[u8; 32], Arc<UserCredentials>>,
}

/// A user's credentials, one per algorithm for which there is a key.
pub(super) struct UserCredentials {
    md5: Arc<Credential>,
    sha256: Option<Arc<Credential>>,
}

impl UserCredentials {
    pub(super) fn credential(&self, algorithm: PasswordAlgorithm) -> Option<&Arc<Credential>> {
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
        let name = opaque_string(&configured.name).map_err(refuse)?;
        if name.len() > NAME_MAX {
            return Err(refuse("is longer than 508 bytes"));
        }
        if is_reserved(&name) {
            return Err(refuse("is kept for probes of the relay; use another name"));
        }
        if strip_quotes(name.as_bytes()) != name.as_bytes() {
            return Err(refuse("is in quotes, which are not part of the name; remove them"));
        }
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
        realm: &str,
        origins: &OriginKey,
    ) -> Result<StaticUsers, AuthConfigError> {
        let mut users = StaticUsers { by_name: BTreeMap::new(), by_hash: BTreeMap::new() };
        for one in configured {
            let user = Arc::new(UserCredentials::new(one, realm, origins)?);
            let name = Arc::clone(user.md5.username());
            users.by_hash.insert(userhash(name.as_bytes(), realm.as_bytes()), Arc::clone(&user));
            if users.by_name.insert(Arc::clone(&name), user).is_some() {
                return Err(AuthConfigError::DuplicateUser { name: name.to_string() });
            }
        }
        Ok(users)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&UserCredentials> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<&UserCredentials> {
        self.by_hash.get(hash).map(Arc::as_ref)
    }

    /// The names of users that have only an MD5 key, sorted.
    pub(super) fn md5_only(&self) -> Vec<&str> {
        self.by_name.iter().filter(|(_, user)| user.sha256.is_none()).map(|(name, _)| &**name).collect()
    }
}
