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

use super::arena::{self, JOINED};
use super::segmentation::Segmentation;
use super::stats::{Counters, Unsent};
use super::sys::option;
use super::sys::send::{Message, Sender};
use crate::turn::{Header, Marks, RelayId};

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
pub(super) enum Via {
    /// A listener, by its place among the worker's listeners.
    Listener(usize),
    /// A relay socket.
    Relay(RelayId),
}

/// How a datagram travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) via: Via,
    pub(super) to: SocketAddr,
    /// The address to send from; `None`: the socket's own.
    pub(super) source: Option<SocketAddr>,
    pub(super) marks: Marks,
    pub(super) dont_fragment: bool,
}

/// Datagrams of `size` bytes each, the last perhaps shorter, one behind the other.
#[derive(Clone, Debug)]
struct Run {
    route: Route,
    size: usize,
    count: usize,
    bytes: Range<usize>,
    /// How far it may grow.
    limit: usize,
}

/// What waits to be sent.
pub(super) struct Outbox {
    runs: Vec<Run>,
    segmentation: Segmentation,
    sender: Sender,
    messages: Vec<Message>,
    /// Where packets with DF would have gone that this machine knows to be too long.
    too_long: Vec<(Via, SocketAddr)>,
}

impl Outbox {
    /// Nothing waits. `gso`: runs may be longer than one datagram.
    pub(super) fn new(gso: bool) -> Outbox {
        Outbox {
            runs: Vec::with_capacity(WAITING),
            segmentation: Segmentation::new(gso),
            sender: Sender::new(CALL),
            messages: Vec::with_capacity(CALL),
            too_long: Vec::with_capacity(TOO_LONG),
        }
    }

    /// Whether another batch may be added, whatever becomes of it.
    pub(super) fn has_room(&self) -> bool {
        self.runs.len() + JOINED <= WAITING
    }

    /// Adds the payloads of a run from a client: of every `stride` bytes in `run` the `len` from `offset` on.
    pub(super) fn for_peer(
        &mut self,
        memory: &mut [u8],
        route: Route,
        run: Range<usize>,
        stride: usize,
        offset: usize,
        len: usize,
    ) {
        let mut adding = self.adding(route);
        for start in run.step_by(stride.max(1)) {
            adding.add(memory, start + offset..start + offset + len);
        }
    }

    /// Adds a batch from a peer, datagrams of `stride` bytes, each behind its header.
    pub(super) fn for_client(
        &mut self,
        memory: &mut [u8],
        route: Route,
        batch: Range<usize>,
        stride: usize,
        header: &Header,
    ) {
        let stride = stride.max(1);
        let count = batch.len().div_ceil(stride).max(1);
        let mut adding = self.adding(route);
        // All that is inserted pushes to the left, but for the last padding.
        let mut to = batch.start - count * header.len() - (count - 1) * header.padding(stride);
        for n in 0..count {
            let from = batch.start + n * stride;
            let payload = from..batch.end.min(from + stride);
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
    pub(super) fn flush<'s>(
        &mut self,
        memory: &[u8],
        socket: impl Fn(Via) -> Option<BorrowedFd<'s>>,
        counters: &mut Counters,
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
    pub(super) fn take_too_long(&mut self, relay: RelayId, to: IpAddr) -> Option<SocketAddr> {
        let at = self.too_long.iter().position(|(via, addr)| *via == Via::Relay(relay) && addr.ip() == to)?;
        Some(self.too_long.remove(at).1)
    }

    /// Sends one message of its own.
    pub(super) fn send_alone(
        &mut self,
        socket: BorrowedFd<'_>,
        route: Route,
        bytes: &[u8],
        counters: &mut Counters,
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

    fn send(&mut self, memory: &[u8], socket: BorrowedFd<'_>, runs: &[Run], counters: &mut Counters) {
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
                        let (why, Run { route, count, .. }) = (Unsent::why(&error), &runs[sent]);
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
    fn send_singly(&mut self, memory: &[u8], socket: BorrowedFd<'_>, run: &Run, counters: &mut Counters) {
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
    runs: &'a mut Vec<Run>,
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
        self.runs.push(Run { route: self.route, size: len, count: 1, bytes: datagram, limit });
        self.joins = self.join;
    }
}

impl Run {
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

fn message(route: &Route, segment: Option<u16>, bytes: Range<usize>) -> Message {
    Message { to: route.to, source: route.source, marks: route.marks, segment, bytes }
}

/// What a kernel or a device says that cannot cut datagrams of this size.
fn refuses_runs(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

#[cfg(test)]
mod tests;
