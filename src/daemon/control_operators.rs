//! What operators ask of the running relay that needs no turn in the main loop: they list and end allocations, and revoke users.
//! A reload or a stuck worker holds none of it up.

use std::str::FromStr;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::control::{Control, STOPPING};
use super::revocations::RevokeError;
use super::{random, unix_now};
use crate::auth::{ProbeCredential, Revocation};
use crate::datapath::{AllocationPage, AllocationQuery, EndedAllocations, Workers};
use crate::turn::{CloseReason, Selector};

/// The furthest time of a revocation, in seconds from now.
const FURTHEST: u64 = 10 * 366 * 86_400;

/// The most revocations on a page.
const PAGE: usize = 1000;

/// A user was revoked.
#[derive(Clone, Debug)]
pub struct RevokedUser {
    /// Since when and until when.
    pub revocation: Revocation,
    /// Those of the user's allocations that ended.
    pub ended: EndedAllocations,
}

/// Which allocations of a user end when it is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RevokedEnd {
    /// All of them.
    #[default]
    All,
    /// Those whose credential is refused from then on: not those with a credential that expires later.
    Refused,
}

impl FromStr for RevokedEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<RevokedEnd, String> {
        match text {
            "all" => Ok(RevokedEnd::All),
            "refused" => Ok(RevokedEnd::Refused),
            _ => Err("write all or refused".to_owned()),
        }
    }
}

/// Some revoked users, in the order of their names.
#[derive(Clone, Debug)]
pub struct RevocationPage {
    /// The users.
    pub users: Vec<(Box<str>, Revocation)>,
    /// Where the next page goes on; `None` after the last one.
    pub next: Option<Box<str>>,
    /// How many there are in all.
    pub total: usize,
}

impl Control {
    /// A page of allocations. With rates it takes a second.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn allocations(&self, query: &AllocationQuery) -> Result<AllocationPage, String> {
        Ok(self.workers()?.list(query).await)
    }

    /// Ends the allocations that are selected. It goes on if the caller stops waiting.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn end(&self, selector: Selector) -> Result<EndedAllocations, String> {
        Ok(end(self.workers()?, selector, CloseReason::Ended).await)
    }

    /// A credential for a probe of this relay, which is no load and no user of the configuration.
    ///
    /// # Errors
    /// The relay is stopping, or the operating system provides no random bytes.
    pub fn probe_credential(&self) -> Result<ProbeCredential, String> {
        let random = random::bytes().map_err(|error| format!("no random bytes: {error}"))?;
        Ok(self.workers()?.serving().auth.probe_credential(unix_now(), random))
    }

    fn workers(&self) -> Result<Arc<Workers>, String> {
        let workers = self.operators.workers.upgrade();
        workers.filter(|_| !self.is_stopping()).ok_or_else(|| STOPPING.to_owned())
    }

    /// Revokes a user: the name of a static one, or the part of a time-limited user name beside its expiry. Credentials that
    /// expire up to `until` in Unix seconds are refused from now on, then the user's allocations end: all of them, or those that
    /// have such a credential. By default `until` refuses every credential that exists: none that is accepted now expires later
    /// than `auth.max_lifetime` from now. A static user is refused until the revocation is taken back.
    ///
    /// # Errors
    /// See [`RevokeError`]; nothing has changed.
    pub async fn revoke(
        &self,
        user: &str,
        until: Option<u64>,
        end: RevokedEnd,
    ) -> Result<RevokedUser, RevokeError> {
        let workers = self.workers().map_err(RevokeError::Stopping)?;
        let revoked = self.operators.revoked.clone();
        let (auth, now) = (workers.serving().auth.clone(), unix_now());
        let until = match until {
            None => now.saturating_add(auth.max_lifetime()),
            Some(until) if until < now => return Err(RevokeError::Past { until }),
            Some(until) if until > now.saturating_add(FURTHEST) => return Err(RevokeError::TooFar { until }),
            Some(until) => until,
        };
        let revocation = Revocation { since: now, until, is_static: auth.has_static_user(user) };
        let name = user.to_owned();
        // A revocation that is kept must be carried out, even if the caller stops waiting.
        let carried_out = tokio::spawn(async move {
            let mut selector = Selector { user: Some(name.clone()), ..Selector::default() };
            let kept = spawn_blocking(move || revoked.revoke(&name, revocation)).await;
            let revocation = kept.map_err(|error| RevokeError::NotKept(error.into()))??;
            if end == RevokedEnd::Refused {
                // An earlier revocation may refuse more.
                selector.expires_by = Some(revocation.until);
            }
            let ended = workers.end(selector, CloseReason::Revoked).await;
            Ok(RevokedUser { revocation, ended })
        });
        carried_out.await.map_err(|error| RevokeError::NotKept(error.into()))?
    }

    /// Takes a revocation back; false if there was none.
    ///
    /// # Errors
    /// Why the user stays revoked.
    pub async fn unrevoke(&self, user: &str) -> Result<bool, String> {
        self.workers()?;
        let (revoked, user) = (self.operators.revoked.clone(), user.to_owned());
        let done = spawn_blocking(move || revoked.unrevoke(&user)).await;
        done.map_err(|error| error.to_string())?.map_err(|error| format!("{error:#}"))
    }

    /// The revocation of a user.
    ///
    /// # Errors
    /// The relay is stopping.
    pub fn revocation(&self, user: &str) -> Result<Option<Revocation>, String> {
        self.workers()?;
        Ok(self.operators.revoked.table().get(user))
    }

    /// Up to `limit` revoked users from behind `after`.
    ///
    /// # Errors
    /// The relay is stopping.
    pub fn revocations(&self, after: Option<&str>, limit: usize) -> Result<RevocationPage, String> {
        self.workers()?;
        let limit = limit.clamp(1, PAGE);
        let table = self.operators.revoked.table();
        let mut users = table.page(after, limit + 1);
        let more = users.len() > limit;
        users.truncate(limit);
        let next = users.last().map(|(user, _)| user.clone()).filter(|_| more);
        Ok(RevocationPage { users, next, total: table.len() })
    }
}

async fn end(workers: Arc<Workers>, selector: Selector, reason: CloseReason) -> EndedAllocations {
    let ended = tokio::spawn(async move { workers.end(selector, reason).await });
    ended.await.unwrap_or_default()
}
