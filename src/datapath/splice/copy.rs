//! Copies between a client and its backend until both directions have ended.
//!
//! - When one side closes its direction, the other side is told (FIN, and close_notify to a TLS client), and the opposite direction
//!   goes on.
//! - When one side resets the connection, what it had sent before is delivered, then the other side is reset, too: an end
//!   that is not clean never looks like one. The same holds for a TLS client that goes without close_notify, and for
//!   connections that are cut here.
//! - Whoever does not read is not read from either: a direction holds one buffer or pipe at most.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::backends::Direction;
use super::flow::{Broken, Destination, Flow};
use super::plain;
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

/// Waits until a reset would not take data with it that was sent before: the kernel discards what is not acknowledged.
pub(super) async fn delivered(socket: &TcpStream) {
    let until = Instant::now() + DELIVERY;
    while option::unacknowledged(socket.as_fd()).is_ok_and(|count| count > 0) && Instant::now() < until {
        sleep(DELIVERY_INTERVAL).await;
    }
}
