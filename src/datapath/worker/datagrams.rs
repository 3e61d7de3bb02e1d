//! Datagrams through a worker: received in batches, judged by the core, gathered, sent. What comes over a connection takes
//! the same way (see `streams`).
//!
//! Relaying a packet allocates nothing, takes no lock, logs nothing and does not read the clock.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;

use slotmap::SlotMap;

use super::budget::Budget;
use super::listener::Listener;
use super::state::{BATCHES_PER_CALL, Worker};
use crate::datapath::clock;
use crate::datapath::listen::steering::QueueKind;
use crate::datapath::packet::arena::SEGMENTS;
use crate::datapath::packet::outbox::{Egress, Route, SendFailure};
use crate::datapath::packet::split;
use crate::datapath::poll::{ListenerKey, RelaySocketKey};
use crate::datapath::sys::cmsg;
use crate::datapath::sys::receive::Datagram;
use crate::turn::stats::TrafficCount;
use crate::turn::{ClientAddr, FiveTuple, Icmp, PeerAddr, Tos, Transport, Via};

/// Batches that a listener socket may deliver in one pass.
const LISTENER_BATCHES: usize = 4 * BATCHES_PER_CALL;

/// Entries of an error queue that one pass may take.
const ERRORS: usize = 16;

/// A batch in the arena.
struct ReceivedBatch {
    datagram: Datagram,
    start: usize,
    end: usize,
}

impl Worker {
    /// Takes what clients sent to a listener socket, relays data and answers requests.
    pub(super) fn serve_listener(&mut self, key: ListenerKey, mut budget: Budget) {
        let mut batches = 0;
        while batches < LISTENER_BATCHES && !budget.is_exhausted() {
            let Some(listener) = self.listeners.get(key) else { return };
            let buffers = self.arena.buffers().take(BATCHES_PER_CALL);
            // An error is that of an earlier send, and cleared by this.
            let Ok(count) = self.receiver.receive(listener.socket.as_fd(), buffers) else { return };
            let addr = listener.addr;
            for n in 0..count {
                self.client_batch(addr, n, &mut budget);
            }
            self.send();
            if count < BATCHES_PER_CALL {
                return;
            }
            batches += count;
        }
        self.pass.unfinished = true;
    }

    /// Takes what peers sent to a relay socket; it waits for [`Worker::send`].
    ///
    /// To ask for more batches than there are costs a tenth of a thin flow's packet. So one batch is asked for, unless the
    /// socket had something in the pass before this one too.
    pub(super) fn serve_relay(&mut self, key: RelaySocketKey, budget: &mut Budget) {
        let busy = self.relays.served(key, self.pass.number);
        let most = if busy { BATCHES_PER_CALL } else { 1 };
        if self.arena.free() < most {
            self.send();
        }
        let Some(socket) = self.relays.socket(key) else { return };
        // An error is an ICMP error of an earlier packet, cleared by this. The event comes again if there are packets
        // behind it.
        let Ok(count) = self.receiver.receive(socket, self.arena.buffers().take(most)) else { return };
        for n in 0..count {
            self.peer_batch(key, n, budget);
            self.relieve_streams();
        }
        self.pass.unfinished |= busy && count == most;
    }

    /// Takes the ICMP errors of packets that a relay socket sent (RFC 8656 section 11.5).
    pub(super) fn serve_errors(&mut self, key: RelaySocketKey, budget: &mut Budget) {
        for _ in 0..ERRORS {
            let Some(socket) = self.relays.socket(key) else { return };
            let Ok(error) = self.receiver.receive_error(socket) else { return };
            budget.spend(1, 0);
            let Some((to, error)) = error else { continue };
            let (to, icmp) = match (error.origin, error.errno as i32) {
                // A packet with DONT-FRAGMENT that the kernel knows to be too long, as if a router had said so. The kernel does not
                // report the port it was sent to.
                (cmsg::ORIGIN_LOCAL, libc::EMSGSIZE) => match self.outbox.take_too_long(key, to.ip()) {
                    Some(to) if to.is_ipv6() => (to, Icmp { kind: 2, code: 0, mtu: error.info }),
                    Some(to) => (to, Icmp { kind: 3, code: 4, mtu: error.info }),
                    None => continue,
                },
                (cmsg::ORIGIN_LOCAL, _) => continue,
                _ => (to, Icmp { kind: error.kind, code: error.code, mtu: error.info }),
            };
            if let Some(relay) = self.relays.owner(key) {
                self.core.peer_error(self.now, relay, PeerAddr(to), icmp);
            }
        }
    }

    /// Sends what waits.
    pub(super) fn send(&mut self) {
        self.flush();
        self.arena.clear();
    }

    /// Sends a message of the core to a client.
    pub(super) fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        if to.transport.is_stream() {
            return self.streams.reply(self.now.mono, to, message, &mut self.counters.streams);
        }
        let Some(route) = route(&self.listeners, to, Tos::default(), QueueKind::Control) else { return };
        let Egress::Listener(listener) = route.via else { return };
        let socket = self.listeners[listener].socket.as_fd();
        self.outbox.send_alone(socket, route, message, &mut self.counters);
    }

    fn client_batch(&mut self, addr: SocketAddr, n: usize, budget: &mut Budget) {
        let Some(ReceivedBatch { datagram, start, end }) = self.received(n) else { return };
        let server = datagram.destination.map_or(addr, |to| SocketAddr::new(to.ip(), addr.port()));
        let client = ClientAddr(datagram.from);
        let tuple = FiveTuple { client, server, transport: Transport::Udp, via: Via::Direct };
        let mut at = start;
        loop {
            let memory = self.arena.memory();
            let (segment_size, len) = split::run(&memory[at..end], datagram.segment_size);
            self.client_messages(&tuple, datagram.tos, segment_size, at..at + len, budget);
            at += len;
            if at >= end {
                return;
            }
        }
    }

    /// Messages of `segment_size` bytes each, which begin alike, from a client over any transport. What the core makes of
    /// them is carried out before the client's next message is looked at: RFC 8489 §6.2.2 lets a client send requests
    /// without waiting for the responses to earlier ones.
    pub(super) fn client_messages(
        &mut self,
        tuple: &FiveTuple,
        tos: Tos,
        segment_size: usize,
        messages: Range<usize>,
        budget: &mut Budget,
    ) {
        let len = messages.len();
        let bytes = &self.arena.memory()[messages.clone()];
        if let Some(forward) = self.core.from_client(self.now, tuple, tos, segment_size, bytes) {
            if !self.outbox.has_room() {
                self.flush();
            }
            let route = Route {
                via: Egress::Relay(forward.socket.into()),
                to: forward.peer.0,
                source: None,
                tos: forward.tos,
                dont_fragment: forward.dont_fragment,
            };
            let memory = self.arena.memory();
            self.outbox.for_peer(memory, route, messages, segment_size, forward.offset, forward.len);
        }
        if self.drain() {
            // A request costs what it costs, whatever its length.
            self.now = clock::now();
            budget.check(self.now.mono);
        } else {
            budget.spend(len.div_ceil(segment_size.max(1)), len);
        }
    }

    fn peer_batch(&mut self, key: RelaySocketKey, n: usize, budget: &mut Budget) {
        let Some(ReceivedBatch { datagram, start, end }) = self.received(n) else { return };
        let Some(relay) = self.relays.owner(key) else { return };
        let Datagram { segment_size, tos, from, .. } = datagram;
        let bytes = &self.arena.memory()[start..end];
        budget.spend(bytes.len().div_ceil(segment_size), bytes.len());
        let Some(forward) = self.core.from_peer(self.now, relay, PeerAddr(from), tos, segment_size, bytes)
        else {
            return;
        };
        if forward.tuple.transport.is_stream() {
            return self.streams.data(&forward, bytes, segment_size, &mut self.counters.streams);
        }
        let Some(route) = route(&self.listeners, &forward.tuple, forward.tos, QueueKind::Data) else {
            let data = TrafficCount {
                packets: bytes.len().div_ceil(segment_size).max(1) as u64,
                bytes: bytes.len() as u64,
            };
            return self.core.unsent_to_client(&forward.tuple, data);
        };
        if !self.outbox.has_room() {
            self.flush();
        }
        self.outbox.for_client(self.arena.memory(), route, start..end, segment_size, &forward.header);
    }

    /// The `n`th batch of the last call, and its place in the arena.
    fn received(&mut self, n: usize) -> Option<ReceivedBatch> {
        let datagram = self.receiver.datagram(n);
        let range = self.arena.take(datagram.map_or(0, |datagram| datagram.len));
        let datagram = datagram?;
        if datagram.truncated {
            self.counters.truncated += 1;
            return None;
        }
        self.pass.unjoined += usize::from(datagram.len <= datagram.segment_size);
        // No kernel joins more segments; if one did, there would be no room for the headers of the rest.
        let most = range.start + SEGMENTS * datagram.segment_size;
        if range.end > most {
            self.counters.truncated += 1;
        }
        Some(ReceivedBatch { datagram, start: range.start, end: range.end.min(most) })
    }

    /// Sends the datagrams that wait. What cannot be sent does not count as relayed.
    pub(super) fn flush(&mut self) {
        let (listeners, relays) = (&self.listeners, &self.relays);
        let socket = |via| match via {
            Egress::Listener(key) => listeners.get(key).map(|listener| listener.socket.as_fd()),
            Egress::Relay(key) => relays.socket(key),
        };
        self.outbox.flush(self.arena.memory(), socket, &mut self.counters);
        while let Some(SendFailure { route, data }) = self.outbox.take_failure() {
            match route.via {
                Egress::Relay(key) => {
                    if let Some(relay) = self.relays.owner(key) {
                        self.core.unsent_to_peer(relay, data);
                    }
                }
                Egress::Listener(key) => {
                    let Some(listener) = self.listeners.get(key) else { continue };
                    let server = route.source.unwrap_or(listener.addr);
                    let client = ClientAddr(route.to);
                    let tuple = FiveTuple { client, server, transport: Transport::Udp, via: Via::Direct };
                    self.core.unsent_to_client(&tuple, data);
                }
            }
        }
    }
}

/// The route to a client.
fn route(
    listeners: &SlotMap<ListenerKey, Listener>,
    to: &FiveTuple,
    tos: Tos,
    kind: QueueKind,
) -> Option<Route> {
    let (key, listener) = listeners.iter().find(|(_, listener)| listener.serves(to, kind))?;
    let source = listener.is_wildcard().then_some(to.server);
    Some(Route { via: Egress::Listener(key), to: to.client.0, source, tos, dont_fragment: false })
}
