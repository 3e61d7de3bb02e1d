//! Connections of this relay to backends, to notice one that arrives at a listener of its own: a name that leads here would be
//! passed on again and again, until a limit ends it. Which addresses are this machine's own is for the kernel to know, so nothing is
//! asked of addresses: the connection is compared.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::datapath::sys::address::normalize;

/// The ends of each connection to a backend, this relay's first: an end alone may have several connections. There are as many as
/// connections to backends, which are bounded.
#[derive(Default)]
pub(super) struct OwnConnections(Mutex<HashSet<(SocketAddr, SocketAddr)>>);

/// A connection to a backend, until this is dropped.
pub(super) struct OwnConnection {
    all: Arc<OwnConnections>,
    ends: (SocketAddr, SocketAddr),
}

impl OwnConnections {
    /// A backend was reached. To be called before anything is sent to it, so that its other end is recognized by then.
    pub(super) fn insert(self: &Arc<Self>, socket: &tokio::net::TcpStream) -> io::Result<OwnConnection> {
        let ends = (normalize(socket.local_addr()?), normalize(socket.peer_addr()?));
        self.ends().insert(ends);
        Ok(OwnConnection { all: self.clone(), ends })
    }

    /// Whether a connection that was accepted is the other end of one of these.
    pub(super) fn lead_to(&self, accepted: &std::net::TcpStream) -> bool {
        let (Ok(peer), Ok(local)) = (accepted.peer_addr(), accepted.local_addr()) else { return false };
        self.ends().contains(&(normalize(peer), normalize(local)))
    }

    fn ends(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
        // Every change is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.all.ends().remove(&self.ends);
    }
}
