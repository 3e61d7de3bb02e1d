//! The sockets of the HTTP server. Each connection serves one request, within 15 seconds.
//!
//! Each listener has places of its own, and a connection that finds none takes that of the oldest one that has not sent its request.
//! So silent clients hold up nobody, and a flood at a public listener not the monitoring at another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::api::Api;
use super::tls::Tls;
use crate::daemon::security::handshake_within;
use crate::daemon::{http, random};
use crate::http::accept;
use crate::http::connections::{Asked, Connections, WhenFull, serve_request};
use crate::livekit::settings::HttpSettings;
use crate::livekit::sidecar::Sidecar;
use crate::shown::Shown;

/// Connections of a listener at a time. A room's participants come all at once.
const CONNECTIONS: usize = 512;

/// Time for a TLS handshake, and then for the head of a request.
const REQUEST: Duration = Duration::from_secs(5);

/// Time after which a connection is closed, whatever it does.
const CONNECTION: Duration = Duration::from_secs(15);

/// The listeners, which stay open while a sidecar takes over from another one with new settings.
pub struct HttpServer {
    listeners: Vec<Arc<Listener>>,
    tls: Option<Arc<Tls>>,
    api: Arc<Api>,
    settings: HttpSettings,
}

struct Listener {
    /// As it was configured; the port may be 0.
    configured: SocketAddr,
    socket: std::net::TcpListener,
    connections: Connections,
}

/// What a connection needs.
struct Serving {
    sidecar: Arc<Sidecar>,
    api: Arc<Api>,
    tls: Option<Arc<Tls>>,
}

/// Counts a connection while it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpServer {
    /// Opens the listeners, and reads the certificate if there is one.
    ///
    /// # Errors
    /// An address cannot be bound, or the certificate cannot be used; the error says what to change.
    pub fn open(settings: &HttpSettings) -> Result<HttpServer> {
        let seed = random::bytes().context("the operating system provides no random bytes")?;
        let empty = HttpServer {
            listeners: Vec::new(),
            tls: None,
            api: Arc::new(Api::new(seed)),
            settings: HttpSettings { listen: Vec::new(), ..HttpSettings::default() },
        };
        empty.reopen(settings)
    }

    /// A server with new settings, which shares with this one what they have in common. This one goes on until it is dropped.
    ///
    /// # Errors
    /// As [`HttpServer::open`].
    pub fn reopen(&self, settings: &HttpSettings) -> Result<HttpServer> {
        let tls = match (&settings.cert, &settings.key) {
            (None, None) => None,
            (cert, key) if (cert, key) == (&self.settings.cert, &self.settings.key) => self.tls.clone(),
            (Some(cert), Some(key)) => Some(Arc::new(Tls::open(cert, key)?)),
            _ => bail!("http.cert and http.key belong together; set both, or none to serve without TLS"),
        };
        let closes = |addr: &SocketAddr| {
            let mut leaving =
                self.listeners.iter().filter(|open| !settings.listen.contains(&open.configured));
            leaving.any(|open| open.configured.port() == addr.port())
        };
        let open = |addr: &SocketAddr| {
            if let Some(known) = self.listeners.iter().find(|known| known.configured == *addr) {
                return Ok(known.clone());
            }
            let socket = http::open_for(*addr, closes(addr), "http")?;
            let at = socket.local_addr().unwrap_or(*addr);
            info!("serving the ICE-server API, webhooks, health and metrics on {}", url(at, tls.is_some()));
            let connections = Connections::new(CONNECTIONS, WhenFull::Close);
            Ok(Arc::new(Listener { configured: *addr, socket, connections }))
        };
        let listeners = settings.listen.iter().map(open).collect::<Result<_>>()?;
        Ok(HttpServer { listeners, tls, api: self.api.clone(), settings: settings.clone() })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.socket.local_addr().ok()).collect()
    }

    /// Serves what this sidecar knows, while it is polled.
    pub async fn serve(&self, sidecar: Arc<Sidecar>) {
        let serving = Arc::new(Serving { sidecar, api: self.api.clone(), tls: self.tls.clone() });
        let mut tasks = JoinSet::new();
        for listener in &self.listeners {
            tasks.spawn(accept(listener.clone(), serving.clone()));
        }
        // A reload may have named another certificate, or none.
        serving.sidecar.metrics.http.forget_certificate();
        if let Some(tls) = self.tls.clone() {
            tasks.spawn(async move { tls.renew(&serving.sidecar.metrics.http).await });
        }
        while tasks.join_next().await.is_some() {}
        // A server without listeners has nothing to do.
        std::future::pending().await
    }
}

fn url(at: SocketAddr, tls: bool) -> String {
    format!("{}://{at}", if tls { "https" } else { "http" })
}

async fn accept(listener: Arc<Listener>, serving: Arc<Serving>) {
    let socket = listener.socket.try_clone().and_then(TcpListener::from_std);
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return warn!(%error, "http {}: nobody is served", listener.configured),
    };
    loop {
        match accept::next(&socket, TcpListener::accept).await {
            Ok((stream, from)) => start(&listener, &serving, stream, from).await,
            Err(error) if accept::is_exhaustion(&error) => {
                if !listener.connections.close_oldest().await {
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

async fn start(listener: &Listener, serving: &Arc<Serving>, stream: TcpStream, from: SocketAddr) {
    let serving = serving.clone();
    let open = Open::new(&serving.sidecar.metrics.http.connections);
    let serve = |asked| async move {
        let _open = open;
        let _ = timeout(CONNECTION, serving.connection(stream, from, asked)).await;
    };
    listener.connections.start(serve).await;
}

impl Serving {
    async fn connection(&self, stream: TcpStream, from: SocketAddr, asked: Asked) {
        let Some(tls) = &self.tls else { return self.request(stream, from, asked).await };
        let failed = &self.sidecar.metrics.http.handshakes_failed;
        // Certificates that cannot be used leave the earlier one in place.
        let Some(identities) = tls.identities() else { return failed.inc() };
        match handshake_within(REQUEST, stream, &identities).await {
            Ok(stream) => self.request(stream, from, asked).await,
            Err(error) => {
                failed.inc();
                debug!(from = %Shown(from), %error, "a TLS handshake of the HTTP server failed");
            }
        }
    }

    async fn request(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        from: SocketAddr,
        asked: Asked,
    ) {
        let respond = |request| self.api.respond(&self.sidecar, from, request);
        if let Err(error) = serve_request(stream, asked, REQUEST, respond).await {
            debug!(from = %Shown(from), %error, "an HTTP connection failed");
        }
    }
}
