//! LiveKit's or MediaMTX's HTTP port: single requests, each over its own connection, and a connection that shows how long a process
//! lives.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::client::{Failure, connector};
use crate::http::body;

/// Time for a request.
const RESPONSE: Duration = Duration::from_secs(5);

/// How soon a server closes a connection that it does not keep.
const KEPT: Duration = Duration::from_millis(200);

/// The most bytes of a response: the whole configuration of MediaMTX.
const RESPONSE_MAX: usize = 4 << 20;

/// Where a server is.
pub struct Endpoint {
    /// A name or an address, which has no brackets.
    host: String,
    port: u16,
    /// What comes before every path.
    prefix: String,
    tls: Option<TlsConnector>,
}

impl Endpoint {
    /// The server at this URL, which may have the schemes of WebSockets, too. `label` is what messages call the URL.
    ///
    /// # Errors
    ///
    /// The URL or the certificates cannot be used.
    pub fn of(label: &str, url: &str, ca_file: Option<&Path>) -> Result<Endpoint, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "{label}: write it like http://127.0.0.1:7880 or https://livekit.example.org"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong()),
        };
        // What comes before an @ would be a password in an argument.
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = is_tls.then(|| connector(ca_file)).transpose()?;
        Ok(Endpoint { host, port, prefix: uri.path().trim_end_matches('/').to_owned(), tls })
    }

    /// The server at this port of this machine.
    pub fn local(port: u16) -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port, prefix: String::new(), tls: None }
    }

    /// `host:port`
    pub fn shown(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether nobody else can read what is sent.
    pub fn is_private(&self) -> bool {
        let is_loopback =
            self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || self.host == "localhost";
        self.tls.is_some() || is_loopback
    }

    /// Sends a request over a connection of its own; returns the status and the body of the response.
    ///
    /// # Errors
    ///
    /// There is no response.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<String>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, self.shown());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|error| error.to_string())?;
        self.exchange(request).await.map(|(status, body, _)| (status, body))
    }

    /// The connection over which a `GET /` was answered, for as long as it is open; `None` if the server closes it anyway.
    ///
    /// # Errors
    ///
    /// There is no response.
    pub async fn hold(&self) -> Result<Option<Held>, String> {
        let request = Request::builder().uri(format!("{}/", self.prefix)).header(HOST, self.shown());
        let request = request.body(String::new()).map_err(|error| error.to_string())?;
        let (_, _, mut sender) = self.exchange(request).await?;
        let is_kept = timeout(KEPT, sender.ready()).await.is_ok_and(|ready| ready.is_ok());
        Ok((is_kept && !sender.is_closed()).then_some(Held(sender)))
    }

    async fn exchange(
        &self,
        request: Request<String>,
    ) -> Result<(StatusCode, Vec<u8>, SendRequest<String>), String> {
        let exchanged = timeout(RESPONSE, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| format!("cannot connect to {}: {error}", self.shown()))?;
            let Some(tls) = &self.tls else { return exchange(stream, request).await };
            let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let stream = tls.connect(name, stream).await;
            exchange(stream.map_err(|error| format!("TLS to {}: {error}", self.shown()))?, request).await
        });
        exchanged
            .await
            .map_err(|_| format!("{} has not responded in {} s", self.shown(), RESPONSE.as_secs()))?
    }
}

/// A connection that is kept open.
pub struct Held(SendRequest<String>);

impl Held {
    /// Whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The connection ends when the sender is dropped.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<String>,
) -> Result<(StatusCode, Vec<u8>, SendRequest<String>), String> {
    let broken = |error: hyper::Error| format!("the connection was closed without a response ({error})");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let read = body::bytes(response.into_body(), RESPONSE_MAX).await;
    Ok((status, read.map_err(|error| format!("the response cannot be read: {error:?}"))?, sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_kinds_name_a_server() {
        let shown = |url: &str| {
            Endpoint::of("--api", url, None).map(|one| format!("{} {}", one.shown(), one.prefix)).ok()
        };
        for (url, expected) in [
            ("http://127.0.0.1:7880", Some("127.0.0.1:7880 ")),
            ("ws://livekit.example.org/", Some("livekit.example.org:80 ")),
            ("http://[::1]:7880/a/", Some("[::1]:7880 /a")),
            ("ftp://a", None),
            ("127.0.0.1:7880", None),
            ("http://user:word@a:1", None),
            ("http://a/?x", None),
            ("", None),
        ] {
            assert_eq!(shown(url).as_deref(), expected, "{url}");
        }
        assert!(Endpoint::local(1).is_private());
        assert!(!Endpoint::of("--api", "http://192.0.2.1:9997", None).unwrap().is_private());
    }
}
