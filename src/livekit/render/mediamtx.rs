//! Registers relays with a running MediaMTX, by its API. It keeps that until its next start, which reads its file.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::endpoint::Endpoint;

/// The key of the ICE servers.
const KEY: &str = "webrtcICEServers2";

/// What newer versions show instead of passwords.
const REDACTED: &str = "<redacted>";

/// How often, and how many times, it is asked whether it has taken what it was told: its API may restart meanwhile.
const INTERVAL: Duration = Duration::from_millis(250);
const ATTEMPTS: u32 = 20;

/// A running MediaMTX.
pub struct MediaMtx {
    endpoint: Endpoint,
    authorization: Option<String>,
}

impl MediaMtx {
    /// The one with its API there; `credentials` are `user:password`.
    pub fn new(endpoint: Endpoint, credentials: Option<&str>) -> MediaMtx {
        let authorization = credentials.map(|text| format!("Basic {}", STANDARD.encode(text.trim())));
        MediaMtx { endpoint, authorization }
    }

    /// Its ICE servers.
    ///
    /// # Errors
    ///
    /// It does not answer, or refuses.
    pub async fn servers(&self) -> Result<Value, String> {
        let body = self.ask(Method::GET, "/v3/config/global/get", None).await?;
        let config: Value = serde_json::from_slice(&body).unwrap_or_default();
        config.get(KEY).cloned().ok_or_else(|| {
            format!(
                "{} answers, but not as MediaMTX does: its configuration has no {KEY}",
                self.endpoint.shown()
            )
        })
    }

    /// Gives it these ICE servers, and sees that it has them.
    ///
    /// # Errors
    ///
    /// It does not answer, refuses, or has other ones afterwards.
    pub async fn set(&self, servers: &Value) -> Result<(), String> {
        self.ask(Method::PATCH, "/v3/config/global/patch", Some(json!({ KEY: servers }).to_string())).await?;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.servers().await {
                Ok(now) if is_equal(&now, servers) => return Ok(()),
                Ok(_) => last = "it has other ICE servers".into(),
                Err(error) => last = error,
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Err(format!(
            "MediaMTX at {} has accepted the relay, but afterwards {last}; see its log",
            self.endpoint.shown()
        ))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Vec<u8>, String> {
        let shown = self.endpoint.shown();
        let (status, body) =
            self.endpoint
                .request(method, path, self.authorization.as_deref(), body)
                .await
                .map_err(|error| format!("MediaMTX's API: {error}; is `api: yes` in its configuration?"))?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!(
                "MediaMTX at {shown} refuses this ({status}); name a file with `user:password` of a user with the permission `api` by \
                 --api-credentials, and let authInternalUsers admit this machine"
            )),
            StatusCode::NOT_FOUND => {
                Err(format!("{shown} has no {path}; is it the API of MediaMTX 1.0 or later?"))
            }
            // Its words could quote what was sent.
            _ => Err(format!("MediaMTX at {shown} has responded with {status}; see its log")),
        }
    }
}

/// Whether these are the same servers, as far as MediaMTX shows them.
pub fn is_equal(now: &Value, wanted: &Value) -> bool {
    let (Some(now), Some(wanted)) = (now.as_array(), wanted.as_array()) else { return false };
    let is_same = |(now, wanted): (&Value, &Value)| {
        ["url", "username", "clientOnly"].iter().all(|key| now[key] == wanted[key])
            && (now["password"] == wanted["password"] || now["password"] == REDACTED)
    };
    now.len() == wanted.len() && now.iter().zip(wanted).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_compared_by_what_is_shown() {
        let server = |url: &str, word: &str| json!({"url": url, "username": "AUTH_SECRET", "password": word, "clientOnly": true});
        let wanted = json!([server("turn:a:1", "s")]);
        assert!(is_equal(&wanted, &wanted));
        assert!(is_equal(&json!([server("turn:a:1", REDACTED)]), &wanted));
        let mut more = server("turn:a:1", "s");
        more["of a newer version"] = json!(1);
        assert!(is_equal(&json!([more]), &wanted));
        for other in
            [json!([]), json!(null), json!([server("turn:b:1", "s")]), json!([server("turn:a:1", "t")])]
        {
            assert!(!is_equal(&other, &wanted), "{other}");
        }
    }
}
