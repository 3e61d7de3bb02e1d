//! Connects to a backend: its name is resolved for each connection, and each of its addresses is tried in turn.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::Backend;
use super::stats::SpliceFailure;
use super::{UNSENT, log};
use crate::datapath::keepalive;

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Why a backend was not reached.
#[derive(Debug)]
pub(super) struct DialError {
    pub(super) why: SpliceFailure,
    /// What happened at which address.
    pub(super) error: String,
}

/// Connects to a backend within `limit`. `lookups` bounds those of its name.
pub(super) async fn dial(
    backend: &Backend,
    lookups: &Arc<Semaphore>,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limit;
    let addresses = match timeout_at(deadline, resolve(backend, lookups.clone())).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(unresolved(backend, &error.to_string())),
        Err(_) => return Err(unresolved(backend, &format!("no answer within {} s", limit.as_secs()))),
    };
    if addresses.is_empty() {
        return Err(unresolved(backend, "the name has no address"));
    }
    let mut failures = Vec::new();
    for (n, &address) in addresses.iter().enumerate() {
        // An address that does not answer leaves time for the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - n).unwrap_or(1);
        let failure = match timeout(share, connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => (reason(&error), error.to_string()),
            Err(_) => (SpliceFailure::Timeout, format!("no answer within {:.1} s", share.as_secs_f64())),
        };
        failures.push((failure.0, format!("{}: {}", log::address(address), failure.1)));
    }
    // What says most about the backend itself.
    let rank =
        [SpliceFailure::Refused, SpliceFailure::Timeout, SpliceFailure::Unreachable, SpliceFailure::System];
    let why = rank.into_iter().find(|why| failures.iter().any(|failure| failure.0 == *why));
    let errors: Vec<_> = failures.into_iter().map(|(_, error)| error).collect();
    Err(DialError { why: why.unwrap_or(SpliceFailure::Unreachable), error: errors.join("; ") })
}

fn unresolved(backend: &Backend, error: &str) -> DialError {
    DialError { why: SpliceFailure::Unresolved, error: format!("{}: {error}", backend.host) }
}

/// The addresses of a backend, in the order in which the resolver wants them tried (RFC 6724).
async fn resolve(backend: &Backend, lookups: Arc<Semaphore>) -> io::Result<Vec<SocketAddr>> {
    let Backend { host, port, .. } = backend;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, *port)]);
    }
    let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
    let target = (host.clone(), *port);
    let lookup = spawn_blocking(move || {
        let found = (target.0.as_str(), target.1).to_socket_addrs().map(|all| all.take(ADDRESSES).collect());
        // A lookup that nobody waits for any more goes on, so it counts until it has ended.
        drop(permit);
        found
    });
    lookup.await.map_err(io::Error::other)?
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    prepare(SockRef::from(&socket))?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

/// Sets the options of a socket between whose two ends bytes are copied.
///
/// There is no TCP_USER_TIMEOUT: it would cut a download that its reader has paused, since data then stays untransmitted
/// (tcp(7)). A peer that is gone is noticed by the kernel's retransmissions, and while it is silent by keepalive.
pub(super) fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keepalive::enable(&socket)?;
    socket.set_tcp_user_timeout(None)?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

fn reason(error: &io::Error) -> SpliceFailure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ECONNABORTED) => SpliceFailure::Refused,
        Some(libc::ETIMEDOUT) => SpliceFailure::Timeout,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            SpliceFailure::System
        }
        _ => SpliceFailure::Unreachable,
    }
}
