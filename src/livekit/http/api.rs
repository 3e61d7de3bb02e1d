//! What is done with a request.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::cors::Origin;
use super::counters::OTHER;
use super::ice_servers::{self, Now};
use super::rate_limit::RateLimit;
use super::response::{Failure, json_response, text};
use super::routes::{Operation, Route, list};
use crate::daemon::unix_now;
use crate::http::bearer::bearer;
use crate::http::body::{self, BodyError};
use crate::http::lines::LineLimit;
use crate::livekit::health::Readiness;
use crate::livekit::sidecar::Sidecar;
use crate::livekit::token::TokenError;
use crate::livekit::webhook::{BODY_MAX, Refused};
use crate::shown::Shown;

/// Time for a body to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);

/// What requests leave behind.
pub struct Api {
    limit: RateLimit,
    rng: Mutex<StdRng>,
    opened: Instant,
    refusals: LineLimit,
}

impl Api {
    /// An API nobody has asked yet. `seed` is random.
    pub fn new(seed: [u8; 32]) -> Api {
        let rng = Mutex::new(StdRng::from_seed(seed));
        Api { limit: RateLimit::new(), rng, opened: Instant::now(), refusals: LineLimit::default() }
    }

    /// Responds to a request that came from this address.
    pub async fn respond<B>(
        &self,
        sidecar: &Sidecar,
        from: SocketAddr,
        request: Request<B>,
    ) -> Response<String>
    where
        B: Body<Data = Bytes>,
        B::Error: ToString,
    {
        let (head, body) = request.into_parts();
        let route = Route::find(head.uri.path());
        let response = match route {
            None => Failure::unknown_route(&list()).into_response(),
            Some(route) if head.method == Method::OPTIONS && route.operation == Operation::IceServers => {
                let origin = Origin::of(&head.headers, &sidecar.settings.http.origins);
                let mut response = origin.preflight(&head.headers);
                origin.complete(&mut response);
                response
            }
            Some(route) if !route.takes(&head.method) => Failure::method(route.allowed()).into_response(),
            Some(route) => match route.operation {
                Operation::IceServers => self.ice_servers(sidecar, from, &head),
                Operation::Webhook => self.webhook(sidecar, from, &head, body).await,
                Operation::Live => text("text/plain; charset=utf-8", "ok\n".into()),
                Operation::Ready => ready(&sidecar.readiness(), self.may_watch(sidecar, from, &head).is_ok()),
                Operation::Metrics => match self.may_watch(sidecar, from, &head) {
                    Ok(()) => text("text/plain; version=0.0.4; charset=utf-8", sidecar.metrics_page()),
                    Err(failure) => failure.into_response(),
                },
            },
        };
        let route = route.map_or(OTHER, |route| route.path);
        sidecar.metrics.http.responded(route, response.status().as_u16());
        response
    }

    fn ice_servers(&self, sidecar: &Sidecar, from: SocketAddr, head: &Parts) -> Response<String> {
        let now = Now { unix: unix_now(), since: self.opened.elapsed() };
        let outcome = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            ice_servers::respond(sidecar, &self.limit, head, now, &mut *rng)
        };
        let mut response = match outcome {
            Ok((answer, caller)) => {
                sidecar.metrics.http.issued(caller.kind());
                json_response(&answer)
            }
            Err(failure) => {
                sidecar.metrics.http.refused(failure.code);
                self.log(&failure, from);
                failure.into_response()
            }
        };
        Origin::of(&head.headers, &sidecar.settings.http.origins).complete(&mut response);
        response
    }

    /// Whether whoever sends this may read metrics and reasons.
    fn may_watch(&self, sidecar: &Sidecar, from: SocketAddr, head: &Parts) -> Result<(), Failure> {
        let tokens = &sidecar.settings.http.metrics_tokens;
        if tokens.is_empty() {
            return Ok(());
        }
        let Some(presented) = bearer(&head.headers) else {
            let message = "metrics are for whoever has a token; send one of http.metrics_tokens_file, with the header \
                           Authorization: Bearer TOKEN";
            return Err(Failure::unauthorized("unauthorized", message));
        };
        if tokens.find(presented).is_some() {
            return Ok(());
        }
        if let Some(suppressed) = self.refusals.take() {
            warn!(from = %Shown(from), "a request for metrics had a token that is not one of http.metrics_tokens_file{suppressed}");
        }
        Err(Failure::unauthorized("wrong_token", "this token is not one of http.metrics_tokens_file"))
    }

    /// Says why clients get no ICE servers. The address may be that of a proxy.
    fn log(&self, failure: &Failure, from: SocketAddr) {
        let Failure { status, code, message, detail, .. } = failure;
        let message = detail.as_deref().unwrap_or(message);
        // What anybody can cause, without a token, is no news for the operator.
        if *status == StatusCode::BAD_REQUEST || ["unauthorized", "malformed_token"].contains(code) {
            return debug!(from = %Shown(from), "a request for ICE servers was refused: {message}");
        }
        if let Some(suppressed) = self.refusals.take() {
            warn!(from = %Shown(from), "a request for ICE servers was refused: {message}{suppressed}");
        }
    }

    async fn webhook<B>(&self, sidecar: &Sidecar, from: SocketAddr, head: &Parts, body: B) -> Response<String>
    where
        B: Body<Data = Bytes>,
        B::Error: ToString,
    {
        let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (authorization, kind) = (text(AUTHORIZATION), text(CONTENT_TYPE));
        if let Err(refused) = sidecar.lifecycle.may_send(authorization) {
            return self.refuse(from, refused);
        }
        let body = match timeout(ARRIVAL, body::bytes(body, BODY_MAX)).await {
            Err(_) => return Failure::timeout().into_response(),
            Ok(Err(BodyError::TooLong)) => return Failure::too_large(BODY_MAX).into_response(),
            Ok(Err(BodyError::CutOff(_))) => {
                return Failure::bad_request("the body has not arrived as a whole").into_response();
            }
            Ok(Ok(body)) => body,
        };
        match sidecar.lifecycle.webhook(authorization, kind, &body) {
            Ok(()) => json_response(&json!({})),
            Err(refused) => self.refuse(from, refused),
        }
    }

    /// Refuses a webhook. The operator is told about tokens that LiveKit may have made with a key that the sidecar does not have.
    fn refuse(&self, from: SocketAddr, refused: Refused) -> Response<String> {
        let (code, message) = (refused.code(), format!("the webhook is refused: {refused}"));
        let is_news = match refused {
            Refused::Token(error) => error != TokenError::Malformed,
            Refused::Busy => true,
            Refused::NoToken | Refused::ContentType | Refused::Malformed | Refused::Repeated => false,
        };
        if !is_news {
            debug!(from = %Shown(from), "{message}");
        } else if let Some(suppressed) = self.refusals.take() {
            warn!(from = %Shown(from), "{message}{suppressed}");
        }
        let failure = match StatusCode::from_u16(refused.status()) {
            Ok(StatusCode::UNAUTHORIZED) => Failure::unauthorized(code, message),
            Ok(StatusCode::SERVICE_UNAVAILABLE) => Failure::unavailable(code, message, ARRIVAL),
            Ok(status) => Failure::new(status, code, message),
            Err(_) => Failure::bad_request(message),
        };
        failure.into_response()
    }
}

/// `/readyz`: the reasons, one per line, for whoever may read them.
fn ready(Readiness { obstacles, problems }: &Readiness, says_why: bool) -> Response<String> {
    let first = obstacles.is_empty().then(|| "ok".to_owned());
    let reasons = obstacles.iter().chain(problems).filter(|_| says_why).cloned();
    let mut lines: Vec<String> = first.into_iter().chain(reasons).collect();
    if lines.is_empty() {
        lines.push("not ready".to_owned());
    }
    let mut response = text("text/plain; charset=utf-8", lines.join("\n") + "\n");
    if !obstacles.is_empty() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[cfg(test)]
mod tests;
