//! HTTP for `/metrics` and `/healthz`. Few connections at a time, each for one request and at most 15 seconds.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at a time; more wait in the kernel's accept queue.
const CONNECTIONS: usize = 64;

/// Time for a request to arrive.
const REQUEST: Duration = Duration::from_secs(5);

/// Time after which a connection is closed, whatever it does.
const CONNECTION: Duration = Duration::from_secs(15);

/// What the pages show.
pub trait Pages: Send + Sync + 'static {
    /// `/metrics`, in Prometheus' text format.
    fn metrics(&self) -> String;
    /// `/healthz`: whether the relay serves clients.
    fn is_healthy(&self) -> bool;
}

/// Opens a listener.
///
/// # Errors
///
/// Returns an error that tells the operator what to change if the address cannot be bound.
pub fn open(address: SocketAddr) -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "already in use (another hairpin?); stop the other program or change http.listen"
            }
            io::ErrorKind::PermissionDenied => "no permission; choose a port of 1024 or above in http.listen",
            io::ErrorKind::AddrNotAvailable => "not an address of this machine; change http.listen",
            _ => "cannot be opened; change http.listen",
        };
        anyhow::Error::new(error).context(format!("http {address}: {fix}"))
    })?;
    listener.set_nonblocking(true).with_context(|| format!("http {address}"))?;
    Ok(listener)
}

/// Serves the pages while it is polled.
///
/// # Errors
///
/// Returns an error if the listener cannot be registered with the runtime. Errors of single connections end only those.
pub async fn serve(listener: std::net::TcpListener, pages: Arc<impl Pages>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION, connection(stream, pages)).await;
                    drop(permit);
                });
            }
            // Most likely there is no file descriptor left; retrying at once would use a whole CPU.
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Arc<impl Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &*pages);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "an HTTP connection failed");
    }
}

fn respond(method: &Method, path: &str, pages: &impl Pages) -> Response<String> {
    let known = ["/metrics", "/healthz"].contains(&path);
    if known && method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
        response.headers_mut().insert(ALLOW, const { hyper::header::HeaderValue::from_static("GET, HEAD") });
        return response;
    }
    match path {
        "/metrics" => {
            let mut response = plain(StatusCode::OK, pages.metrics());
            let format =
                const { hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8") };
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        "/healthz" if pages.is_healthy() => plain(StatusCode::OK, "ok\n"),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not serving\n"),
        _ => plain(StatusCode::NOT_FOUND, "not found; the pages are /metrics and /healthz\n"),
    }
}

fn plain(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fixed;

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "hairpin_up 1\n".into()
        }

        fn is_healthy(&self) -> bool {
            true
        }
    }

    async fn server() -> SocketAddr {
        let listener = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(Fixed)));
        address
    }

    async fn request(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn there_are_two_pages() {
        let address = server().await;
        for (line, status, body) in [
            ("GET /healthz", "200 OK", "ok\n"),
            ("GET /metrics", "200 OK", "hairpin_up 1\n"),
            ("GET /metrics?x=1", "200 OK", "hairpin_up 1\n"),
            ("HEAD /metrics", "200 OK", ""),
            ("POST /metrics", "405 Method Not Allowed", "only GET and HEAD are allowed\n"),
            ("GET /", "404 Not Found", "not found; the pages are /metrics and /healthz\n"),
            ("POST /secret", "404 Not Found", "not found; the pages are /metrics and /healthz\n"),
        ] {
            let response = request(address, &format!("{line} HTTP/1.1\r\nHost: here\r\n\r\n")).await;
            let (head, rest) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {head}");
            assert_eq!(rest, body, "{line}");
        }
        assert!(request(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_are_closed_and_others_are_served() {
        let address = server().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Every permit is taken until the silent connections time out.
        let response = request(address, "GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let mut rest = Vec::new();
        silent[0].read_to_end(&mut rest).await.unwrap();
    }

    #[test]
    fn a_port_in_use_is_reported() {
        let first = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = open(first.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("already in use (another hairpin?)"), "{error}");
    }
}
