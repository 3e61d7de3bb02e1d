//! Server side of the long-term credential mechanism: RFC 8489 §9.2 with §14.3-14.6, §14.9-14.12, §18.1, §18.5 and errata
//! 6290 and 6268, and status code 441 of RFC 8656 §5.
//!
//! [`Auth`] is immutable and shared by all workers. It authenticates a request by the message, the client's address and the
//! time, and keeps no state between requests that a flood could fill. An allocation holds the [`Credential`] that created it
//! and passes it to later requests, so its key remains valid even if the user is removed.
//!
//! - [`AuthConfig`], [`NonceKeys`]: realm, users, shared secrets, API keys of LiveKit, and keys from the operating system.
//! - `user_list`, `listed_users`: users of files, and their keys.
//! - `time_limited`, `livekit`: user names that carry what their password is made from.
//! - [`Account`]: whom quotas and rates count.
//! - [`Auth::authenticate`]: the checks of RFC 8489 §9.2.4, in order.
//! - [`Authenticated`], [`AuthRefusal`], [`AuthReason`]: the outcome.
//! - [`Revocations`]: users that an operator has revoked.
//! - [`Auth::no_longer_accepts`]: credentials that were removed from the configuration.
//! - [`ProbeCredential`]: the reserved user of probes.
//! - [`time_limited_password`], [`livekit_credential`], [`md5_key`]: used to issue credentials.
//! - `fix`: what an operator can change about a failed authentication.
//!
//! Deliberately not here: short-term credentials (RFC 8489 §9.1), which TURN does not use, and the rules for clients.

mod account;
mod algorithms;
mod base62;
mod claimed_identity;
mod config;
mod credential;
mod fix;
mod listed_users;
mod livekit;
mod nonce;
mod origin;
mod prepare;
mod probe;
mod revocations;
mod time_limited;
mod user_list;
mod users;
mod verdict;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

pub use account::{Account, AccountKey, AccountKind, PROBE_USER, is_reserved};
pub use config::{AuthConfig, AuthConfigError, LiveKitKey, Password, Secret, StaticUser};
pub use credential::{Credential, md5_key};
pub use livekit::livekit_credential;
pub use nonce::{NonceKeys, REDIRECTED};
pub use prepare::{password_problem, prepared_password};
pub use probe::ProbeCredential;
pub use revocations::{Revocation, Revocations};
pub use time_limited::time_limited_password;
pub use user_list::{
    LISTED_USERS_MAX, ListedChanges, ListedPassword, ListedTwice, TooManyUsers, UserList, UserListBuilder,
    prepared_name,
};
pub use verdict::{AuthPurpose, AuthReason, AuthRefusal, AuthScheme, Authenticated};

use crate::wire::{Encoder, Message, attribute};
use algorithms::{AlgorithmOffer, PasswordAlgorithm};
use claimed_identity::{ClaimedIdentity, ClaimedName};
use livekit::LiveKitKeys;
use nonce::{NonceStatus, Nonces};
use origin::{Origin, OriginKey};
use prepare::opaque_string;
use probe::{ProbeKeys, ProbeName};
use time_limited::SharedSecrets;
use user_list::first_of;
use users::StaticUsers;

/// RFC 8489 §14.9: a realm is shorter than 128 characters.
const REALM_MAX: usize = 127;

/// How many users that have only an MD5 key a warning names.
const NAMED: usize = 10;

/// Verifies requests of unknown users, see [`reject_in_equal_time`].
const DUMMY_KEY: [u8; 16] = [0; 16];

/// Authenticates requests.
pub struct Auth {
    realm: String,
    users: StaticUsers,
    secrets: SharedSecrets,
    livekit: LiveKitKeys,
    probes: ProbeKeys,
    /// What credentials of probes are made from.
    probe_origin: Origin,
    /// See [`AuthConfig::max_lifetime`].
    max_lifetime: u64,
    offer: AlgorithmOffer,
    nonces: Nonces,
    warnings: Vec<String>,
    /// Users that an operator has revoked.
    revocations: Arc<Revocations>,
    on_removal: OnRemoval,
}

/// What happens to allocations whose credential was removed from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemoval {
    /// They live on until their clients end them.
    #[default]
    Keep,
    /// They end.
    End,
}

impl Auth {
    /// Validates the configuration and derives the keys. Passwords are not kept.
    ///
    /// # Errors
    ///
    /// Returns an [`AuthConfigError`] if there are no credentials, if a realm, user name or password cannot be prepared, or if a
    /// user is configured twice.
    pub fn new(config: AuthConfig, nonce_keys: NonceKeys) -> Result<Auth, AuthConfigError> {
        Auth::derived(config, nonce_keys, None)
    }

    /// The same for another configuration of a server that runs, with the same nonce keys. Users of `listed`, those of files that
    /// this one was made from, keep their keys unless their passwords have changed.
    ///
    /// # Errors
    ///
    /// As [`Auth::new`].
    pub fn renewed(
        &self,
        listed: &UserList,
        config: AuthConfig,
        nonce_keys: NonceKeys,
    ) -> Result<Auth, AuthConfigError> {
        Auth::derived(config, nonce_keys, Some((self, listed)))
    }

    fn derived(
        config: AuthConfig,
        nonce_keys: NonceKeys,
        before: Option<(&Auth, &UserList)>,
    ) -> Result<Auth, AuthConfigError> {
        let realm = realm(&config.realm)?;
        let has_users = !config.users.is_empty() || !config.listed.is_empty();
        if !has_users && config.secrets.is_empty() && config.livekit_keys.is_empty() {
            return Err(AuthConfigError::NoCredentials);
        }
        if config.secrets.iter().any(|secret| secret.as_bytes().is_empty()) {
            return Err(AuthConfigError::EmptySecret);
        }
        if config.livekit_keys.iter().any(|key| key.secret.as_bytes().is_empty()) {
            return Err(AuthConfigError::EmptyLiveKitSecret);
        }
        // The age of a nonce is a difference of 32-bit seconds, whose upper half is the future.
        let lifetime = i32::try_from(config.nonce_lifetime)
            .ok()
            .filter(|&seconds| seconds > 0)
            .ok_or(AuthConfigError::NonceLifetime { seconds: config.nonce_lifetime })?
            .unsigned_abs();
        let origins = OriginKey::new(&nonce_keys);
        let before =
            before.filter(|(auth, _)| auth.realm == realm).map(|(auth, listed)| (&auth.users, listed));
        let users = StaticUsers::new(&config.users, &config.listed, &realm, &origins, before)?;

        // RFC 8489 §9.2.4: SHA-256 is offered only if all users have a key for it, because a challenge does not know the user.
        let md5_only = first_of(users.md5_only().map(config::shown), NAMED);
        let offer = if md5_only.is_empty() { AlgorithmOffer::Both } else { AlgorithmOffer::Md5 };
        let mut warnings = Vec::new();
        if !md5_only.is_empty() {
            warnings.push(format!(
                "SHA-256 is not offered to any client because these users have only an MD5 key: {md5_only}; configure their passwords \
                 instead"
            ));
        }
        let mut features = nonce::PASSWORD_ALGORITHMS;
        // The USERHASH of a username that is not listed cannot be looked up.
        if config.secrets.is_empty() && config.livekit_keys.is_empty() {
            features |= nonce::USERNAME_ANONYMITY;
        }
        Ok(Auth {
            revocations: Arc::default(),
            on_removal: OnRemoval::Keep,
            nonces: Nonces::new(&nonce_keys, features, offer, lifetime),
            secrets: SharedSecrets::new(&config.secrets, config.user_before_expiry, &origins),
            livekit: LiveKitKeys::new(&config.livekit_keys, config.livekit_two_part, &origins),
            probes: ProbeKeys::new(&nonce_keys),
            probe_origin: origins.of_probes(),
            max_lifetime: config.max_lifetime,
            realm,
            users,
            offer,
            warnings,
        })
    }

    /// Refuses the users that are in this table, now or later.
    pub fn with_revocations(self, revocations: Arc<Revocations>) -> Auth {
        Auth { revocations, ..self }
    }

    /// What happens to allocations whose credential is no longer in the configuration.
    pub fn on_removal(self, on_removal: OnRemoval) -> Auth {
        Auth { on_removal, ..self }
    }

    /// The longest time in seconds until a credential with an expiry expires.
    pub fn max_lifetime(&self) -> u64 {
        self.max_lifetime
    }

    /// A credential for a probe of this relay, which is no user of the configuration. `random` sets it apart from others.
    pub fn probe_credential(&self, unix: u64, random: [u8; 9]) -> ProbeCredential {
        self.probes.issue(unix, &self.realm, random)
    }

    /// Whether there is a static user of this name.
    pub fn has_static_user(&self, name: &str) -> bool {
        self.users.by_name(name).is_some()
    }

    /// Whether an allocation that was made with this credential is to end, because the credential is no longer in the
    /// configuration: its user, its shared secret or its API key of LiveKit was removed, or the password was changed. That it has expired does not
    /// matter.
    pub fn no_longer_accepts(&self, credential: &Credential) -> bool {
        match self.on_removal {
            OnRemoval::Keep => false,
            OnRemoval::End => !self.knows(credential),
        }
    }

    fn knows(&self, credential: &Credential) -> bool {
        let origin = credential.origin();
        let is_probe = credential.account().is_probe();
        if is_probe || self.secrets.include(origin) || self.livekit.include(origin) {
            return true;
        }
        let Some(user) = self.users.by_name(credential.username()) else { return false };
        user.key(credential.algorithm()).is_some_and(|key| {
            // By the same key, too: a password may have been replaced with the MD5 key made from it
            user.origin() == origin || key == credential.key()
        })
    }

    /// Warnings about the configuration, for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds the attributes of a challenge to a response with status code 401 or 438.
    pub fn challenge(&self, unix: u64, client: SocketAddr, response: &mut Encoder) {
        response.text(attribute::REALM, &self.realm);
        response.bytes(attribute::NONCE, &self.nonces.make(unix, client));
        response.bytes(attribute::PASSWORD_ALGORITHMS, self.offer.value());
    }

    /// Authenticates a request. `known` is the credential of the allocation on this 5-tuple, if there is one.
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
        // RFC 8489 §9.2.4, first check: message integrity is present.
        if !request.has_integrity_sha1() && !request.has_integrity_sha256() {
            return Err(AuthReason::NoCredentials.into());
        }
        // Second check: the attributes needed to verify it are present.
        let claim = ClaimedIdentity::from_request(request).ok_or(AuthReason::MissingAttribute)?;
        // Third check: the algorithms match those sent with the nonce.
        let nonce = self.nonces.validate(unix, client, claim.nonce);
        let algorithm = self.algorithm(&claim, nonce)?;
        // Fourth and fifth check: the user exists and the integrity is made with the user's key. Expiry comes after that, so
        // that logs distinguish an expired credential from a wrong password.
        let credential = self.verify(request, &claim, algorithm, known)?;
        if self.revocations.refuse(unix, &credential) {
            return Err(AuthReason::Revoked.into());
        }
        if purpose == AuthPurpose::Allocate && credential.expires().is_some_and(|expires| expires < unix) {
            return Err(AuthReason::Expired.into());
        }
        let latest = unix.saturating_add(self.max_lifetime);
        let is_too_far = credential.expires().is_some_and(|expires| expires > latest);
        if purpose == AuthPurpose::Allocate && is_too_far && !credential.account().is_probe() {
            return Err(AuthReason::ExpiryTooFar.into());
        }
        // Sixth check: the nonce is valid.
        match nonce {
            NonceStatus::Valid => {}
            NonceStatus::Stale => return Err(AuthReason::StaleNonce.into()),
            NonceStatus::Foreign if purpose == AuthPurpose::Allocate && claim.nonce == REDIRECTED => {
                let signed = Some(Authenticated::new(credential, claim.response_integrity(request)));
                return Err(AuthRefusal { code: 437, reason: AuthReason::ForeignNonce, signed });
            }
            NonceStatus::Foreign => return Err(AuthReason::ForeignNonce.into()),
        }
        let other_user = known.is_some_and(|known| known.username() != credential.username());
        let authenticated = Authenticated::new(credential, claim.response_integrity(request));
        // RFC 8656 §5: 441 if the allocation belongs to another user.
        if other_user && purpose != AuthPurpose::Allocate {
            let reason = AuthReason::OtherUser;
            return Err(AuthRefusal { code: reason.code(), reason, signed: Some(authenticated) });
        }
        Ok(authenticated)
    }

    /// Authenticates the retransmission of a request that was authenticated with `known` before. Its integrity must verify
    /// with the same key; that the nonce or the credential has expired since, or that the configuration has changed, does not
    /// matter (RFC 8489 §6.3.1).
    pub fn recognize(request: &Message<'_>, known: &Arc<Credential>) -> Option<Authenticated> {
        let claim = ClaimedIdentity::from_request(request)?;
        let is_known = claim.algorithm() == Some(known.algorithm())
            && claim.names(known)
            && verify_integrity(request, known.key());
        is_known.then(|| Authenticated::new(Arc::clone(known), claim.response_integrity(request)))
    }

    /// RFC 8489 §9.2.4, third check. Returns `None` for an unknown algorithm.
    fn algorithm(
        &self,
        claim: &ClaimedIdentity<'_>,
        nonce: NonceStatus,
    ) -> Result<Option<PasswordAlgorithm>, AuthReason> {
        let feature_set =
            nonce::features(claim.nonce).is_some_and(|set| set & nonce::PASSWORD_ALGORITHMS != 0);
        match (claim.offered, claim.chosen) {
            // "processed as though PASSWORD-ALGORITHM were MD5"
            (None, None) => Ok(Some(PasswordAlgorithm::Md5)),
            // Without the feature bit nothing is compared. All our nonces have it, so the request will get 438 at best.
            (_, None) if !feature_set => Ok(Some(PasswordAlgorithm::Md5)),
            (_, Some(chosen)) if !feature_set => Ok(PasswordAlgorithm::from_value(chosen)),
            (Some(offered), Some(chosen)) => {
                let offer = AlgorithmOffer::from_value(offered).ok_or(AuthReason::PasswordAlgorithms)?;
                // A foreign nonce may come from before a restart with another offer. The client then needs a 438, which
                // carries the new offer, not a 400.
                if offer != self.offer && nonce != NonceStatus::Foreign {
                    return Err(AuthReason::PasswordAlgorithms);
                }
                let chosen =
                    PasswordAlgorithm::from_value(chosen).filter(|&algorithm| offer.includes(algorithm));
                chosen.map(Some).ok_or(AuthReason::PasswordAlgorithms)
            }
            _ => Err(AuthReason::PasswordAlgorithms),
        }
    }

    /// RFC 8489 §9.2.4, fourth and fifth check.
    fn verify(
        &self,
        request: &Message<'_>,
        claim: &ClaimedIdentity<'_>,
        algorithm: Option<PasswordAlgorithm>,
        known: Option<&Arc<Credential>>,
    ) -> Result<Arc<Credential>, AuthReason> {
        // The allocation's key comes first. If it does not match, the user may have a new password.
        if let Some(known) = known
            && Some(known.algorithm()) == algorithm
            && claim.names(known)
            && verify_integrity(request, known.key())
        {
            return Ok(Arc::clone(known));
        }
        // A user name is valid in its realm only (RFC 8489 §9.2.5). The realm is public, so timing does not matter.
        if claim.realm != self.realm.as_bytes() {
            return Err(AuthReason::WrongRealm);
        }
        if let ClaimedName::Username(name) = claim.name
            && let Some(name) = ProbeName::parse(name)
        {
            let algorithm = algorithm.ok_or_else(|| reject_in_equal_time(request, AuthReason::NoKey))?;
            let verify_key = |key: &[u8]| verify_integrity(request, key);
            let credential = self.probes.verify(&name, &self.realm, algorithm, self.probe_origin, verify_key);
            return credential.map(Arc::new).ok_or(AuthReason::WrongPassword);
        }
        let user = match claim.name {
            ClaimedName::Username(name) => self.users.by_name(name),
            ClaimedName::Userhash(hash) => self.users.by_hash(hash),
            ClaimedName::Invalid => None,
        };
        let time_limited = match claim.name {
            ClaimedName::Username(name) if user.is_none() => self.secrets.parse(name),
            _ => None,
        };
        let livekit = match claim.name {
            ClaimedName::Username(name) if user.is_none() && time_limited.is_none() => {
                self.livekit.parse(name)
            }
            _ => None,
        };
        if user.is_none() && time_limited.is_none() && livekit.is_none() {
            return Err(reject_in_equal_time(request, AuthReason::UnknownUser));
        }
        let Some(algorithm) = algorithm else {
            return Err(reject_in_equal_time(request, AuthReason::NoKey));
        };
        let verify_key = |key: &[u8]| verify_integrity(request, key);
        if let Some(name) = livekit {
            return self.livekit.verify(&name, &self.realm, algorithm, verify_key).map(Arc::new);
        }
        if let Some(name) = time_limited {
            let credential = self.secrets.verify(&name, &self.realm, algorithm, verify_key);
            return credential.map(Arc::new).ok_or(AuthReason::WrongPassword);
        }
        let Some((user, key)) = user.as_ref().and_then(|user| Some((user, user.key(algorithm)?))) else {
            return Err(reject_in_equal_time(request, AuthReason::NoKey));
        };
        match verify_integrity(request, key) {
            true => user.credential(algorithm).ok_or(AuthReason::NoKey),
            false => Err(AuthReason::WrongPassword),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// Prepares the realm (RFC 8489 §14.9).
fn realm(configured: &str) -> Result<String, AuthConfigError> {
    let refuse = |problem| AuthConfigError::Realm { realm: configured.to_owned(), problem };
    let realm = opaque_string(configured).map_err(refuse)?;
    if realm.contains(['"', '\\']) {
        return Err(refuse("contains a quote or a backslash, which are not allowed in a realm"));
    }
    if realm.chars().count() > REALM_MAX {
        return Err(refuse("is longer than 127 characters"));
    }
    Ok(realm)
}

/// RFC 8489 §9.2.4: MESSAGE-INTEGRITY-SHA256 takes precedence over MESSAGE-INTEGRITY.
fn verify_integrity(request: &Message<'_>, key: &[u8]) -> bool {
    if request.has_integrity_sha256() { request.verify_sha256(key) } else { request.verify_sha1(key) }
}

/// Spends the time of a verification, so that response times do not reveal which users exist.
fn reject_in_equal_time(request: &Message<'_>, reason: AuthReason) -> AuthReason {
    black_box(verify_integrity(request, black_box(&DUMMY_KEY)));
    reason
}
