//! What an operator can change so that a client is not refused: the end of the log line about a failed authentication.

use std::borrow::Cow;

use super::livekit::LiveKitUsername;
use super::probe::ProbeName;
use super::time_limited::TimeLimitedUsername;
use super::{Auth, AuthReason, AuthScheme};

/// The most characters of a part of a user name that are shown.
const SHOWN: usize = 64;

impl Auth {
    /// What the operator can change, if anything, so that a user of this name is not refused for this reason.
    pub fn fix(&self, reason: AuthReason, username: &str) -> Option<Cow<'static, str>> {
        let is_static = self.has_static_user(username);
        let livekit = if is_static { None } else { LiveKitUsername::parse(username) };
        match livekit.and_then(|name| self.livekit_fix(reason, &name)) {
            Some(fix) => Some(fix.into()),
            None => self.general_fix(reason, username).map(Cow::Borrowed),
        }
    }

    /// By which scheme a user of this name would be accepted, and when the name expires; `None` if it is the name of nobody. What
    /// the name says was not verified.
    pub fn scheme(&self, username: &str) -> Option<(AuthScheme, Option<u64>)> {
        if self.has_static_user(username) {
            return Some((AuthScheme::Static, None));
        }
        if let Some(name) = ProbeName::parse(username) {
            return Some((AuthScheme::Probe, Some(name.expires())));
        }
        if let Some(name) = LiveKitUsername::parse(username) {
            return Some((AuthScheme::LiveKit, name.expires()));
        }
        let name = self.secrets.parse(username).or_else(|| TimeLimitedUsername::recognize(username))?;
        Some((AuthScheme::TimeLimited, Some(name.expires())))
    }

    /// The same where the name is one that LiveKit makes.
    fn livekit_fix(&self, reason: AuthReason, name: &LiveKitUsername<'_>) -> Option<String> {
        let api_key = match shown(name.api_key()) {
            Some(api_key) => format!("LiveKit's API key {api_key}"),
            None => "an API key of LiveKit".to_owned(),
        };
        match reason {
            AuthReason::UnknownUser if self.livekit.is_empty() => Some(format!(
                "the name was made with {api_key}; to accept LiveKit's own credentials, set auth.livekit_keys_file to a file with that \
                 key and its secret"
            )),
            AuthReason::UnknownUser if !self.livekit.knows(name.api_key()) => Some(format!(
                "the name was made with {api_key}; add that key and its secret to the file of auth.livekit_keys_file, and reload"
            )),
            AuthReason::UnknownUser => Some(
                "the name is of LiveKit up to 1.11 and never expires; upgrade LiveKit, or set auth.livekit_two_part = true"
                    .to_owned(),
            ),
            AuthReason::WrongPassword => Some(format!(
                "compare the secret of {api_key} with that in the file of auth.livekit_keys_file"
            )),
            AuthReason::Expired => Some(
                "LiveKit's own credentials expire after 5 minutes (its turn.ttl_seconds), and a client that joins again gets a new \
                 one; check the clocks of both machines"
                    .to_owned(),
            ),
            AuthReason::ExpiryTooFar => Some(
                "lower turn.ttl_seconds of LiveKit, or raise auth.max_lifetime; check the clocks of both machines"
                    .to_owned(),
            ),
            AuthReason::Revoked => shown(name.sid()).map(|sid| {
                format!(
                    "this participant of LiveKit was revoked; to accept it again, run `hairpin ctl unrevoke {sid}`"
                )
            }),
            AuthReason::NoCredentials
            | AuthReason::MissingAttribute
            | AuthReason::PasswordAlgorithms
            | AuthReason::WrongRealm
            | AuthReason::NoKey
            | AuthReason::StaleNonce
            | AuthReason::ForeignNonce
            | AuthReason::OtherUser => None,
        }
    }

    fn general_fix(&self, reason: AuthReason, username: &str) -> Option<&'static str> {
        let is_expiry = |part: &str| part.len() >= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
        let ends_with_expiry = username.rsplit_once(':').is_some_and(|(_, expiry)| is_expiry(expiry));
        match reason {
            AuthReason::NoCredentials
            | AuthReason::MissingAttribute
            | AuthReason::PasswordAlgorithms
            | AuthReason::StaleNonce
            | AuthReason::ForeignNonce
            | AuthReason::OtherUser => None,
            AuthReason::WrongRealm => Some(
                "clients must use the realm of the 401 response; if keys were made for another one, set auth.realm to it",
            ),
            AuthReason::UnknownUser if self.secrets.lack_user_before_expiry() && ends_with_expiry => {
                Some("if user names end with their expiry, set auth.user_before_expiry = true")
            }
            AuthReason::UnknownUser if ends_with_expiry || is_expiry(username) => Some(
                "if this is a time-limited user name, add the shared secret it was made with to auth.secrets",
            ),
            AuthReason::UnknownUser => Some(
                "add the user to a file of auth.users_file or as [[auth.user]], or a shared secret to auth.secrets for names like 1735689600:alice",
            ),
            AuthReason::NoKey => Some(
                "the client wants an algorithm for which [[auth.user]] has no key; configure the password instead",
            ),
            AuthReason::WrongPassword => Some(match self.scheme(username) {
                Some((AuthScheme::Static, _)) => {
                    "compare the password with that of the [[auth.user]] of this name; a key must have been made with auth.realm"
                }
                Some((AuthScheme::TimeLimited, _)) => {
                    "compare the shared secret of the application with auth.secrets, to the byte; its password must be \
                     base64(HMAC-SHA1(secret, user name))"
                }
                Some((AuthScheme::LiveKit | AuthScheme::Probe, _)) | None => {
                    "compare the password, or the shared secret, with what the client's credentials were made from"
                }
            }),
            AuthReason::ExpiryTooFar => Some(
                "the expiry must be in seconds; if it is, issue shorter-lived credentials or raise auth.max_lifetime",
            ),
            AuthReason::Revoked => Some(
                "an operator has revoked this user; to accept it again, run `hairpin ctl unrevoke` with the user's name",
            ),
            AuthReason::Expired => Some(
                "the client's application must ask for new credentials; check the clocks of both machines",
            ),
        }
    }
}

impl AuthReason {
    /// What can be done about it, whatever the user's name.
    pub fn default_fix(self) -> &'static str {
        match self {
            AuthReason::NoCredentials => "nothing: the first request of a client has no credentials",
            AuthReason::MissingAttribute | AuthReason::PasswordAlgorithms => {
                "the client's TURN library is at fault: update it"
            }
            AuthReason::StaleNonce | AuthReason::ForeignNonce => {
                "nothing: the client repeats its request with the nonce of the response"
            }
            AuthReason::OtherUser => {
                "the client uses a port again whose allocation another user made: it must use another port, or delete it with Refresh"
            }
            AuthReason::WrongRealm
            | AuthReason::UnknownUser
            | AuthReason::NoKey
            | AuthReason::WrongPassword
            | AuthReason::Expired
            | AuthReason::ExpiryTooFar
            | AuthReason::Revoked => "compare the client's credentials with the section [auth]",
        }
    }
}

/// A part of a user name, if it is harmless in a log and in a shell: anybody may have sent it.
fn shown(part: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    Some(part).filter(|part| part.len() <= SHOWN && part.bytes().all(is_plain))
}
