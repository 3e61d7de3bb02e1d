//! What the fast plane logs: one line when an allocation starts, one when it ends, and why clients were refused. Nothing
//! per relayed packet. A line that concerns an allocation has its name as `session`, one about a connection has `connection`.
//!
//! Clients decide how often they are refused, so a worker writes a bounded number of lines per reason and sums up what it
//! suppressed. Names that clients chose are written with their control characters escaped.
//!
//! What the kernel dropped is logged at once, then summed up every ten seconds, with the remedy.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tracing::{debug, info, warn};

use crate::auth::AuthScheme;
use crate::datapath::drops::QueueLoss;
use crate::datapath::line_budget::{COMMON, EXPECTED, LineBudget, LineBudgets, LineRate};
use crate::datapath::listen::{accept, group};
use crate::datapath::relay::socket;
use crate::datapath::stats::SocketQueue;
use crate::datapath::stream::stats::ConnectionEnd;
use crate::datapath::stream::table::LoggedConnection;
use crate::shown::Shown;
use crate::turn::bucket::UnsignedResponse;
use crate::turn::{
    AllocationName, Closed, ClosedPortDropped, FiveTuple, Limit, Opened, PeerAddr, PortUse, RefusalReason,
    Refused, SECOND,
};
use crate::wire::{self, Family};

/// How long the losses of a queue are summed up before they are logged again, in nanoseconds.
const SUMMED_UP: u64 = 10_000_000_000;

/// How many allocations are logged when they are opened, and as many when they are closed: one user may open and close
/// thousands per second.
const ALLOCATIONS: LineRate = LineRate { lines: 300, period: SECOND };

/// How many unknown attributes a line lists.
const ATTRIBUTES: usize = 8;

/// A worker's log.
pub(super) struct Log {
    refused: LineBudgets,
    /// Packets to closed ports, at most one per allocation.
    closed_ports: LineBudget,
    not_turn: LineBudgets,
    opened: LineBudget,
    closed: LineBudget,
    losses: [LossSum; SocketQueue::ALL.len()],
}

/// The connection of a client over TCP or TLS.
#[derive(Clone, Copy)]
pub(super) struct OfClient(pub(super) Option<LoggedConnection>);

/// What was lost and not logged yet.
#[derive(Default)]
struct LossSum {
    loss: QueueLoss,
    /// When it may be logged.
    from: u64,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            refused: LineBudgets::default(),
            closed_ports: LineBudget::new(EXPECTED),
            not_turn: LineBudgets::default(),
            opened: LineBudget::new(ALLOCATIONS),
            closed: LineBudget::new(ALLOCATIONS),
            losses: Default::default(),
        }
    }
}

impl Log {
    /// An allocation was created.
    pub(super) fn opened(&mut self, now: u64, opened: &Opened, client: OfClient) {
        let Opened { session, tuple, user, relays, lifetime, .. } = opened;
        if opened.is_probe {
            return debug!(%session, client = %tuple.client, server = %tuple.server, "a probe has an allocation");
        }
        let Some(suppressed) = self.opened.take(now) else { return };
        let relayed = |family| relays[family].map(|relay| tracing::field::display(relay.addr));
        info!(
            client = %tuple.client,
            server = %tuple.server,
            transport = tuple.transport.as_str(),
            user = &**user,
            relayed_v4 = relayed(Family::V4),
            relayed_v6 = relayed(Family::V6),
            lifetime,
            %session,
            connection = client.connection(),
            proxy = client.proxy().map(tracing::field::display),
            suppressed = some(suppressed),
            "allocation opened"
        );
    }

    /// An allocation has ended.
    pub(super) fn closed(&mut self, now: u64, closed: &Closed, client: OfClient) {
        let Closed { session, tuple, user, reason, lived, totals, .. } = closed;
        if closed.is_probe {
            let reason = reason.text();
            return debug!(%session, client = %tuple.client, reason, "the allocation of a probe has ended");
        }
        let Some(suppressed) = self.closed.take(now) else { return };
        info!(
            client = %tuple.client,
            server = %tuple.server,
            transport = tuple.transport.as_str(),
            user = &**user,
            reason = reason.text(),
            seconds = lived,
            to_peer_packets = totals.to_peer_packets,
            to_peer_bytes = totals.to_peer_bytes,
            to_client_packets = totals.to_client_packets,
            to_client_bytes = totals.to_client_bytes,
            %session,
            connection = client.connection(),
            connection_end = client.end(),
            suppressed = some(suppressed),
            "allocation closed"
        );
    }

    /// A client was refused.
    pub(super) fn refused(&mut self, now: u64, refused: &Refused, client: OfClient) {
        let why = refused.reason;
        let (code, reason) = (why.code(), why.text());
        // Browsers ask for permissions towards private candidates in every call.
        let rate = if code == 403 && refused.peer.is_some() { EXPECTED } else { COMMON };
        let Some(suppressed) = self.refused.take(now, reason, rate) else { return };
        let unknown = refused.unknown.iter().take(ATTRIBUTES);
        let mut unknown: Vec<String> = unknown.map(|attribute| format!("{attribute:#06x}")).collect();
        if refused.unknown.len() > ATTRIBUTES {
            unknown.push("…".to_owned());
        }
        let fix = match (why, client.proxy()) {
            (RefusalReason::ProxiedClient, Some(proxy)) => {
                format!(
                    "the proxy at {proxy} sent client address {}: {}",
                    refused.tuple.client.0.ip(),
                    refused.fix
                )
            }
            _ => refused.fix.to_string(),
        };
        let ports = match why {
            RefusalReason::NoPort(ports) => Some(ports),
            _ => None,
        };
        info!(
            client = %refused.tuple.client,
            method = ?refused.method,
            code,
            reason,
            user = refused.user.as_deref(),
            peer = refused.peer.map(|peer| tracing::field::display(PeerOf(why, peer))),
            alternate = refused.alternate.map(tracing::field::display),
            channel = refused.channel.map(|number| format!("{number:#06x}")),
            attributes = (!unknown.is_empty()).then(|| unknown.join(" ")),
            fix,
            setting = refused.limit.map(|limit| limit.setting),
            limit = refused.limit.map(|limit| limit.value),
            ports = ports.map(|PortUse { range: (first, last), .. }| format!("{first}-{last}")),
            in_use = ports.map(|ports| ports.in_use),
            scheme = refused.scheme.map(AuthScheme::as_str),
            expires_in = refused.expires_in,
            status = wire::reason_phrase(code),
            rfc = why.rfc(),
            server = %refused.tuple.server,
            transport = refused.tuple.transport.as_str(),
            session = refused.session.map(tracing::field::display),
            connection = client.connection(),
            proxy = client.proxy().map(tracing::field::display),
            suppressed = some(suppressed),
            "refused"
        );
    }

    /// A response without MESSAGE-INTEGRITY was withheld. `session`: the allocation of its client.
    pub(super) fn withheld(
        &mut self,
        now: u64,
        from: &FiveTuple,
        response: UnsignedResponse,
        limit: Limit,
        session: impl FnOnce() -> Option<AllocationName>,
    ) {
        let (reason, fix) = match response {
            UnsignedResponse::Binding => (
                "too many Binding requests from this source",
                "if many clients share it, raise limits.binding_rate or list it in limits.exempt_sources",
            ),
            UnsignedResponse::Challenge => (
                "too many requests without valid credentials from this source",
                "if many clients share it, raise limits.unauthenticated_rate or list it in limits.exempt_sources",
            ),
        };
        let Some(suppressed) = self.refused.take(now, reason, EXPECTED) else { return };
        let Limit { setting, value: limit } = limit;
        info!(
            client = %from.client,
            reason,
            fix,
            setting,
            limit,
            server = %from.server,
            session = session().map(tracing::field::display),
            suppressed = some(suppressed),
            "response withheld"
        );
    }

    /// A request from one of this relay's own relayed addresses was dropped.
    pub(super) fn nested_dropped(&mut self, now: u64, from: &FiveTuple) {
        let reason = "nested";
        let Some(suppressed) = self.refused.take(now, reason, EXPECTED) else { return };
        let fix = "find out which user does it: if its allocation reaches this relay through another NAT or balancer, add that \
                   address to relay.external_ip or peers.deny";
        // It is an address of this relay.
        info!(
            client = %from.client.0,
            server = %from.server,
            reason,
            fix,
            suppressed = some(suppressed),
            "dropped a request from a relayed address of this relay"
        );
    }

    /// A packet to a closed port was dropped.
    pub(super) fn closed_port_dropped(&mut self, now: u64, dropped: &ClosedPortDropped) {
        let Some(suppressed) = self.closed_ports.take(now) else { return };
        let ClosedPortDropped { session, tuple, user, peer, reason, remedy } = dropped;
        let (peer, reason) = (PeerOf(*reason, *peer), reason.text());
        warn!(
            client = %tuple.client,
            user = &**user,
            %session,
            suppressed = some(suppressed),
            "dropped a packet to {peer}: {reason}; {remedy}"
        );
    }

    /// A permission has ended while a channel to its address is bound.
    pub(super) fn permission_lapsed(session: AllocationName, peer: IpAddr) {
        let peer = Shown(peer);
        debug!(%session, %peer, "a permission has ended: packets of this peer are dropped until the client renews it");
    }

    /// A worker has panicked, and this allocation was its own.
    pub(super) fn lost(&mut self, now: u64, session: AllocationName, tuple: &FiveTuple, user: &str) {
        let Some(suppressed) = self.closed.take(now) else { return };
        warn!(
            client = %tuple.client,
            server = %tuple.server,
            transport = tuple.transport.as_str(),
            user,
            reason = "its worker has panicked",
            %session,
            suppressed = some(suppressed),
            "allocation closed"
        );
    }

    /// A connection is closed because its bytes can never be TURN.
    pub(super) fn not_turn(
        &mut self,
        now: u64,
        tuple: &FiveTuple,
        (why, detail): (ConnectionEnd, &str),
        session: Option<AllocationName>,
        client: OfClient,
    ) {
        let (reason, fix) = (why.as_str(), why.fix());
        let Some(suppressed) = self.not_turn.take(now, reason, COMMON) else { return };
        info!(
            client = %tuple.client,
            server = %tuple.server,
            transport = tuple.transport.as_str(),
            reason,
            detail,
            fix,
            session = session.map(tracing::field::display),
            connection = client.connection(),
            suppressed = some(suppressed),
            "closed a connection that does not speak TURN"
        );
    }

    /// Writes the summaries that are due.
    pub(super) fn summarize(&mut self, now: u64) {
        for (reason, count) in self.not_turn.take_summaries(now) {
            info!(reason, count, "log lines suppressed: connections that do not speak TURN");
        }
        for (reason, count) in self.refused.take_summaries(now) {
            info!(reason, count, "log lines suppressed: refused requests");
        }
        if let Some(count) = self.closed_ports.take_summary(now) {
            warn!(reason = "closed_port", count, "log lines suppressed: dropped packets to closed ports");
        }
        for (budget, what) in [(&mut self.opened, "opened"), (&mut self.closed, "closed")] {
            if let Some(count) = budget.take_summary(now) {
                info!(reason = what, count, "log lines suppressed: {what} allocations");
            }
        }
    }

    /// The kernel dropped what a queue had no room for. To be called also when it dropped nothing more.
    pub(super) fn lost_packets(&mut self, now: u64, queue: SocketQueue, loss: QueueLoss) {
        let Some(loss) = self.losses[queue as usize].add(now, loss) else { return };
        let QueueLoss { count: lost, queue_size: size } = loss;
        let asked_for = match queue {
            SocketQueue::Control | SocketQueue::Data => group::BUFFER,
            SocketQueue::Relay => socket::BUFFER,
            SocketQueue::Accept => 0,
        };
        let name = queue.as_str();
        match queue {
            _ if size < asked_for => warn!(
                queue = name,
                lost,
                size,
                "packets were lost in a full queue, which is smaller than was asked for; \
                 run `sysctl -w net.core.rmem_max={}` and restart",
                group::BUFFER
            ),
            SocketQueue::Control => warn!(
                queue = name,
                lost,
                size,
                "requests were lost in a full queue: more arrived than this worker can answer; calls have a queue of their \
                 own, but if this is no attack, give the relay more CPUs and raise `workers`"
            ),
            SocketQueue::Data | SocketQueue::Relay => warn!(
                queue = name,
                lost,
                size,
                "packets were lost in a full queue: more arrived than this worker can relay; \
                 give the relay more CPU time, or more CPUs and raise `workers`"
            ),
            SocketQueue::Accept => warn!(
                queue = name,
                lost,
                "connections were lost in a full queue: more arrived than this worker can accept; \
                 raise `workers`, or net.core.somaxconn if it is lower than {}",
                accept::BACKLOG
            ),
        }
    }

    /// Whether losses or summaries wait to be logged.
    pub(super) fn is_behind(&self) -> bool {
        self.losses.iter().any(|sum| sum.loss.count > 0)
            || self.refused.is_behind()
            || self.closed_ports.is_behind()
            || self.not_turn.is_behind()
            || self.opened.is_behind()
            || self.closed.is_behind()
    }
}

impl OfClient {
    fn connection(self) -> Option<u64> {
        self.0.map(|connection| connection.id.0)
    }

    fn end(self) -> Option<&'static str> {
        self.0?.end.map(ConnectionEnd::as_str)
    }

    /// The proxy that it comes from, which is the operator's: it is written whole.
    fn proxy(self) -> Option<SocketAddr> {
        self.0?.proxy
    }
}

/// A peer, which is shown whole if it is this relay itself.
struct PeerOf(RefusalReason, PeerAddr);

impl fmt::Display for PeerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_about_own_address() {
            true => self.1.0.fmt(f),
            false => self.1.fmt(f),
        }
    }
}

/// The number of suppressed lines, if there are any.
fn some(suppressed: u64) -> Option<u64> {
    (suppressed > 0).then_some(suppressed)
}

impl LossSum {
    /// Adds a loss; returns what is to be logged now.
    fn add(&mut self, now: u64, loss: QueueLoss) -> Option<QueueLoss> {
        self.loss.add(loss);
        if self.loss.count == 0 || now < self.from {
            return None;
        }
        self.from = now + SUMMED_UP;
        Some(std::mem::take(&mut self.loss))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_logged_at_once_and_then_summed_up() {
        let mut sum = LossSum::default();
        let loss = |count, queue_size| QueueLoss { count, queue_size };
        let nothing = QueueLoss::default();
        assert_eq!(sum.add(5, nothing), None);
        assert_eq!(sum.add(7, loss(3, 100)), Some(loss(3, 100)));
        assert_eq!(sum.add(8, loss(4, 300)), None);
        assert_eq!(sum.add(6 + SUMMED_UP, loss(5, 200)), None);
        assert_eq!(sum.add(7 + SUMMED_UP, nothing), Some(loss(9, 200)), "the smallest queue of those");
        assert_eq!(sum.add(9 + 3 * SUMMED_UP, nothing), None);
        assert_eq!(sum.add(9 + 3 * SUMMED_UP, loss(1, 9)), Some(loss(1, 9)));
    }
}
