//! The sockets of the admin API: the control socket, and TCP listeners where they are configured. What the API does with a
//! request is above this layer, and passed in as an [`Api`]; whether it may is the API's to judge, by its [`Caller`].

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::control::Control;
use super::control_socket::{self, BoundSocket};
use super::security::{Security, handshake_within};
use super::{http, listeners};
use crate::config::settings::{AdminSettings, ControlSocket};
use crate::http::accept;
use crate::http::connections::{Asked, Connections, WhenFull, serve_request};
use crate::shown::Shown;
use crate::tls::Identities;

/// Connections at a time: of the control socket, and of all TCP listeners.
const CONNECTIONS: usize = 16;

/// Time for a TLS handshake, and then for the head of a request.
const REQUEST: Duration = Duration::from_secs(5);

/// Time after which a connection is closed, whatever it does. A reload may wait for a worker.
const CONNECTION: Duration = Duration::from_secs(60);

/// What serves the requests.
pub trait Api: Send + Sync + 'static {
    /// Serves by these settings from now on.
    fn configure(&self, settings: &AdminSettings);

    /// Responds to a request.
    fn call(&self, caller: Caller, request: Request<Incoming>) -> Pending;
}

/// A response that is being made.
pub type Pending = Pin<Box<dyn Future<Output = Response<String>> + Send>>;

/// Makes the API of a relay.
pub type NewApi = fn(Control) -> Arc<dyn Api>;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine that the control socket's mode admits.
    Process {
        /// Its user (SO_PEERCRED).
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its number, if the kernel tells it.
        pid: Option<i32>,
    },
    /// A connection to a TCP listener: anyone.
    Remote {
        /// The other end.
        from: SocketAddr,
        /// The address that it is connected to.
        to: SocketAddr,
    },
}

/// The sockets of the admin API of a relay.
pub struct AdminSockets {
    server: Arc<AdminServer>,
    settings: AdminSettings,
    control: Option<(BoundSocket, Task)>,
    listeners: Vec<(SocketAddr, Task)>,
}

/// Sockets that are open and not in use yet.
pub struct OpenedSockets {
    settings: AdminSettings,
    /// `None` to keep the one that there is.
    control: Option<Option<(BoundSocket, UnixListener)>>,
    listeners: Vec<(SocketAddr, TcpListener)>,
}

struct AdminServer {
    api: Arc<dyn Api>,
    security: Mutex<Security>,
    local: Connections,
    remote: Connections,
}

/// A task that ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AdminSockets {
    /// No sockets yet.
    pub fn new(api: Arc<dyn Api>) -> AdminSockets {
        let server = AdminServer {
            api,
            security: Mutex::default(),
            local: Connections::new(CONNECTIONS, WhenFull::Wait),
            remote: Connections::new(CONNECTIONS, WhenFull::Wait),
        };
        let settings = AdminSettings { socket: ControlSocket::Off, ..AdminSettings::default() };
        AdminSockets { server: Arc::new(server), settings, control: None, listeners: Vec::new() }
    }

    /// Opens what these settings need and is not open yet. Nothing changes until the result is [applied](Self::apply).
    /// `identities` are those that it will be applied with, and `leaving` listeners of others that are about to be closed.
    ///
    /// # Errors
    /// A socket cannot be opened, or a listener for TLS has no certificate.
    pub fn open(
        &self,
        settings: &AdminSettings,
        identities: Option<&Identities>,
        leaving: &[SocketAddr],
    ) -> Result<OpenedSockets> {
        let default = || {
            let is_root = nix::unistd::geteuid().is_root();
            let is_service = super::is_service() || super::privileges::was_root();
            control_socket::default_path(&super::variable, is_service, is_root)
        };
        let control = match self.keeps_control(settings) {
            true => None,
            false => {
                let held = self.control.as_ref().map(|(bound, _)| bound);
                let bound = BoundSocket::of(settings, default(), held)?;
                let register = |bound: BoundSocket| {
                    let listener = bound.listener().and_then(UnixListener::from_std);
                    Ok::<_, anyhow::Error>((bound, listener.context("control socket")?))
                };
                Some(bound.map(register).transpose()?)
            }
        };
        let new = settings.listen.iter().filter(|addr| self.listeners.iter().all(|(open, _)| open != *addr));
        let closes = |addr: &SocketAddr| {
            let removed = self.closes(settings);
            removed.iter().chain(leaving).any(|open| listeners::overlap(*open, *addr))
        };
        let begins = |addr: &SocketAddr| !self.settings.tls || self.listeners().all(|open| open != *addr);
        if settings.tls
            && identities.is_none()
            && let Some(addr) = settings.listen.iter().find(|addr| begins(addr))
        {
            bail!(
                "admin {addr}: there is no certificate that can be used for TLS (admin.tls); repair the files of [tls], or remove \
                 the address from admin.listen"
            );
        }
        let open = |addr: &SocketAddr| {
            let listener = TcpListener::from_std(http::open_for(*addr, closes(addr), "admin")?);
            Ok((*addr, listener.with_context(|| format!("admin {addr}"))?))
        };
        let listeners = new.map(open).collect::<Result<Vec<_>>>()?;
        Ok(OpenedSockets { settings: settings.clone(), control, listeners })
    }

    /// The TCP listeners that these settings close.
    pub fn closes(&self, settings: &AdminSettings) -> Vec<SocketAddr> {
        self.listeners().filter(|open| !settings.listen.contains(open)).collect()
    }

    /// Whether the control socket stays. One that has disappeared is opened again.
    fn keeps_control(&self, settings: &AdminSettings) -> bool {
        let is_same = (&settings.socket, &settings.group) == (&self.settings.socket, &self.settings.group);
        is_same
            && match &self.control {
                Some((bound, _)) => bound.is_in_place(),
                None => settings.socket == ControlSocket::Off,
            }
    }

    /// Serves by opened sockets, and closes those that the settings do not have any more. `identities` are for TLS.
    ///
    /// # Errors
    /// The control socket cannot take its name, so that the one that there is stays. Everything else is done.
    pub fn apply(&mut self, opened: OpenedSockets, identities: Option<Identities>) -> Result<()> {
        let OpenedSockets { mut settings, control, listeners } = opened;
        let mut published = Ok(());
        self.server.api.configure(&settings);
        if !settings.listen.is_empty() {
            self.server.secure(Security::of(settings.tls, identities));
        }
        match control {
            None => {}
            Some(None) => self.control = None,
            Some(Some((mut bound, listener))) => match bound.publish() {
                Ok(()) => {
                    info!("control socket: {}", bound.path().display());
                    self.control = Some((bound, self.server.clone().serve_control(listener)));
                }
                Err(error) => {
                    published = Err(error);
                    // The next reload tries again.
                    (settings.socket, settings.group) =
                        (self.settings.socket.clone(), self.settings.group.clone());
                }
            },
        }
        self.listeners.retain(|(addr, _)| settings.listen.contains(addr));
        for (addr, listener) in listeners {
            let task = self.server.clone().serve_remote(listener);
            info!("serving the admin API on {} {addr}", if settings.tls { "https" } else { "http" });
            self.listeners.push((addr, task));
        }
        self.settings = settings;
        published
    }

    /// Uses these certificates for TLS from now on.
    pub fn use_certificates(&self, identities: Option<Identities>) {
        if !self.settings.listen.is_empty() {
            self.server.secure(Security::of(self.settings.tls, identities));
        }
    }

    /// The addresses of the TCP listeners.
    pub fn listeners(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|(addr, _)| *addr)
    }

    /// Where the control socket is.
    pub fn control_path(&self) -> Option<&Path> {
        self.control.as_ref().map(|(bound, _)| bound.path())
    }
}

impl AdminServer {
    fn secure(&self, security: Security) {
        let mut current = self.security.lock().unwrap_or_else(PoisonError::into_inner);
        if security.is_closed() && !current.is_closed() {
            warn!(
                "the admin API serves nobody over TCP until a certificate of [tls] can be used (admin.tls)"
            );
        }
        *current = security;
    }

    fn serve_control(self: Arc<Self>, listener: UnixListener) -> Task {
        Task(tokio::spawn(async move {
            loop {
                match accept::next(&listener, UnixListener::accept).await {
                    Ok((stream, _)) => self.start_local(stream).await,
                    Err(error) => accept_failed(&error, &self.local).await,
                }
            }
        }))
    }

    async fn start_local(&self, stream: UnixStream) {
        // Without the credentials there is nobody to hold responsible.
        let Ok(peer) = stream.peer_cred() else { return };
        let caller = Caller::Process { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        let api = self.api.clone();
        let serve = |asked| async move {
            let _ = timeout(CONNECTION, connection(stream, caller, api, asked)).await;
        };
        self.local.start(serve).await;
    }

    fn serve_remote(self: Arc<Self>, listener: TcpListener) -> Task {
        Task(tokio::spawn(async move {
            loop {
                match accept::next(&listener, TcpListener::accept).await {
                    Ok((stream, from)) => self.start_remote(stream, from).await,
                    Err(error) => accept_failed(&error, &self.remote).await,
                }
            }
        }))
    }

    async fn start_remote(&self, stream: TcpStream, from: SocketAddr) {
        let Ok(to) = stream.local_addr() else { return };
        let caller = Caller::Remote { from, to };
        let api = self.api.clone();
        let security = self.security.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let serve = |asked| async move {
            let served = async {
                match security {
                    Security::Plain => connection(stream, caller, api, asked).await,
                    Security::Tls(None) => {
                        debug!(from = %Shown(from), "a connection to the admin API is closed: no certificate can be used");
                    }
                    Security::Tls(Some(identities)) => {
                        match handshake_within(REQUEST, stream, &identities).await {
                            Ok(stream) => connection(stream, caller, api, asked).await,
                            Err(error) => debug!(%error, "a TLS handshake of the admin API failed"),
                        }
                    }
                }
            };
            let _ = timeout(CONNECTION, served).await;
        };
        self.remote.start(serve).await;
    }
}

/// Makes room for the next connection, or waits a moment.
async fn accept_failed(error: &io::Error, connections: &Connections) {
    if !accept::is_exhaustion(error) {
        // accept(2): the error of a connection that has ended already.
        return debug!(%error, "a connection to the admin API failed");
    }
    if !connections.close_oldest().await {
        warn!(%error, "cannot accept a connection to the admin API");
        // Retrying at once would use a whole CPU.
        sleep(Duration::from_secs(1)).await;
    }
}

/// Serves one request.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    api: Arc<dyn Api>,
    asked: Asked,
) {
    let respond = |request| api.call(caller, request);
    if let Err(error) = serve_request(stream, asked, REQUEST, respond).await {
        debug!(%error, "a connection to the admin API failed");
    }
}

#[cfg(test)]
mod tests;
