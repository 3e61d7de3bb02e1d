//! Asks a running relay through its API: requests, and what their failures mean.
//!
//! - [`Target`]: how the relay is reached: over its control socket, or over TCP with a token
//! - [`Failure`]: why it has not done what was asked

mod failure;
mod target;

use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::VERSION;
use super::percent::encoded;
use crate::http::body::{self, BodyError};
pub use failure::Failure;
pub use target::{Target, connector, connector_besides, token_in};

/// The version of this program.
const OURS: &str = crate::VERSION;

/// Time for a response. A reload may wait for a worker.
const RESPONSE: Duration = Duration::from_secs(90);

/// The most bytes of a response: a page of a thousand allocations, each with many peers.
const RESPONSE_MAX: usize = 64 << 20;

/// Sends requests to a relay, each over its own connection.
pub struct Client {
    target: Target,
}

impl Client {
    /// A client of the relay there.
    pub fn new(target: Target) -> Client {
        Client { target }
    }

    /// Where the relay is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::GET, path, None).await
    }

    /// Removes something.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.request(Method::DELETE, path, None).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// Sets something.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.request(Method::PUT, path, Some(body)).await
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, version, text) = self.exchange(method, path, body).await?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() && value.is_object() {
            return Ok(value);
        }
        let error = &value["error"];
        let is_unknown = match status {
            StatusCode::NOT_FOUND => error["code"] != "not_found",
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
            _ => false,
        };
        if is_unknown {
            return Err(self.unknown_command(version).await);
        }
        let message = match error["message"].as_str() {
            // An older relay does not know the parameters of newer programs.
            Some(message) if status == StatusCode::BAD_REQUEST => {
                let other = version.filter(|version| version != OURS);
                let note = other.map(|version| format!(" (the relay is version {version}, this is {OURS})"));
                format!("{message}{}", note.unwrap_or_default())
            }
            Some(message) => message.to_owned(),
            None => format!("{} has responded with {status}, and not as a relay does", self.target),
        };
        let findings = error["findings"].as_array().into_iter().flatten();
        let findings = findings.filter_map(|finding| finding.as_str().map(str::to_owned)).collect();
        let is_stopping = error["code"] == "unavailable";
        Err(Failure { findings, is_stopping, ..Failure::new(message) })
    }

    /// The relay does not know what this program asked for: it is older.
    async fn unknown_command(&self, version: Option<String>) -> Failure {
        let asked = match version {
            Some(version) => Some(version),
            None => {
                let status = self.exchange(Method::GET, "/v1/status", None).await.ok();
                let status = status.and_then(|(_, _, text)| serde_json::from_str::<Value>(&text).ok());
                status.and_then(|status| status["version"].as_str().map(str::to_owned))
            }
        };
        let is = match asked {
            Some(version) => format!("the relay is version {version}"),
            None => "the relay is another version".to_owned(),
        };
        Failure::new(format!(
            "{is} and does not know this command of version {OURS}; restart it with the installed version"
        ))
    }

    /// Sends a request; returns the status, the version of the relay, and the body of the response.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Option<String>, String), Failure> {
        let exchanged = timeout(RESPONSE, async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let version = response.headers().get(VERSION).and_then(|version| version.to_str().ok());
            let version = version.map(str::to_owned);
            Ok((status, version, read(response.into_body()).await?))
        });
        let late = |_| Failure::new(format!("{} has not responded in {} s", self.target, RESPONSE.as_secs()));
        exchanged.await.map_err(late)?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.target.host());
        if let Some(authorization) = self.target.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(without_nulls).unwrap_or_default());
        let request = request.map_err(|_| Failure::new("this cannot be sent"))?;
        let broken = |_| Failure {
            is_broken: true,
            ..Failure::new(format!("{} has closed the connection without a response", self.target))
        };
        let stream = self.target.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }
}

/// A body without the parameters that were not given.
fn without_nulls(body: &Value) -> String {
    let mut body = body.clone();
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body.to_string()
}

async fn read(body: Incoming) -> Result<String, Failure> {
    let bytes = body::bytes(body, RESPONSE_MAX).await.map_err(|error| match error {
        BodyError::TooLong => Failure::new("the response is too long"),
        BodyError::CutOff(error) => {
            Failure { is_broken: true, ..Failure::new(format!("the response was cut off: {error}")) }
        }
    })?;
    String::from_utf8(bytes).map_err(|_| Failure::new("the response is not UTF-8"))
}

/// The path of these segments, which may have any characters.
pub fn path(segments: &[&str]) -> String {
    let segments: String = segments.iter().map(|segment| format!("/{}", encoded(segment))).collect();
    format!("/v1{segments}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_keep_their_characters_in_paths() {
        assert_eq!(
            path(&["users", "a/b:c %\u{eb}", "allocations"]),
            "/v1/users/a%2Fb%3Ac%20%25%C3%AB/allocations"
        );
    }
}
