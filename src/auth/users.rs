//! The users known by name, found by USERNAME or USERHASH: RFC 8489 §9.2.2, §14.3, §14.4.
//!
//! Keys are derived once, and a verified request shares its user's credential instead of making one.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::config::{AuthConfigError, Password, StaticUser};
use super::credential::{Credential, Key, PasswordAlgorithm, userhash};
use super::opaque::{bare, opaque};

/// RFC 8489 §14.3: what a client may send is fewer than 509 bytes.
const NAME_MAX: usize = 508;

/// The table of static users. No client can add to it, so its hash needs no secret seed.
pub(super) struct Users {
    by_name: HashMap<Arc<str>, Arc<User>, FixedState>,
    by_hash: HashMap<[u8; 32], Arc<User>, FixedState>,
}

/// One user with a credential for each algorithm there is a key for.
pub(super) struct User {
    md5: Arc<Credential>,
    sha256: Option<Arc<Credential>>,
}

impl User {
    pub(super) fn credential(&self, algorithm: PasswordAlgorithm) -> Option<&Arc<Credential>> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(&self.md5),
            PasswordAlgorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    fn new(configured: &StaticUser, realm: &str) -> Result<User, AuthConfigError> {
        let refuse = |problem| AuthConfigError::UserName { name: configured.name.clone(), problem };
        let name = opaque(&configured.name).map_err(refuse)?;
        if name.len() > NAME_MAX {
            return Err(refuse("is longer than 508 bytes"));
        }
        if bare(name.as_bytes()) != name.as_bytes() {
            return Err(refuse("stands in quotes, which are no part of a name; leave them out"));
        }
        let credential = |key| Arc::new(Credential::new(&name, &name, None, key));
        match &configured.password {
            Password::Md5Key(key) => Ok(User { md5: credential(Key::Md5(*key)), sha256: None }),
            Password::Plain(secret) => {
                let refuse = |problem| AuthConfigError::UserPassword { name: name.clone(), problem };
                let text = str::from_utf8(secret.as_bytes()).map_err(|_| refuse("is not UTF-8"))?;
                let password = opaque(text).map_err(refuse)?;
                let derive =
                    |algorithm| credential(Key::derive(algorithm, &name, realm, password.as_bytes()));
                Ok(User {
                    md5: derive(PasswordAlgorithm::Md5),
                    sha256: Some(derive(PasswordAlgorithm::Sha256)),
                })
            }
        }
    }
}

impl Users {
    pub(super) fn new(configured: &[StaticUser], realm: &str) -> Result<Users, AuthConfigError> {
        let mut users = Users { by_name: HashMap::default(), by_hash: HashMap::default() };
        for one in configured {
            let user = Arc::new(User::new(one, realm)?);
            let name = Arc::clone(user.md5.username());
            users.by_hash.insert(userhash(name.as_bytes(), realm.as_bytes()), Arc::clone(&user));
            if users.by_name.insert(Arc::clone(&name), user).is_some() {
                return Err(AuthConfigError::DuplicateUser { name: name.to_string() });
            }
        }
        Ok(users)
    }

    pub(super) fn named(&self, name: &str) -> Option<&User> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    pub(super) fn hashed(&self, hash: &[u8; 32]) -> Option<&User> {
        self.by_hash.get(hash).map(Arc::as_ref)
    }

    /// The names of those with just an MD5 key, in order.
    pub(super) fn md5_only(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.by_name.iter().filter(|(_, user)| user.sha256.is_none()).map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Secret;
    use super::super::credential::md5_key;
    use super::*;

    fn plain(name: &str, password: &str) -> StaticUser {
        StaticUser { name: name.into(), password: Password::Plain(Secret::new(password)) }
    }

    fn refusal(configured: &[StaticUser]) -> String {
        Users::new(configured, "realm").err().expect("refused").to_string()
    }

    /// RFC 8489 §9.2.2: name and password are prepared before the key is derived.
    #[test]
    fn keys_are_derived_from_prepared_strings() {
        let users = Users::new(&[plain("A\u{30A}sa", "Correct\u{A0}Horse")], "realm").unwrap();
        let user = users.named("\u{C5}sa").expect("found by its prepared name");
        let md5 = user.credential(PasswordAlgorithm::Md5).unwrap();
        assert_eq!(md5.key(), md5_key("\u{C5}sa", "realm", "Correct Horse"));
        assert_eq!(
            user.credential(PasswordAlgorithm::Sha256).unwrap().algorithm(),
            PasswordAlgorithm::Sha256
        );
        assert!(users.named("A\u{30A}sa").is_none());
    }

    /// RFC 8489 §14.4: the same user by name and by hash.
    #[test]
    fn a_user_is_found_by_hash() {
        let users = Users::new(&[plain("alice", "a"), plain("bob", "b")], "realm").unwrap();
        let user = users.hashed(&userhash(b"bob", b"realm")).unwrap();
        assert_eq!(&**user.credential(PasswordAlgorithm::Md5).unwrap().username(), "bob");
        assert!(users.hashed(&userhash(b"bob", b"other")).is_none());
        assert!(users.hashed(&[0; 32]).is_none());
    }

    /// RFC 8489 §18.5.1.2: SHA-256 cannot be derived from an MD5 key.
    #[test]
    fn an_md5_key_serves_md5_alone() {
        let key = md5_key("user", "realm", "pass");
        let stored = StaticUser { name: "user".into(), password: Password::Md5Key(key) };
        let users = Users::new(&[stored, plain("alice", "a")], "realm").unwrap();
        let user = users.named("user").unwrap();
        assert_eq!(user.credential(PasswordAlgorithm::Md5).unwrap().key(), key);
        assert!(user.credential(PasswordAlgorithm::Sha256).is_none());
        assert_eq!(users.md5_only(), ["user"]);
    }

    /// RFC 8489 §14.3, RFC 8265 §4.2.
    #[test]
    fn what_cannot_be_a_user_is_told() {
        assert_eq!(refusal(&[plain("", "a")]), r#"the user name "" is empty"#);
        assert_eq!(
            refusal(&[plain("a\nb", "a")]),
            r#"the user name "a\nb" contains characters that OpaqueString (RFC 8265) does not allow"#
        );
        assert_eq!(refusal(&[plain("alice", "")]), r#"the password of user "alice" is empty"#);
        assert!(refusal(&[plain(&"x".repeat(509), "a")]).ends_with("is longer than 508 bytes"));
        assert!(Users::new(&[plain(&"x".repeat(508), "a")], "realm").is_ok());
        assert!(refusal(&[plain("\"alice\"", "a")]).contains("quotes"));
        let not_text = StaticUser { name: "bob".into(), password: Password::Plain(Secret::new([0xFF])) };
        assert_eq!(refusal(&[not_text]), r#"the password of user "bob" is not UTF-8"#);
        assert_eq!(
            refusal(&[plain("\u{C5}", "a"), plain("A\u{30A}", "b")]),
            "the user \"\u{C5}\" is configured twice; keep one of them"
        );
    }
}
