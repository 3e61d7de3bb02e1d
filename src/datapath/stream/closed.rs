//! The line about a connection that has ended.

use std::net::SocketAddr;

use tracing::{debug, info};

use super::StreamLimits;
use super::admission::ConnectionId;
use super::stats::ConnectionEnd;
use crate::datapath::line_budget::{COMMON, LineBudgets};
use crate::turn::{AllocationName, FiveTuple};

/// A connection that has ended.
pub(in crate::datapath) struct ClosedConnection<'a> {
    pub(in crate::datapath) tuple: &'a FiveTuple,
    /// The proxy that it comes from, which is the operator's: it is written whole.
    pub(in crate::datapath) proxy: Option<SocketAddr>,
    pub(in crate::datapath) connection: Option<ConnectionId>,
    /// The latest allocation of its client.
    pub(in crate::datapath) session: Option<AllocationName>,
    pub(in crate::datapath) why: ConnectionEnd,
    pub(in crate::datapath) limits: &'a StreamLimits,
}

/// Tells why a connection has ended: at level debug if that is ordinary.
pub(in crate::datapath) fn log_closed(log: &mut LineBudgets, now: u64, closed: ClosedConnection<'_>) {
    let ClosedConnection { tuple, proxy, connection, session, why, limits } = closed;
    let (client, server, transport) = (tuple.client, tuple.server, tuple.transport.as_str());
    let (connection, session) = (connection.map(|id| id.0), session.map(tracing::field::display));
    let (reason, fix, proxy) = (why.as_str(), why.fix(), proxy.map(tracing::field::display));
    if why.is_ordinary() {
        return debug!(%client, %server, transport, proxy, reason, session, connection, "connection closed");
    }
    let Some(suppressed) = log.take(now, reason, COMMON) else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let limit = why.limit(limits);
    let (setting, limit) = (limit.map(|limit| limit.setting), limit.map(|limit| limit.value));
    info!(
        %client,
        %server,
        transport,
        proxy,
        reason,
        fix,
        setting,
        limit,
        session,
        connection,
        suppressed,
        "connection closed"
    );
}
