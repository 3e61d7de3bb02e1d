//! TLS handshakes (RFC 8489 section 6.2.3): a task each until they are done, then the connection is the worker's.
//!
//! What a handshake computes takes as long as hundreds of packets. So only one of them does that at a time, and between
//! two of them the worker has its turn; packets wait for one at most. How many may be under way is bounded by the
//! places for half-open connections, which each holds one of.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{ServerConfig, ServerConnection};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use super::Incoming;
use super::admission::{HalfOpen, Place};
use super::stats::Failure;
use crate::turn::FiveTuple;

/// Results that wait for the worker at most; the tasks wait with them.
const RESULTS: usize = 64;

/// The handshakes of a worker.
pub(in crate::datapath) struct Handshakes {
    config: Arc<ServerConfig>,
    limit: Duration,
    /// Who may compute.
    turn: Arc<Semaphore>,
    sender: mpsc::Sender<Handshaken>,
    results: mpsc::Receiver<Handshaken>,
    under_way: usize,
}

/// What became of a handshake.
pub(in crate::datapath) enum Handshaken {
    /// A connection.
    Done(Incoming),
    /// None.
    Failed(FiveTuple, Failure, String),
}

impl Handshakes {
    /// None is under way. To be called on the worker's runtime.
    pub(in crate::datapath) fn new(config: Arc<ServerConfig>, limit: Duration) -> Handshakes {
        let (sender, results) = mpsc::channel(RESULTS);
        Handshakes { config, limit, turn: Arc::new(Semaphore::new(1)), sender, results, under_way: 0 }
    }

    /// Begins one.
    pub(super) fn begin(&mut self, socket: TcpStream, tuple: FiveTuple, places: (Place, HalfOpen)) {
        self.under_way += 1;
        let (config, limit) = (self.config.clone(), self.limit);
        let (turn, sender) = (self.turn.clone(), self.sender.clone());
        tokio::spawn(async move {
            let handshaken = match timeout(limit, shake(socket, config, &turn)).await {
                Ok(Ok((socket, tls))) => Handshaken::Done(Incoming { socket, tls: Some(tls), tuple, places }),
                Ok(Err(error)) => Handshaken::Failed(tuple, Failure::why(&error), error.to_string()),
                Err(_) => Handshaken::Failed(tuple, Failure::TooSlow, "not done in time".to_owned()),
            };
            // A worker that is gone needs no result.
            let _ = sender.send(handshaken).await;
        });
    }

    /// Whether any is under way, so that their tasks need a turn.
    pub(in crate::datapath) fn any(&self) -> bool {
        self.under_way > 0
    }

    /// The next result; waits for it.
    pub(in crate::datapath) async fn next(&mut self) -> Handshaken {
        let next = self.results.recv().await.expect("this has a sender itself");
        self.under_way -= 1;
        next
    }

    /// A result, if there is one.
    pub(in crate::datapath) fn poll(&mut self) -> Option<Handshaken> {
        let next = self.results.try_recv().ok()?;
        self.under_way -= 1;
        Some(next)
    }
}

async fn shake(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    turn: &Semaphore,
) -> std::io::Result<(TcpStream, Box<ServerConnection>)> {
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let rest = {
        let _turn = turn.acquire().await;
        // Key exchange and signature are made here.
        let rest = hello.into_stream(config);
        // Whoever has the next turn gets it after the worker had its own.
        yield_now().await;
        rest
    };
    let (socket, tls) = rest.await?.into_inner();
    Ok((socket.into_std()?, Box::new(tls)))
}
