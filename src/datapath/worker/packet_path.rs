//! The way of packets through a worker: received in batches, judged by the core, gathered, sent.
//!
//! What came over a stream takes the same way, from [`streams`] on.
//!
//! No allocation, lock, log line or clock reading happens here; `now` is what the worker read last.

mod streams;

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::datapath::listen::group::{self, ListenerGroup};
use crate::datapath::listen::steering::Kind;
use crate::datapath::packet::arena::{Arena, JOINED};
use crate::datapath::packet::outbox::{Outbox, Route, Via};
use crate::datapath::packet::split;
use crate::datapath::relay::table::{RelaySocketKey, Relays};
use crate::datapath::stats::SocketCounters;
use crate::datapath::stream::Streams;
use crate::datapath::sys::cmsg;
use crate::datapath::sys::epoll::Epoll;
use crate::datapath::sys::receive::{Datagram, Receiver};
use crate::turn::{ClientAddr, FiveTuple, Icmp, Now, PeerAddr, RelayId, Server, Tos, Transport};

/// Batches in one system call.
const CALL: usize = 16;

/// Batches a listener socket may deliver in one pass.
const LISTENER_BUDGET: usize = 4 * CALL;

/// Entries of an error queue that one pass may take.
const ERROR_BUDGET: usize = 16;

/// A worker's socket in a listener group.
pub(in crate::datapath) struct Listener<'g> {
    socket: BorrowedFd<'g>,
    addr: SocketAddr,
    kind: Kind,
    /// Clients may have sent to any address of the machine, so packets tell which.
    wildcard: bool,
}

/// What packets touch on their way.
pub(in crate::datapath) struct PacketPath<'g> {
    pub(in crate::datapath) listeners: Vec<Listener<'g>>,
    pub(in crate::datapath) relays: Relays,
    pub(in crate::datapath) streams: Streams,
    pub(in crate::datapath) core: Server,
    pub(in crate::datapath) counters: SocketCounters,
    arena: Arena,
    receiver: Receiver,
    outbox: Outbox,
    /// Counts passes.
    pass: u64,
    /// Batches that this pass received of one datagram each, or from streams.
    alone: usize,
    /// Runs of messages that it took from streams.
    runs: usize,
    /// This pass may have left something.
    unfinished: bool,
}

impl<'g> Listener<'g> {
    /// A worker's sockets in all groups. Those of a group stand side by side, in the order of [`Kind`].
    pub(in crate::datapath) fn all(groups: &'g [ListenerGroup], worker: usize) -> Vec<Listener<'g>> {
        let sockets = groups.iter().flat_map(|group| [(group, Kind::Control), (group, Kind::Data)]);
        let listener = |(group, kind): (&'g ListenerGroup, Kind)| {
            Some(Listener {
                socket: group.socket(worker, kind)?,
                addr: group.local_addr(),
                kind,
                wildcard: group::is_wildcard(group.local_addr().ip()),
            })
        };
        sockets.filter_map(listener).collect()
    }

    pub(in crate::datapath) fn socket(&self) -> BorrowedFd<'g> {
        self.socket
    }

    pub(in crate::datapath) fn kind(&self) -> Kind {
        self.kind
    }
}

impl<'g> PacketPath<'g> {
    /// `gso`: datagrams may be sent joined.
    pub(in crate::datapath) fn new(
        listeners: Vec<Listener<'g>>,
        relays: Relays,
        streams: Streams,
        core: Server,
        gso: bool,
    ) -> PacketPath<'g> {
        PacketPath {
            listeners,
            relays,
            streams,
            core,
            counters: SocketCounters::default(),
            arena: Arena::new(),
            receiver: Receiver::new(CALL),
            outbox: Outbox::new(gso),
            pass: 0,
            alone: 0,
            runs: 0,
            unfinished: false,
        }
    }

    /// A new pass over what is to be served.
    pub(in crate::datapath) fn begin_pass(&mut self) {
        self.pass += 1;
        (self.alone, self.runs) = (0, 0);
        self.unfinished = false;
    }

    /// Whether packets come close together that the kernel does not join, and this pass has left none for want of time.
    pub(in crate::datapath) fn may_gather(&self) -> bool {
        self.alone > 1 && !self.unfinished
    }

    /// Takes what clients sent to a listener and sends on what is to be relayed. `after` is called after each batch, to
    /// do what the core asks for.
    pub(in crate::datapath) fn serve_listener(
        &mut self,
        now: Now,
        listener: usize,
        mut after: impl FnMut(&mut Self),
    ) {
        let mut budget = LISTENER_BUDGET;
        while budget > 0 {
            let Ok(count) =
                self.receiver.receive(self.listeners[listener].socket, self.arena.buffers().take(CALL))
            else {
                // Nothing there; or an error of an earlier send, which is gone now.
                return;
            };
            for n in 0..count {
                self.client_batch(now, listener, n);
            }
            self.send();
            after(self);
            if count < CALL {
                return;
            }
            budget -= count;
        }
        self.unfinished = true;
    }

    /// Takes what peers sent to a relay socket; it waits for [`PacketPath::send`].
    ///
    /// Asking for more than there is costs a tenth of a thin flow's packet. So one batch is asked for, unless the socket had
    /// something in the pass before this one too.
    pub(in crate::datapath) fn serve_relay(&mut self, now: Now, relay: RelaySocketKey, epoll: &Epoll) {
        let Some(owner) = self.relays.owner(relay) else { return };
        let busy = self.relays.served(relay, self.pass);
        let most = if busy { CALL } else { 1 };
        if self.arena.free() < most {
            self.send();
        }
        let Some(socket) = self.relays.socket(relay) else { return };
        // An error is what ICMP says of an earlier packet, told once: the event comes again if there are packets behind it.
        let Ok(count) = self.receiver.receive(socket, self.arena.buffers().take(most)) else { return };
        for n in 0..count {
            self.peer_batch(now, owner, n);
            self.relieve_streams(now, epoll);
        }
        self.unfinished |= busy && count == most;
    }

    /// Takes what ICMP said of packets that a relay socket sent (RFC 8656 section 11.5).
    pub(in crate::datapath) fn serve_errors(&mut self, now: Now, relay: RelaySocketKey) {
        let Some(owner) = self.relays.owner(relay) else { return };
        for _ in 0..ERROR_BUDGET {
            let Some(socket) = self.relays.socket(relay) else { return };
            let Ok(error) = self.receiver.error(socket) else { return };
            let Some((to, error)) = error else { continue };
            let (to, icmp) = match (error.origin, error.errno as i32) {
                // A packet with DF that this machine already knows to be too big: as if a router had said so. The kernel
                // does not say which port it was for.
                (cmsg::LOCAL, libc::EMSGSIZE) => match self.outbox.take_too_long(relay, to.ip()) {
                    Some(to) => (to, Icmp { kind: 3, code: 4, mtu: error.info }),
                    None => continue,
                },
                (cmsg::LOCAL, _) => continue,
                _ => (to, Icmp { kind: error.kind, code: error.code, mtu: error.info }),
            };
            self.core.peer_error(now, owner, PeerAddr(to), icmp);
        }
    }

    /// Sends what waits.
    pub(in crate::datapath) fn send(&mut self) {
        self.flush();
        self.arena.clear();
    }

    /// Sends an answer of the core to a client.
    pub(in crate::datapath) fn reply(&mut self, now: Now, to: &FiveTuple, message: &[u8]) {
        if to.transport.is_stream() {
            return self.streams.reply(now.mono, to, message, &mut self.counters.streams);
        }
        let Some(route) = route(&self.listeners, to, Tos::default(), Kind::Control) else { return };
        let Via::Listener(listener) = route.via else { return };
        self.outbox.send_alone(self.listeners[listener].socket, route, message, &mut self.counters);
    }

    fn client_batch(&mut self, now: Now, listener: usize, n: usize) {
        let Some(datagram) = self.receive(n) else { return };
        let Received { datagram, start, end } = datagram;
        let Listener { addr, .. } = self.listeners[listener];
        let server = datagram.destination.map_or(addr, |mut to| {
            to.set_port(addr.port());
            to
        });
        let tuple = FiveTuple { client: ClientAddr(datagram.from), server, transport: Transport::Udp };
        let mut at = start;
        loop {
            let memory = self.arena.memory();
            let (segment_size, len) = split::run(&memory[at..end], datagram.segment_size);
            let run = at..at + len;
            self.client_run(now, &tuple, datagram.tos, segment_size, run);
            at += len;
            if at >= end {
                return;
            }
        }
    }

    /// A run of messages of `segment_size` bytes each, from a client over any transport.
    fn client_run(&mut self, now: Now, tuple: &FiveTuple, tos: Tos, segment_size: usize, run: Range<usize>) {
        let bytes = &self.arena.memory()[run.clone()];
        let Some(forward) = self.core.from_client(now, tuple, tos, segment_size, bytes) else { return };
        if !self.outbox.has_room() {
            self.flush();
        }
        let route = Route {
            via: Via::Relay(forward.socket.into()),
            to: forward.peer.0,
            source: None,
            tos: forward.tos,
            dont_fragment: forward.dont_fragment,
        };
        self.outbox.for_peer(self.arena.memory(), route, run, segment_size, forward.offset, forward.len);
    }

    fn peer_batch(&mut self, now: Now, relay: RelayId, n: usize) {
        let Some(Received { datagram, start, end }) = self.receive(n) else { return };
        let bytes = &self.arena.memory()[start..end];
        let peer = PeerAddr(datagram.from);
        let Some(forward) = self.core.from_peer(now, relay, peer, datagram.tos, datagram.segment_size, bytes)
        else {
            return;
        };
        if forward.tuple.transport.is_stream() {
            return self.streams.data(&forward, bytes, datagram.segment_size, &mut self.counters.streams);
        }
        let Some(route) = route(&self.listeners, &forward.tuple, forward.tos, Kind::Data) else { return };
        if !self.outbox.has_room() {
            self.flush();
        }
        self.outbox.for_client(
            self.arena.memory(),
            route,
            start..end,
            datagram.segment_size,
            &forward.header,
        );
    }

    /// The `n`th batch of the last call, and where it lies.
    fn receive(&mut self, n: usize) -> Option<Received> {
        let datagram = self.receiver.datagram(n);
        let range = self.arena.take(datagram.map_or(0, |datagram| datagram.len));
        let datagram = datagram?;
        if datagram.truncated {
            self.counters.truncated += 1;
            return None;
        }
        self.alone += usize::from(datagram.len <= datagram.segment_size);
        // No kernel joins more; if one did, the rest would not find room for its headers.
        let most = range.start + JOINED * datagram.segment_size;
        if range.end > most {
            self.counters.truncated += 1;
        }
        Some(Received { datagram, start: range.start, end: range.end.min(most) })
    }

    fn flush(&mut self) {
        let (listeners, relays) = (&self.listeners, &self.relays);
        let socket = |via| match via {
            Via::Listener(listener) => Some(listeners[listener].socket),
            Via::Relay(relay) => relays.socket(relay),
        };
        self.outbox.flush(self.arena.memory(), socket, &mut self.counters);
    }
}

/// A batch in the arena.
struct Received {
    datagram: Datagram,
    start: usize,
    end: usize,
}

/// The way to a client: it leaves from the address that the client asked (RFC 8656 section 7.2), so from that listener.
fn route(listeners: &[Listener<'_>], to: &FiveTuple, tos: Tos, kind: Kind) -> Option<Route> {
    let is_of = |listener: &Listener<'_>| {
        listener.kind == kind
            && listener.addr.port() == to.server.port()
            && listener.addr.is_ipv4() == to.server.is_ipv4()
            && (listener.wildcard || listener.addr == to.server)
    };
    let listener = listeners.iter().position(is_of)?;
    let source = listeners[listener].wildcard.then_some(to.server);
    Some(Route { via: Via::Listener(listener), to: to.client.0, source, tos, dont_fragment: false })
}
