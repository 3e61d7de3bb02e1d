//! Copies between a client and its backend until both directions have ended.
//!
//! - When one side closes its direction, the other side is told (FIN, and close_notify to a TLS client), and the opposite direction
//!   goes on.
//! - When one side resets the connection, what it had sent before is delivered, then the other side is reset, too: an end
//!   that is not clean never looks like one. The same holds for a TLS client that goes without close_notify, and for
//!   connections that are cut here.
//! - Whoever does not read is not read from either: a direction holds one buffer or pipe at most.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::backends::{BackendState, Direction};
use super::plain;
use super::pools::Pools;
use super::stats::SpliceEnd;
use super::tls::{self, TlsClient};
use crate::datapath::sys::option;

/// How long one side may be silent after the other has closed its direction: longer than a server takes for a response, and
/// much shorter than a WebSocket may be silent.
const HALF_CLOSED: Duration = Duration::from_secs(300);

/// How long data that was sent before a reset may take to be acknowledged.
const DELIVERY: Duration = Duration::from_secs(30);

/// How often that is looked at.
const DELIVERY_INTERVAL: Duration = Duration::from_millis(20);

/// A client and its backend.
pub(super) struct Ends<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) tls: Option<&'a TlsClient>,
    pub(super) backend: &'a TcpStream,
}

/// What both directions of a connection use.
pub(super) struct Flow<'a> {
    pub(super) pools: &'a Pools,
    state: &'a BackendState,
    began: Instant,
    /// When bytes moved last, or a direction ended, in nanoseconds since it began.
    latest: AtomicU64,
    /// A write to the client, or to the backend, has failed: what is read from there is complete, but its end is none.
    client_broken: AtomicBool,
    backend_broken: AtomicBool,
}

/// Why a direction has ended before its source closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The source has reset the connection.
    Source,
    /// The destination takes no more. What it has sent can still be read.
    Destination,
    /// The TLS client has gone without close_notify.
    Truncated,
    /// The client's bytes are not TLS.
    Tls,
}

/// What the backend gets first.
pub(super) struct FirstBytes {
    /// A header of ours, and what the client has sent already, in one piece, so that they share a segment.
    pub(super) bytes: Vec<u8>,
    /// The length of the header.
    pub(super) header: usize,
}

/// Copies until the connection has ended, or has been silent for `idle`.
pub(super) async fn copy(ends: &Ends<'_>, flow: &Flow<'_>, first: FirstBytes, idle: Duration) -> SpliceEnd {
    let mut to_backend = pin!(to_backend(ends, flow, first));
    let mut to_client = pin!(to_client(ends, flow));
    let (mut to_backend_ended, mut to_client_ended) = (None, None);
    loop {
        let half_closed = to_backend_ended.is_some() || to_client_ended.is_some();
        let limit = if half_closed { idle.min(HALF_CLOSED) } else { idle };
        tokio::select! {
            ended = &mut to_backend, if to_backend_ended.is_none() => match ended {
                Err(Broken::Source) => return SpliceEnd::ClientReset,
                Err(Broken::Truncated) => return SpliceEnd::Truncated,
                Err(Broken::Tls) => return SpliceEnd::Tls,
                ended => to_backend_ended = Some(ended),
            },
            ended = &mut to_client, if to_client_ended.is_none() => match ended {
                Err(Broken::Source) => return SpliceEnd::BackendReset,
                ended => to_client_ended = Some(ended),
            },
            () = flow.silent(limit) => {
                return if half_closed { SpliceEnd::HalfClosed } else { SpliceEnd::Idle };
            }
        }
        // The shorter limit counts from the end of this direction: what was silent before may have been a WebSocket at rest.
        flow.touch();
        match (to_backend_ended, to_client_ended) {
            (Some(Ok(())), Some(Ok(()))) => return SpliceEnd::Finished,
            (Some(Err(_)), Some(_)) => return SpliceEnd::BackendReset,
            (Some(_), Some(Err(_))) => return SpliceEnd::ClientReset,
            (None, _) | (_, None) => {}
        }
    }
}

/// From the client until it closes its direction, which the backend is then told.
async fn to_backend(ends: &Ends<'_>, flow: &Flow<'_>, first: FirstBytes) -> Result<(), Broken> {
    let destination = Destination { socket: ends.backend, flow, direction: Direction::ToBackend };
    destination.write(&first.bytes, first.header).await?;
    drop(first);
    match ends.tls {
        None => plain::pump(ends.client, &destination).await?,
        Some(tls) => tls::decrypt(ends.client, tls, &destination).await?,
    }
    flow.is_whole(Direction::ToBackend)?;
    let _ = SockRef::from(ends.backend).shutdown(Shutdown::Write);
    Ok(())
}

/// From the backend until it closes its direction, which the client is then told.
async fn to_client(ends: &Ends<'_>, flow: &Flow<'_>) -> Result<(), Broken> {
    let destination = Destination { socket: ends.client, flow, direction: Direction::ToClient };
    match ends.tls {
        None => plain::pump(ends.backend, &destination).await?,
        Some(tls) => tls::encrypt(ends.backend, tls, &destination).await?,
    }
    flow.is_whole(Direction::ToClient)?;
    if let Some(tls) = ends.tls {
        tls.close(&destination).await?;
    }
    let _ = SockRef::from(ends.client).shutdown(Shutdown::Write);
    Ok(())
}

impl<'a> Flow<'a> {
    /// Nothing has moved yet.
    pub(super) fn new(pools: &'a Pools, state: &'a BackendState) -> Flow<'a> {
        Flow {
            pools,
            state,
            began: Instant::now(),
            latest: AtomicU64::new(0),
            client_broken: AtomicBool::new(false),
            backend_broken: AtomicBool::new(false),
        }
    }

    /// Completes when no byte has moved for this long.
    async fn silent(&self, limit: Duration) {
        loop {
            let due = self.began + Duration::from_nanos(self.latest.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Bytes have moved, or a direction has ended.
    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latest.store(now, Ordering::Relaxed);
    }

    /// The source of this direction has closed it; the kernel says the same of one that was reset, after it has told a writer.
    fn is_whole(&self, direction: Direction) -> Result<(), Broken> {
        let broken = match direction {
            Direction::ToBackend => &self.client_broken,
            Direction::ToClient => &self.backend_broken,
        };
        if broken.load(Ordering::Relaxed) { Err(Broken::Source) } else { Ok(()) }
    }
}

/// Where the bytes of a direction go.
pub(super) struct Destination<'a> {
    pub(super) socket: &'a TcpStream,
    pub(super) flow: &'a Flow<'a>,
    direction: Direction,
}

impl Destination<'_> {
    /// Writes all of it; the first `uncounted` bytes are none of the client's.
    async fn write(&self, bytes: &[u8], uncounted: usize) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.when_writable(|| self.socket.try_write(rest)).await?;
            rest = &rest[count..];
            self.flow.touch();
        }
        self.moved(bytes.len().saturating_sub(uncounted));
        Ok(())
    }

    /// Writes all of it.
    pub(super) async fn write_all(&self, bytes: &[u8]) -> Result<(), Broken> {
        self.write(bytes, 0).await
    }

    /// Tries to write, again each time when the socket takes more.
    pub(super) async fn when_writable<T>(
        &self,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Broken> {
        loop {
            match write() {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(|_| self.broken())?;
                }
                Err(_) => return Err(self.broken()),
            }
        }
    }

    /// So many bytes have moved to it.
    pub(super) fn moved(&self, bytes: usize) {
        if bytes > 0 {
            self.flow.touch();
            self.flow.state.moved(self.direction, bytes);
        }
    }

    /// A write has failed.
    pub(super) fn broken(&self) -> Broken {
        let broken = match self.direction {
            Direction::ToBackend => &self.flow.backend_broken,
            Direction::ToClient => &self.flow.client_broken,
        };
        broken.store(true, Ordering::Relaxed);
        Broken::Destination
    }
}

/// Waits until a reset would not take data with it that was sent before: the kernel discards what is not acknowledged.
pub(super) async fn delivered(socket: &TcpStream) {
    let until = Instant::now() + DELIVERY;
    while option::unacknowledged(socket.as_fd()).is_ok_and(|count| count > 0) && Instant::now() < until {
        sleep(DELIVERY_INTERVAL).await;
    }
}
