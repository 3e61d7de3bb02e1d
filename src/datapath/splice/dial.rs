//! Connects to a backend: its name is resolved for each connection, and each of its addresses is tried until one answers.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::backend::Backend;
use super::limits::SpliceLimits;
use super::stats::SpliceFailure;
use super::{UNSENT, log};
use crate::datapath::keepalive;

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// How long an address may take to answer before the next one is tried beside it (RFC 8305 section 8).
const AHEAD_AFTER: Duration = Duration::from_millis(250);

/// Sockets of this process that may connect beside the first one of their connection: one black-holed address of a busy backend
/// must not take the descriptors of others.
static AHEAD: Semaphore = Semaphore::const_new(SpliceLimits::AHEAD);

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
    let addresses = resolve(backend, lookups, deadline).await?;
    connect_to_any(&addresses, &AHEAD, deadline).await
}

/// Connects to the first address that answers (RFC 8305 section 5). The next one is tried when one has failed, or has not answered for
/// a moment; then both go on, if one more socket is free `ahead`.
async fn connect_to_any(
    addresses: &[SocketAddr],
    ahead: &Semaphore,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let began = Instant::now();
    // The attempts end when this is dropped.
    let mut attempts = JoinSet::new();
    let (mut unanswered, mut failures, mut permits) = (Vec::new(), Vec::new(), Vec::new());
    for (n, &address) in addresses.iter().enumerate() {
        attempts.spawn(async move { (address, connect(address).await) });
        unanswered.push(address);
        let later = addresses.len() - n - 1;
        if later > 0 && permits.len() < attempts.len() {
            permits.extend(ahead.try_acquire());
        }
        let goes_on = permits.len() >= attempts.len();
        // An address that does not answer leaves time for the others.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(later + 1).unwrap_or(1);
        let until = now + if later > 0 && goes_on { share.min(AHEAD_AFTER) } else { share };
        while let Ok(Some(ended)) = timeout_at(until, attempts.join_next()).await {
            let Ok((address, connected)) = ended else { continue };
            let error = match connected {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            unanswered.retain(|one| *one != address);
            failures.push((reason(&error), format!("{}: {error}", log::address(address))));
            if later > 0 {
                break;
            }
        }
        if !goes_on {
            attempts = JoinSet::new();
        }
    }
    let waited = began.elapsed().as_secs_f64();
    failures.extend(unanswered.into_iter().map(|address| {
        let error = format!("{}: no answer within {waited:.1} s", log::address(address));
        (SpliceFailure::Timeout, error)
    }));
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

/// The addresses of a backend, at least one, in the order in which the resolver wants them tried (RFC 6724).
async fn resolve(
    backend: &Backend,
    lookups: &Arc<Semaphore>,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, DialError> {
    let Backend { host, port, .. } = backend;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, *port)]);
    }
    let began = Instant::now();
    // Whoever waits here does not know yet whether the name has an address.
    let Ok(Ok(permit)) = timeout_at(deadline, lookups.clone().acquire_owned()).await else {
        let error = format!("{host}: too many connections wait for its addresses already");
        return Err(DialError { why: SpliceFailure::Waiting, error });
    };
    let target = (host.clone(), *port);
    let lookup = spawn_blocking(move || {
        let found = (target.0.as_str(), target.1).to_socket_addrs().map(|all| all.take(ADDRESSES).collect());
        // A lookup that nobody waits for any more goes on, so it counts until it has ended.
        drop(permit);
        found
    });
    match timeout_at(deadline, lookup).await {
        Ok(Ok(Ok(addresses))) if Vec::is_empty(&addresses) => {
            Err(unresolved(backend, "the name has no address"))
        }
        Ok(Ok(Ok(addresses))) => Ok(addresses),
        Ok(Ok(Err(error))) => Err(unresolved(backend, &error.to_string())),
        Ok(Err(error)) => {
            let error = format!("{host}: there is no thread to look it up: {error}");
            Err(DialError { why: SpliceFailure::System, error })
        }
        Err(_) => {
            let error = format!("no answer within {:.1} s", began.elapsed().as_secs_f64());
            Err(unresolved(backend, &error))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that accepts no more connections and does not refuse them, and what it needs for that.
    fn black_hole() -> (SocketAddr, Vec<Socket>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = vec![socket];
        while let Ok(one) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            held.push(one.into());
        }
        (address, held)
    }

    /// RFC 8305 §5: an address that does not answer costs each connection a moment, not its share of the timeout. Without a free socket it
    /// costs the share.
    #[tokio::test]
    async fn an_address_that_does_not_answer_costs_a_moment() {
        let (silent, _held) = black_hole();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [silent, silent, server.local_addr().unwrap()];
        for (free, limit, at_least, at_most) in [(2, 60, 0, 20), (1, 4, 1, 4), (0, 3, 1, 3)] {
            let (began, ahead) = (Instant::now(), Semaphore::new(free));
            let socket =
                connect_to_any(&addresses, &ahead, began + Duration::from_secs(limit)).await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), addresses[2]);
            let seconds = began.elapsed().as_secs();
            assert!((at_least..=at_most).contains(&seconds), "{free}: {seconds}");
            assert_eq!(ahead.available_permits(), free);
        }
    }

    #[tokio::test]
    async fn every_address_is_named_if_none_answers() {
        let (silent, _held) = black_hole();
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (ahead, deadline) = (Semaphore::new(9), Instant::now() + Duration::from_millis(600));
        let error = connect_to_any(&[silent, refused], &ahead, deadline).await.unwrap_err();
        assert_eq!(error.why, SpliceFailure::Refused);
        for part in [format!("{refused}: Connection refused"), format!("{silent}: no answer within")] {
            assert!(error.error.contains(&part), "{}", error.error);
        }
    }

    /// That so many look a name up already says nothing about the name.
    #[tokio::test]
    async fn waiting_for_a_lookup_is_no_fault_of_the_backend() {
        let backend = Backend { host: "a.invalid".into(), port: 1, send_proxy: false };
        let error =
            dial(&backend, &Arc::new(Semaphore::new(0)), Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.why, SpliceFailure::Waiting);
        assert!(!error.why.is_of_backend());
    }
}
