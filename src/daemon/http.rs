//! HTTP for `/metrics`, `/livez`, `/readyz` and `/healthz`. Few connections at a time, each for one request and at most 15
//! seconds.
//!
//! Monitoring matters most when something is exhausted. So a connection that finds no place takes that of the oldest one
//! that has not sent its request, and a few file descriptors are kept in reserve for connections that find none.
//!
//! With tokens (`http.tokens_file`), metrics are for whoever has one. Health checks need none, since load balancers have none to
//! send, but are told no reasons then, because these name addresses.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use nix::sys::eventfd::EventFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::security::{Security, handshake_within};
use crate::config::settings::HttpSettings;
use crate::config::tokens::Tokens;
use crate::datapath::allow_missing_address;
use crate::http::accept;
use crate::http::bearer::bearer;
use crate::http::connections::{Asked, Connections, WhenFull, serve_request};
use crate::http::lines::LineLimit;
use crate::shown::Shown;
use crate::tls::Identities;

/// Connections at a time.
pub const CONNECTIONS: usize = 64;

/// File descriptors in reserve.
pub const SPARES: usize = 8;

/// Connections that may wait in the kernel's accept queue.
const BACKLOG: i32 = 128;

/// Time for a TLS handshake, and then for a request to arrive.
const REQUEST: Duration = Duration::from_secs(5);

/// Time after which a connection is closed, whatever it does.
const CONNECTION: Duration = Duration::from_secs(15);

/// What the pages show.
pub trait Pages: Send + Sync + 'static {
    /// `/metrics`, in Prometheus' text format.
    fn metrics(&self) -> String;
    /// `/livez`: every part of the relay runs.
    ///
    /// # Errors
    /// The part that does not.
    fn is_live(&self) -> Result<(), String>;
    /// `/readyz` and `/healthz`: the relay serves clients.
    ///
    /// # Errors
    /// Why it does not.
    fn is_ready(&self) -> Result<(), String>;
    /// What `/readyz` and `/healthz` say besides, in whole lines, to whoever may know it.
    fn remarks(&self) -> String {
        String::new()
    }
}

/// Opens a listener. `beside`: a stream listener of this process that is about to be closed has the address, or a part of it.
///
/// # Errors
///
/// Returns an error that tells the operator what to change if the address cannot be bound.
pub fn open(address: SocketAddr, beside: bool) -> Result<std::net::TcpListener> {
    open_for(address, beside, "http")
}

/// Opens a listener of a section that has the key `listen`.
///
/// # Errors
///
/// Returns an error that tells the operator what to change if the address cannot be bound.
pub fn open_for(address: SocketAddr, beside: bool, section: &str) -> Result<std::net::TcpListener> {
    bind(address, beside).map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "already in use (another hairpin?); stop the other program or change {section}.listen"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("no permission; choose a port of 1024 or above in {section}.listen")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("not an address of this machine; change {section}.listen")
            }
            _ => format!("cannot be opened; change {section}.listen"),
        };
        anyhow::Error::new(error).context(format!("{section} {address}: {fix}"))
    })
}

fn bind(address: SocketAddr, beside: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(beside)?;
    if address.is_ipv6() {
        // An address is for its own family, as those of clients are.
        socket.set_only_v6(true)?;
    }
    allow_missing_address(&socket, address);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // Another process cannot have bound it before; one that binds it beside this one is our own.
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Serves the listeners of one relay.
pub struct Server<P> {
    pages: Arc<P>,
    connections: Connections,
    guard: Mutex<Guard>,
    /// Closed when there is no descriptor left for a connection, and opened again after it.
    spares: Mutex<Vec<OwnedFd>>,
}

/// How the pages are protected.
#[derive(Clone, Default)]
struct Guard {
    security: Security,
    /// Who may read metrics; everybody if there is none.
    tokens: Arc<Tokens>,
    failures: Arc<LineLimit>,
}

/// What a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Everything.
    Full,
    /// Whether the relay is alive and ready: it has shown no token.
    NoToken,
    /// The same: its token is none of ours.
    WrongToken,
}

impl<P: Pages> Server<P> {
    /// A server of these pages. It is to be created early: a reserve of low descriptors is of use even if the limit on open
    /// files is lowered later.
    pub fn new(pages: Arc<P>, reserve: Reserve) -> Arc<Server<P>> {
        let connections = Connections::new(CONNECTIONS, WhenFull::Close);
        let spares = Mutex::new(reserve.0);
        Arc::new(Server { pages, connections, guard: Mutex::default(), spares })
    }

    /// Serves new connections by these settings from now on. `identities` are for TLS.
    pub fn configure(&self, settings: &HttpSettings, identities: Option<Identities>) {
        let tokens = Arc::new(settings.tokens.clone());
        let mut guard = self.guard();
        let closed = guard.security.is_closed();
        let failures = guard.failures.clone();
        *guard = Guard { security: Security::of(settings.tls, identities), tokens, failures };
        if guard.security.is_closed() && !closed && !settings.listen.is_empty() {
            warn!(
                "metrics and health are served to nobody until a certificate of [tls] can be used (http.tls)"
            );
        }
    }

    /// Serves the pages while it is polled.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener cannot be registered with the runtime. Errors of single connections end only those.
    pub async fn serve(self: Arc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match accept::next(&listener, TcpListener::accept).await {
                Ok((stream, from)) => self.start(stream, from).await,
                Err(error) if accept::is_exhaustion(&error) => {
                    if !self.release_spare() && !self.connections.close_oldest().await {
                        warn!(%error, "cannot accept an HTTP connection");
                        // Retrying at once would use a whole CPU.
                        sleep(Duration::from_secs(1)).await;
                    }
                }
                // accept(2): the error of a connection that has ended already.
                Err(error) => debug!(%error, "an HTTP connection failed"),
            }
        }
    }

    async fn start(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let server = Arc::downgrade(self);
        let (pages, guard) = (self.pages.clone(), self.guard().clone());
        let serve = |asked| async move {
            let served = async {
                match &guard.security {
                    Security::Plain => connection(stream, from, pages, &guard, asked).await,
                    Security::Tls(None) => {
                        debug!(from = %Shown(from), "an HTTP connection is closed: no certificate can be used");
                    }
                    Security::Tls(Some(identities)) => {
                        match handshake_within(REQUEST, stream, identities).await {
                            Ok(stream) => connection(stream, from, pages, &guard, asked).await,
                            Err(error) => {
                                debug!(from = %Shown(from), %error, "a TLS handshake of [http] failed");
                            }
                        }
                    }
                }
            };
            let _ = timeout(CONNECTION, served).await;
            if let Some(server) = server.upgrade() {
                server.refill();
            }
        };
        self.connections.start(serve).await;
    }

    fn release_spare(&self) -> bool {
        self.spares().pop().is_some()
    }

    /// Fills the reserve again as far as possible.
    fn refill(&self) {
        let mut spares = self.spares();
        while spares.len() < SPARES
            && let Some(spare) = spare()
        {
            spares.push(spare);
        }
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        // Every change is a single assignment.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spares(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        // Every change is a single call, so a panic cannot leave an inconsistent state.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// File descriptors for a server when there are no others.
pub struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Opens them.
    pub fn open() -> Reserve {
        Reserve(std::iter::from_fn(spare).take(SPARES).collect())
    }
}

fn spare() -> Option<OwnedFd> {
    EventFd::new().ok().map(OwnedFd::from)
}

impl Guard {
    /// What whoever sends these headers may see. A wrong token is logged, and it is not.
    fn judge(&self, from: SocketAddr, headers: &HeaderMap) -> Access {
        if self.tokens.is_empty() {
            return Access::Full;
        }
        match bearer(headers) {
            None => Access::NoToken,
            // Each of both scopes allows to look.
            Some(presented) if self.tokens.find(presented).is_some() => Access::Full,
            Some(_) => {
                if let Some(suppressed) = self.failures.take() {
                    warn!(
                        from = %Shown(from),
                        "a request for metrics or health had a token that is not one of http.tokens_file{suppressed}"
                    );
                }
                Access::WrongToken
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    pages: Arc<impl Pages>,
    guard: &Guard,
    asked: Asked,
) {
    let respond = |request: Request<Incoming>| {
        let access = guard.judge(from, request.headers());
        std::future::ready(respond(request.method(), request.uri().path(), access, &*pages))
    };
    if let Err(error) = serve_request(stream, asked, REQUEST, respond).await {
        debug!(%error, "an HTTP connection failed");
    }
}

fn respond(method: &Method, path: &str, access: Access, pages: &impl Pages) -> Response<String> {
    let known = ["/metrics", "/livez", "/readyz", "/healthz"].contains(&path);
    if known && method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match (path, access) {
        ("/metrics", Access::Full) => {
            let mut response = plain(StatusCode::OK, pages.metrics());
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        ("/metrics", Access::NoToken) => unauthorized(
            "Bearer realm=\"hairpin\"",
            "metrics are for whoever has a token; send one of http.tokens_file, with the header Authorization: Bearer TOKEN\n",
        ),
        ("/metrics", Access::WrongToken) => unauthorized(
            "Bearer realm=\"hairpin\", error=\"invalid_token\"",
            "this token is not one of http.tokens_file\n",
        ),
        ("/livez", access) => health(pages.is_live(), access, "not live", ""),
        ("/readyz" | "/healthz", access) => health(pages.is_ready(), access, "not ready", &pages.remarks()),
        _ => {
            plain(StatusCode::NOT_FOUND, "not found; the pages are /metrics, /livez, /readyz and /healthz\n")
        }
    }
}

/// RFC 6750 section 3
fn unauthorized(challenge: &'static str, message: &str) -> Response<String> {
    let mut response = plain(StatusCode::UNAUTHORIZED, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// A health check. `outcome` is said instead of the reason to whoever may not read it, and no remarks.
fn health(state: Result<(), String>, access: Access, outcome: &str, remarks: &str) -> Response<String> {
    match (state, access) {
        (Ok(()), Access::Full) => plain(StatusCode::OK, format!("ok\n{remarks}")),
        (Ok(()), Access::NoToken | Access::WrongToken) => plain(StatusCode::OK, "ok\n"),
        (Err(reason), Access::Full) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n{remarks}")),
        (Err(_), Access::NoToken | Access::WrongToken) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{outcome}\n"))
        }
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

        fn is_live(&self) -> Result<(), String> {
            Ok(())
        }

        fn is_ready(&self) -> Result<(), String> {
            Err("no address".into())
        }
    }

    async fn server() -> (SocketAddr, Arc<Server<Fixed>>) {
        let listener = open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(Arc::new(Fixed), Reserve::open());
        tokio::spawn(server.clone().serve(listener));
        (address, server)
    }

    async fn request(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn there_are_four_pages() {
        let (address, _) = server().await;
        let missing = "not found; the pages are /metrics, /livez, /readyz and /healthz\n";
        for (line, status, body) in [
            ("GET /livez", "200 OK", "ok\n"),
            ("GET /readyz", "503 Service Unavailable", "no address\n"),
            ("GET /healthz", "503 Service Unavailable", "no address\n"),
            ("GET /metrics", "200 OK", "hairpin_up 1\n"),
            ("GET /metrics?x=1", "200 OK", "hairpin_up 1\n"),
            ("HEAD /metrics", "200 OK", ""),
            ("POST /metrics", "405 Method Not Allowed", "only GET and HEAD are allowed\n"),
            ("GET /", "404 Not Found", missing),
            ("POST /secret", "404 Not Found", missing),
        ] {
            let response = request(address, &format!("{line} HTTP/1.1\r\nHost: here\r\n\r\n")).await;
            let (head, rest) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {head}");
            assert_eq!(rest, body, "{line}");
        }
        assert!(request(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    }

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn tokens() -> Tokens {
        Tokens::in_file(format!("prometheus:read:{TOKEN}\nops:admin:{TOKEN}x\n").as_bytes()).0
    }

    /// With tokens, metrics are for whoever has one, of either scope; health checks need none, and say why only to whoever has
    /// one. Without tokens everything is open.
    #[tokio::test]
    async fn metrics_and_reasons_are_for_whoever_has_a_token() {
        let (address, server) = server().await;
        let settings = HttpSettings { tokens: tokens(), ..HttpSettings::default() };
        server.configure(&settings, None);
        let ask = |page: &'static str, authorization: &'static str, token: String| async move {
            let head = match authorization {
                "" => String::new(),
                scheme => format!("Authorization: {scheme} {token}\r\n"),
            };
            request(address, &format!("GET {page} HTTP/1.1\r\nHost: here\r\n{head}\r\n")).await
        };
        for (scheme, token) in [("Bearer", TOKEN.to_owned()), ("bearer", format!("{TOKEN}x"))] {
            let response = ask("/metrics", scheme, token.clone()).await;
            assert!(
                response.starts_with("HTTP/1.1 200") && response.ends_with("hairpin_up 1\n"),
                "{response}"
            );
            assert!(ask("/readyz", scheme, token).await.ends_with("\r\n\r\nno address\n"));
        }
        let wrong = [("", TOKEN.to_owned()), ("Basic", TOKEN.to_owned()), ("Bearer", TOKEN[1..].to_owned())];
        for (scheme, token) in wrong {
            let response = ask("/metrics", scheme, token.clone()).await;
            assert!(response.starts_with("HTTP/1.1 401"), "{scheme}: {response}");
            assert!(response.contains("www-authenticate: Bearer realm=\"hairpin\""), "{response}");
            assert!(response.contains("http.tokens_file") && !response.contains("hairpin_up"), "{response}");
            assert_eq!(response.contains("invalid_token"), scheme == "Bearer", "{response}");
            let response = ask("/readyz", scheme, token.clone()).await;
            assert!(
                response.starts_with("HTTP/1.1 503") && response.ends_with("\r\n\r\nnot ready\n"),
                "{response}"
            );
            assert!(ask("/livez", scheme, token).await.starts_with("HTTP/1.1 200"));
        }
        server.configure(&HttpSettings::default(), None);
        assert!(
            ask("/metrics", "", String::new()).await.starts_with("HTTP/1.1 200"),
            "a reload takes them away"
        );
    }

    /// With TLS and without a certificate that can be used, nobody is served: a token must not be read on the way.
    #[tokio::test]
    async fn nobody_is_served_without_a_certificate() {
        let (address, server) = server().await;
        server.configure(&HttpSettings { tls: true, ..HttpSettings::default() }, None);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await;
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response).await;
        assert!(response.is_empty());
    }

    /// Silent connections hold up nobody: the oldest of them is closed for a new one.
    #[tokio::test]
    async fn a_new_connection_takes_the_place_of_the_oldest_silent_one() {
        let (address, server) = server().await;
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let since = tokio::time::Instant::now();
        let response = request(address, "GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(since.elapsed() < REQUEST / 2, "nothing timed out");
        let mut rest = Vec::new();
        silent[0].read_to_end(&mut rest).await.unwrap();
        assert!(server.connections.count() <= CONNECTIONS);
        let mut latest = silent.pop().unwrap();
        latest.write_all(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        let mut response = String::new();
        latest.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }

    /// The wildcards of both families have room beside each other.
    #[test]
    fn an_ipv6_listener_takes_no_ipv4() {
        let Ok(six) = open("[::]:0".parse().unwrap(), false) else { return };
        let port = six.local_addr().unwrap().port();
        open(SocketAddr::new("0.0.0.0".parse().unwrap(), port), false).unwrap();
    }

    #[test]
    fn a_port_in_use_is_reported() {
        let first = open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let error = open(first.local_addr().unwrap(), false).unwrap_err();
        assert!(error.to_string().contains("already in use (another hairpin?)"), "{error}");
    }
}
