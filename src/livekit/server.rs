//! LiveKit's server API: whether it lives, its rooms and their participants (Twirp, `POST /twirp/livekit.RoomService/…`, JSON).
//!
//! Its bodies have secrets: rooms have a `turn_password`, and a refusal echoes the token. So only the fields below are read, and no
//! error contains a part of a body.

mod error;

use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::clock::{ClockOffset, http_date};
use super::settings::LiveKitSettings;
use super::token::{Grant, Keys};
use crate::daemon::unix_millis;
use crate::http::body::{self, BodyError};
pub use error::ServerError;
use error::{Causes, RESPONSE, RESPONSE_MAX, explained};

/// Time for a connection, without the handshake of TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// Connections that are kept open, and for how long.
const IDLE: (usize, Duration) = (4, Duration::from_secs(30));

/// How many seconds LiveKit's clock may differ before it refuses the sidecar's tokens.
const SKEW: i64 = 60;

/// A LiveKit deployment.
pub struct Server {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    keys: Keys,
    /// `https://livekit.example.org`, and what errors call it.
    base: String,
    offset: Mutex<ClockOffset>,
}

/// What LiveKit says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It serves.
    Ready,
    /// It responds, but does not keep its own figures up to date.
    Stale,
}

/// A room. Its other fields have secrets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Room {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A participant of a room.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its session, `PA_...`.
    #[serde(default)]
    pub sid: String,
    /// Its identity.
    #[serde(default)]
    pub identity: String,
}

#[derive(Deserialize)]
struct Rooms {
    #[serde(default)]
    rooms: Vec<Room>,
}

#[derive(Deserialize)]
struct Participants {
    #[serde(default)]
    participants: Vec<Listed>,
}

#[derive(Serialize)]
struct InRoom<'a> {
    room: &'a str,
}

impl Server {
    /// The deployment that these settings name.
    ///
    /// # Errors
    /// Its URL or the authorities for its certificate cannot be used.
    pub fn new(settings: &LiveKitSettings) -> Result<Server, ServerError> {
        let base = match settings.api_url.is_empty() {
            true => base("livekit.url", &settings.url)?,
            false => base("livekit.api_url", &settings.api_url)?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ServerError::Authorities(error.to_string()))?
            .with_root_certificates(authorities(&base, settings.ca_file.as_deref())?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .build(https);
        Ok(Server { client, keys: Keys::new(&settings.keys), base, offset: Mutex::default() })
    }

    /// Where it is: `https://livekit.example.org`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// By how many milliseconds its clock is ahead of this machine's; `None` if it has not responded yet.
    pub fn clock_offset(&self) -> Option<i64> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner).millis()
    }

    /// Whether it lives. No key is needed for that.
    ///
    /// # Errors
    /// There is no LiveKit.
    pub async fn live(&self) -> Result<Liveness, ServerError> {
        let request = Request::get(format!("{}/", self.base)).body(Full::default());
        let (status, body) = self.exchange(request).await?;
        match status {
            StatusCode::OK if body.trim_ascii() == b"OK" => Ok(Liveness::Ready),
            StatusCode::OK => Err(self.other("GET / is another page than LiveKit's `OK`")),
            StatusCode::NOT_ACCEPTABLE => Ok(Liveness::Stale),
            status => Err(self.judge(status)),
        }
    }

    /// Its rooms. This proves the key pair.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn rooms(&self) -> Result<Vec<Room>, ServerError> {
        let body = self.call("ListRooms", Grant::Rooms, "{}".into()).await?;
        let rooms: Rooms = self.parsed(&body)?;
        Ok(rooms.rooms)
    }

    /// The participants of a room: none if there is no such room.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn participants(&self, room: &str) -> Result<Vec<Listed>, ServerError> {
        let body = serde_json::to_string(&InRoom { room }).unwrap_or_default();
        let body = self.call("ListParticipants", Grant::Room(room), body).await?;
        let listed: Participants = self.parsed(&body)?;
        Ok(listed.participants)
    }

    async fn call(&self, function: &str, grant: Grant<'_>, body: String) -> Result<Vec<u8>, ServerError> {
        let now = unix_millis() as u64 / 1000;
        let token = self.keys.service(grant, now).map_err(|_| self.wrong_key())?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/twirp/livekit.RoomService/{function}", self.base))
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::from(body));
        match self.exchange(request).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(self.wrong_key()),
            (status, _) => Err(self.judge(status)),
        }
    }

    /// Sends a request; returns the status and the body of the response.
    async fn exchange(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<(StatusCode, Vec<u8>), ServerError> {
        let request = request.map_err(|_| ServerError::Url { setting: "livekit.url" })?;
        let exchanged = timeout(RESPONSE, async {
            let sent = unix_millis();
            let response = self.client.request(request).await.map_err(|error| self.failed(&error))?;
            let received = unix_millis();
            let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
            if let Some(date) = date {
                let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
                offset.observe(sent, received, date);
            }
            let status = response.status();
            let body =
                body::bytes(response.into_body(), RESPONSE_MAX).await.map_err(|error| match error {
                    BodyError::TooLong => ServerError::TooLong { at: self.base.clone() },
                    BodyError::CutOff(_) => self.unreachable("the response was cut off".into()),
                })?;
            Ok((status, body))
        });
        exchanged.await.map_err(|_| ServerError::Timeout { at: self.base.clone() })?
    }

    fn parsed<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, ServerError> {
        // serde takes an array for a structure, too, and its error may quote the body.
        let found =
            body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten();
        found.ok_or_else(|| self.other("it answers with something else than LiveKit's lists"))
    }

    fn judge(&self, status: StatusCode) -> ServerError {
        let at = self.base.clone();
        match status {
            _ if status.is_redirection() => ServerError::Redirect { at, status: status.as_u16() },
            StatusCode::TOO_MANY_REQUESTS => ServerError::Failing { at, status: status.as_u16() },
            _ if status.is_server_error() => ServerError::Failing { at, status: status.as_u16() },
            _ => self.other(&format!("it responds with {}", status.as_u16())),
        }
    }

    /// A token was refused, because of the key or because of the time.
    fn wrong_key(&self) -> ServerError {
        let at = self.base.clone();
        match self.clock_offset().unwrap_or(0) / 1000 {
            ahead if ahead.abs() >= SKEW => ServerError::Skew { at, ahead },
            _ => ServerError::WrongKey { at, key: self.keys.first().to_owned() },
        }
    }

    fn other(&self, why: &str) -> ServerError {
        ServerError::NotLiveKit { at: self.base.clone(), why: why.to_owned() }
    }

    fn unreachable(&self, why: String) -> ServerError {
        ServerError::Unreachable { at: self.base.clone(), why }
    }

    fn failed(&self, error: &(dyn StdError + 'static)) -> ServerError {
        let at = self.base.clone();
        let causes = Causes::of(error);
        match causes {
            Causes { tls: Some(error), .. } => ServerError::Tls { at, why: explained(&error) },
            Causes { is_dns: true, last, .. } => ServerError::Unresolved { at, why: last },
            Causes { is_protocol: true, .. } => self.other("its response is not HTTP"),
            Causes { last, .. } => self.unreachable(last),
        }
    }
}

/// The URL for requests: `ws` is `http` there, and there is no slash at its end.
fn base(setting: &'static str, url: &str) -> Result<String, ServerError> {
    let wrong = || ServerError::Url { setting };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        _ => return Err(wrong()),
    };
    let base = format!("{scheme}://{}", rest.trim_end_matches('/'));
    let uri: Uri = base.parse().map_err(|_| wrong())?;
    let is_usable = uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none();
    // A password in a URL would be shown in messages.
    if !is_usable || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong());
    }
    Ok(base)
}

/// The authorities that LiveKit's certificate may come from.
fn authorities(base: &str, ca_file: Option<&Path>) -> Result<RootCertStore, ServerError> {
    let mut roots = RootCertStore::empty();
    if !base.starts_with("https:") {
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let wrong = || {
            ServerError::Authorities(format!(
                "livekit.ca_file: {} has no certificates in PEM that can be read",
                file.display()
            ))
        };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|_| wrong())? {
            roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
        }
        if roots.len() == before {
            return Err(wrong());
        }
    }
    if roots.is_empty() {
        return Err(ServerError::Authorities(
            "this machine has no certificates of authorities, so that of LiveKit cannot be verified; install the package \
             ca-certificates, or set livekit.ca_file"
                .into(),
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
