//! One client's connection: bytes in, bytes out, with or without TLS between.
//!
//! rustls is driven from here, with the worker's own buffers. Any socket that reads and writes without blocking will do, so
//! tests use none.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::ServerConnection;

use super::admission::{ConnectionId, ConnectionPermit};
use super::deadlines::DeadlineEntry;
use super::incoming::{Incoming, OpenConnection};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::reassembly::Reassembly;
use super::stats::ConnectionEnd;
use crate::datapath::poll::Interest;
use crate::turn::stats::TrafficCount;
use crate::turn::{AllocationName, FiveTuple, Tos};

/// What one TLS record decrypts to at most, with what rustls may hold of one already.
const RECORD: usize = 17 << 10;

/// What rustls takes in one call.
const PIECE: usize = 4096;

/// The least that is read at a time, and the most while there is no allocation: what a connection whose responses cannot
/// leave has to keep is no more than that.
pub(super) const READ_MIN: usize = 4 << 10;

/// A connection.
pub struct Connection<S = TcpStream> {
    pub(super) socket: S,
    tls: Option<Box<ServerConnection>>,
    /// What was read (and decrypted) before the worker had the connection.
    received: Vec<u8>,
    pub(super) tuple: FiveTuple,
    /// The TOS of the client's packets (RFC 8656 section 15).
    pub(super) tos: Tos,
    pub(super) reassembly: Reassembly,
    pub(super) outgoing: Outgoing,
    pub(super) state: ConnectionState,
    pub(super) entry: DeadlineEntry,
    /// Data of peers that was dropped since the allocation began, because the client did not read.
    pub(super) dropped: TrafficCount,
    pub(super) permit: Option<ConnectionPermit>,
    /// The latest allocation of the client.
    pub(super) session: Option<AllocationName>,
    _open: Option<OpenConnection>,
}

/// What its deadlines and its end depend on. Times are monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionState {
    pub(super) opened: u64,
    /// The first message was complete.
    pub(super) has_spoken: bool,
    /// When the last message was complete.
    pub(super) last_message: u64,
    /// Bytes to read at a time.
    pub(super) read_size: usize,
    /// Since when a message is unfinished.
    pub(super) unfinished: Option<u64>,
    pub(super) allocated: bool,
    /// It has or had an allocation.
    pub(super) had_allocation: bool,
    /// The socket did not take all that is queued.
    pub(super) blocked: bool,
    /// Since when it is not read, because its responses have not left.
    pub(super) paused: Option<u64>,
    /// It is in the list of connections to be written to.
    pub(super) dirty: bool,
    /// What its socket is polled for.
    pub(super) interest: Interest,
    /// Why it ends and since when; it is not read any more.
    pub(super) ending: Option<(ConnectionEnd, u64)>,
    /// The core knows that it ends.
    pub(super) closing: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes read.
    pub len: usize,
    /// There is more that no event will report.
    pub more: bool,
    /// The client has shut down its sending side.
    pub ended: bool,
    /// The socket had no more than this.
    pub drained: bool,
}

impl Connection {
    /// A connection that has passed its stages.
    pub(super) fn open(now: u64, incoming: Incoming, tos: Tos) -> Connection {
        let Incoming { socket, tls, tuple, permit, open, opened, received } = incoming;
        let mut connection = Connection::new(now, socket, tls, tuple, received);
        connection.tos = tos;
        connection.state.opened = opened;
        connection.permit = Some(permit);
        connection._open = Some(open);
        connection
    }

    /// Its name in the log.
    pub(super) fn id(&self) -> Option<ConnectionId> {
        self.permit.as_ref().map(ConnectionPermit::connection)
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection whose socket is `socket`; `received` was read from it already.
    pub fn new(
        now: u64,
        socket: S,
        tls: Option<Box<ServerConnection>>,
        tuple: FiveTuple,
        received: Vec<u8>,
    ) -> Connection<S> {
        let state = ConnectionState {
            opened: now,
            has_spoken: false,
            last_message: now,
            read_size: READ_MIN,
            unfinished: None,
            allocated: false,
            had_allocation: false,
            blocked: false,
            paused: None,
            dirty: false,
            interest: Interest { read: true, write: false },
            ending: None,
            closing: false,
        };
        Connection {
            socket,
            tls,
            received,
            tuple,
            tos: Tos::default(),
            reassembly: Reassembly::default(),
            outgoing: Outgoing::default(),
            state,
            entry: DeadlineEntry::default(),
            dropped: TrafficCount::default(),
            permit: None,
            session: None,
            _open: None,
        }
    }

    /// Reads into `buffer` what fits; `ciphertext` is for what is not decrypted yet. With `again` it takes only what an
    /// earlier call left over.
    ///
    /// # Errors
    ///
    /// Returns why the connection must be closed.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        ciphertext: &mut [u8],
        again: bool,
    ) -> Result<ReadOutcome, ConnectionEnd> {
        if !self.received.is_empty() {
            let received = std::mem::take(&mut self.received);
            let len = received.len().min(buffer.len());
            buffer[..len].copy_from_slice(&received[..len]);
            self.received.extend_from_slice(&received[len..]);
            // rustls may hold what was decrypted with these bytes, and no event would report it.
            let more = !self.received.is_empty() || self.tls.is_some();
            return Ok(ReadOutcome { len, more, ended: false, drained: false });
        }
        match &mut self.tls {
            Some(tls) => read_tls(tls, &mut self.socket, buffer, ciphertext, again),
            None => {
                let read = receive(&mut self.socket, buffer)?;
                let len = read.unwrap_or(0);
                Ok(ReadOutcome { len, more: false, ended: read == Some(0), drained: len < buffer.len() })
            }
        }
    }

    /// Keeps bytes that were read and could not be handled yet. The next read brings them first.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        drop(self.received.splice(..0, bytes.iter().copied()));
    }

    /// Writes what is queued in as few calls as possible; true if all of it was written. After the `last` write a TLS client
    /// is told that nothing follows.
    ///
    /// # Errors
    ///
    /// Returns the error of the socket.
    pub fn write(&mut self, last: bool, pool: &mut Pool) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => write_tls(tls, &mut self.socket, &mut self.outgoing, last, pool),
            None => {
                let queued = self.outgoing.queued();
                if queued.is_empty() {
                    return Ok(true);
                }
                let socket = &mut self.socket;
                let Some(count) = send(|| socket.write(queued))? else { return Ok(false) };
                self.outgoing.advance(count, pool);
                self.outgoing.flushed();
                Ok(self.outgoing.queued().is_empty())
            }
        }
    }

    /// Whether anything is to be written.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.queued().is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

/// `None`: nothing is there.
fn receive(socket: &mut impl Read, buffer: &mut [u8]) -> Result<Option<usize>, ConnectionEnd> {
    loop {
        match socket.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(ConnectionEnd::Reset),
        }
    }
}

/// `None`: there is no room.
fn send(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match write() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_tls(
    tls: &mut ServerConnection,
    socket: &mut impl Read,
    buffer: &mut [u8],
    ciphertext: &mut [u8],
    again: bool,
) -> Result<ReadOutcome, ConnectionEnd> {
    let (mut len, mut ended) = decrypted(tls, buffer)?;
    let room = buffer.len() - len;
    if again || ended || room == 0 {
        return Ok(ReadOutcome { len, more: room == 0, ended, drained: false });
    }
    // Either all that this brings fits into the buffer, or rustls holds it: it never has to be fed twice.
    let most = room.saturating_sub(RECORD).max(PIECE).min(ciphertext.len());
    let Some(count) = receive(socket, &mut ciphertext[..most])? else {
        return Ok(ReadOutcome { len, more: false, ended: false, drained: true });
    };
    let mut rest = &ciphertext[..count];
    while !rest.is_empty() {
        if tls.read_tls(&mut rest).map_err(|_| ConnectionEnd::Tls)? == 0 {
            // The client has sent close_notify; what follows is ignored.
            break;
        }
        tls.process_new_packets().map_err(|_| ConnectionEnd::Tls)?;
        let (more, end) = decrypted(tls, &mut buffer[len..])?;
        (len, ended) = (len + more, ended || end);
    }
    let more = len == buffer.len();
    Ok(ReadOutcome { len, more, ended: ended || count == 0, drained: count < most })
}

/// Takes what is decrypted, as far as it fits, and whether the client has sent close_notify behind it.
fn decrypted(tls: &mut ServerConnection, buffer: &mut [u8]) -> Result<(usize, bool), ConnectionEnd> {
    let mut len = 0;
    while len < buffer.len() {
        match tls.reader().read(&mut buffer[len..]) {
            Ok(0) => return Ok((len, true)),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Err(ConnectionEnd::Tls),
        }
    }
    Ok((len, false))
}

/// Gives rustls more only when it has nothing to write itself, so data waits where it is counted.
fn write_tls(
    tls: &mut ServerConnection,
    socket: &mut impl Write,
    outgoing: &mut Outgoing,
    last: bool,
    pool: &mut Pool,
) -> io::Result<bool> {
    loop {
        while tls.wants_write() {
            if send(|| tls.write_tls(socket))?.is_none() {
                return Ok(false);
            }
        }
        outgoing.flushed();
        let queued = outgoing.queued();
        if queued.is_empty() {
            if last {
                // Only the first call has anything to write.
                tls.send_close_notify();
            }
            if !tls.wants_write() {
                return Ok(true);
            }
            continue;
        }
        let count = tls.writer().write(queued)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        outgoing.advance(count, pool);
    }
}

#[cfg(test)]
mod tests;
