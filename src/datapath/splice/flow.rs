//! What moves the bytes of a connection, in either direction: when it was last seen, which side takes no more, and writing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::backends::{BackendState, Direction};
use super::pools::Pools;

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
    pub(super) async fn silent(&self, limit: Duration) {
        loop {
            let due = self.began + Duration::from_nanos(self.latest.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Bytes have moved, or a direction has ended.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latest.store(now, Ordering::Relaxed);
    }

    /// The source of this direction has closed it; the kernel says the same of one that was reset, after it has told a writer.
    pub(super) fn is_whole(&self, direction: Direction) -> Result<(), Broken> {
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
    pub(super) direction: Direction,
}

impl Destination<'_> {
    /// Writes all of it; the first `uncounted` bytes are none of the client's.
    pub(super) async fn write(&self, bytes: &[u8], uncounted: usize) -> Result<(), Broken> {
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
