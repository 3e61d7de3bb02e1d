//! Collects outgoing datagrams into GSO batches, and sends them with few system calls.
//!
//! A GSO batch ends where the route or the segment size changes, after a shorter segment, and before it exceeds the limits
//! of the kernel. The bytes stay in the arena: towards a peer, payloads are moved together to close the gaps that the
//! client's headers leave; towards a client, headers are written into the headroom. Nothing is allocated, and nothing
//! else is copied.
//!
//! A failed send drops its own datagrams and no others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::arena::{self, SEGMENTS};
use super::segmentation::Segmentation;
use crate::datapath::poll::{ListenerKey, RelaySocketKey};
use crate::datapath::stats::{SocketCounters, Unsent};
use crate::datapath::sys::option;
use crate::datapath::sys::send::{OutgoingMessage, Sender};
use crate::turn::stats::TrafficCount;
use crate::turn::{Header, Tos};
use crate::wire;

/// The maximum number of segments in a GSO batch (UDP_MAX_SEGMENTS in all kernel versions).
const BATCH_SEGMENTS: usize = 64;

/// The maximum length of a GSO batch, including the headers that are added here.
const BATCH_BYTES: usize = 65_507;

/// GSO batches per system call.
const BATCHES_PER_CALL: usize = 64;

/// GSO batches that can be queued: those of several system calls, and a GRO batch that becomes single datagrams.
const MAX_QUEUED: usize = 3 * SEGMENTS;

/// The number of packets too long for DF that are remembered until their entry in the error queue is read.
const MAX_TOO_LONG: usize = 64;

/// The socket of this worker that sends a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum Egress {
    /// A listener socket.
    Listener(ListenerKey),
    /// A relay socket.
    Relay(RelaySocketKey),
}

/// Addresses and header fields of an outgoing datagram. Datagrams with the same route can share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Route {
    pub(in crate::datapath) via: Egress,
    pub(in crate::datapath) to: SocketAddr,
    /// The address to send from, unless it is the socket's own.
    pub(in crate::datapath) source: Option<SocketAddr>,
    pub(in crate::datapath) tos: Tos,
    pub(in crate::datapath) dont_fragment: bool,
}

/// Segments of `segment_size` bytes without gaps; the last one may be shorter.
#[derive(Clone, Debug)]
struct GsoBatch {
    route: Route,
    segment_size: usize,
    count: usize,
    bytes: Range<usize>,
    /// The end of its slot in the arena, up to which it may grow.
    limit: usize,
}

/// Datagrams that are queued to be sent.
pub(in crate::datapath) struct Outbox {
    batches: Vec<GsoBatch>,
    segmentation: Segmentation,
    sender: Sender,
    messages: Vec<OutgoingMessage>,
    /// Destinations of packets with DF that exceeded a path MTU known to the kernel.
    too_long: Vec<(Egress, SocketAddr)>,
    /// What the last flush could not send.
    failures: Vec<SendFailure>,
}

/// Datagrams that could not be sent, and their data without headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct SendFailure {
    pub(in crate::datapath) route: Route,
    pub(in crate::datapath) data: TrafficCount,
}

impl Outbox {
    /// An empty outbox. Without `gso`, every batch has one segment.
    pub(in crate::datapath) fn new(gso: bool) -> Outbox {
        Outbox {
            batches: Vec::with_capacity(MAX_QUEUED),
            segmentation: Segmentation::new(gso),
            sender: Sender::new(BATCHES_PER_CALL),
            messages: Vec::with_capacity(BATCHES_PER_CALL),
            too_long: Vec::with_capacity(MAX_TOO_LONG),
            failures: Vec::with_capacity(MAX_QUEUED),
        }
    }

    /// Whether another GRO batch can be added, even if it becomes single datagrams.
    pub(in crate::datapath) fn has_room(&self) -> bool {
        self.batches.len() + SEGMENTS <= MAX_QUEUED
    }

    /// Adds the payloads of messages from a client, each of which has `segment_size` bytes: the `len` bytes from `offset` on.
    pub(in crate::datapath) fn for_peer(
        &mut self,
        memory: &mut [u8],
        route: Route,
        messages: Range<usize>,
        segment_size: usize,
        offset: usize,
        len: usize,
    ) {
        let mut builder = self.builder(route);
        for start in messages.step_by(segment_size.max(1)) {
            builder.add(memory, start + offset..start + offset + len);
        }
    }

    /// Adds a GRO batch from a peer, and prepends the header to each of its segments of `segment_size` bytes.
    pub(in crate::datapath) fn for_client(
        &mut self,
        memory: &mut [u8],
        route: Route,
        batch: Range<usize>,
        segment_size: usize,
        header: &Header,
    ) {
        let segment_size = segment_size.max(1);
        let count = batch.len().div_ceil(segment_size).max(1);
        let mut builder = self.builder(route);
        // Headers, and all padding except the last, move the segments before them towards the start of the slot.
        let mut to = batch.start - count * header.len() - (count - 1) * header.padding(segment_size);
        for n in 0..count {
            let from = batch.start + n * segment_size;
            let payload = from..batch.end.min(from + segment_size);
            let (start, len) = (to + header.len(), payload.len());
            memory.copy_within(payload, start);
            header.write(n, len, &mut memory[to..start]);
            let end = start + len + header.padding(len);
            memory[start + len..end].fill(0);
            builder.add(memory, to..end);
            to = end;
        }
    }

    /// Sends all queued datagrams. `socket` finds a socket if it is still open.
    pub(in crate::datapath) fn flush<'s>(
        &mut self,
        memory: &[u8],
        socket: impl Fn(Egress) -> Option<BorrowedFd<'s>>,
        counters: &mut SocketCounters,
    ) {
        let Outbox { batches, segmentation, sender, messages, too_long, failures } = self;
        failures.clear();
        let mut sending = Sending { memory, segmentation, sender, messages, too_long, failures, counters };
        let share_a_call = |a: &GsoBatch, b: &GsoBatch| {
            a.route.via == b.route.via && !a.route.dont_fragment && !b.route.dont_fragment
        };
        for same in batches.chunk_by(share_a_call) {
            let Some(socket) = socket(same[0].route.via) else {
                same.iter().for_each(|batch| sending.fail(batch, Unsent::Closed));
                continue;
            };
            // RFC 8656 §14: DF is cleared again before the next packet
            let route = &same[0].route;
            let ipv6 = route.to.is_ipv6();
            let df = route.dont_fragment && option::dont_fragment(socket, ipv6).is_ok();
            same.chunks(BATCHES_PER_CALL).for_each(|call| sending.send(socket, call));
            if df {
                let _ = option::may_fragment(socket, ipv6);
            }
        }
        batches.clear();
    }

    /// Takes something that the last flush could not send.
    pub(in crate::datapath) fn take_failure(&mut self) -> Option<SendFailure> {
        self.failures.pop()
    }

    /// Takes the destination of a packet that was too long for DF. The error queue reports its address without the port.
    pub(in crate::datapath) fn take_too_long(
        &mut self,
        relay: RelaySocketKey,
        to: IpAddr,
    ) -> Option<SocketAddr> {
        let at =
            self.too_long.iter().position(|(via, addr)| *via == Egress::Relay(relay) && addr.ip() == to)?;
        Some(self.too_long.remove(at).1)
    }

    /// Sends one message immediately.
    pub(in crate::datapath) fn send_alone(
        &mut self,
        socket: BorrowedFd<'_>,
        route: Route,
        bytes: &[u8],
        counters: &mut SocketCounters,
    ) {
        if let Err(error) = self.sender.send(socket, bytes, &[message(&route, None, 0..bytes.len())]) {
            counters.unsent(Unsent::from_error(&error), 1);
        }
    }

    fn builder(&mut self, route: Route) -> BatchBuilder<'_> {
        let gso = self.segmentation.allows(route.to.ip()) && !route.dont_fragment;
        let continues = gso && self.batches.last().is_some_and(|batch| batch.route == route);
        BatchBuilder { batches: &mut self.batches, route, gso, continues }
    }
}

/// The parts of an outbox that sending needs, besides the batches.
struct Sending<'a> {
    memory: &'a [u8],
    segmentation: &'a mut Segmentation,
    sender: &'a mut Sender,
    messages: &'a mut Vec<OutgoingMessage>,
    too_long: &'a mut Vec<(Egress, SocketAddr)>,
    failures: &'a mut Vec<SendFailure>,
    counters: &'a mut SocketCounters,
}

impl Sending<'_> {
    /// Sends batches in as few system calls as possible.
    fn send(&mut self, socket: BorrowedFd<'_>, batches: &[GsoBatch]) {
        self.messages.clear();
        self.messages.extend(batches.iter().map(|batch| {
            let segment = (batch.count > 1).then_some(batch.segment_size as u16);
            message(&batch.route, segment, batch.bytes.clone())
        }));
        let mut sent = 0;
        let mut repeated = None;
        while sent < batches.len() {
            match self.sender.send(socket, self.memory, &self.messages[sent..]) {
                Ok(count) => sent += count.max(1),
                // An ICMP error of an earlier packet makes the next call fail, whatever its destination, and only that one
                Err(error) if repeated != Some(sent) && Unsent::from_error(&error) != Unsent::Full => {
                    repeated = Some(sent);
                }
                Err(error) => {
                    let batch = &batches[sent];
                    if batch.count > 1 && refuses_gso(&error) {
                        self.send_singly(socket, batch);
                    } else {
                        self.fail(batch, Unsent::from_error(&error));
                    }
                    sent += 1;
                }
            }
        }
    }

    fn fail(&mut self, batch: &GsoBatch, why: Unsent) {
        if batch.route.dont_fragment && why == Unsent::TooLong {
            if self.too_long.len() == MAX_TOO_LONG {
                self.too_long.remove(0);
            }
            self.too_long.push((batch.route.via, batch.route.to));
        }
        self.counters.unsent(why, batch.count);
        let data =
            batch.segments().fold(TrafficCount::default(), |sum, segment| sum + self.data(batch, segment));
        self.failures.push(SendFailure { route: batch.route, data });
    }

    /// The data in a datagram: all of it towards a peer, what follows the header towards a client.
    fn data(&self, batch: &GsoBatch, segment: Range<usize>) -> TrafficCount {
        let datagram = &self.memory[segment];
        let len = match batch.route.via {
            Egress::Relay(_) => datagram.len(),
            Egress::Listener(_) => wire::relayed_payload(datagram).unwrap_or(0),
        };
        TrafficCount { packets: 1, bytes: len as u64 }
    }

    /// Sends the segments of a batch one by one, after the kernel has refused the batch.
    fn send_singly(&mut self, socket: BorrowedFd<'_>, batch: &GsoBatch) {
        self.counters.gso_refused += 1;
        let mut failed = TrafficCount::default();
        for segment in batch.segments() {
            let single = message(&batch.route, None, segment.clone());
            if let Err(error) = self.sender.send(socket, self.memory, &[single]) {
                self.counters.unsent(Unsent::from_error(&error), 1);
                failed = failed + self.data(batch, segment);
            }
        }
        if failed.packets == 0 {
            self.segmentation.record_failure(batch.route.to.ip());
        } else {
            self.failures.push(SendFailure { route: batch.route, data: failed });
        }
    }
}

/// Adds datagrams of one route.
struct BatchBuilder<'a> {
    batches: &'a mut Vec<GsoBatch>,
    route: Route,
    /// Batches can have more than one segment.
    gso: bool,
    /// The last batch has this route and can be extended.
    continues: bool,
}

impl BatchBuilder<'_> {
    fn add(&mut self, memory: &mut [u8], datagram: Range<usize>) {
        let len = datagram.len();
        if self.continues
            && let Some(batch) = self.batches.last_mut()
            && batch.accepts(len)
        {
            if batch.bytes.end != datagram.start {
                memory.copy_within(datagram, batch.bytes.end);
            }
            batch.bytes.end += len;
            batch.count += 1;
            return;
        }
        let limit = arena::slot_end(datagram.start);
        self.batches.push(GsoBatch {
            route: self.route,
            segment_size: len,
            count: 1,
            bytes: datagram,
            limit,
        });
        self.continues = self.gso;
    }
}

impl GsoBatch {
    /// Each of its datagrams.
    fn segments(&self) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.bytes;
        let size = self.segment_size;
        // A datagram may be empty.
        (0..self.count).map(move |n| start + n * size..end.min(start + (n + 1) * size))
    }

    /// Whether a segment of this length can be appended.
    fn accepts(&self, len: usize) -> bool {
        let all_full = self.bytes.len() == self.segment_size * self.count;
        all_full
            && (1..=self.segment_size).contains(&len)
            && self.count < BATCH_SEGMENTS
            && self.bytes.len() + len <= BATCH_BYTES
            && self.bytes.end + len <= self.limit
    }
}

fn message(route: &Route, segment: Option<u16>, bytes: Range<usize>) -> OutgoingMessage {
    OutgoingMessage { to: route.to, source: route.source, tos: route.tos, segment, bytes }
}

/// Whether an error means that the kernel or the device cannot segment this batch.
fn refuses_gso(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

#[cfg(test)]
mod tests;
