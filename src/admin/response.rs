//! Results and errors as HTTP responses.

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// The header with the version of the relay, for a `hairpin ctl` of another one.
pub const VERSION: &str = "hairpin-version";

/// Why a call has failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people: what happened, and what to do.
    pub message: String,
    header: Option<(&'static str, String)>,
    /// More for programs, beside the code and the message.
    details: Option<Box<(&'static str, Value)>>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), header: None, details: None }
    }

    /// A mistake in the request.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// No token, or none of ours (RFC 6750 section 3).
    pub fn unauthorized(message: &str) -> Failure {
        let header = Some((WWW_AUTHENTICATE.as_str(), "Bearer realm=\"hairpin\"".into()));
        Failure { header, ..Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message) }
    }

    /// A request that must not be made this way.
    pub fn forbidden(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// A changing call with a token for reading.
    pub fn read_only() -> Failure {
        let message = "this token may only read; use one with the scope admin";
        Failure::new(StatusCode::FORBIDDEN, "read_only", message)
    }

    /// There is no such operation.
    pub fn unknown_route(path: &str) -> Failure {
        let message = format!("there is no {path:?} in this API; docs/api.md lists what there is");
        Failure::new(StatusCode::NOT_FOUND, "unknown_route", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path is known, but not with this method.
    pub fn method(allowed: &str) -> Failure {
        let header = Some((ALLOW.as_str(), allowed.to_owned()));
        let message = format!("only {allowed} can be used here");
        Failure { header, ..Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// The body has more bytes than allowed.
    pub fn too_large(most: usize) -> Failure {
        let message = format!("the body has more than {most} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The body is not said to be JSON.
    pub fn media_type() -> Failure {
        let message = "send JSON, with the header Content-Type: application/json";
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// The client took too long.
    pub fn timeout() -> Failure {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body has not arrived in time")
    }

    /// The request is right, and the relay cannot do it in its state.
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, "refused", message)
    }

    /// The relay cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Our mistake.
    pub fn internal(message: &str) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Adds details for programs.
    pub fn with(self, key: &'static str, value: Value) -> Failure {
        Failure { details: Some(Box::new((key, value))), ..self }
    }

    /// As a response: `{ "error": { "code": .., "message": .. } }`.
    pub fn into_response(self) -> Response<String> {
        let mut body = json!({ "error": { "code": self.code, "message": self.message } });
        if let Some((key, value)) = self.details.map(|details| *details) {
            body["error"][key] = value;
        }
        let mut response = respond(self.status, &body);
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A result as a response.
pub fn ok(value: &Value) -> Response<String> {
    respond(StatusCode::OK, value)
}

fn respond(status: StatusCode, value: &Value) -> Response<String> {
    let mut response = Response::new(format!("{value}\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VERSION, HeaderValue::from_static(crate::VERSION));
    response
}
