//! Asks a metadata service: HTTP without TLS, proxies and redirects, as these services have it, with bounds on time and size. The
//! services are link-local, so nobody but the cloud's own network sees the requests.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::body::{self, BodyError};

/// Time for a connection and for a response.
const WAIT: Duration = Duration::from_secs(2);

/// The most bytes of a response.
const SIZE: usize = 256 << 10;

/// A header of a request.
pub type Header<'a> = (&'static str, &'a str);

/// Why there is no response that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing answers there.
    Silent(String),
    /// What answers has something else to say.
    Refused(String),
}

/// The text of a successful response.
pub async fn ask(
    server: SocketAddr,
    method: Method,
    path: &str,
    header: Option<Header<'_>>,
) -> Result<String, Failure> {
    let connect = timeout(WAIT, TcpStream::connect(server)).await;
    let stream = connect
        .map_err(|_| Failure::Silent("no connection in time".into()))?
        .map_err(|error| Failure::Silent(error.to_string()))?;
    let refused = |why: String| Failure::Refused(format!("{path}: {why}"));
    match timeout(WAIT, exchange(stream, server, method, path, header)).await {
        Ok(response) => response.map_err(refused),
        Err(_) => Err(refused("no response in time".into())),
    }
}

async fn exchange(
    stream: TcpStream,
    server: SocketAddr,
    method: Method,
    path: &str,
    header: Option<Header<'_>>,
) -> Result<String, String> {
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut request = Request::builder().method(method).uri(path).header("Host", server.ip().to_string());
    request = request.header("Connection", "close").header("Content-Length", "0");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(String::new()).map_err(|error| error.to_string())?;
    let mut connection = pin!(connection);
    let mut response = pin!(async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("status {}", status.as_u16()));
        }
        text(response.into_body()).await
    });
    tokio::select! {
        text = &mut response => text,
        // The response may have arrived with the end of the connection
        _ = &mut connection => response.await,
    }
}

async fn text(body: Incoming) -> Result<String, String> {
    let bytes = body::bytes(body, SIZE).await.map_err(|error| match error {
        BodyError::TooLong => "the response is too long".to_owned(),
        BodyError::CutOff(error) => error,
    })?;
    String::from_utf8(bytes).map_err(|_| "the response is not text".into())
}
