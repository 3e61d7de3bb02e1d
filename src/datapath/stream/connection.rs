//! One client's connection: bytes in, bytes out, with TLS between or without.
//!
//! rustls is driven from here, from the worker's own buffers; tokio has nothing to do with a connection that is open.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::ServerConnection;

use super::admission::{HalfOpen, Place};
use super::deadlines::Entry;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::reassembly::Reassembly;
use super::stats::End;
use crate::datapath::sys::epoll::Wanted;
use crate::turn::{FiveTuple, Marks};

/// What a record of TLS decrypts to at most, with what rustls may hold of one already.
const RECORD: usize = 17 << 10;

/// What rustls takes in one piece.
const PIECE: usize = 4096;

/// A connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    pub(super) tuple: FiveTuple,
    /// What the client's packets are marked with (RFC 8656 section 15).
    pub(super) marks: Marks,
    pub(super) reassembly: Reassembly,
    pub(super) outgoing: Outgoing,
    pub(super) state: State,
    pub(super) entry: Entry,
    /// Until the first message is whole.
    pub(super) half_open: Option<HalfOpen>,
    _place: Place,
}

/// What its deadlines and its end depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) opened: u64,
    /// When the last message was whole.
    pub(super) heard: u64,
    /// Since when a message is unfinished.
    pub(super) unfinished: Option<u64>,
    pub(super) allocated: bool,
    /// It cannot take all that waits.
    pub(super) blocked: bool,
    /// It is among those to be written to.
    pub(super) dirty: bool,
    /// What its socket is waited for.
    pub(super) wanted: Wanted,
    /// It ends, and since when; nothing is read any more.
    pub(super) ending: Option<(End, u64)>,
    /// The core knows.
    pub(super) closing: bool,
}

/// What a reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Got {
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
    pub(super) fn new(
        now: u64,
        (socket, tls): (TcpStream, Option<Box<ServerConnection>>),
        tuple: FiveTuple,
        marks: Marks,
        (place, half_open): (Place, HalfOpen),
    ) -> Connection {
        let state = State {
            opened: now,
            heard: now,
            unfinished: None,
            allocated: false,
            blocked: false,
            dirty: false,
            wanted: Wanted { read: true, write: false },
            ending: None,
            closing: false,
        };
        Connection {
            socket,
            tls,
            tuple,
            marks,
            reassembly: Reassembly::default(),
            outgoing: Outgoing::default(),
            state,
            entry: Entry::default(),
            half_open: Some(half_open),
            _place: place,
        }
    }

    /// Reads into `buffer` what fits; `ciphertext` is for what is not decrypted yet. With `again` only what an earlier call
    /// left over.
    pub(super) fn read(&mut self, buffer: &mut [u8], ciphertext: &mut [u8], again: bool) -> Result<Got, End> {
        match &mut self.tls {
            Some(tls) => read_tls(tls, &self.socket, buffer, ciphertext, again),
            None => {
                let read = receive(&self.socket, buffer)?;
                let len = read.unwrap_or(0);
                Ok(Got { len, more: false, ended: read == Some(0), drained: len < buffer.len() })
            }
        }
    }

    /// Writes what waits, in as few calls as it takes; true if all of it went. Nothing will follow the `last` of it, which a
    /// TLS client is told.
    pub(super) fn write(&mut self, last: bool, pool: &mut Pool) -> io::Result<bool> {
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
    pub(super) fn wants_write(&self) -> bool {
        !self.outgoing.waiting().is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

/// `None`: nothing there.
fn receive(mut socket: &TcpStream, buffer: &mut [u8]) -> Result<Option<usize>, End> {
    loop {
        match socket.read(buffer) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(End::Reset),
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
) -> Result<Got, End> {
    let (mut len, mut ended) = decrypted(tls, buffer)?;
    let room = buffer.len() - len;
    if again || ended || room == 0 {
        return Ok(Got { len, more: room == 0, ended, drained: false });
    }
    // Either all that this brings fits into the buffer, or rustls holds it: it never has to be fed twice.
    let most = room.saturating_sub(RECORD).max(PIECE).min(ciphertext.len());
    let Some(count) = receive(socket, &mut ciphertext[..most])? else {
        return Ok(Got { len, more: false, ended: false, drained: true });
    };
    let mut rest = &ciphertext[..count];
    while !rest.is_empty() {
        if tls.read_tls(&mut rest).map_err(|_| End::Tls)? == 0 {
            // The client has said goodbye; what follows that means nothing.
            break;
        }
        tls.process_new_packets().map_err(|_| End::Tls)?;
        let (more, end) = decrypted(tls, &mut buffer[len..])?;
        (len, ended) = (len + more, ended || end);
    }
    let more = len == buffer.len();
    Ok(Got { len, more, ended: ended || count == 0, drained: count < most })
}

/// Takes what is decrypted, as far as it fits, and whether the client said goodbye behind it.
fn decrypted(tls: &mut ServerConnection, buffer: &mut [u8]) -> Result<(usize, bool), End> {
    let mut len = 0;
    while len < buffer.len() {
        match tls.reader().read(&mut buffer[len..]) {
            Ok(0) => return Ok((len, true)),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Err(End::Tls),
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
