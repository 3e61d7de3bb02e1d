//! One client's connection: bytes in, bytes out, with TLS between or without.
//!
//! rustls is driven from here, from the worker's own buffers; tokio has nothing to do with a connection that is open.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::ServerConnection;

use super::deadlines::DeadlineEntry;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::reassembly::Reassembly;
use super::stats::ConnectionEnd;
use crate::datapath::listen::admission::{ConnectionPermit, HalfOpenPermit};
use crate::datapath::sys::epoll::Interest;
use crate::turn::{FiveTuple, Tos};

/// What a record of TLS decrypts to at most, with what rustls may hold of one already.
const RECORD: usize = 17 << 10;

/// What rustls takes in one piece.
const PIECE: usize = 4096;

/// A connection.
pub(in crate::datapath) struct Connection {
    pub(in crate::datapath) socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    pub(in crate::datapath) tuple: FiveTuple,
    /// What the client's packets are marked with (RFC 8656 section 15).
    pub(in crate::datapath) tos: Tos,
    pub(in crate::datapath) reassembly: Reassembly,
    pub(in crate::datapath) outgoing: Outgoing,
    pub(in crate::datapath) state: ConnectionState,
    pub(in crate::datapath) entry: DeadlineEntry,
    /// Until the first message is whole.
    pub(in crate::datapath) half_open: Option<HalfOpenPermit>,
    _place: ConnectionPermit,
}

/// What its deadlines and its end depend on.
#[derive(Clone, Copy, Debug)]
pub(in crate::datapath) struct ConnectionState {
    pub(in crate::datapath) opened: u64,
    /// When the last message was whole.
    pub(in crate::datapath) heard: u64,
    /// Since when a message is unfinished.
    pub(in crate::datapath) unfinished: Option<u64>,
    pub(in crate::datapath) allocated: bool,
    /// It cannot take all that waits.
    pub(in crate::datapath) blocked: bool,
    /// It is among those to be written to.
    pub(in crate::datapath) dirty: bool,
    /// What its socket is waited for.
    pub(in crate::datapath) wanted: Interest,
    /// It ends, and since when; nothing is read any more.
    pub(in crate::datapath) ending: Option<(ConnectionEnd, u64)>,
    /// The core knows.
    pub(in crate::datapath) closing: bool,
}

/// What a reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct ReadOutcome {
    /// Bytes.
    pub(in crate::datapath) len: usize,
    /// There are more, of which no event will tell.
    pub(in crate::datapath) more: bool,
    /// The client has shut down its sending side.
    pub(in crate::datapath) ended: bool,
    /// The socket had no more than this.
    pub(in crate::datapath) drained: bool,
}

impl Connection {
    /// A socket that has been accepted, behind its handshake if there is `tls`.
    pub(in crate::datapath) fn new(
        now: u64,
        (socket, tls): (TcpStream, Option<Box<ServerConnection>>),
        tuple: FiveTuple,
        tos: Tos,
        (place, half_open): (ConnectionPermit, HalfOpenPermit),
    ) -> Connection {
        let state = ConnectionState {
            opened: now,
            heard: now,
            unfinished: None,
            allocated: false,
            blocked: false,
            dirty: false,
            wanted: Interest { read: true, write: false },
            ending: None,
            closing: false,
        };
        Connection {
            socket,
            tls,
            tuple,
            tos,
            reassembly: Reassembly::default(),
            outgoing: Outgoing::default(),
            state,
            entry: DeadlineEntry::default(),
            half_open: Some(half_open),
            _place: place,
        }
    }

    /// Reads into `buffer` what fits; `ciphertext` is for what is not decrypted yet. With `again` only what an earlier call
    /// left over.
    pub(in crate::datapath) fn read(
        &mut self,
        buffer: &mut [u8],
        ciphertext: &mut [u8],
        again: bool,
    ) -> Result<ReadOutcome, ConnectionEnd> {
        match &mut self.tls {
            Some(tls) => read_tls(tls, &self.socket, buffer, ciphertext, again),
            None => {
                let read = receive(&self.socket, buffer)?;
                let len = read.unwrap_or(0);
                Ok(ReadOutcome { len, more: false, ended: read == Some(0), drained: len < buffer.len() })
            }
        }
    }

    /// Writes what waits, in as few calls as it takes; true if all of it went. Nothing will follow the `last` of it, which a
    /// TLS client is told.
    pub(in crate::datapath) fn write(&mut self, last: bool, pool: &mut Pool) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => write_tls(tls, &self.socket, &mut self.outgoing, last, pool),
            None => {
                let waiting = self.outgoing.waiting();
                if waiting.is_empty() {
                    return Ok(true);
                }
                let Some(count) = send(|| (&self.socket).write(waiting))? else { return Ok(false) };
                self.outgoing.sent(count, pool);
                Ok(self.outgoing.waiting().is_empty())
            }
        }
    }

    /// Whether anything waits to be written.
    pub(in crate::datapath) fn wants_write(&self) -> bool {
        !self.outgoing.waiting().is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

/// `None`: nothing there.
fn receive(mut socket: &TcpStream, buffer: &mut [u8]) -> Result<Option<usize>, ConnectionEnd> {
    loop {
        match socket.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(ConnectionEnd::Reset),
        }
    }
}

/// `None`: no room.
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
    socket: &TcpStream,
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
            // The client has said goodbye; what follows that means nothing.
            break;
        }
        tls.process_new_packets().map_err(|_| ConnectionEnd::Tls)?;
        let (more, end) = decrypted(tls, &mut buffer[len..])?;
        (len, ended) = (len + more, ended || end);
    }
    let more = len == buffer.len();
    Ok(ReadOutcome { len, more, ended: ended || count == 0, drained: count < most })
}

/// Takes what is decrypted, as far as it fits, and whether the client said goodbye behind it.
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

/// rustls gets more only when it has nothing to write itself: what waits, waits where it is counted.
fn write_tls(
    tls: &mut ServerConnection,
    socket: &TcpStream,
    outgoing: &mut Outgoing,
    last: bool,
    pool: &mut Pool,
) -> io::Result<bool> {
    loop {
        while tls.wants_write() {
            if send(|| tls.write_tls(&mut &*socket))?.is_none() {
                return Ok(false);
            }
        }
        let waiting = outgoing.waiting();
        if waiting.is_empty() {
            if last {
                // The first time this is something to write.
                tls.send_close_notify();
            }
            if !tls.wants_write() {
                return Ok(true);
            }
            continue;
        }
        let count = tls.writer().write(waiting)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        outgoing.sent(count, pool);
    }
}
