//! A connection between its stages and its worker.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConnection;

use super::admission::ConnectionPermit;
use super::stats::StreamCounters;
use crate::turn::{FiveTuple, Transport};

/// A connection that speaks TURN from its first byte.
pub(in crate::datapath) struct Incoming {
    pub(in crate::datapath) socket: TcpStream,
    /// Its TLS session, past the handshake.
    pub(in crate::datapath) tls: Option<Box<ServerConnection>>,
    pub(in crate::datapath) tuple: FiveTuple,
    pub(in crate::datapath) permit: ConnectionPermit,
    pub(in crate::datapath) open: OpenConnection,
    /// When TURN could start, in monotonic nanoseconds.
    pub(in crate::datapath) opened: u64,
    /// The first bytes, decrypted.
    pub(in crate::datapath) received: Vec<u8>,
}

/// Counts as an open connection until it is dropped.
pub(in crate::datapath) struct OpenConnection {
    counters: Arc<Mutex<StreamCounters>>,
    transport: Transport,
}

impl OpenConnection {
    pub(in crate::datapath) fn new(
        counters: Arc<Mutex<StreamCounters>>,
        transport: Transport,
    ) -> OpenConnection {
        lock(&counters).open[StreamCounters::index(transport)] += 1;
        OpenConnection { counters, transport }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        lock(&self.counters).open[StreamCounters::index(self.transport)] -= 1;
    }
}

fn lock(counters: &Mutex<StreamCounters>) -> MutexGuard<'_, StreamCounters> {
    // Integers alone: whatever was written is a value.
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}
