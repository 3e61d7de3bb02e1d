//! Revoking users, and taking that back.

use serde_json::{Value, json};

use super::allocations::limit;
use crate::admin::json;
use crate::admin::request::Fields;
use crate::admin::response::Failure;
use crate::daemon::control::{Control, STOPPING};
use crate::daemon::revocations::RevokeError;
use crate::daemon::unix_now;

/// A page of the revoked users.
pub async fn list(control: &Control, mut query: Fields) -> Result<Value, Failure> {
    let limit = limit(&mut query)?;
    let cursor = query.text("cursor")?;
    query.finish(&["limit", "cursor"])?;
    let page = control.revocations(cursor.as_deref(), limit).map_err(Failure::unavailable)?;
    let users = page.users.iter().map(|(user, revocation)| json::revocation(user, revocation));
    Ok(json!({
        "revocations": users.collect::<Vec<_>>(),
        "next": page.next,
        "total": page.total,
    }))
}

/// The revocation of a user.
pub async fn show(control: &Control, user: &str) -> Result<Value, Failure> {
    match control.revocation(user).map_err(Failure::unavailable)? {
        Some(revocation) => Ok(json::revocation(user, &revocation)),
        None => Err(not_revoked(user)),
    }
}

/// Revokes a user.
pub async fn revoke(control: &Control, mut body: Fields) -> Result<Value, Failure> {
    let user = body.required("user")?;
    let until = body.time("until")?;
    let duration = body.duration("for")?;
    let end = body.parsed("end", str::parse)?.unwrap_or_default();
    body.finish(&["user", "until", "for", "end"])?;
    let until = match (until, duration) {
        (Some(_), Some(_)) => return Err(Failure::bad_request("until and for cannot be used together")),
        (until, duration) => until.or(duration.map(|time| unix_now() + time.as_secs())),
    };
    let revoked = control.revoke(&user, until, end).await.map_err(failure)?;
    let mut value = json::revocation(&user, &revoked.revocation);
    value["ended"] = revoked.ended.ended.into();
    value["silent_workers"] = revoked.ended.silent.into();
    Ok(value)
}

/// Accepts a user again.
pub async fn unrevoke(control: &Control, user: &str) -> Result<Value, Failure> {
    match control.unrevoke(user).await {
        Ok(true) => Ok(json!({ "user": user })),
        Ok(false) => Err(not_revoked(user)),
        Err(error) if error == STOPPING => Err(Failure::unavailable(error)),
        Err(error) => Err(Failure::refused(error)),
    }
}

fn not_revoked(user: &str) -> Failure {
    Failure::not_found(format!("{user:?} is not revoked"))
}

fn failure(error: RevokeError) -> Failure {
    let said = error.to_string();
    match error {
        RevokeError::Name => Failure::bad_request(format!("user: {said}")),
        RevokeError::Past { .. } | RevokeError::TooFar { .. } => {
            Failure::bad_request(format!("until: {said}"))
        }
        RevokeError::Full | RevokeError::NotKept(_) => Failure::refused(said),
        RevokeError::Stopping(_) => Failure::unavailable(said),
    }
}
