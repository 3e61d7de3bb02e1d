//! `GET /v1/ice-servers`: time-limited credentials for the relays, ready for a client's `rtcConfig.iceServers`.
//!
//! A credential lives for `credentials.ttl`, however soon the participant's token expires: tokens of a minute are common, LiveKit
//! itself asks for them at the join only, and the credential is needed again when ICE restarts in the middle of a call. When the
//! participant leaves, it is revoked.

use std::time::Duration;

use hyper::StatusCode;
use hyper::http::request::Parts;
use rand::Rng;
use serde_json::{Value, json};

use super::caller::Caller;
use super::cors::Origin;
use super::query::Query;
use super::rate_limit::{Rate, RateLimit};
use super::response::Failure;
use super::selection::{Candidate, choose};
use crate::auth::time_limited_password;
use crate::livekit::sidecar::Sidecar;
use crate::plural::counted;

/// After how many seconds to ask again when no relay can be used. Relays are asked each second.
const RETRY: Duration = Duration::from_secs(5);

/// What a credential is made for.
#[derive(Debug, PartialEq, Eq)]
struct Subject {
    room: String,
    identity: String,
    ttl: u64,
}

/// When it is.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// In Unix seconds.
    pub unix: u64,
    /// Since the server was opened.
    pub since: Duration,
}

/// Responds to a request; tells who has got a credential.
pub fn respond(
    sidecar: &Sidecar,
    limit: &RateLimit,
    head: &Parts,
    now: Now,
    rng: &mut impl Rng,
) -> Result<(Value, Caller), Failure> {
    let settings = &sidecar.settings;
    let caller = Caller::identify(&head.headers, &settings.http.tokens, &sidecar.keys, now.unix)?;
    let origin = Origin::of(&head.headers, &settings.http.origins);
    if caller == Caller::Backend && origin.is_unnamed() {
        let message = "a token of http.tokens_file must not be in a web page, where everybody can read it; use participants' own \
                       tokens there, or list the page's origin in http.origins";
        return Err(Failure::forbidden(message));
    }
    let Some(secret) = settings.credentials.secrets.first() else {
        let message = "the sidecar has no shared secret of the relays, so it cannot issue credentials; set credentials.secret_file";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no_secret", message));
    };
    let query = Query::new(head.uri.query(), &["room", "identity", "region", "ttl"])?;
    let subject = subject(&caller, &query, settings.credentials.ttl)?;
    let tag = sidecar.tags.tag(&subject.room, &subject.identity);
    let rate = Rate { burst: settings.http.burst, per_minute: settings.http.per_minute };
    limit.take(&tag, rate, now.since).map_err(|wait| {
        let message = "this participant has asked for ICE servers too often (http.burst, http.per_minute); an answer can be used \
                       for its whole ttl";
        Failure::rate_limited(message, wait)
    })?;
    let candidates = sidecar.relays.iter().filter_map(|relay| Candidate::of(relay)).collect();
    let relays = choose(candidates, query.text("region"), rng);
    if relays.is_empty() {
        return Err(no_relay(sidecar, &caller));
    }
    let expires = sidecar.tags.expiry(&tag, now.unix, subject.ttl);
    let username = format!("{expires}:{tag}");
    let credential = time_limited_password(secret.as_bytes(), &username);
    let server = |urls: Vec<String>| json!({ "urls": urls, "username": username, "credential": credential });
    let servers: Vec<Value> = relays.into_iter().map(server).collect();
    Ok((json!({ "iceServers": servers, "ttl": subject.ttl, "expires": expires }), caller))
}

/// Whom the caller asks for.
fn subject(caller: &Caller, query: &Query, longest: u64) -> Result<Subject, Failure> {
    match caller {
        Caller::Participant(participant) => {
            let own = [("room", &participant.room), ("identity", &participant.identity)];
            for (key, own) in own {
                if query.text(key).is_some_and(|asked| asked != own) {
                    let message = format!("{key}: a participant's token is for itself only; leave {key} out");
                    return Err(Failure::forbidden(message));
                }
            }
            if query.text("ttl").is_some() {
                return Err(Failure::bad_request("ttl: only backends may choose it; leave it out"));
            }
            let (room, identity) = (participant.room.clone(), participant.identity.clone());
            Ok(Subject { room, identity, ttl: longest })
        }
        Caller::Backend => {
            let required = |key: &str| {
                let message = || {
                    Failure::bad_request(format!(
                        "{key} is missing: name the participant by room and identity"
                    ))
                };
                query.text(key).map(str::to_owned).ok_or_else(message)
            };
            let ttl = match query.text("ttl") {
                None => longest,
                Some(text) => {
                    let ttl = text.parse().ok().filter(|ttl| (1..=longest).contains(ttl));
                    let message = || format!("ttl: expected seconds, from 1 to {longest} (credentials.ttl)");
                    ttl.ok_or_else(|| Failure::bad_request(message()))?
                }
            };
            Ok(Subject { room: required("room")?, identity: required("identity")?, ttl })
        }
    }
}

/// The reasons have sockets and addresses of the inside, which are not for participants.
fn no_relay(sidecar: &Sidecar, caller: &Caller) -> Failure {
    let why = sidecar.relays.iter().map(|relay| {
        relay.obstacle().unwrap_or_else(|| format!("relay {} has no URL for clients", relay.settings.name))
    });
    let message = format!("no relay can be used now: {}", reasons(why));
    match caller {
        Caller::Backend => Failure::unavailable("no_relay", message, RETRY),
        Caller::Participant(_) => {
            let public = "no relay can be used now; ask again in a moment";
            Failure::unavailable("no_relay", public, RETRY).with_detail(message)
        }
    }
}

/// The first of these sentences, each cut to a length that a line of the log can have.
fn reasons(mut why: impl Iterator<Item = String>) -> String {
    /// How many relays are named.
    const NAMED: usize = 8;
    /// The most characters about one.
    const LENGTH: usize = 400;
    let first: Vec<String> = why.by_ref().take(NAMED).map(|one| one.chars().take(LENGTH).collect()).collect();
    let more = match why.count() {
        0 => String::new(),
        more => format!("; and {}", counted(more, "other")),
    };
    first.join("; ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_have_a_bound() {
        assert_eq!(reasons(["a".to_owned(), "b".to_owned()].into_iter()), "a; b");
        let many = reasons((0..1_000).map(|_| "ä".repeat(5_000)));
        assert!(many.chars().count() < 4_000 && many.ends_with("; and 992 others"), "{many}");
    }
}
