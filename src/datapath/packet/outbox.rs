//! What is to be sent: runs of datagrams that the kernel cuts (GSO), gathered until they leave in few system calls.
//!
//! A run ends where its route or its size changes, after a shorter datagram, and before it grows beyond what a kernel
//! takes. Bytes stay in the arena: on the way to a peer, payloads move together where the client's headers were; on
//! the way to a client, headers are written into the headroom. So nothing is allocated here, and nothing is copied
//! but to close gaps.
//!
//! A failed send costs its datagrams and nothing else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::datapath::packet::arena::{self, JOINED};
use crate::datapath::packet::segmentation::Segmentation;
use crate::datapath::relay::table::RelaySocketKey;
use crate::datapath::stats::{SocketCounters, Unsent};
use crate::datapath::sys::option;
use crate::datapath::sys::send::{OutgoingMessage, Sender};
use crate::turn::{Header, Tos};

/// Datagrams in a run at most: what every kernel takes.
const RUN: usize = 64;

/// Bytes in a run at most, headers that we add included.
const RUN_BYTES: usize = 65_507;

/// Runs in one system call.
const CALL: usize = 64;

/// Runs that wait at a time: some calls, and a batch that falls apart into single datagrams.
const WAITING: usize = 3 * JOINED;

/// Packets too long for DF that are remembered until their entry in the error queue is read.
const TOO_LONG: usize = 64;

/// A socket of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum Via {
    /// A listener, by its place among the worker's listeners.
    Listener(usize),
    /// A relay socket.
    Relay(RelaySocketKey),
}

/// How a datagram travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Route {
    pub(in crate::datapath) via: Via,
    pub(in crate::datapath) to: SocketAddr,
    /// The address to send from; `None`: the socket's own.
    pub(in crate::datapath) source: Option<SocketAddr>,
    pub(in crate::datapath) tos: Tos,
    pub(in crate::datapath) dont_fragment: bool,
}

/// Datagrams of `size` bytes each, the last perhaps shorter, one behind the other.
#[derive(Clone, Debug)]
struct GsoBatch {
    route: Route,
    size: usize,
    count: usize,
    bytes: Range<usize>,
    /// How far it may grow.
    limit: usize,
}

/// What waits to be sent.
pub(in crate::datapath) struct Outbox {
    runs: Vec<GsoBatch>,
    segmentation: Segmentation,
    sender: Sender,
    messages: Vec<OutgoingMessage>,
    /// Where packets with DF would have gone that this machine knows to be too long.
    too_long: Vec<(Via, SocketAddr)>,
}

impl Outbox {
    /// Nothing waits. `gso`: runs may be longer than one datagram.
    pub(in crate::datapath) fn new(gso: bool) -> Outbox {
        Outbox {
            runs: Vec::with_capacity(WAITING),
            segmentation: Segmentation::new(gso),
            sender: Sender::new(CALL),
            messages: Vec::with_capacity(CALL),
            too_long: Vec::with_capacity(TOO_LONG),
        }
    }

    /// Whether another batch may be added, whatever becomes of it.
    pub(in crate::datapath) fn has_room(&self) -> bool {
        self.runs.len() + JOINED <= WAITING
    }

    /// Adds the payloads of a run from a client: of every `segment_size` bytes in `run` the `len` from `offset` on.
    pub(in crate::datapath) fn for_peer(
        &mut self,
        memory: &mut [u8],
        route: Route,
        run: Range<usize>,
        segment_size: usize,
        offset: usize,
        len: usize,
    ) {
        let mut adding = self.adding(route);
        for start in run.step_by(segment_size.max(1)) {
            adding.add(memory, start + offset..start + offset + len);
        }
    }

    /// Adds a batch from a peer, datagrams of `segment_size` bytes, each behind its header.
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
        let mut adding = self.adding(route);
        // All that is inserted pushes to the left, but for the last padding.
        let mut to = batch.start - count * header.len() - (count - 1) * header.padding(segment_size);
        for n in 0..count {
            let from = batch.start + n * segment_size;
            let payload = from..batch.end.min(from + segment_size);
            let (value, len) = (to + header.len(), payload.len());
            memory.copy_within(payload, value);
            header.write(n, len, &mut memory[to..value]);
            let end = value + len + header.padding(len);
            memory[value + len..end].fill(0);
            adding.add(memory, to..end);
            to = end;
        }
    }

    /// Sends all that waits. `socket` finds a socket that is still open.
    pub(in crate::datapath) fn flush<'s>(
        &mut self,
        memory: &[u8],
        socket: impl Fn(Via) -> Option<BorrowedFd<'s>>,
        counters: &mut SocketCounters,
    ) {
        let runs = std::mem::take(&mut self.runs);
        for same in runs
            .chunk_by(|a, b| a.route.via == b.route.via && !a.route.dont_fragment && !b.route.dont_fragment)
        {
            let Some(socket) = socket(same[0].route.via) else {
                counters.unsent(Unsent::Closed, same.iter().map(|run| run.count).sum());
                continue;
            };
            // RFC 8656 §14: clear again with the next packet
            let whole = same[0].route.dont_fragment && option::dont_fragment(socket).is_ok();
            same.chunks(CALL).for_each(|call| self.send(memory, socket, call, counters));
            if whole {
                let _ = option::may_fragment(socket, false);
            }
        }
        self.runs = runs;
        self.runs.clear();
    }

    /// Where a packet went that was too long for DF and that an error queue tells of by its address alone; once for each
    /// packet.
    pub(in crate::datapath) fn take_too_long(
        &mut self,
        relay: RelaySocketKey,
        to: IpAddr,
    ) -> Option<SocketAddr> {
        let at = self.too_long.iter().position(|(via, addr)| *via == Via::Relay(relay) && addr.ip() == to)?;
        Some(self.too_long.remove(at).1)
    }

    /// Sends one message of its own.
    pub(in crate::datapath) fn send_alone(
        &mut self,
        socket: BorrowedFd<'_>,
        route: Route,
        bytes: &[u8],
        counters: &mut SocketCounters,
    ) {
        if let Err(error) = self.sender.send(socket, bytes, &[message(&route, None, 0..bytes.len())]) {
            counters.unsent(Unsent::why(&error), 1);
        }
    }

    fn adding(&mut self, route: Route) -> Adding<'_> {
        let join = self.segmentation.allows(route.to.ip()) && !route.dont_fragment;
        let joins = join && self.runs.last().is_some_and(|run| run.route == route);
        Adding { runs: &mut self.runs, route, join, joins }
    }

    fn send(
        &mut self,
        memory: &[u8],
        socket: BorrowedFd<'_>,
        runs: &[GsoBatch],
        counters: &mut SocketCounters,
    ) {
        self.messages.clear();
        self.messages.extend(
            runs.iter().map(|run| {
                message(&run.route, (run.count > 1).then_some(run.size as u16), run.bytes.clone())
            }),
        );
        let mut sent = 0;
        let mut repeated = None;
        while sent < runs.len() {
            match self.sender.send(socket, memory, &self.messages[sent..]) {
                Ok(count) => sent += count.max(1),
                // What ICMP said of an earlier packet is told by the next call, whoever that is for; then it is gone
                Err(error) if repeated != Some(sent) && Unsent::why(&error) != Unsent::Full => {
                    repeated = Some(sent);
                }
                Err(error) => {
                    if runs[sent].count > 1 && refuses_runs(&error) {
                        self.send_singly(memory, socket, &runs[sent], counters);
                    } else {
                        let (why, GsoBatch { route, count, .. }) = (Unsent::why(&error), &runs[sent]);
                        if route.dont_fragment && why == Unsent::TooLong {
                            if self.too_long.len() == TOO_LONG {
                                self.too_long.remove(0);
                            }
                            self.too_long.push((route.via, route.to));
                        }
                        counters.unsent(why, *count);
                    }
                    sent += 1;
                }
            }
        }
    }

    /// A run that the kernel did not take goes as single packets.
    fn send_singly(
        &mut self,
        memory: &[u8],
        socket: BorrowedFd<'_>,
        run: &GsoBatch,
        counters: &mut SocketCounters,
    ) {
        counters.runs_refused += 1;
        let mut failed = 0;
        for start in run.bytes.clone().step_by(run.size) {
            let bytes = start..run.bytes.end.min(start + run.size);
            if let Err(error) = self.sender.send(socket, memory, &[message(&run.route, None, bytes)]) {
                counters.unsent(Unsent::why(&error), 1);
                failed += 1;
            }
        }
        if failed == 0 {
            self.segmentation.strike(run.route.to.ip());
        }
    }
}

/// Datagrams of one route, being added.
struct Adding<'a> {
    runs: &'a mut Vec<GsoBatch>,
    route: Route,
    /// They may make runs.
    join: bool,
    /// The last run is of this route.
    joins: bool,
}

impl Adding<'_> {
    fn add(&mut self, memory: &mut [u8], datagram: Range<usize>) {
        let len = datagram.len();
        if self.joins
            && let Some(run) = self.runs.last_mut()
            && run.takes(len)
        {
            if run.bytes.end != datagram.start {
                memory.copy_within(datagram, run.bytes.end);
            }
            run.bytes.end += len;
            run.count += 1;
            return;
        }
        let limit = arena::slot_end(datagram.start);
        self.runs.push(GsoBatch { route: self.route, size: len, count: 1, bytes: datagram, limit });
        self.joins = self.join;
    }
}

impl GsoBatch {
    /// Whether a datagram of this length may follow.
    fn takes(&self, len: usize) -> bool {
        let all_full = self.bytes.len() == self.size * self.count;
        all_full
            && (1..=self.size).contains(&len)
            && self.count < RUN
            && self.bytes.len() + len <= RUN_BYTES
            && self.bytes.end + len <= self.limit
    }
}

fn message(route: &Route, segment: Option<u16>, bytes: Range<usize>) -> OutgoingMessage {
    OutgoingMessage { to: route.to, source: route.source, tos: route.tos, segment, bytes }
}

/// What a kernel or a device says that cannot cut datagrams of this size.
fn refuses_runs(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

#[cfg(test)]
mod tests;
