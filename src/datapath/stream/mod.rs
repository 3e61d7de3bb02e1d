//! Clients that come over TCP and TLS (RFC 8489 sections 6.2.2 and 6.2.3): a pipeline of stages in front of the core.
//!
//! A socket is accepted (`accept`, `entrance`), admitted (`admission`), for TLS shakes hands (`handshake`), and is then a
//! connection (`connection`) in the worker's own epoll set: what it brings is put together (`reassembly`), what it is sent
//! waits in whole messages (`outgoing`), and it ends by itself if it says too little (`deadlines`).
//!
//! Left out on purpose: what to do with a message, which is `turn`'s; the PROXY header and sharing a port with other
//! protocols, which have their place before and behind TLS.

mod config;
mod connection;
mod deadlines;
mod outgoing;
mod pool;
mod reassembly;
pub mod stats;

use std::collections::HashMap;
use std::net::TcpStream;
use std::os::fd::AsFd;

use foldhash::fast::FixedState;
use rustls::ServerConnection;
use slotmap::SlotMap;
use tracing::debug;

pub use config::{StreamConfig, StreamLimits};
pub use pool::Pool;
pub use reassembly::{MessageRun, Reassembly, next};

use self::connection::{Connection, ConnectionState, ReadOutcome};
use self::deadlines::Deadlines;
use self::stats::{ConnectionEnd, StreamCounters};
use crate::datapath::event_source::EventSource;
use crate::datapath::listen::admission::{ConnectionPermit, HalfOpenPermit};
use crate::datapath::sys::epoll::{Epoll, Interest, Readiness};
use crate::turn::{FiveTuple, ToClient, Tos};

/// How long a client that has closed its side may take to read its answers.
const LINGER: u64 = 10_000_000_000;

/// What is read at a time, so that packets do not wait for all that one connection has.
const READ: usize = 1 << 15;

/// What is read from TLS clients before it is decrypted.
const CIPHERTEXT: usize = 1 << 16;

slotmap::new_key_type! {
    /// A connection in its worker's table. Never reused.
    pub(in crate::datapath) struct StreamId;
}

/// A connection that has been accepted and is to be opened.
pub(in crate::datapath) struct Incoming {
    pub(in crate::datapath) socket: TcpStream,
    pub(in crate::datapath) tls: Option<Box<ServerConnection>>,
    pub(in crate::datapath) tuple: FiveTuple,
    pub(in crate::datapath) places: (ConnectionPermit, HalfOpenPermit),
}

/// The connections of a worker.
pub(in crate::datapath) struct Streams {
    connections: SlotMap<StreamId, Connection>,
    by_tuple: HashMap<FiveTuple, StreamId, FixedState>,
    deadlines: Deadlines,
    limits: StreamLimits,
    /// Those that something waits for.
    dirty: Vec<StreamId>,
    /// One of them has half of what it may have.
    filling: bool,
    /// Those that end, and that the core does not know of yet.
    ended: Vec<StreamId>,
    pool: Pool,
    ciphertext: Box<[u8]>,
}

impl Streams {
    /// None yet. `seed` keys the table.
    pub(in crate::datapath) fn new(limits: StreamLimits, seed: u64) -> Streams {
        Streams {
            connections: SlotMap::with_key(),
            by_tuple: HashMap::with_hasher(FixedState::with_seed(seed)),
            deadlines: Deadlines::default(),
            limits,
            dirty: Vec::new(),
            filling: false,
            ended: Vec::new(),
            pool: Pool::default(),
            ciphertext: vec![0; CIPHERTEXT].into(),
        }
    }

    /// A new connection has this 5-tuple, so what had it before is gone, though nobody has told yet.
    pub(in crate::datapath) fn displace(&mut self, now: u64, tuple: &FiveTuple) {
        if let Some(&before) = self.by_tuple.get(tuple) {
            self.end(now, before, ConnectionEnd::Reset);
        }
    }

    /// Takes a connection in; it is watched by `epoll` from now on. TLS may have brought data with its handshake, of which
    /// no event will tell, so whoever calls this reads it.
    pub(in crate::datapath) fn open(
        &mut self,
        now: u64,
        incoming: Incoming,
        epoll: &Epoll,
        counters: &mut StreamCounters,
    ) -> Option<StreamId> {
        let Incoming { socket, tls, tuple, places } = incoming;
        let tos = Tos(crate::datapath::sys::option::tos(socket.as_fd(), tuple.server.is_ipv6()).unwrap_or(0));
        let connection = Connection::new(now, (socket, tls), tuple, tos, places);
        let id = self.connections.insert(connection);
        let connection = &mut self.connections[id];
        if epoll.add(connection.socket.as_fd(), EventSource::Stream(id)).is_err() {
            self.connections.remove(id);
            counters.closed[StreamCounters::place(tuple.transport)][ConnectionEnd::System as usize] += 1;
            return None;
        }
        self.by_tuple.insert(tuple, id);
        counters.open[StreamCounters::place(tuple.transport)] += 1;
        let transport = tuple.transport.as_str();
        debug!(client = %tuple.client, server = %tuple.server, transport, "connection opened");
        self.arm(id);
        Some(id)
    }

    /// Who it is, and how its packets are marked; `None` if it ends.
    pub(in crate::datapath) fn client(&self, id: StreamId) -> Option<(FiveTuple, Tos)> {
        let connection = self.connections.get(id).filter(|connection| connection.state.ending.is_none())?;
        Some((connection.tuple, connection.tos))
    }

    /// Reads into a buffer; returns what that was, and how many bytes at its beginning are to be cut into messages.
    pub(in crate::datapath) fn read(
        &mut self,
        id: StreamId,
        buffer: &mut [u8],
        again: bool,
    ) -> Result<(ReadOutcome, usize), ConnectionEnd> {
        let connection = &mut self.connections[id];
        let kept = connection.reassembly.kept();
        let end = buffer.len().min(kept + READ);
        let got = connection.read(&mut buffer[kept..end], &mut self.ciphertext, again)?;
        if connection.wants_write() {
            self.dirty(id);
        }
        let connection = &mut self.connections[id];
        Ok((got, connection.reassembly.join(buffer, got.len, &mut self.pool)))
    }

    /// What was read has been cut: whether that were messages, and what is left over of one that is unfinished.
    pub(in crate::datapath) fn cut(&mut self, now: u64, id: StreamId, messages: bool, rest: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if messages {
            connection.state.heard = now;
            connection.state.unfinished = None;
        }
        let first = messages && connection.half_open.take().is_some();
        connection.reassembly.keep(rest, &mut self.pool);
        if connection.reassembly.kept() > 0 && connection.state.unfinished.is_none() {
            connection.state.unfinished = Some(now);
            self.arm(id);
        } else if first {
            self.arm(id);
        }
    }

    /// Adds a peer's datagrams of `segment_size` bytes each, every one a message of its own (RFC 8656 section 12.7).
    pub(in crate::datapath) fn data(
        &mut self,
        to: &ToClient,
        batch: &[u8],
        segment_size: usize,
        counters: &mut StreamCounters,
    ) {
        let Some(&id) = self.by_tuple.get(&to.tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let dropped = &mut counters.data_dropped[StreamCounters::place(to.tuple.transport)];
        let mut add = |n, payload: &[u8]| {
            if !connection.outgoing.data(self.limits.queue, &to.header, n, payload, &mut self.pool) {
                *dropped += 1;
            }
        };
        if batch.is_empty() {
            add(0, batch);
        }
        batch.chunks(segment_size.max(1)).enumerate().for_each(|(n, payload)| add(n, payload));
        self.dirty(id);
    }

    /// Adds an answer, or an indication that the core made itself (RFC 8656 section 11.5).
    pub(in crate::datapath) fn reply(
        &mut self,
        now: u64,
        to: &FiveTuple,
        message: &[u8],
        counters: &mut StreamCounters,
    ) {
        let Some(&id) = self.by_tuple.get(to) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.outgoing.message(self.limits.queue, message, &mut self.pool) {
            self.dirty(id);
        } else if outgoing::is_indication(message) {
            counters.data_dropped[StreamCounters::place(to.transport)] += 1;
        } else {
            self.end(now, id, ConnectionEnd::NotRead);
        }
    }

    /// An allocation of this client began or ended.
    pub(in crate::datapath) fn allocated(&mut self, now: u64, tuple: &FiveTuple, allocated: bool) {
        let Some(&id) = self.by_tuple.get(tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.state.allocated = allocated;
        connection.state.heard = now;
        self.arm(id);
    }

    /// An event for a connection: whether it is to be read.
    pub(in crate::datapath) fn event(
        &mut self,
        id: StreamId,
        event: Readiness,
        counters: &mut StreamCounters,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.state.closing && event.dead {
            self.remove(id, counters);
            return false;
        }
        if event.writable {
            connection.state.blocked = false;
            self.dirty(id);
        }
        event.readable
    }

    /// Whether so much waits for someone that it should be written before more is added.
    pub(in crate::datapath) fn is_filling(&self) -> bool {
        self.filling
    }

    /// Writes all that waits, for each connection at once.
    pub(in crate::datapath) fn flush(&mut self, now: u64, epoll: &Epoll, counters: &mut StreamCounters) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.write(now, id, epoll, counters);
        }
        self.dirty = dirty;
        self.filling = false;
    }

    /// Ends a connection: nothing is read from it any more, and the core is to be told.
    pub(in crate::datapath) fn end(&mut self, now: u64, id: StreamId, why: ConnectionEnd) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.state.ending.is_none() {
            connection.state.ending = Some((why, now));
            self.ended.push(id);
        }
    }

    /// The next one that ends, for the core to be told; then it is to be [closed](Streams::close).
    pub(in crate::datapath) fn poll_ended(&mut self) -> Option<(StreamId, FiveTuple)> {
        let id = self.ended.pop()?;
        debug_assert!(self.connections.contains_key(id), "it is removed only when it is closed");
        Some((id, self.connections.get(id)?.tuple))
    }

    /// Closes what ends: at once, or, if the client still reads, when it has read its answers.
    pub(in crate::datapath) fn close(
        &mut self,
        now: u64,
        id: StreamId,
        epoll: &Epoll,
        counters: &mut StreamCounters,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.by_tuple.remove(&connection.tuple);
        connection.state.closing = true;
        let lingers =
            matches!(connection.state.ending, Some((ConnectionEnd::Client | ConnectionEnd::Shutdown, _)));
        if !lingers {
            // What fits goes: earlier answers, or what TLS has to say about this end.
            let _ = connection.write(true, &mut self.pool);
            return self.remove(id, counters);
        }
        connection.state.blocked = false;
        self.arm(id);
        self.write(now, id, epoll, counters);
    }

    /// Every connection ends.
    pub(in crate::datapath) fn shut_down(&mut self, now: u64) {
        for id in self.connections.keys().collect::<Vec<_>>() {
            self.end(now, id, ConnectionEnd::Shutdown);
        }
    }

    /// When a connection is to be looked at.
    pub(in crate::datapath) fn poll_timeout(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Ends what is due.
    pub(in crate::datapath) fn handle_timeout(&mut self, now: u64, counters: &mut StreamCounters) {
        while let Some(id) = self.deadlines.due(now) {
            let connection = &mut self.connections[id];
            self.deadlines.disarm(&mut connection.entry, id);
            match deadline(&connection.state, connection.half_open.is_some(), &self.limits) {
                Some((at, why)) if at <= now => {
                    if connection.state.closing {
                        self.remove(id, counters);
                    } else {
                        self.end(now, id, why);
                    }
                }
                _ => self.arm(id),
            }
        }
    }

    fn write(&mut self, now: u64, id: StreamId, epoll: &Epoll, counters: &mut StreamCounters) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.state.dirty = false;
        if connection.state.blocked {
            return;
        }
        let ConnectionState { ending, closing, wanted, .. } = connection.state;
        match connection.write(closing, &mut self.pool) {
            Ok(true) if closing => self.remove(id, counters),
            Ok(all) => {
                connection.state.blocked = !all;
                connection.state.wanted = Interest { read: ending.is_none(), write: !all };
                if connection.state.wanted != wanted {
                    // The socket is in the set, and no memory is needed for this.
                    let _ = epoll.set(
                        connection.socket.as_fd(),
                        EventSource::Stream(id),
                        connection.state.wanted,
                    );
                }
            }
            Err(_) if closing => self.remove(id, counters),
            Err(_) => self.end(now, id, ConnectionEnd::Reset),
        }
    }

    fn remove(&mut self, id: StreamId, counters: &mut StreamCounters) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.deadlines.disarm(&mut connection.entry, id);
        let tuple = connection.tuple;
        let why = connection.state.ending.map_or(ConnectionEnd::System, |(why, _)| why);
        let place = StreamCounters::place(tuple.transport);
        counters.open[place] -= 1;
        counters.closed[place][why as usize] += 1;
        let (transport, reason) = (tuple.transport.as_str(), why.as_str());
        debug!(client = %tuple.client, server = %tuple.server, transport, reason, "connection closed");
    }

    fn dirty(&mut self, id: StreamId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.state.blocked {
            return;
        }
        self.filling |= connection.outgoing.waiting().len() > self.limits.queue / 2;
        if !connection.state.dirty {
            connection.state.dirty = true;
            self.dirty.push(id);
        }
    }

    fn arm(&mut self, id: StreamId) {
        let connection = &mut self.connections[id];
        if let Some((at, _)) = deadline(&connection.state, connection.half_open.is_some(), &self.limits) {
            self.deadlines.arm(&mut connection.entry, at, id);
        }
    }
}

/// The next deadline of a connection.
fn deadline(state: &ConnectionState, half_open: bool, limits: &StreamLimits) -> Option<(u64, ConnectionEnd)> {
    let after = |from: u64, wait: std::time::Duration| from.saturating_add(wait.as_nanos() as u64);
    if let Some((why, since)) = state.ending {
        return Some((since.saturating_add(LINGER), why));
    }
    let first = half_open.then(|| (after(state.opened, limits.first_message), ConnectionEnd::NoMessage));
    let unfinished =
        state.unfinished.map(|since| (after(since, limits.unfinished), ConnectionEnd::Unfinished));
    let idle =
        (!state.allocated && !half_open).then(|| (after(state.heard, limits.idle), ConnectionEnd::Idle));
    [first, unfinished, idle].into_iter().flatten().min_by_key(|&(at, _)| at)
}
