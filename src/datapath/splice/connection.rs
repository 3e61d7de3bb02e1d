//! One connection from its hand-over to its end.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::backend::Backend;
use super::backends::BackendState;
use super::copy::{Ends, FirstBytes, copy, delivered};
use super::dial::{self, DialError, dial};
use super::flow::Flow;
use super::limits::SpliceLimits;
use super::log;
use super::loops::OwnConnections;
use super::pools::Pools;
use super::request::{Splice, SpliceRequest};
use super::stats::{SpliceEnd, SpliceFailure};
use super::tls::TlsClient;
use crate::datapath::sys::option;
use crate::wire::ProxyHeader;

/// The share of all connections that may wait for one backend, as a divisor: one that accepts none takes no more from the
/// others.
const WAITING_SHARE: usize = 4;

/// As many may wait always, because a browser opens several connections at once.
const WAITING_MIN: usize = 64;

/// How often a backend is tried that could not be reached, also if no client asks for it.
const RETRY: Duration = Duration::from_secs(5);

/// Serves a connection until it has ended or has to make room.
pub(super) async fn run(
    request: SpliceRequest,
    displaced: oneshot::Receiver<()>,
    state: Arc<BackendState>,
    limits: SpliceLimits,
    pools: Arc<Pools>,
    own: Arc<OwnConnections>,
) {
    let splice = request.splice.clone();
    let mut displaced = std::pin::pin!(displaced);
    let SpliceRequest { socket, tls, received, .. } = request;
    let client = match adopt(socket) {
        Ok(client) => Resetting::new(client),
        Err(error) => {
            log::failed(&splice, &state, SpliceFailure::System, &error.to_string());
            return;
        }
    };
    let dialled = tokio::select! {
        dialled = reach(&splice, &state, limits) => dialled,
        Ok(()) = &mut displaced => Err(DialError {
            why: SpliceFailure::Displaced,
            error: "it made room for another one".to_owned(),
        }),
    };
    let backend = match dialled {
        Ok(backend) => Resetting::new(backend),
        Err(DialError { why, error }) => {
            client.closes_normally();
            if let Some(outage) = log::failed(&splice, &state, why, &error) {
                let backend = splice.backend.clone();
                tokio::spawn(await_recovery(backend, Arc::downgrade(&state), outage, limits.connect_timeout));
            }
            return;
        }
    };
    let _own = own.insert(&backend.socket);
    let (open, before) = state.opened();
    log::reached(&state, &before);
    let tls = tls.map(TlsClient::new);
    let ends = Ends { client: &client.socket, tls: tls.as_ref(), backend: &backend.socket };
    let flow = Flow::new(&pools, &state);
    let why = tokio::select! {
        why = copy(&ends, &flow, first_bytes(&splice, received), limits.idle_timeout) => why,
        Ok(()) = &mut displaced => SpliceEnd::Displaced,
    };
    match why {
        SpliceEnd::Finished => {
            client.closes_normally();
            backend.closes_normally();
        }
        SpliceEnd::ClientReset => delivered(&backend.socket).await,
        SpliceEnd::Truncated | SpliceEnd::Tls => {
            // A client that is reset may not read the alert.
            client.closes_normally();
            delivered(&backend.socket).await;
        }
        SpliceEnd::BackendReset => delivered(&client.socket).await,
        SpliceEnd::Idle | SpliceEnd::HalfClosed | SpliceEnd::Displaced => {}
    }
    drop(open);
    state.closed(why);
    log::closed(&splice, &state, why);
}

/// Connects to a backend until that succeeds, so that health and metrics do not depend on its clients. It ends when the backend is
/// not in the configuration any more.
async fn await_recovery(backend: Backend, state: Weak<BackendState>, outage: u64, limit: Duration) {
    loop {
        sleep(RETRY).await;
        let Some(state) = state.upgrade().filter(|state| state.is_out(outage)) else { return };
        if dial(&backend, &state.lookups, limit).await.is_ok() && state.is_out(outage) {
            return log::reached(&state, &state.reached());
        }
    }
}

/// Takes a client's socket into this runtime.
fn adopt(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    let options = SockRef::from(&socket);
    dial::prepare(options)?;
    // The listener's send buffer is for responses of TURN.
    option::unlock_send_buffer(socket.as_fd())?;
    TcpStream::from_std(socket)
}

/// Connects to the backend.
async fn reach(
    splice: &Splice,
    state: &Arc<BackendState>,
    limits: SpliceLimits,
) -> Result<TcpStream, DialError> {
    let most = (limits.connections / WAITING_SHARE).max(WAITING_MIN);
    let Some(_waiting) = state.wait(most) else {
        let error = format!("{most} connections wait for it already");
        return Err(DialError { why: SpliceFailure::Waiting, error });
    };
    dial(&splice.backend, &state.lookups, limits.connect_timeout).await
}

/// The header, if the backend wants one, and what the client has sent already.
fn first_bytes(splice: &Splice, received: Vec<u8>) -> FirstBytes {
    if !splice.backend.send_proxy {
        return FirstBytes { bytes: received, header: 0 };
    }
    let mut bytes = Vec::new();
    ProxyHeader::write_v2(splice.client.0, splice.server, &mut bytes);
    let header = bytes.len();
    bytes.extend_from_slice(&received);
    FirstBytes { bytes, header }
}

/// A socket whose end resets its connection, unless it was said to close normally: whatever cuts a connection, also the end of
/// the process, must not look like its orderly end.
struct Resetting {
    socket: TcpStream,
    normally: AtomicBool,
}

impl Resetting {
    fn new(socket: TcpStream) -> Resetting {
        Resetting { socket, normally: AtomicBool::new(false) }
    }

    fn closes_normally(&self) {
        self.normally.store(true, Ordering::Relaxed);
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if !self.normally.load(Ordering::Relaxed) {
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
    }
}
