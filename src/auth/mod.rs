//! Who is this? The long-term credential mechanism, server side: RFC 8489 §9.2 whole, with §14.3-14.6, §14.9-14.12,
//! §18.1, §18.5 and errata 6290 and 6268; 441 as in RFC 8656 §5.
//!
//! [`Auth`] is built once and then only read, so every worker shares it. It judges one request at a time from the
//! request's bytes, the client's address and the time: nothing is remembered between requests, and a flood leaves
//! nothing behind. The one thing kept is kept by its owner: an allocation holds the [`Credential`] that opened it and
//! passes it in again, so that its key serves even when the user is gone.
//!
//! - [`AuthConfig`]: users, shared secrets, realm. [`NonceKeys`]: from the operating system, made by the daemon.
//! - [`Auth::authenticate`]: the checks of RFC 8489 §9.2.4, in their order.
//! - [`Authenticated`], [`AuthRefusal`], [`AuthReason`]: how it ended.
//! - [`time_limited_password`], [`md5_key`]: for those who hand credentials out.
//!
//! Left out on purpose: short-term credentials (RFC 8489 §9.1), which TURN does not use, and every client-side rule.

mod algorithms;
mod claim;
mod config;
mod credential;
mod nonce;
mod opaque;
mod time_limited;
mod users;
mod verdict;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{AuthConfig, AuthConfigError, Password, Secret, StaticUser};
pub use credential::{Credential, PasswordAlgorithm, md5_key};
pub use nonce::NonceKeys;
pub use time_limited::time_limited_password;
pub use verdict::{AuthPurpose, AuthReason, AuthRefusal, Authenticated};

use crate::wire::{Encoder, Message, attribute};
use algorithms::Offer;
use claim::{Claim, ClaimedName};
use nonce::{Nonces, Standing};
use opaque::opaque;
use time_limited::Secrets;
use users::Users;

/// RFC 8489 §14.9: a realm has fewer than 128 characters.
const REALM_MAX: usize = 127;

/// The key that requests of unknown users are verified with. What comes of it is ignored.
const NOBODY: [u8; 16] = [0; 16];

/// Judges requests.
pub struct Auth {
    realm: String,
    users: Users,
    secrets: Secrets,
    offer: Offer,
    nonces: Nonces,
    warnings: Vec<String>,
}

impl Auth {
    /// Prepares names, derives keys and settles what is offered. Passwords are forgotten here.
    ///
    /// # Errors
    ///
    /// Returns an [`AuthConfigError`] if there are no credentials, if a realm, user name or password cannot be prepared, or if a
    /// user is configured twice.
    pub fn new(config: AuthConfig, nonce_keys: NonceKeys) -> Result<Auth, AuthConfigError> {
        let realm = realm(&config.realm)?;
        if config.users.is_empty() && config.secrets.is_empty() {
            return Err(AuthConfigError::NoCredentials);
        }
        if config.secrets.iter().any(|secret| secret.as_bytes().is_empty()) {
            return Err(AuthConfigError::EmptySecret);
        }
        // An age is a difference of 32-bit seconds; the upper half is the future.
        let lifetime = i32::try_from(config.nonce_lifetime)
            .ok()
            .filter(|&seconds| seconds > 0)
            .ok_or(AuthConfigError::NonceLifetime { seconds: config.nonce_lifetime })?
            .unsigned_abs();
        let users = Users::new(&config.users, &realm)?;

        // RFC 8489 §9.2.4: what every user's key can verify, and USERHASH only where every name can be hashed before.
        let md5_only = users.md5_only();
        let offer = if md5_only.is_empty() { Offer::Both } else { Offer::Md5 };
        let mut warnings = Vec::new();
        if !md5_only.is_empty() {
            warnings.push(format!(
                "SHA-256 is not offered to any client, since there is only an MD5 key for: {}; give their passwords",
                md5_only.join(", ")
            ));
        }
        let mut features = nonce::PASSWORD_ALGORITHMS;
        if config.secrets.is_empty() {
            features |= nonce::USERNAME_ANONYMITY;
        }
        Ok(Auth {
            nonces: Nonces::new(&nonce_keys, features, offer, lifetime),
            secrets: Secrets::new(&config.secrets, config.user_before_expiry),
            realm,
            users,
            offer,
            warnings,
        })
    }

    /// What an operator should know at start.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// Adds what every 401 and 438 carries.
    pub fn challenge(&self, unix: u64, client: SocketAddr, answer: &mut Encoder) {
        answer.text(attribute::REALM, &self.realm);
        answer.bytes(attribute::NONCE, &self.nonces.make(unix, client));
        answer.bytes(attribute::PASSWORD_ALGORITHMS, self.offer.value());
    }

    /// Judges a request. `known` is the credential of the allocation on this 5-tuple, if there is one.
    ///
    /// # Errors
    ///
    /// Returns an [`AuthRefusal`] with the status code for the client and the reason for the log.
    pub fn authenticate(
        &self,
        unix: u64,
        client: SocketAddr,
        request: &Message<'_>,
        purpose: AuthPurpose,
        known: Option<&Arc<Credential>>,
    ) -> Result<Authenticated, AuthRefusal> {
        // RFC 8489 §9.2.4, in its order. First: no integrity.
        if !request.has_integrity_sha1() && !request.has_integrity_sha256() {
            return Err(AuthReason::NoCredentials.into());
        }
        // Second: integrity without what it takes to verify it.
        let claim = Claim::of(request).ok_or(AuthReason::MissingAttribute)?;
        // Third: the algorithm, against what was sent with this nonce.
        let standing = self.nonces.judge(unix, client, claim.nonce);
        let algorithm = self.algorithm(&claim, standing)?;
        // Fourth and fifth: the user, and the integrity made with the user's key. A name whose time has passed is
        // not valid either, but the log should tell it from a wrong password.
        let credential = self.verify(request, &claim, algorithm, known)?;
        if purpose == AuthPurpose::Allocate && credential.expires().is_some_and(|expires| expires < unix) {
            return Err(AuthReason::Expired.into());
        }
        // Sixth: the nonce.
        match standing {
            Standing::Fresh => {}
            Standing::Stale => return Err(AuthReason::StaleNonce.into()),
            Standing::Foreign => return Err(AuthReason::ForeignNonce.into()),
        }
        let other = known.is_some_and(|known| known.username() != credential.username());
        let authenticated = Authenticated::new(credential, claim.answered_with());
        // RFC 8656 §5: verified, but not the user of this allocation.
        if other && purpose != AuthPurpose::Allocate {
            let reason = AuthReason::OtherUser;
            return Err(AuthRefusal { code: reason.code(), reason, signed: Some(authenticated) });
        }
        Ok(authenticated)
    }

    /// RFC 8489 §9.2.4, third check. `None` is an algorithm that no key of ours is derived with.
    fn algorithm(
        &self,
        claim: &Claim<'_>,
        standing: Standing,
    ) -> Result<Option<PasswordAlgorithm>, AuthReason> {
        let bit = nonce::features(claim.nonce).is_some_and(|set| set & nonce::PASSWORD_ALGORITHMS != 0);
        match (claim.offered, claim.chosen) {
            // "processed as though PASSWORD-ALGORITHM were MD5"
            (None, None) => Ok(Some(PasswordAlgorithm::Md5)),
            // Without the bit nothing is compared. No nonce of ours lacks it, so this ends in 438 at best.
            (_, None) if !bit => Ok(Some(PasswordAlgorithm::Md5)),
            (_, Some(chosen)) if !bit => Ok(PasswordAlgorithm::from_value(chosen)),
            (Some(offered), Some(chosen)) => {
                let offer = Offer::from_value(offered).ok_or(AuthReason::PasswordAlgorithms)?;
                // A foreign nonce may come from before a restart, sent with the other list: the client then needs the
                // 438 that brings it this one's, as a 400 tells it nothing.
                if offer != self.offer && standing != Standing::Foreign {
                    return Err(AuthReason::PasswordAlgorithms);
                }
                let chosen =
                    PasswordAlgorithm::from_value(chosen).filter(|&algorithm| offer.includes(algorithm));
                chosen.map(Some).ok_or(AuthReason::PasswordAlgorithms)
            }
            _ => Err(AuthReason::PasswordAlgorithms),
        }
    }

    /// RFC 8489 §9.2.4, fourth and fifth check. Whoever is unknown costs the work of someone who is not.
    fn verify(
        &self,
        request: &Message<'_>,
        claim: &Claim<'_>,
        algorithm: Option<PasswordAlgorithm>,
        known: Option<&Arc<Credential>>,
    ) -> Result<Arc<Credential>, AuthReason> {
        // The key that opened the allocation. If it does not fit, the user may have got a new one since.
        if let Some(known) = known
            && Some(known.algorithm()) == algorithm
            && claim.names(known)
            && integrity_holds(request, known.key())
        {
            return Ok(Arc::clone(known));
        }
        // Who it is depends on the realm (RFC 8489 §9.2.5). What ours is, is no secret.
        if claim.realm != self.realm.as_bytes() {
            return Err(AuthReason::WrongRealm);
        }
        let user = match claim.name {
            ClaimedName::Username(name) => self.users.named(name),
            ClaimedName::Userhash(hash) => self.users.hashed(hash),
            ClaimedName::Invalid => None,
        };
        let time_limited = match claim.name {
            ClaimedName::Username(name) if user.is_none() => self.secrets.parse(name),
            _ => None,
        };
        if user.is_none() && time_limited.is_none() {
            return Err(refused_at_equal_cost(request, AuthReason::UnknownUser));
        }
        let Some(algorithm) = algorithm else {
            return Err(refused_at_equal_cost(request, AuthReason::NoKey));
        };
        if let Some(name) = time_limited {
            let holds = |key: &[u8]| integrity_holds(request, key);
            let credential = self.secrets.verify(&name, &self.realm, algorithm, holds);
            return credential.map(Arc::new).ok_or(AuthReason::WrongPassword);
        }
        match user.and_then(|user| user.credential(algorithm)) {
            Some(credential) if integrity_holds(request, credential.key()) => Ok(Arc::clone(credential)),
            Some(_) => Err(AuthReason::WrongPassword),
            None => Err(refused_at_equal_cost(request, AuthReason::NoKey)),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// RFC 8489 §14.9.
fn realm(configured: &str) -> Result<String, AuthConfigError> {
    let refuse = |problem| AuthConfigError::Realm { realm: configured.to_owned(), problem };
    let realm = opaque(configured).map_err(refuse)?;
    if realm.contains(['"', '\\']) {
        return Err(refuse("contains a quote or a backslash, which no realm can carry as it is"));
    }
    if realm.chars().count() > REALM_MAX {
        return Err(refuse("is longer than 127 characters"));
    }
    Ok(realm)
}

/// RFC 8489 §9.2.4: MESSAGE-INTEGRITY-SHA256 counts where it is present, else MESSAGE-INTEGRITY.
fn integrity_holds(request: &Message<'_>, key: &[u8]) -> bool {
    if request.has_integrity_sha256() { request.verify_sha256(key) } else { request.verify_sha1(key) }
}

/// So that the time to an answer does not tell which names exist.
fn refused_at_equal_cost(request: &Message<'_>, reason: AuthReason) -> AuthReason {
    black_box(integrity_holds(request, black_box(&NOBODY)));
    reason
}
