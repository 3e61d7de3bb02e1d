//! What the fast plane writes to the log: one line when an allocation begins, one when it ends, and why clients were
//! refused. Nothing for a relayed packet.
//!
//! Clients decide how often they are refused, so a worker writes only so many of those lines a second and says how
//! many it left out. Names that clients chose are written with their control characters escaped.

use std::io;
use std::net::SocketAddr;

use tracing::{info, warn};

use super::stream::stats::Failure;
use crate::turn::{Closed, FiveTuple, Opened, Refused};

/// Lines of one sort a second.
const A_SECOND: u32 = 10;

/// A worker's log.
#[derive(Default)]
pub(super) struct Log {
    refused: Limit,
    handshakes: Limit,
    trouble: Limit,
}

/// So many a second.
#[derive(Default)]
struct Limit {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Log {
    /// An allocation began.
    pub(super) fn opened(&self, opened: &Opened) {
        info!(
            client = %opened.tuple.client,
            server = %opened.tuple.server,
            transport = opened.tuple.transport.as_str(),
            user = &*opened.user,
            relayed_v4 = opened.v4.map(tracing::field::display),
            relayed_v6 = opened.v6.map(tracing::field::display),
            lifetime = opened.lifetime,
            "allocation opened"
        );
    }

    /// An allocation ended.
    pub(super) fn closed(&self, closed: &Closed) {
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
    pub(super) fn refused(&mut self, now: u64, refused: &Refused) {
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
    pub(super) fn handshake_failed(&mut self, now: u64, tuple: &FiveTuple, why: Failure, error: &str) {
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
    pub(super) fn trouble(&mut self, now: u64, relayed: SocketAddr, error: &io::Error) {
        let Some(left_out) = self.trouble.line(now) else { return };
        warn!(%relayed, %error, left_out, "a relay socket could not be opened");
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
}
