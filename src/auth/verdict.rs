//! What judging a request ends in: an [`Authenticated`] that only this layer can make, or a [`Refusal`] with its code.
//! RFC 8489 §9.2.4, RFC 8656 §5.

use std::sync::Arc;

use super::credential::Credential;
use crate::wire::Encoder;

/// What a request wants, as far as credentials care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To open an allocation: the expiry of a time-limited name counts, and 441 is never the answer.
    Allocate,
    /// Anything else: a name that expired during a call still serves it.
    Other,
}

/// Proof that a request's credentials were verified.
#[derive(Clone, Debug)]
pub struct Authenticated {
    credential: Arc<Credential>,
    integrity: Integrity,
}

/// Which attribute signs the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Integrity {
    Sha1,
    Sha256,
}

impl Authenticated {
    pub(super) fn new(credential: Arc<Credential>, integrity: Integrity) -> Authenticated {
        Authenticated { credential, integrity }
    }

    /// Who it is; an allocation keeps it.
    pub fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// Signs an answer to the request, success or error; only FINGERPRINT may follow.
    pub fn sign(&self, answer: &mut Encoder) {
        // RFC 8489 §9.2.4: MESSAGE-INTEGRITY-SHA256, unless the request was processed as though with MD5
        // because it named no algorithm.
        match self.integrity {
            Integrity::Sha1 => answer.integrity_sha1(self.credential.key()),
            Integrity::Sha256 => answer.integrity_sha256(self.credential.key()),
        }
    }
}

/// A request that is answered with an error. 401 and 438 also carry the challenge.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The status code: 400, 401, 438 or 441.
    pub code: u16,
    /// Why, for logs and counters; the wire never tells.
    pub reason: Reason,
    /// With 441 alone: the credentials are right but not this allocation's, so the answer is signed with them.
    pub signed: Option<Authenticated>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { code: reason.code(), reason, signed: None }
    }
}

/// Why a request was refused, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No message integrity: a client's first request.
    NoCredentials,
    /// Integrity without USERNAME or USERHASH, REALM, NONCE.
    MissingAttribute,
    /// PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM are not what was offered.
    PasswordAlgorithms,
    /// Another realm than this server's.
    WrongRealm,
    /// No such user, nor a time-limited name.
    UnknownUser,
    /// The user has no key for the algorithm asked for.
    NoKey,
    /// The integrity does not match.
    WrongPassword,
    /// A time-limited name whose time has passed.
    Expired,
    /// One of this server's nonces, too old.
    StaleNonce,
    /// A nonce from before a restart, for another address, or made up.
    ForeignNonce,
    /// Verified, but not the user who opened the allocation.
    OtherUser,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Reason::ALL.len();

    /// Every reason; `ALL[reason.index()]` is the reason.
    pub const ALL: [Reason; 11] = [
        Reason::NoCredentials,
        Reason::MissingAttribute,
        Reason::PasswordAlgorithms,
        Reason::WrongRealm,
        Reason::UnknownUser,
        Reason::NoKey,
        Reason::WrongPassword,
        Reason::Expired,
        Reason::StaleNonce,
        Reason::ForeignNonce,
        Reason::OtherUser,
    ];

    /// Its place in an array of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoCredentials => "no_credentials",
            Reason::MissingAttribute => "missing_attribute",
            Reason::PasswordAlgorithms => "password_algorithms",
            Reason::WrongRealm => "wrong_realm",
            Reason::UnknownUser => "unknown_user",
            Reason::NoKey => "no_key",
            Reason::WrongPassword => "wrong_password",
            Reason::Expired => "expired",
            Reason::StaleNonce => "stale_nonce",
            Reason::ForeignNonce => "foreign_nonce",
            Reason::OtherUser => "other_user",
        }
    }

    /// The status code it is answered with.
    pub fn code(self) -> u16 {
        match self {
            // RFC 8489 §9.2.4
            Reason::MissingAttribute | Reason::PasswordAlgorithms => 400,
            Reason::NoCredentials
            | Reason::WrongRealm
            | Reason::UnknownUser
            | Reason::NoKey
            | Reason::WrongPassword
            | Reason::Expired => 401,
            Reason::StaleNonce | Reason::ForeignNonce => 438,
            // RFC 8656 §5
            Reason::OtherUser => 441,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2.4: every way to be refused has its counter and its name.
    #[test]
    fn reasons_count_and_differ() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let mut names = Reason::ALL.map(Reason::as_str);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
