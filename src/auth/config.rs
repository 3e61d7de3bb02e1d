//! What an operator says about credentials: users, shared secrets, the realm. RFC 8489 §9.2.2, §14.9.
//!
//! Passwords and secrets are read here once and never printed; what the running server keeps are keys derived from
//! them. Where they come from (a file, the environment) and how long they should be is not judged here.

use std::fmt;

use thiserror::Error;

/// Everything [`Auth`](super::Auth) is built from.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The REALM of every challenge, best the provider's domain name; short, since unauthenticated answers carry it.
    pub realm: String,
    /// Users with a password or key of their own.
    pub users: Vec<StaticUser>,
    /// Shared secrets for time-limited names, all valid at the same time so that one can replace another.
    pub secrets: Vec<Secret>,
    /// Also accept time-limited names written `user:expiry`. A name whose first part is a number keeps reading as
    /// `expiry:user`, so users whose names are numbers cannot be written the other way round.
    pub user_before_expiry: bool,
    /// Seconds until a nonce is stale. RFC 8656 §5 wants at most an hour.
    pub nonce_lifetime: u64,
}

/// A user known by name.
#[derive(Clone, Debug)]
pub struct StaticUser {
    /// The user's name, before OpaqueString.
    pub name: String,
    /// What proves it.
    pub password: Password,
}

/// How a static user's password is known.
#[derive(Clone)]
pub enum Password {
    /// The password itself: serves both algorithms.
    Plain(Secret),
    /// `MD5(username ":" realm ":" password)`, as [`md5_key`](super::md5_key) makes it: cannot serve SHA-256.
    Md5Key([u8; 16]),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Plain(_) => "Plain(***)",
            Password::Md5Key(_) => "Md5Key(***)",
        })
    }
}

/// Bytes that must not reach a log.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into().into_boxed_slice())
    }

    /// The bytes, for those who derive something from them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a [`AuthConfig`] cannot be used; each reads as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthConfigError {
    /// Neither a user nor a secret.
    #[error(
        "no user and no shared secret is configured: a relay open to everyone is not started; add one of them"
    )]
    NoCredentials,
    /// RFC 8489 §14.9.
    #[error("the realm {realm:?} {problem}")]
    Realm {
        /// As configured.
        realm: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// RFC 8489 §14.3.
    #[error("the user name {name:?} {problem}")]
    UserName {
        /// As configured.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// RFC 8489 §9.2.2.
    #[error("the password of user {name:?} {problem}")]
    UserPassword {
        /// Whose password it is.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two users whose names are the same once prepared.
    #[error("the user {name:?} is configured twice; keep one of them")]
    DuplicateUser {
        /// The prepared name.
        name: String,
    },
    /// Anyone can sign with an empty secret.
    #[error("a shared secret is empty; give it at least 16 random bytes")]
    EmptySecret,
    /// A nonce that is stale at birth, or that outlives the clock it is measured with.
    #[error(
        "a nonce lifetime of {seconds} seconds cannot be used; choose 1 to 2147483647, best 3600 or less"
    )]
    NonceLifetime {
        /// As configured.
        seconds: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2: passwords, their keys and shared secrets stay out of every log.
    #[test]
    fn nothing_secret_is_printed() {
        let config = AuthConfig {
            realm: "example.org".into(),
            users: vec![
                StaticUser { name: "alice".into(), password: Password::Plain(Secret::new("hunter2")) },
                StaticUser { name: "bob".into(), password: Password::Md5Key([0xAB; 16]) },
            ],
            secrets: vec![Secret::new("north")],
            user_before_expiry: false,
            nonce_lifetime: 3600,
        };
        let printed = format!("{config:?} {config:#?}");
        for hidden in ["hunter2", "north", "171", "ab, ab", "110, 111"] {
            assert!(!printed.contains(hidden), "{hidden} in {printed}");
        }
        assert!(printed.contains("alice") && printed.contains("***"));
    }
}
