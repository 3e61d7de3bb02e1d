//! TLS handshakes (RFC 8489 section 6.2.3): a task each until they are done, then the connection is the worker's.
//!
//! What a handshake computes takes as long as hundreds of packets. So a worker has a thread beside it for them, of less
//! weight: packets do not wait for handshakes, and a flood of packets leaves them a part of the CPU. How many may be
//! under way is bounded by the places for half-open connections, which each holds one of.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{ServerConfig, ServerConnection};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::datapath::listen::admission::{ConnectionPermit, HalfOpenPermit};
use crate::datapath::stream::Incoming;
use crate::datapath::stream::stats::HandshakeFailure;
use crate::datapath::sys;
use crate::datapath::worker::wake::Waker;
use crate::turn::FiveTuple;

/// Results that wait for the worker at most; the tasks wait with them.
const RESULTS: usize = 64;

/// How much the thread gives way to others, as nice(1) counts: a tenth of a worker's weight.
const NICE: i32 = 10;

/// The handshakes of a worker.
pub(in crate::datapath) struct Handshakes {
    /// `None` once they are to end.
    beginning: Option<mpsc::UnboundedSender<Beginning>>,
    results: mpsc::Receiver<Handshaken>,
    thread: Option<JoinHandle<()>>,
}

/// A connection whose handshake begins. There are no more of them than places.
struct Beginning {
    socket: TcpStream,
    tuple: FiveTuple,
    places: (ConnectionPermit, HalfOpenPermit),
}

/// What became of a handshake.
pub(in crate::datapath) enum Handshaken {
    /// A connection.
    Done(Incoming),
    /// None.
    Failed(FiveTuple, HandshakeFailure, String),
}

impl Handshakes {
    /// None is under way. `bell` is rung whenever one has ended.
    pub(in crate::datapath) fn new(
        config: Arc<ServerConfig>,
        limit: Duration,
        bell: Waker,
    ) -> io::Result<Handshakes> {
        let (beginning, mut begun) = mpsc::unbounded_channel::<Beginning>();
        let (sender, results) = mpsc::channel(RESULTS);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("{}-tls", thread::current().name().unwrap_or_default());
        let thread = thread::Builder::new().name(name).spawn(move || {
            sys::give_way(NICE);
            runtime.block_on(async {
                while let Some(beginning) = begun.recv().await {
                    let (config, sender, bell) = (config.clone(), sender.clone(), bell.clone());
                    tokio::spawn(async move {
                        // A worker that is gone needs no result.
                        let _ = sender.send(handshake(beginning, config, limit).await).await;
                        bell.ring();
                    });
                }
            });
        })?;
        Ok(Handshakes { beginning: Some(beginning), results, thread: Some(thread) })
    }

    /// Begins one.
    pub(in crate::datapath) fn begin(
        &mut self,
        socket: TcpStream,
        tuple: FiveTuple,
        places: (ConnectionPermit, HalfOpenPermit),
    ) {
        if let Some(beginning) = &self.beginning {
            // If the thread is gone, so is the connection.
            let _ = beginning.send(Beginning { socket, tuple, places });
        }
    }

    /// A result, if there is one.
    pub(in crate::datapath) fn poll(&mut self) -> Option<Handshaken> {
        self.results.try_recv().ok()
    }
}

impl Drop for Handshakes {
    /// Gives back what those under way hold, before a worker that failed begins again.
    fn drop(&mut self) {
        self.beginning = None;
        if let Some(thread) = self.thread.take() {
            // If it failed, it has given back everything.
            let _ = thread.join();
        }
    }
}

async fn handshake(beginning: Beginning, config: Arc<ServerConfig>, limit: Duration) -> Handshaken {
    let Beginning { socket, tuple, places } = beginning;
    match timeout(limit, shake(socket, config)).await {
        Ok(Ok((socket, tls))) => Handshaken::Done(Incoming { socket, tls: Some(tls), tuple, places }),
        Ok(Err(error)) => Handshaken::Failed(tuple, HandshakeFailure::why(&error), error.to_string()),
        Err(_) => Handshaken::Failed(tuple, HandshakeFailure::TooSlow, "not done in time".to_owned()),
    }
}

async fn shake(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<(TcpStream, Box<ServerConnection>)> {
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let (socket, tls) = hello.into_stream(config).await?.into_inner();
    Ok((socket.into_std()?, Box::new(tls)))
}
