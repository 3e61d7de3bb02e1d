//! Lines about connections that end in their stages, or before.

use std::net::SocketAddr;

use tracing::{debug, info, warn};

use super::context::StageContext;
use super::pending::{Closed, PendingConnection};
use crate::datapath::clock;
use crate::datapath::line_budget::COMMON;
use crate::datapath::stream::StreamLimits;
use crate::datapath::stream::admission::{Displacing, Refusal};
use crate::datapath::stream::closed::{ClosedConnection, log_closed};
use crate::datapath::stream::stats::{AdmissionRefusal, ConnectionEnd, HandshakeFailure};
use crate::turn::FiveTuple;

impl<S> StageContext<S> {
    /// A connection has ended in its stages.
    pub(super) fn log_closed(&self, pending: &PendingConnection, closed: &Closed) {
        let limits = &pending.config.limits;
        let (tuple, connection) = (&pending.tuple, Some(pending.permit.connection()));
        match closed {
            Closed::End(why) => log_closed(
                &mut self.log.borrow_mut(),
                clock::mono(),
                ClosedConnection {
                    tuple,
                    proxy: pending.proxy,
                    connection,
                    session: None,
                    why: *why,
                    limits,
                },
            ),
            Closed::Because(why, detail, fix) => self.log_because(pending, *why, detail, fix),
            Closed::Refused(refusal) => self.log_refused(tuple, pending.proxy, *refusal),
            Closed::Handshake(why, error) => self.log_handshake(pending, *why, error, limits),
        }
    }

    /// It has ended for a reason of which there is more to tell.
    fn log_because(&self, pending: &PendingConnection, why: ConnectionEnd, detail: &str, fix: &str) {
        let reason = why.as_str();
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let FiveTuple { client, server, transport, .. } = pending.tuple;
        let (transport, connection) = (transport.as_str(), pending.permit.connection().0);
        let proxy = pending.proxy.map(tracing::field::display);
        info!(%client, %server, transport, proxy, reason, detail, fix, connection, suppressed, "connection closed");
    }

    /// A TLS handshake has failed.
    fn log_handshake(
        &self,
        pending: &PendingConnection,
        why: HandshakeFailure,
        error: &str,
        limits: &StreamLimits,
    ) {
        let FiveTuple { client, server, .. } = pending.tuple;
        let (reason, fix, connection) = (why.as_str(), why.fix(), pending.permit.connection().0);
        let proxy = pending.proxy.map(tracing::field::display);
        if why.is_ordinary() {
            return debug!(%client, %server, proxy, reason, error, connection, "connection closed before its TLS handshake");
        }
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let limit = (why == HandshakeFailure::TooSlow).then_some(limits.handshake_timeout.as_secs());
        let setting = limit.map(|_| "limits.handshake_timeout");
        info!(%client, %server, proxy, reason, error, fix, setting, limit, connection, suppressed, "TLS handshake failed");
    }

    /// A connection was closed right after it was accepted.
    pub(super) fn log_refused(&self, tuple: &FiveTuple, proxy: Option<SocketAddr>, refusal: Refusal) {
        let Refusal { why, source, limit, setting, by_open_files } = refusal;
        let reason = why.as_str();
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let (client, server, transport) = (tuple.client, tuple.server, tuple.transport.as_str());
        let proxy = proxy.map(tracing::field::display);
        let fix = match why {
            AdmissionRefusal::Connections if by_open_files => {
                "raise LimitNOFILE (systemd) or ulimit -n: it leaves room for this many"
            }
            AdmissionRefusal::Connections => "raise limits.connections",
            AdmissionRefusal::ConnectionsPerSource => {
                "if many clients are behind this source: raise limits.connections_per_source, or limits.connections, of which \
                 one source gets a quarter at most; if it is your own proxy, balancer or NAT, list it in limits.exempt_sources, or let it \
                 send PROXY headers (proxy_from of a [[listener]])"
            }
        };
        info!(%client, %server, transport, proxy, reason, %source, limit, fix, setting, suppressed, "connection refused");
    }

    /// The oldest connection of a source makes room for a new one.
    pub(super) fn log_displaced(&self, displacing: Displacing) {
        let Displacing { source, limit, by_open_files } = displacing;
        let setting = if by_open_files { "LimitNOFILE" } else { "limits.connections" };
        let reason = ConnectionEnd::Displaced.as_str();
        let Some(suppressed) = self.log.borrow_mut().take(clock::mono(), reason, COMMON) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let fix = if by_open_files {
            "unless this is an attack, raise LimitNOFILE (systemd) or ulimit -n, which bounds the number of connections"
        } else {
            "unless this is an attack, raise limits.connections"
        };
        warn!(
            reason,
            %source,
            fix,
            setting,
            limit,
            suppressed,
            "all connections are in use: closed the oldest connection without an allocation of the busiest source to admit a new one"
        );
    }
}
