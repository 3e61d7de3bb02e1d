//! The connections of a worker: opened, read, written to and closed; by 5-tuple and by deadline.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use slotmap::SlotMap;
use socket2::SockRef;
use tracing::{debug, info};

use super::admission::{ConnectionId, DisplacedConnections};
use super::closed::{ClosedConnection, log_closed};
use super::connection::{Connection, ConnectionState, READ_MIN, ReadOutcome};
use super::deadlines::Deadlines;
use super::incoming::Incoming;
use super::outgoing;
use super::pool::Pool;
use super::stats::{ConnectionEnd, StreamCounters};
use super::{SEND_BUFFER_WITHOUT_ALLOCATION, StreamLimits, UNSENT, UNSENT_WITHOUT_ALLOCATION};
use crate::datapath::clock;
use crate::datapath::line_budget::LineBudgets;
use crate::datapath::poll::{EventSource, Interest, Poll, Readiness, StreamId};
use crate::datapath::sys::option;
use crate::datapath::wake::Waker;
use crate::keyed::KeyedState;
use crate::turn::stats::TrafficCount;
use crate::turn::{AllocationName, FiveTuple, ToClient, Tos, Via};

/// How long a client that has closed its side may take to read its responses, in nanoseconds.
const LINGER: u64 = 10_000_000_000;

/// The most that is read of a connection at a time. Reads shrink while their bytes are expensive, as many small TLS records
/// are, and grow again while they are cheap.
const READ_MAX: usize = 32 << 10;

/// Ciphertext that is read of a TLS client at a time.
const CIPHERTEXT: usize = 1 << 16;

/// A connection as log lines show it.
#[derive(Clone, Copy)]
pub(in crate::datapath) struct LoggedConnection {
    pub(in crate::datapath) id: ConnectionId,
    /// Why it ends, if it does.
    pub(in crate::datapath) end: Option<ConnectionEnd>,
    /// The proxy that it comes from.
    pub(in crate::datapath) proxy: Option<SocketAddr>,
}

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
    /// Connections that have to make room for others.
    displaced: Arc<DisplacedConnections>,
    /// Data for clients that has not left, or never will, by transport.
    unsent: [TrafficCount; 2],
    pool: Pool,
    ciphertext: Box<[u8]>,
    log: LineBudgets,
}

impl Streams {
    /// An empty table. `hash` keys its hash; `waker` wakes its worker.
    pub(in crate::datapath) fn new(limits: StreamLimits, hash: KeyedState, waker: Waker) -> Streams {
        Streams {
            connections: SlotMap::with_key(),
            by_tuple: HashMap::with_hasher(hash),
            deadlines: Deadlines::default(),
            limits,
            dirty: Vec::new(),
            filling: false,
            ended: Vec::new(),
            displaced: DisplacedConnections::new(waker),
            unsent: Default::default(),
            pool: Pool::default(),
            ciphertext: vec![0; CIPHERTEXT].into(),
            log: LineBudgets::default(),
        }
    }

    /// Replaces the limits. Deadlines that are armed already fire when they were to.
    pub(in crate::datapath) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
    }

    /// Ends the connection that had this 5-tuple before: a new one has it now, so the old one is gone, though no segment
    /// has said so.
    pub(in crate::datapath) fn replace(&mut self, now: u64, tuple: &FiveTuple) {
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
        let has_to_make_room =
            connection.permit.as_ref().is_some_and(|permit| !permit.hand_over(&self.displaced, id));
        let (transport, number) = (tuple.transport.as_str(), connection.id().map(|id| id.0));
        debug!(client = %tuple.client, server = %tuple.server, transport, connection = number, "connection opened");
        self.arm(id);
        if has_to_make_room {
            self.end(now, id, ConnectionEnd::Displaced);
        }
        Some(id)
    }

    /// Ends connections that have to make room for others; returns whether there are any.
    pub(in crate::datapath) fn end_displaced(&mut self, now: u64, counters: &mut StreamCounters) -> bool {
        let displaced = self.displaced.take();
        for &id in &displaced {
            match self.connections.get(id).map(|connection| connection.state) {
                Some(state) if state.closing => self.remove(id, counters),
                // It may have got an allocation in the meantime.
                Some(state) if !state.allocated => self.end(now, id, ConnectionEnd::Displaced),
                _ => {}
            }
        }
        !displaced.is_empty()
    }

    /// Whose connection it is and the TOS of its packets; `None` if it ends or is not read for now.
    pub(in crate::datapath) fn client(&self, id: StreamId) -> Option<(FiveTuple, Tos)> {
        let connection = self.connections.get(id).filter(|connection| connection.state.is_read())?;
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
        let most = if connection.state.allocated { READ_MAX } else { READ_MIN };
        let size = &mut connection.state.read_size;
        *size = if expensive { *size / 2 } else { *size * 2 }.clamp(READ_MIN, most);
    }

    /// Notes that what was read has been split: whether it completed a message, and the start of an unfinished one.
    pub(in crate::datapath) fn split(&mut self, now: u64, id: StreamId, messages: bool, rest: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if messages {
            connection.state.last_message = now;
            connection.state.unfinished = None;
        }
        let first = messages && !connection.state.has_spoken;
        connection.state.has_spoken |= messages;
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
        let transport = StreamCounters::index(to.tuple.transport);
        let unsent = &mut self.unsent[transport];
        let id = self.by_tuple.get(&to.tuple).copied();
        let mut connection = id.and_then(|id| self.connections.get_mut(id));
        let mut add = |n, payload: &[u8]| {
            unsent.add(1, payload.len() as u64);
            let Some(connection) = &mut connection else { return };
            let limit = self.limits.client_queue;
            if !connection.outgoing.push_data(limit, &to.header, n, payload, &mut self.pool) {
                connection.dropped.add(1, payload.len() as u64);
                counters.data_dropped[transport] += 1;
            }
        };
        if batch.is_empty() {
            add(0, batch);
        }
        batch.chunks(segment_size.max(1)).enumerate().for_each(|(n, payload)| add(n, payload));
        if let Some(id) = id {
            self.dirty(id);
        }
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

    /// The connection of a client, for the log.
    pub(in crate::datapath) fn of_client(&self, tuple: &FiveTuple) -> Option<LoggedConnection> {
        let connection = self.connections.get(*self.by_tuple.get(tuple)?)?;
        let end = connection.state.ending.map(|(why, _)| why);
        Some(LoggedConnection { id: connection.id()?, end, proxy: proxy_of(tuple, &connection.socket) })
    }

    /// Writes the summaries of suppressed lines that are due.
    pub(in crate::datapath) fn summarize(&mut self, now: u64) {
        for (reason, count) in self.log.take_summaries(now) {
            info!(reason, count, "log lines suppressed: closed connections");
        }
    }

    /// Whether summaries wait to be written.
    pub(in crate::datapath) fn is_behind(&self) -> bool {
        self.log.is_behind()
    }

    /// Notes that this client has an allocation now.
    pub(in crate::datapath) fn allocation_opened(
        &mut self,
        now: u64,
        tuple: &FiveTuple,
        session: AllocationName,
    ) {
        let Some(&id) = self.by_tuple.get(tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.session = Some(session);
        (connection.state.allocated, connection.state.had_allocation) = (true, true);
        connection.state.last_message = now;
        connection.dropped = TrafficCount::default();
        if let Some(permit) = &connection.permit {
            permit.allocated();
        }
        // If these fail, data waits here instead of in the kernel.
        let _ = SockRef::from(&connection.socket).set_tcp_notsent_lowat(UNSENT);
        let _ = option::unlock_send_buffer(connection.socket.as_fd());
        self.arm(id);
    }

    /// Notes that the allocation of this client has ended. Returns what was relayed to the client and has not left.
    pub(in crate::datapath) fn allocation_closed(
        &mut self,
        now: u64,
        tuple: &FiveTuple,
        poll: &Poll,
        counters: &mut StreamCounters,
    ) -> TrafficCount {
        let Some(&id) = self.by_tuple.get(tuple) else { return TrafficCount::default() };
        self.write(now, id, poll, counters);
        let Some(connection) = self.connections.get_mut(id) else { return TrafficCount::default() };
        let unsent = connection.dropped + connection.outgoing.data();
        connection.state.allocated = false;
        connection.state.last_message = now;
        connection.state.read_size = READ_MIN;
        if connection.state.ending.is_none()
            && let Some(permit) = &mut connection.permit
        {
            permit.deallocated(&self.displaced, id);
        }
        let socket = SockRef::from(&connection.socket);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_WITHOUT_ALLOCATION);
        let _ = socket.set_send_buffer_size(SEND_BUFFER_WITHOUT_ALLOCATION);
        self.arm(id);
        unsent
    }

    /// Data for TCP and TLS clients that the core has counted and that has not left.
    pub(in crate::datapath) fn unsent(&self) -> &[TrafficCount; 2] {
        &self.unsent
    }

    /// Stops reading a connection if its responses cannot leave. Returns whether it is not read any more; then `rest`, which
    /// was read already, is kept for later.
    pub(in crate::datapath) fn pause(
        &mut self,
        now: u64,
        id: StreamId,
        rest: &[u8],
        poll: &Poll,
        counters: &mut StreamCounters,
    ) -> bool {
        let has_many = |streams: &Streams| {
            streams.connections.get(id).is_some_and(|connection| connection.outgoing.has_many_responses())
        };
        if !has_many(self) {
            return false;
        }
        self.write(now, id, poll, counters);
        if !has_many(self) {
            return false;
        }
        let connection = &mut self.connections[id];
        connection.keep(rest);
        connection.state.paused = Some(now);
        self.watch(id, poll);
        self.arm(id);
        true
    }

    /// Whether a connection has or had an allocation, so that there may be ChannelData.
    pub(in crate::datapath) fn had_allocation(&self, id: StreamId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.state.had_allocation)
    }

    /// Handles an event. Returns whether the connection is to be read.
    pub(in crate::datapath) fn event(
        &mut self,
        now: u64,
        id: StreamId,
        event: Readiness,
        poll: &Poll,
        counters: &mut StreamCounters,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.state.closing && event.dead {
            self.remove(id, counters);
            return false;
        }
        if event.writable {
            connection.state.blocked = false;
            if connection.state.paused.is_some() {
                return self.resume(now, id, poll, counters);
            }
            self.dirty(id);
        }
        event.readable
    }

    /// Reads a connection again if its responses can leave now.
    fn resume(&mut self, now: u64, id: StreamId, poll: &Poll, counters: &mut StreamCounters) -> bool {
        self.write(now, id, poll, counters);
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.outgoing.has_many_responses() || connection.state.ending.is_some() {
            return false;
        }
        // Its deadlines start anew: until now it was not read.
        connection.state.paused = None;
        connection.state.last_message = now;
        connection.state.unfinished = connection.state.unfinished.map(|_| now);
        self.watch(id, poll);
        self.arm(id);
        true
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

    /// The same for the connection of a client, if it has one.
    pub(in crate::datapath) fn end_client(&mut self, now: u64, tuple: &FiveTuple, why: ConnectionEnd) {
        if let Some(&id) = self.by_tuple.get(tuple) {
            self.end(now, id, why);
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
            let _ = self.write_out(id, true);
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
            match deadline(&connection.state, &self.limits) {
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
        let closing = connection.state.closing;
        match self.write_out(id, closing) {
            Ok(true) if closing => self.remove(id, counters),
            Ok(all) => {
                self.connections[id].state.blocked = !all;
                self.watch(id, poll);
            }
            Err(_) if closing => self.remove(id, counters),
            Err(_) => self.end(now, id, ConnectionEnd::Reset),
        }
    }

    /// Writes what the socket takes, and counts the data among it as relayed.
    fn write_out(&mut self, id: StreamId, last: bool) -> io::Result<bool> {
        let connection = &mut self.connections[id];
        let before = connection.outgoing.data();
        let written = connection.write(last, &mut self.pool);
        let after = connection.outgoing.data();
        let unsent = &mut self.unsent[StreamCounters::index(connection.tuple.transport)];
        unsent.subtract(before.packets - after.packets, before.bytes - after.bytes);
        written
    }

    /// Polls a connection for what its state asks for.
    fn watch(&mut self, id: StreamId, poll: &Poll) {
        let connection = &mut self.connections[id];
        let state = &mut connection.state;
        let interest = Interest { read: state.is_read(), write: state.blocked };
        if interest != state.interest {
            state.interest = interest;
            // It cannot fail: the socket is in the set, and this needs no memory.
            let _ = poll.set(&connection.socket, EventSource::Stream(id), interest);
        }
    }

    fn remove(&mut self, id: StreamId, counters: &mut StreamCounters) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.deadlines.disarm(&mut connection.entry, id);
        let tuple = connection.tuple;
        let why = connection.state.ending.map_or(ConnectionEnd::System, |(why, _)| why);
        counters.closed[StreamCounters::index(tuple.transport)][why] += 1;
        let proxy = proxy_of(&tuple, &connection.socket);
        let (session, connection, limits) = (connection.session, connection.id(), &self.limits);
        let closed = ClosedConnection { tuple: &tuple, proxy, connection, session, why, limits };
        log_closed(&mut self.log, clock::mono(), closed);
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
        if let Some((at, _)) = deadline(&connection.state, &self.limits) {
            self.deadlines.arm(&mut connection.entry, at, id);
        }
    }
}

impl ConnectionState {
    /// Whether what the client sends is read.
    fn is_read(&self) -> bool {
        self.ending.is_none() && self.paused.is_none()
    }
}

/// The proxy that a client comes by, as long as the connection stands.
fn proxy_of(tuple: &FiveTuple, socket: &TcpStream) -> Option<SocketAddr> {
    match tuple.via {
        Via::Direct => None,
        Via::Proxy(_) => socket.peer_addr().ok(),
    }
}

/// The next deadline of a connection, and why it ends then.
fn deadline(state: &ConnectionState, limits: &StreamLimits) -> Option<(u64, ConnectionEnd)> {
    let after = |from: u64, wait: Duration| from.saturating_add(wait.as_nanos() as u64);
    if let Some((why, since)) = state.ending {
        return Some((since.saturating_add(LINGER), why));
    }
    if let Some(since) = state.paused {
        // With an allocation, the kernel's timeout for clients that do not read is enough, and the end of the allocation.
        let from = since.max(state.last_message);
        return (!state.allocated).then(|| (after(from, limits.idle_timeout), ConnectionEnd::NotRead));
    }
    let first = (!state.has_spoken)
        .then(|| (after(state.opened, limits.first_message_timeout), ConnectionEnd::NoMessage));
    let unfinished = state
        .unfinished
        .map(|since| (after(since, limits.unfinished_message_timeout), ConnectionEnd::Unfinished));
    let idle = (!state.allocated && state.has_spoken)
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
            has_spoken: false,
            last_message: 100 * SECOND,
            read_size: READ_MAX,
            unfinished: None,
            allocated: false,
            had_allocation: false,
            blocked: false,
            paused: None,
            dirty: false,
            interest: Interest { read: true, write: false },
            ending: None,
            closing: false,
        }
    }

    fn due(state: &ConnectionState) -> Option<(u64, ConnectionEnd)> {
        let limits = StreamLimits {
            first_message_timeout: Duration::from_secs(10),
            unfinished_message_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            ..StreamLimits::default()
        };
        deadline(state, &limits).map(|(at, why)| (at / SECOND, why))
    }

    /// A client connects and is silent; its first message comes; it allocates; the allocation ends; it closes its side.
    #[test]
    fn the_deadlines_of_a_connection() {
        let mut state = state();
        assert_eq!(due(&state), Some((110, ConnectionEnd::NoMessage)));
        state.unfinished = Some(103 * SECOND);
        assert_eq!(due(&state), Some((108, ConnectionEnd::Unfinished)), "the first message is on its way");
        (state.unfinished, state.last_message, state.has_spoken) = (None, 107 * SECOND, true);
        assert_eq!(due(&state), Some((407, ConnectionEnd::Idle)));
        state.allocated = true;
        assert_eq!(due(&state), None, "silence is fine while there is an allocation");
        state.unfinished = Some(200 * SECOND);
        assert_eq!(due(&state), Some((205, ConnectionEnd::Unfinished)));
        state.ending = Some((ConnectionEnd::Client, 210 * SECOND));
        assert_eq!(due(&state), Some((220, ConnectionEnd::Client)), "its responses may take a while");
    }

    /// A client does not read its responses, so it is not read either, and nothing it has sent can be late.
    #[test]
    fn the_deadline_of_a_client_that_does_not_read() {
        let mut state = ConnectionState { has_spoken: true, unfinished: Some(101 * SECOND), ..state() };
        state.paused = Some(102 * SECOND);
        assert_eq!(due(&state), Some((402, ConnectionEnd::NotRead)));
        state.allocated = true;
        assert_eq!(due(&state), None, "the allocation ends by itself, since its refreshes are not read");
        (state.allocated, state.last_message) = (false, 700 * SECOND);
        assert_eq!(due(&state), Some((1000, ConnectionEnd::NotRead)));
    }
}
