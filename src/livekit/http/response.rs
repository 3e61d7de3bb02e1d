//! Responses of the sidecar: JSON, plain text for health, and errors as `{"error": {"code": .., "message": ..}}`.

use std::time::Duration;

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// For programs and metrics.
    pub code: &'static str,
    /// For people: what happened, and what to do. It never contains a token.
    pub message: String,
    /// What only the operator is told, in the log.
    pub detail: Option<Box<str>>,
    header: Option<(HeaderName, String)>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), detail: None, header: None }
    }

    fn with(self, name: HeaderName, value: impl ToString) -> Failure {
        Failure { header: Some((name, value.to_string())), ..self }
    }

    /// A mistake in the request.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// No token, or one that is not valid (RFC 6750 section 3).
    pub fn unauthorized(code: &'static str, message: impl Into<String>) -> Failure {
        let realm = "Bearer realm=\"hairpin-livekit\"";
        let challenge = match code {
            "unauthorized" => realm.to_owned(),
            _ => format!("{realm}, error=\"invalid_token\""),
        };
        Failure::new(StatusCode::UNAUTHORIZED, code, message).with(WWW_AUTHENTICATE, challenge)
    }

    /// A request that must not be made this way.
    pub fn forbidden(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// There is no such page.
    pub fn unknown_route(routes: &str) -> Failure {
        let message = format!("there is no such page; there are {routes}");
        Failure::new(StatusCode::NOT_FOUND, "unknown_route", message)
    }

    /// The path is known, but not with this method.
    pub fn method(allowed: &str) -> Failure {
        let message = format!("only {allowed} can be used here");
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).with(ALLOW, allowed)
    }

    /// The body has more bytes than allowed.
    pub fn too_large(most: usize) -> Failure {
        let message = format!("the body has more than {most} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The client took too long.
    pub fn timeout() -> Failure {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body has not arrived in time")
    }

    /// There were too many requests (RFC 6585 section 4).
    pub fn rate_limited(message: impl Into<String>, wait: Duration) -> Failure {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
            .with(RETRY_AFTER, wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// It cannot be served now.
    pub fn unavailable(code: &'static str, message: impl Into<String>, wait: Duration) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with(RETRY_AFTER, wait.as_secs())
    }

    /// With more for the log than the client is told.
    pub fn with_detail(self, detail: String) -> Failure {
        Failure { detail: Some(detail.into()), ..self }
    }

    /// As a response.
    pub fn into_response(self) -> Response<String> {
        let mut response = json_response(&json!({ "error": { "code": self.code, "message": self.message } }));
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A result. No cache keeps it: it may be a credential.
pub fn json_response(value: &Value) -> Response<String> {
    text("application/json", format!("{value}\n"))
}

/// A page of this media type.
pub fn text(media_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
