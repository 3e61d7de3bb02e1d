//! Configuration of authentication: realm, users, shared secrets and LiveKit's API keys. RFC 8489 §9.2.2, §14.9.
//!
//! Passwords and secrets are never printed, and a running server keeps only keys derived from them. Deliberately not here:
//! where they come from, and a minimum length.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::user_list::UserList;

/// The configuration of [`Auth`](super::Auth).
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The REALM of every challenge, usually the provider's domain name. Shorter is better, because responses to
    /// unauthenticated requests carry it.
    pub realm: String,
    /// Users with their own password or key.
    pub users: Vec<StaticUser>,
    /// Users of files, whose names differ from those.
    pub listed: Arc<UserList>,
    /// Shared secrets for time-limited credentials. All are valid at the same time, which allows rotation.
    pub secrets: Vec<Secret>,
    /// LiveKit's API keys, whose names differ. They verify the credentials that it issues.
    pub livekit_keys: Vec<LiveKitKey>,
    /// Also accept credentials of LiveKit up to 1.11, which never expire.
    pub livekit_two_part: bool,
    /// Also accept time-limited usernames of the form `user:expiry`. A name that starts with a number and a colon is still
    /// parsed as `expiry:user`, so this does not work for users whose names are numbers.
    pub user_before_expiry: bool,
    /// The longest time in seconds until a credential with an expiry expires. Beyond it, a credential that leaks would be valid
    /// for ever, as one made with milliseconds instead of seconds is.
    pub max_lifetime: u64,
    /// Lifetime of a nonce in seconds. RFC 8656 §5 recommends at most an hour.
    pub nonce_lifetime: u64,
}

/// A user listed in the configuration.
#[derive(Clone, Debug)]
pub struct StaticUser {
    /// The user's name, not yet prepared with OpaqueString.
    pub name: String,
    /// The user's password or key.
    pub password: Password,
    /// Allocations of all clients with this name together; 0 is no limit.
    pub allocations: usize,
}

/// An API key of LiveKit.
#[derive(Clone, Debug)]
pub struct LiveKitKey {
    /// What LiveKit calls the API key, which is in every user name made with it.
    pub name: String,
    /// Its secret.
    pub secret: Secret,
}

/// The password of a static user.
#[derive(Clone)]
pub enum Password {
    /// The password itself, from which the keys of both algorithms are derived.
    Plain(Secret),
    /// `MD5(username ":" realm ":" password)` as returned by [`md5_key`](super::md5_key). It does not work with SHA-256.
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

/// Bytes that must not appear in logs.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Wraps `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into().into_boxed_slice())
    }

    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A user name as messages show it: coturn writes `user:password` in one word, so what follows a colon may be a password.
pub(super) fn shown(name: &str) -> Cow<'_, str> {
    match name.split_once(':') {
        Some((user, _)) => format!("{user}:***").into(),
        None => name.into(),
    }
}

/// Why an [`AuthConfig`] is invalid, as a message for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthConfigError {
    /// There is neither a user nor a shared secret nor an API key of LiveKit.
    #[error(
        "no user, no shared secret and no LiveKit API key is configured: the relay does not start without authentication; add one \
         of them"
    )]
    NoCredentials,
    /// The realm is not allowed (RFC 8489 §14.9).
    #[error("the realm {realm:?} {problem}")]
    Realm {
        /// The configured value.
        realm: String,
        /// What is wrong with it; completes the sentence.
        problem: &'static str,
    },
    /// A user name is not allowed (RFC 8489 §14.3).
    #[error("the user name {:?} {problem}", shown(.name))]
    UserName {
        /// The configured value.
        name: String,
        /// What is wrong with it; completes the sentence.
        problem: &'static str,
    },
    /// A password is not allowed (RFC 8489 §9.2.2).
    #[error("the password of user {:?} {problem}", shown(.name))]
    UserPassword {
        /// The user's name.
        name: String,
        /// What is wrong with it; completes the sentence.
        problem: &'static str,
    },
    /// Two users have the same name after preparation with OpaqueString.
    #[error("the user {:?} is configured twice; remove one of them", shown(.name))]
    DuplicateUser {
        /// The prepared name.
        name: String,
    },
    /// A shared secret is empty, so anyone could make credentials.
    #[error("a shared secret is empty; use at least 16 random bytes")]
    EmptySecret,
    /// An API key of LiveKit has no secret, so anyone could make credentials.
    #[error("an API key of LiveKit has no secret; use the one that LiveKit has")]
    EmptyLiveKitSecret,
    /// The nonce lifetime is zero or exceeds what the 32-bit timestamp of a nonce can measure.
    #[error(
        "a nonce lifetime of {seconds} seconds is out of range; use 1 to 2147483647, preferably at most 3600"
    )]
    NonceLifetime {
        /// The configured value.
        seconds: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2: passwords, keys and shared secrets do not appear in debug output.
    #[test]
    fn debug_output_hides_secrets() {
        let config = AuthConfig {
            realm: "example.org".into(),
            users: vec![
                StaticUser {
                    name: "alice".into(),
                    password: Password::Plain(Secret::new("hunter2")),
                    allocations: 0,
                },
                StaticUser { name: "bob".into(), password: Password::Md5Key([0xAB; 16]), allocations: 0 },
            ],
            listed: Arc::default(),
            secrets: vec![Secret::new("north")],
            livekit_keys: vec![LiveKitKey { name: "APIkey".into(), secret: Secret::new("thesouth") }],
            livekit_two_part: true,
            user_before_expiry: false,
            max_lifetime: 86_400,
            nonce_lifetime: 3600,
        };
        let printed = format!("{config:?} {config:#?}");
        for hidden in ["hunter2", "north", "thesouth", "171", "ab, ab", "110, 111"] {
            assert!(!printed.contains(hidden), "{hidden} in {printed}");
        }
        assert!(printed.contains("alice") && printed.contains("***"));
    }
}
