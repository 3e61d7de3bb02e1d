//! What the fast plane writes to the log: one line when an allocation begins, one when it ends, and why clients were
//! refused. Nothing for a relayed packet.
//!
//! Clients decide how often they are refused, so a worker writes only so many of those lines a second and says how
//! many it left out. Names that clients chose are written with their control characters escaped.
//!
//! What the kernel dropped is told at once, then summed up every ten seconds, with what mends it.

use std::io;
use std::net::SocketAddr;

use tracing::{info, warn};

use crate::datapath::listen::accept;
use crate::datapath::listen::group;
use crate::datapath::relay::table as relay;
use crate::datapath::stats::SocketQueue;
use crate::datapath::stream::stats::HandshakeFailure;
use crate::datapath::worker::losses::QueueLoss;
use crate::turn::{Closed, FiveTuple, Opened, Refused};

/// Lines of one sort a second.
const A_SECOND: u32 = 10;

/// How long the losses of a queue are summed up before they are told again, in nanoseconds.
const LOSSES: u64 = 10_000_000_000;

/// A worker's log.
#[derive(Default)]
pub(in crate::datapath) struct Log {
    refused: Limit,
    handshakes: Limit,
    trouble: Limit,
    losses: [Sum; SocketQueue::ALL.len()],
}

/// So many a second.
#[derive(Default)]
struct Limit {
    second: u64,
    written: u32,
    left_out: u64,
}

/// What was lost and not told yet.
#[derive(Default)]
struct Sum {
    lost: QueueLoss,
    /// When it may be told.
    from: u64,
}

impl Log {
    /// An allocation began.
    pub(in crate::datapath) fn opened(&self, opened: &Opened) {
        info!(
            client = %opened.tuple.client,
            server = %opened.tuple.server,
            transport = opened.tuple.transport.as_str(),
            user = &*opened.user,
            relayed_v4 = opened.relays.v4.map(|relay| tracing::field::display(relay.addr)),
            relayed_v6 = opened.relays.v6.map(|relay| tracing::field::display(relay.addr)),
            lifetime = opened.lifetime,
            "allocation opened"
        );
    }

    /// An allocation ended.
    pub(in crate::datapath) fn closed(&self, closed: &Closed) {
        info!(
            client = %closed.tuple.client,
            server = %closed.tuple.server,
            transport = closed.tuple.transport.as_str(),
            user = &*closed.user,
            reason = closed.reason.as_str(),
            seconds = closed.lived,
            to_peer_packets = closed.totals.to_peer_packets,
            to_peer_bytes = closed.totals.to_peer_bytes,
            to_client_packets = closed.totals.to_client_packets,
            to_client_bytes = closed.totals.to_client_bytes,
            "allocation closed"
        );
    }

    /// A client was refused.
    pub(in crate::datapath) fn refused(&mut self, now: u64, refused: &Refused) {
        let Some(left_out) = self.refused.line(now) else { return };
        info!(
            client = %refused.tuple.client,
            method = ?refused.method,
            code = refused.code,
            reason = refused.reason,
            user = refused.user.as_deref(),
            peer = refused.peer.map(tracing::field::display),
            left_out,
            "refused"
        );
    }

    /// A TLS handshake failed.
    pub(in crate::datapath) fn handshake_failed(
        &mut self,
        now: u64,
        tuple: &FiveTuple,
        why: HandshakeFailure,
        error: &str,
    ) {
        let Some(left_out) = self.handshakes.line(now) else { return };
        info!(
            client = %tuple.client,
            server = %tuple.server,
            reason = why.as_str(),
            error,
            left_out,
            "TLS handshake failed"
        );
    }

    /// This machine would not give a relay socket.
    pub(in crate::datapath) fn trouble(&mut self, now: u64, relayed: SocketAddr, error: &io::Error) {
        let Some(left_out) = self.trouble.line(now) else { return };
        warn!(%relayed, %error, left_out, "a relay socket could not be opened");
    }

    /// The kernel dropped what a queue had no room for; to be called also when it was nothing more.
    pub(in crate::datapath) fn lost(&mut self, now: u64, queue: SocketQueue, lost: QueueLoss) {
        let Some(QueueLoss { count: lost, room }) = self.losses[queue as usize].line(now, lost) else {
            return;
        };
        let wanted = match queue {
            SocketQueue::Control | SocketQueue::Data => group::BUFFER,
            SocketQueue::Relay => relay::BUFFER,
            SocketQueue::Accept => 0,
        };
        let name = queue.as_str();
        match queue {
            _ if room < wanted => warn!(
                queue = name,
                lost,
                room,
                "packets were lost in a full queue that has less room than was asked for; \
                 `sysctl -w net.core.rmem_max={}` and a restart give it more",
                group::BUFFER
            ),
            SocketQueue::Control => warn!(
                queue = name,
                lost,
                room,
                "requests were lost in a full queue: more came than this worker can answer; \
                 calls have a queue of their own, but if this is no attack, `workers` and CPUs for them are too few"
            ),
            SocketQueue::Data | SocketQueue::Relay => warn!(
                queue = name,
                lost,
                room,
                "packets were lost in a full queue: more came than this worker can relay; \
                 it needs more CPU time, or `workers` and CPUs for them are too few"
            ),
            SocketQueue::Accept => warn!(
                queue = name,
                lost,
                "connections were lost in a full queue: more came than this worker can accept; \
                 `workers` are too few, or net.core.somaxconn is lower than {}",
                accept::BACKLOG
            ),
        }
    }

    /// Whether losses wait to be told.
    pub(in crate::datapath) fn is_behind(&self) -> bool {
        self.losses.iter().any(|sum| sum.lost.count > 0)
    }
}

impl Limit {
    /// Whether a line may be written now, and how many were left out before it.
    fn line(&mut self, now: u64) -> Option<u64> {
        let second = now / 1_000_000_000;
        if second != self.second {
            *self = Limit { second, written: 0, left_out: self.left_out };
        }
        if self.written == A_SECOND {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Sum {
    /// Adds what was lost; what is to be told now.
    fn line(&mut self, now: u64, lost: QueueLoss) -> Option<QueueLoss> {
        self.lost.add(lost);
        if self.lost.count == 0 || now < self.from {
            return None;
        }
        self.from = now + LOSSES;
        Some(std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_a_count_of_the_others() {
        let mut limit = Limit::default();
        let second = 5_000_000_000;
        let written = (0..1000).filter(|_| limit.line(second) == Some(0)).count();
        assert_eq!(written, 10);
        assert_eq!(limit.line(second + 999_999_999), None);
        assert_eq!(limit.line(second + 1_000_000_000), Some(991));
        assert_eq!(limit.line(second + 1_000_000_000), Some(0));
    }

    #[test]
    fn losses_are_told_at_once_and_then_summed_up() {
        let mut sum = Sum::default();
        let lost = |count, room| QueueLoss { count, room };
        let nothing = QueueLoss::default();
        assert_eq!(sum.line(5, nothing), None);
        assert_eq!(sum.line(7, lost(3, 100)), Some(lost(3, 100)));
        assert_eq!(sum.line(8, lost(4, 300)), None);
        assert_eq!(sum.line(6 + LOSSES, lost(5, 200)), None);
        assert_eq!(sum.line(7 + LOSSES, nothing), Some(lost(9, 200)), "the least room of those");
        assert_eq!(sum.line(9 + 3 * LOSSES, nothing), None);
        assert_eq!(sum.line(9 + 3 * LOSSES, lost(1, 9)), Some(lost(1, 9)));
    }
}
