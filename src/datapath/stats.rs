//! What the fast plane counts beside the core, and how others read both.
//!
//! A worker counts in plain integers of its own. From time to time it copies them to where readers look, and leaves that
//! for the next time if someone is reading just then: reading never makes a worker wait.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::counted::{Counters, counted};
use crate::datapath::stream::stats as streams;
use crate::turn;

counted! {
    /// Why a datagram could not be sent.
    pub enum Unsent {
        /// The socket's buffer or the device's queue was full.
        Full = "full",
        /// No way to the destination, or the address to send from is gone.
        Unreachable = "unreachable",
        /// A firewall or another policy of this machine.
        Refused = "refused",
        /// Too long for one datagram.
        TooLong = "too_long_to_send",
        /// The socket was closed meanwhile.
        Closed = "closed",
        /// Anything else.
        Other = "other",
    }
}

impl Unsent {
    pub(super) fn why(error: &io::Error) -> Unsent {
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
    /// Where something waits in the kernel for a worker.
    pub enum SocketQueue {
        /// Listeners' datagrams that are requests, and whatever else is not data.
        Control = "control",
        /// Listeners' datagrams with data to be relayed.
        Data = "data",
        /// What peers sent to relayed addresses.
        Relay = "relay",
        /// Connections of TCP and TLS clients.
        Accept = "accept",
    }
}

/// SocketCounters of a worker's sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Datagrams that could not be sent, by reason.
    pub unsent: Counters<Unsent>,
    /// What the kernel dropped because a queue had no room, by queue.
    pub lost: Counters<SocketQueue>,
    /// Received batches that were cut short, and dropped.
    pub truncated: u64,
    /// Runs that the kernel would not cut into datagrams, and that went one by one.
    pub gso_refused: u64,
    /// Those of TCP and TLS.
    pub streams: streams::StreamCounters,
}

impl SocketCounters {
    pub(super) fn unsent(&mut self, why: Unsent, packets: usize) {
        self.unsent[why] += packets as u64;
    }
}

/// What a worker has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// The protocol core's counters.
    pub turn: turn::Stats,
    /// Those of the sockets.
    pub sockets: SocketCounters,
    /// How often it failed and was started again, with all its allocations gone.
    pub panics: u64,
}

/// A worker's counters, where others read them.
#[derive(Default)]
pub(super) struct Published {
    stats: Mutex<Lives>,
}

/// A worker that fails loses what it counted since the last copy, and what lived in it, but no counter goes backwards.
#[derive(Default)]
struct Lives {
    before: WorkerStats,
    now: WorkerStats,
}

impl Published {
    /// What was counted so far.
    pub(super) fn read(&self) -> WorkerStats {
        let lives = self.lives();
        let mut sum = lives.now.clone();
        sum.add(&lives.before);
        sum
    }

    /// Replaces what this life of the worker has counted; false if someone reads just now.
    pub(super) fn write(&self, turn: &turn::Stats, sockets: &SocketCounters) -> bool {
        let mut lives = match self.stats.try_lock() {
            Ok(lives) => lives,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        lives.now.turn.clone_from(turn);
        lives.now.sockets.clone_from(sockets);
        true
    }

    /// The worker failed and begins again.
    pub(super) fn restart(&self) {
        let mut lives = self.lives();
        let mut ended = std::mem::take(&mut lives.now);
        clear_gauges(&mut ended);
        lives.before.add(&ended);
        lives.before.panics += 1;
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        // Integers alone: whatever was written is a value.
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerStats {
    /// Adds another worker's.
    pub fn add(&mut self, other: &WorkerStats) {
        let SocketCounters { unsent, lost, truncated, gso_refused, streams } = &other.sockets;
        self.sockets.unsent.add(unsent);
        self.sockets.lost.add(lost);
        self.sockets.truncated += truncated;
        self.sockets.gso_refused += gso_refused;
        self.sockets.streams.add(streams);
        self.panics += other.panics;
        add_core(&mut self.turn, &other.turn);
    }
}

fn add_core(sum: &mut turn::Stats, part: &turn::Stats) {
    // All of them are named, so that none is forgotten here.
    let turn::Stats {
        requests,
        auth_failures,
        dropped,
        to_peer,
        to_client,
        relays,
        allocations,
        allocations_total,
        permissions,
        channels,
    } = part;
    add_all(sum.requests.as_flattened_mut(), requests.as_flattened());
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
    sum.permissions += permissions;
    sum.channels += channels;
}

/// What lived in a worker that failed lives no more.
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

    #[test]
    fn a_reader_never_makes_a_worker_wait() {
        let published = Published::default();
        let counters = SocketCounters { truncated: 3, ..SocketCounters::default() };
        let reading = published.stats.lock().unwrap();
        assert!(!published.write(&turn::Stats::default(), &counters));
        drop(reading);
        assert!(published.write(&turn::Stats::default(), &counters));
        assert_eq!(published.read().sockets.truncated, 3);
    }

    #[test]
    fn counters_survive_a_failure_and_gauges_do_not() {
        let published = Published::default();
        let mut counters = SocketCounters::default();
        counters.unsent(Unsent::Full, 2);
        SocketQueue::ALL.into_iter().zip(1..).for_each(|(queue, n)| counters.lost[queue] = n);
        (counters.streams.open, counters.streams.accepted) = ([3, 4], [5, 6]);
        let stats = turn::Stats { allocations: 5, allocations_total: 9, ..turn::Stats::default() };
        published.write(&stats, &counters);
        published.restart();
        let stats = turn::Stats { allocations: 1, allocations_total: 1, ..turn::Stats::default() };
        published.write(&stats, &counters);
        let read = published.read();
        assert_eq!((read.turn.allocations, read.turn.allocations_total, read.panics), (1, 10, 1));
        assert_eq!(read.sockets.unsent[Unsent::Full], 4);
        assert!(read.sockets.lost.iter().map(|(_, n)| n).eq([2, 4, 6, 8]));
        assert_eq!((read.sockets.streams.open, read.sockets.streams.accepted), ([3, 4], [10, 12]));
    }
}
