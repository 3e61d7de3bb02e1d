//! The connections of a worker: opened, read, written to and closed; by 5-tuple and by deadline.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use slotmap::SlotMap;
use tracing::debug;

use super::StreamLimits;
use super::connection::{Connection, ConnectionState, ReadOutcome};
use super::deadlines::Deadlines;
use super::incoming::Incoming;
use super::outgoing;
use super::pool::Pool;
use super::stats::{ConnectionEnd, StreamCounters};
use crate::datapath::poll::{EventSource, Interest, Poll, Readiness, StreamId};
use crate::datapath::sys::option;
use crate::keyed::KeyedState;
use crate::turn::{FiveTuple, ToClient, Tos};

/// How long a client that has closed its side may take to read its responses, in nanoseconds.
const LINGER: u64 = 10_000_000_000;

/// The most and the least that is read of a connection at a time. Reads shrink while their bytes are expensive, as many
/// small TLS records are, and grow again while they are cheap.
const READ_MAX: usize = 32 << 10;
const READ_MIN: usize = 4 << 10;

/// Ciphertext that is read of a TLS client at a time.
const CIPHERTEXT: usize = 1 << 16;

/// The connections.
pub(in crate::datapath) struct Streams {
    connections: SlotMap<StreamId, Connection>,
    by_tuple: HashMap<FiveTuple, StreamId, KeyedState>,
    deadlines: Deadlines,
    limits: StreamLimits,
    /// Connections that have something queued and are not blocked.
    dirty: Vec<StreamId>,
    /// One of them has half of the bytes queued that it may have.
    filling: bool,
    /// Connections that end, which the core does not know yet.
    ended: Vec<StreamId>,
    pool: Pool,
    ciphertext: Box<[u8]>,
}

impl Streams {
    /// An empty table; `hash` keys its hash.
    pub(in crate::datapath) fn new(limits: StreamLimits, hash: KeyedState) -> Streams {
        Streams {
            connections: SlotMap::with_key(),
            by_tuple: HashMap::with_hasher(hash),
            deadlines: Deadlines::default(),
            limits,
            dirty: Vec::new(),
            filling: false,
            ended: Vec::new(),
            pool: Pool::default(),
            ciphertext: vec![0; CIPHERTEXT].into(),
        }
    }

    /// Replaces the limits. Deadlines that are armed already fire when they were to.
    pub(in crate::datapath) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
    }

    /// Ends the connection that had this 5-tuple before: a new one has it now, so the old one is gone, though no segment
    /// has said so.
    pub(in crate::datapath) fn displace(&mut self, now: u64, tuple: &FiveTuple) {
        if let Some(&before) = self.by_tuple.get(tuple) {
            self.end(now, before, ConnectionEnd::Reset);
        }
    }

    /// Adds a connection, which `poll` watches from now on. The caller reads it at once: no event reports the bytes that
    /// came with it.
    pub(in crate::datapath) fn open(
        &mut self,
        now: u64,
        incoming: Incoming,
        poll: &Poll,
        counters: &mut StreamCounters,
    ) -> Option<StreamId> {
        let tuple = incoming.tuple;
        let tos = Tos(option::tos(incoming.socket.as_fd(), tuple.server.is_ipv6()).unwrap_or(0));
        let id = self.connections.insert(Connection::open(now, incoming, tos));
        let connection = &mut self.connections[id];
        if poll.add(&connection.socket, EventSource::Stream(id)).is_err() {
            self.connections.remove(id);
            counters.closed[StreamCounters::index(tuple.transport)][ConnectionEnd::System] += 1;
            return None;
        }
        self.by_tuple.insert(tuple, id);
        let transport = tuple.transport.as_str();
        debug!(client = %tuple.client, server = %tuple.server, transport, "connection opened");
        self.arm(id);
        Some(id)
    }

    /// Whose connection it is and the TOS of its packets; `None` if it ends.
    pub(in crate::datapath) fn client(&self, id: StreamId) -> Option<(FiveTuple, Tos)> {
        let connection = self.connections.get(id).filter(|connection| connection.state.ending.is_none())?;
        Some((connection.tuple, connection.tos))
    }

    /// Reads into a buffer. Returns what that brought, and how many bytes at the buffer's start are to be split into
    /// messages.
    pub(in crate::datapath) fn read(
        &mut self,
        id: StreamId,
        buffer: &mut [u8],
        again: bool,
    ) -> Result<(ReadOutcome, usize), ConnectionEnd> {
        let connection = &mut self.connections[id];
        let buffered = connection.reassembly.buffered();
        let end = buffer.len().min(buffered + connection.state.read_size);
        let outcome = connection.read(&mut buffer[buffered..end], &mut self.ciphertext, again)?;
        if connection.wants_write() {
            self.dirty(id);
        }
        let connection = &mut self.connections[id];
        Ok((outcome, connection.reassembly.complete(buffer, outcome.len, &mut self.pool)))
    }

    /// The last read, with all that followed from it, was expensive or cheap for its bytes: the next one brings fewer or
    /// more.
    pub(in crate::datapath) fn adapt_read_size(&mut self, id: StreamId, expensive: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let size = &mut connection.state.read_size;
        *size = if expensive { *size / 2 } else { *size * 2 }.clamp(READ_MIN, READ_MAX);
    }

    /// Notes that what was read has been split: whether it completed a message, and the start of an unfinished one.
    pub(in crate::datapath) fn split(&mut self, now: u64, id: StreamId, messages: bool, rest: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if messages {
            connection.state.last_message = now;
            connection.state.unfinished = None;
        }
        let first = messages && connection.half_open.take().is_some();
        connection.reassembly.buffer_rest(rest, &mut self.pool);
        if connection.reassembly.buffered() > 0 && connection.state.unfinished.is_none() {
            connection.state.unfinished = Some(now);
            self.arm(id);
        } else if first {
            self.arm(id);
        }
    }

    /// Queues a peer's datagrams of `segment_size` bytes each, every one as a message of its own (RFC 8656 section 12.7).
    pub(in crate::datapath) fn data(
        &mut self,
        to: &ToClient,
        batch: &[u8],
        segment_size: usize,
        counters: &mut StreamCounters,
    ) {
        let Some(&id) = self.by_tuple.get(&to.tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let dropped = &mut counters.data_dropped[StreamCounters::index(to.tuple.transport)];
        let mut add = |n, payload: &[u8]| {
            let limit = self.limits.client_queue;
            if !connection.outgoing.push_data(limit, &to.header, n, payload, &mut self.pool) {
                *dropped += 1;
            }
        };
        if batch.is_empty() {
            add(0, batch);
        }
        batch.chunks(segment_size.max(1)).enumerate().for_each(|(n, payload)| add(n, payload));
        self.dirty(id);
    }

    /// Queues a response, or an indication that the core made itself (RFC 8656 section 11.5).
    pub(in crate::datapath) fn reply(
        &mut self,
        now: u64,
        to: &FiveTuple,
        message: &[u8],
        counters: &mut StreamCounters,
    ) {
        let Some(&id) = self.by_tuple.get(to) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.outgoing.push_message(self.limits.client_queue, message, &mut self.pool) {
            self.dirty(id);
        } else if outgoing::is_indication(message) {
            counters.data_dropped[StreamCounters::index(to.transport)] += 1;
        } else {
            self.end(now, id, ConnectionEnd::NotRead);
        }
    }

    /// Notes that an allocation of this client was created or has ended.
    pub(in crate::datapath) fn allocated(&mut self, now: u64, tuple: &FiveTuple, allocated: bool) {
        let Some(&id) = self.by_tuple.get(tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.state.allocated = allocated;
        connection.state.had_allocation |= allocated;
        connection.state.last_message = now;
        self.arm(id);
    }

    /// Whether a connection has or had an allocation, so that there may be ChannelData.
    pub(in crate::datapath) fn had_allocation(&self, id: StreamId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.state.had_allocation)
    }

    /// Handles an event. Returns whether the connection is to be read.
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

    /// Whether so much is queued for a client that it should be written before more is added.
    pub(in crate::datapath) fn is_filling(&self) -> bool {
        self.filling
    }

    /// Writes what is queued, once per connection.
    pub(in crate::datapath) fn flush(&mut self, now: u64, poll: &Poll, counters: &mut StreamCounters) {
        for n in 0..self.dirty.len() {
            self.write(now, self.dirty[n], poll, counters);
        }
        self.dirty.clear();
        self.filling = false;
    }

    /// Ends a connection: it is not read any more, and the core is to be told.
    pub(in crate::datapath) fn end(&mut self, now: u64, id: StreamId, why: ConnectionEnd) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.state.ending.is_none() {
            connection.state.ending = Some((why, now));
            self.ended.push(id);
        }
    }

    /// The next connection that ends. The caller tells the core, then [closes](Streams::close) the connection.
    pub(in crate::datapath) fn poll_ended(&mut self) -> Option<(StreamId, FiveTuple)> {
        let id = self.ended.pop()?;
        debug_assert!(self.connections.contains_key(id), "it is removed only when it is closed");
        Some((id, self.connections.get(id)?.tuple))
    }

    /// Closes a connection that ends: at once, or after its client has read its responses, if it still reads.
    pub(in crate::datapath) fn close(
        &mut self,
        now: u64,
        id: StreamId,
        poll: &Poll,
        counters: &mut StreamCounters,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.by_tuple.remove(&connection.tuple);
        connection.state.closing = true;
        let lingers =
            matches!(connection.state.ending, Some((ConnectionEnd::Client | ConnectionEnd::Shutdown, _)));
        if !lingers {
            // What the socket takes is sent: earlier responses, or a TLS alert about this end.
            let _ = connection.write(true, &mut self.pool);
            return self.remove(id, counters);
        }
        connection.state.blocked = false;
        self.arm(id);
        self.write(now, id, poll, counters);
    }

    /// Ends every connection.
    pub(in crate::datapath) fn shut_down(&mut self, now: u64) {
        for id in self.connections.keys().collect::<Vec<_>>() {
            self.end(now, id, ConnectionEnd::Shutdown);
        }
    }

    /// When [`Streams::handle_timeout`] is due.
    pub(in crate::datapath) fn poll_timeout(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Ends connections whose deadline has passed.
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

    fn write(&mut self, now: u64, id: StreamId, poll: &Poll, counters: &mut StreamCounters) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.state.dirty = false;
        if connection.state.blocked {
            return;
        }
        let ConnectionState { ending, closing, interest, .. } = connection.state;
        match connection.write(closing, &mut self.pool) {
            Ok(true) if closing => self.remove(id, counters),
            Ok(all) => {
                connection.state.blocked = !all;
                connection.state.interest = Interest { read: ending.is_none(), write: !all };
                if connection.state.interest != interest {
                    // It cannot fail: the socket is in the set, and this needs no memory.
                    let _ = poll.set(&connection.socket, EventSource::Stream(id), connection.state.interest);
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
        counters.closed[StreamCounters::index(tuple.transport)][why] += 1;
        let (transport, reason) = (tuple.transport.as_str(), why.as_str());
        debug!(client = %tuple.client, server = %tuple.server, transport, reason, "connection closed");
    }

    fn dirty(&mut self, id: StreamId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.state.blocked {
            return;
        }
        self.filling |= connection.outgoing.queued().len() > self.limits.client_queue / 2;
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

/// The next deadline of a connection, and why it ends then.
fn deadline(state: &ConnectionState, half_open: bool, limits: &StreamLimits) -> Option<(u64, ConnectionEnd)> {
    let after = |from: u64, wait: Duration| from.saturating_add(wait.as_nanos() as u64);
    if let Some((why, since)) = state.ending {
        return Some((since.saturating_add(LINGER), why));
    }
    let first =
        half_open.then(|| (after(state.opened, limits.first_message_timeout), ConnectionEnd::NoMessage));
    let unfinished = state
        .unfinished
        .map(|since| (after(since, limits.unfinished_message_timeout), ConnectionEnd::Unfinished));
    let idle = (!state.allocated && !half_open)
        .then(|| (after(state.last_message, limits.idle_timeout), ConnectionEnd::Idle));
    [first, unfinished, idle].into_iter().flatten().min_by_key(|&(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn state() -> ConnectionState {
        ConnectionState {
            opened: 100 * SECOND,
            last_message: 100 * SECOND,
            read_size: READ_MAX,
            unfinished: None,
            allocated: false,
            had_allocation: false,
            blocked: false,
            dirty: false,
            interest: Interest { read: true, write: false },
            ending: None,
            closing: false,
        }
    }

    fn due(state: &ConnectionState, half_open: bool) -> Option<(u64, ConnectionEnd)> {
        let limits = StreamLimits {
            first_message_timeout: Duration::from_secs(10),
            unfinished_message_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            ..StreamLimits::default()
        };
        deadline(state, half_open, &limits).map(|(at, why)| (at / SECOND, why))
    }

    /// A client connects and is silent; its first message comes; it allocates; the allocation ends; it closes its side.
    #[test]
    fn the_deadlines_of_a_connection() {
        let mut state = state();
        assert_eq!(due(&state, true), Some((110, ConnectionEnd::NoMessage)));
        state.unfinished = Some(103 * SECOND);
        assert_eq!(
            due(&state, true),
            Some((108, ConnectionEnd::Unfinished)),
            "the first message is on its way"
        );
        (state.unfinished, state.last_message) = (None, 107 * SECOND);
        assert_eq!(due(&state, false), Some((407, ConnectionEnd::Idle)));
        state.allocated = true;
        assert_eq!(due(&state, false), None, "silence is fine while there is an allocation");
        state.unfinished = Some(200 * SECOND);
        assert_eq!(due(&state, false), Some((205, ConnectionEnd::Unfinished)));
        state.ending = Some((ConnectionEnd::Client, 210 * SECOND));
        assert_eq!(due(&state, false), Some((220, ConnectionEnd::Client)), "its responses may take a while");
    }
}
