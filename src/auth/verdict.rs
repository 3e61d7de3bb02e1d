//! The outcome of authentication: an [`Authenticated`], which only this layer can construct, or an [`AuthRefusal`] with its
//! status code. RFC 8489 §9.2.4, RFC 8656 §5.

use std::sync::Arc;

use super::credential::Credential;
use crate::counted::counted;
use crate::wire::Encoder;

/// What a request is for, as far as it matters for authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthPurpose {
    /// Creates an allocation: a time-limited credential must not have expired, and the response is never 441.
    Allocate,
    /// Anything else: a credential that expires during a call remains valid for it.
    Other,
}

/// Proof that a request was authenticated.
#[derive(Clone, Debug)]
pub struct Authenticated {
    credential: Arc<Credential>,
    integrity: ResponseIntegrity,
}

/// The attributes that protect the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseIntegrity {
    Sha1,
    Sha256,
    Both,
}

impl Authenticated {
    pub(super) fn new(credential: Arc<Credential>, integrity: ResponseIntegrity) -> Authenticated {
        Authenticated { credential, integrity }
    }

    /// The verified credential, which an allocation keeps.
    pub fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// Adds message integrity to a success or error response. Only FINGERPRINT may follow.
    pub fn sign(&self, response: &mut Encoder) {
        match self.integrity {
            ResponseIntegrity::Sha1 => response.integrity_sha1(self.credential.key()),
            ResponseIntegrity::Sha256 => response.integrity_sha256(self.credential.key()),
            ResponseIntegrity::Both => {
                response.integrity_sha1(self.credential.key());
                response.integrity_sha256(self.credential.key());
            }
        }
    }
}

/// An error response to an unauthenticated request. With 401 and 438 it carries a challenge.
#[derive(Clone, Debug)]
pub struct AuthRefusal {
    /// The status code: 400, 401, 437, 438 or 441.
    pub code: u16,
    /// The reason for logs and counters, which is not sent to the client.
    pub reason: AuthReason,
    /// Present for 437 and 441 only, where the credentials are valid: after a redirection, or if they are not those of the
    /// allocation. They sign the response.
    pub signed: Option<Authenticated>,
}

impl From<AuthReason> for AuthRefusal {
    fn from(reason: AuthReason) -> AuthRefusal {
        AuthRefusal { code: reason.code(), reason, signed: None }
    }
}

counted! {
    /// Why a request is not authenticated, in the order of the checks.
    pub enum AuthReason {
        /// There is no message integrity, as in a client's first request.
        NoCredentials = "no_credentials",
        /// There is message integrity, but no REALM, no NONCE, or neither USERNAME nor USERHASH.
        MissingAttribute = "missing_attribute",
        /// PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM do not match the offer.
        PasswordAlgorithms = "password_algorithms",
        /// The realm is not that of this server.
        WrongRealm = "wrong_realm",
        /// The user does not exist, and the username is neither a time-limited one nor made with a known API key of LiveKit.
        UnknownUser = "unknown_user",
        /// The user has no key for the requested algorithm.
        NoKey = "no_key",
        /// The message integrity does not verify.
        WrongPassword = "wrong_password",
        /// The time-limited credential, or that of LiveKit, has expired.
        Expired = "expired",
        /// The credential expires later than `auth.max_lifetime` allows.
        ExpiryTooFar = "expiry_too_far",
        /// An operator has revoked the user.
        Revoked = "revoked",
        /// The nonce is from this server, but has expired.
        StaleNonce = "stale_nonce",
        /// The nonce is from before a restart, for another address, or forged.
        ForeignNonce = "foreign_nonce",
        /// The credentials are valid, but the allocation belongs to another user.
        OtherUser = "other_user",
    }
}

counted! {
    /// How a user proves who it is.
    pub enum AuthScheme {
        /// A name and a password of the configuration.
        Static = "static",
        /// A name with an expiry, made with a shared secret.
        TimeLimited = "time-limited",
        /// A name that LiveKit makes.
        LiveKit = "livekit",
        /// That of probes.
        Probe = "probe",
    }
}

impl AuthReason {
    /// Whether the sender has proved that it knows its key: the integrity is checked before the nonce.
    pub fn has_proved_key(self) -> bool {
        matches!(self, AuthReason::StaleNonce | AuthReason::ForeignNonce)
    }

    /// The status code of the error response.
    pub fn code(self) -> u16 {
        match self {
            // RFC 8489 §9.2.4
            AuthReason::MissingAttribute | AuthReason::PasswordAlgorithms => 400,
            AuthReason::NoCredentials
            | AuthReason::WrongRealm
            | AuthReason::UnknownUser
            | AuthReason::NoKey
            | AuthReason::WrongPassword
            | AuthReason::Expired
            | AuthReason::ExpiryTooFar
            | AuthReason::Revoked => 401,
            AuthReason::StaleNonce | AuthReason::ForeignNonce => 438,
            // RFC 8656 §5
            AuthReason::OtherUser => 441,
        }
    }
}
