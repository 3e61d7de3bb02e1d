//! Counters of a worker's sockets, and the copy of all its counters that other threads read.
//!
//! A worker counts in plain integers of its own and publishes a copy periodically. If another thread is reading at that
//! moment, the worker skips the update: it never waits for a reader.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::counted::{Counters, counted};
use crate::datapath::stream::stats as streams;
use crate::turn::stats::TrafficCount;
use crate::turn::{self, Transport};

counted! {
    /// Why a datagram could not be sent.
    pub enum Unsent {
        /// The send buffer of the socket or the queue of the device was full.
        Full = "full",
        /// There is no route to the destination, or the source address is gone.
        Unreachable = "unreachable",
        /// A firewall or another local policy rejected it.
        Refused = "refused",
        /// Too long for one datagram.
        TooLong = "too_long_to_send",
        /// The socket had been closed.
        Closed = "closed",
        /// Anything else.
        Other = "other",
    }
}

impl Unsent {
    pub(super) fn from_error(error: &io::Error) -> Unsent {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Unsent::Full,
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::ENETDOWN | libc::ENODEV,
            ) => Unsent::Unreachable,
            Some(libc::EPERM | libc::EACCES) => Unsent::Refused,
            Some(libc::EMSGSIZE) => Unsent::TooLong,
            _ => Unsent::Other,
        }
    }
}

counted! {
    /// A queue in the kernel that a worker reads.
    pub enum SocketQueue {
        /// Requests, and everything else that is not data, at the listeners.
        Control = "control",
        /// ChannelData and Send indications at the listeners.
        Data = "data",
        /// Datagrams from peers at the relay sockets.
        Relay = "relay",
        /// Connections from TCP and TLS clients.
        Accept = "accept",
    }
}

/// Counters of a worker's sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Datagrams that could not be sent, by reason.
    pub unsent: Counters<Unsent>,
    /// Datagrams and connection attempts that the kernel dropped because a queue was full, by queue.
    pub dropped_by_kernel: Counters<SocketQueue>,
    /// Received batches that were truncated, and therefore dropped.
    pub truncated: u64,
    /// GSO batches that the kernel refused, and whose segments were sent one by one.
    pub gso_refused: u64,
    /// Counters of TCP and TLS connections.
    pub streams: streams::StreamCounters,
}

impl SocketCounters {
    pub(super) fn unsent(&mut self, why: Unsent, packets: usize) {
        self.unsent[why] += packets as u64;
    }
}

/// All counters of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// The protocol core's counters.
    pub turn: turn::Stats,
    /// Counters of the sockets.
    pub sockets: SocketCounters,
    /// How often the worker panicked and was restarted, which ends all its allocations.
    pub panics: u64,
    /// The CPU time of its thread. A worker that restarts stays on its thread.
    pub cpu: Duration,
}

/// The copy of a worker's counters for other threads.
#[derive(Default)]
pub(super) struct Published {
    stats: Mutex<PublishedCounts>,
}

/// Keeps counters monotonic when a worker restarts and counts from zero. Only what it counted since the last copy is lost.
#[derive(Default)]
struct PublishedCounts {
    /// Counted before the last restart.
    previous: WorkerStats,
    /// Counted since then.
    current: WorkerStats,
}

impl Published {
    /// The totals over all restarts.
    pub(super) fn read(&self) -> WorkerStats {
        let totals = self.totals();
        let mut sum = totals.current.clone();
        sum.add(&totals.previous);
        sum
    }

    /// Replaces the counts since the last restart; false if another thread is reading. The core counts data for TCP and TLS
    /// clients when it decides to relay it; `unsent` has not left since.
    pub(super) fn write(
        &self,
        turn: &turn::Stats,
        sockets: &SocketCounters,
        unsent: &[TrafficCount; 2],
    ) -> bool {
        let mut totals = match self.stats.try_lock() {
            Ok(lives) => lives,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        totals.current.turn.clone_from(turn);
        for (transport, unsent) in [Transport::Tcp, Transport::Tls].into_iter().zip(unsent) {
            totals.current.turn.to_client[transport.index()].subtract(unsent.packets, unsent.bytes);
        }
        totals.current.sockets.clone_from(sockets);
        true
    }

    /// Records that the worker panicked and restarts.
    pub(super) fn restart(&self) {
        let mut totals = self.totals();
        let mut ended = std::mem::take(&mut totals.current);
        clear_gauges(&mut ended);
        totals.previous.add(&ended);
        totals.previous.panics += 1;
    }

    fn totals(&self) -> MutexGuard<'_, PublishedCounts> {
        // They are only integers, so an interrupted update leaves valid values.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerStats {
    /// Adds the counters of another worker.
    pub fn add(&mut self, other: &WorkerStats) {
        let SocketCounters { unsent, dropped_by_kernel, truncated, gso_refused, streams } = &other.sockets;
        self.sockets.unsent.add(unsent);
        self.sockets.dropped_by_kernel.add(dropped_by_kernel);
        self.sockets.truncated += truncated;
        self.sockets.gso_refused += gso_refused;
        self.sockets.streams.add(streams);
        self.panics += other.panics;
        self.cpu += other.cpu;
        add_core(&mut self.turn, &other.turn);
    }
}

fn add_core(sum: &mut turn::Stats, part: &turn::Stats) {
    // Destructured without `..`, so that the compiler reports a missing counter.
    let turn::Stats {
        requests,
        responses,
        auth_failures,
        dropped,
        to_peer,
        to_client,
        relays,
        allocations,
        allocations_total,
        closed,
        lifetimes,
        permissions,
        channels,
        probe_allocations,
    } = part;
    add_all(&mut sum.requests, requests);
    add_all(sum.responses.as_flattened_mut(), responses.as_flattened());
    sum.auth_failures.add(auth_failures);
    sum.dropped.add(dropped);
    for (sum, part) in sum.to_peer.iter_mut().zip(to_peer).chain(sum.to_client.iter_mut().zip(to_client)) {
        sum.packets += part.packets;
        sum.bytes += part.bytes;
    }
    for (sum, part) in sum.relays.iter_mut().zip(relays) {
        sum.v4 += part.v4;
        sum.v6 += part.v6;
    }
    sum.allocations += allocations;
    sum.allocations_total += allocations_total;
    sum.closed.add(closed);
    sum.lifetimes.add(lifetimes);
    sum.permissions += permissions;
    sum.channels += channels;
    sum.probe_allocations += probe_allocations;
}

/// Allocations and connections end when their worker panics.
fn clear_gauges(stats: &mut WorkerStats) {
    stats.sockets.streams.open = [0; 2];
    let core = &mut stats.turn;
    core.relays = Default::default();
    (core.allocations, core.permissions, core.channels) = (0, 0, 0);
}

fn add_all(sum: &mut [u64], part: &[u64]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::stats::PROBE_TRAFFIC;

    #[test]
    fn a_worker_does_not_wait_for_a_reader() {
        let published = Published::default();
        let counters = SocketCounters { truncated: 3, ..SocketCounters::default() };
        let reading = published.stats.lock().unwrap();
        assert!(!published.write(&turn::Stats::default(), &counters, &Default::default()));
        drop(reading);
        assert!(published.write(&turn::Stats::default(), &counters, &Default::default()));
        assert_eq!(published.read().sockets.truncated, 3);
    }

    #[test]
    fn data_counts_as_relayed_when_it_has_left() {
        let published = Published::default();
        let mut stats = turn::Stats::default();
        for (packets, unsent, left) in [(5, 3, 2), (9, 3, 6), (9, 0, 9)] {
            let count = |packets| TrafficCount { packets, bytes: 100 * packets };
            stats.to_client = [count(packets); PROBE_TRAFFIC + 1];
            published.write(&stats, &SocketCounters::default(), &[count(unsent), count(unsent)]);
            assert_eq!(published.read().turn.to_client[..3], [count(packets), count(left), count(left)]);
        }
    }

    #[test]
    fn a_restart_keeps_counters_and_clears_gauges() {
        let published = Published::default();
        let mut counters = SocketCounters::default();
        counters.unsent(Unsent::Full, 2);
        SocketQueue::ALL.into_iter().zip(1..).for_each(|(queue, n)| counters.dropped_by_kernel[queue] = n);
        (counters.streams.open, counters.streams.accepted) = ([3, 4], [5, 6]);
        let stats = turn::Stats { allocations: 5, allocations_total: 9, ..turn::Stats::default() };
        published.write(&stats, &counters, &Default::default());
        published.restart();
        let stats = turn::Stats { allocations: 1, allocations_total: 1, ..turn::Stats::default() };
        published.write(&stats, &counters, &Default::default());
        let read = published.read();
        assert_eq!((read.turn.allocations, read.turn.allocations_total, read.panics), (1, 10, 1));
        assert_eq!(read.sockets.unsent[Unsent::Full], 4);
        assert!(read.sockets.dropped_by_kernel.iter().map(|(_, n)| n).eq([2, 4, 6, 8]));
        assert_eq!((read.sockets.streams.open, read.sockets.streams.accepted), ([3, 4], [10, 12]));
    }
}
