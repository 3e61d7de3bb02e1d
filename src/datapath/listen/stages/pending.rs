//! A connection on its way through the stages, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::config::StageConfig;
use super::prefixed::Prefixed;
use crate::datapath::clock;
use crate::datapath::listen::service::StreamService;
use crate::datapath::splice::backend::Backend;
use crate::datapath::stream::admission::{ConnectionPermit, Refusal};
use crate::datapath::stream::incoming::OpenConnection;
use crate::datapath::stream::stats::{ConnectionEnd, HandshakeFailure};
use crate::turn::FiveTuple;

/// A connection on its way through the stages.
pub(super) struct PendingConnection {
    /// The socket, and what was read from it that no stage has consumed.
    pub(super) stream: Prefixed,
    /// Its addresses; the transport is TCP until TLS begins.
    pub(super) tuple: FiveTuple,
    /// The proxy that has named the client; the operator's, so it is written whole.
    pub(super) proxy: Option<SocketAddr>,
    pub(super) permit: ConnectionPermit,
    /// Counts as open over its transport; nothing during a TLS handshake.
    pub(super) open: Option<OpenConnection>,
    /// What its listener serves.
    pub(super) service: Arc<StreamService>,
    /// What everything is served by, as it was when the connection was accepted.
    pub(super) config: Arc<StageConfig>,
    /// When it was accepted, in monotonic nanoseconds.
    pub(super) accepted: u64,
    /// By when the stage that it is in has to be over, however many bytes arrive until then.
    pub(super) deadline: Instant,
    /// Anything has arrived.
    has_spoken: bool,
    /// It counts as accepted.
    pub(super) counted: bool,
}

/// What the stages made of a connection that is served.
pub(super) struct Passed {
    /// Its TLS session, past the handshake.
    pub(super) tls: Option<Box<ServerConnection>>,
    /// When what it speaks could start, in monotonic nanoseconds.
    pub(super) opened: u64,
    /// The first bytes of that, decrypted.
    pub(super) received: Vec<u8>,
    pub(super) served: Served,
}

/// Who serves a connection from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// A worker: it speaks TURN.
    Turn,
    /// Another server: its bytes are passed on.
    Backend(Backend),
}

/// Why a connection is closed in its stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// For a reason that says everything.
    End(ConnectionEnd),
    /// For a reason of which there is more to tell: what came, and what to do.
    Because(ConnectionEnd, String, String),
    /// The client that a proxy has named has too many connections.
    Refused(Refusal),
    /// Its TLS handshake has failed with this error.
    Handshake(HandshakeFailure, String),
}

/// Why no more bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFailure {
    /// The client has closed or reset the connection.
    Gone(ConnectionEnd),
    /// The deadline of the stage has passed.
    Late,
    /// As many bytes are held as the stage may hold.
    Full,
}

impl PendingConnection {
    /// A connection that has just been accepted.
    pub(super) fn new(
        socket: TcpStream,
        tuple: FiveTuple,
        permit: ConnectionPermit,
        open: OpenConnection,
        (service, config): (Arc<StreamService>, Arc<StageConfig>),
    ) -> PendingConnection {
        PendingConnection {
            stream: Prefixed::new(socket),
            tuple,
            proxy: None,
            permit,
            open: Some(open),
            service,
            config,
            accepted: clock::mono(),
            deadline: Instant::now(),
            has_spoken: false,
            counted: false,
        }
    }

    /// The next stage begins, which may take this long in all.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    /// What has come so far was a proxy's: only what is left of it is the client's.
    pub(super) fn spoke_for_client(&mut self) {
        self.has_spoken = !self.stream.received().is_empty();
    }

    /// Waits for more bytes, so that at most `limit` are held.
    pub(super) async fn read_more(&mut self, limit: usize) -> Result<(), ReadFailure> {
        if self.stream.received().len() >= limit {
            return Err(ReadFailure::Full);
        }
        let read = timeout_at(self.deadline, self.stream.read_more(limit)).await;
        let failure = match read {
            Err(_) => ReadFailure::Late,
            Ok(Ok(1..)) => {
                self.has_spoken = true;
                return Ok(());
            }
            // What only tests whether the port is open ends in either way.
            Ok(_) if !self.has_spoken => ReadFailure::Gone(ConnectionEnd::NoBytes),
            Ok(Ok(0)) => ReadFailure::Gone(ConnectionEnd::Client),
            Ok(Err(_)) => ReadFailure::Gone(ConnectionEnd::Reset),
        };
        Err(failure)
    }
}

impl Closed {
    /// A failure of a handshake.
    pub(super) fn handshake(error: &io::Error) -> Closed {
        Closed::Handshake(HandshakeFailure::from_error(error), error.to_string())
    }
}
