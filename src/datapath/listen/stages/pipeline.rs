//! The way of a connection through its stages: the header of a proxy, a look at the first bytes, TLS, and another look.

use tokio::sync::oneshot;

use super::context::{SharedContext, Sink, StageContext};
use super::not_served::not_served;
use super::pending::{Closed, Passed, PendingConnection, Served};
use super::sniff::sniff;
use super::tls::tls;
use super::{proxy, splice};
use crate::datapath::clock;
use crate::datapath::stream::incoming::{Incoming, OpenConnection};
use crate::datapath::stream::stats::{ConnectionEnd, StreamCounters};
use crate::turn::Transport;
use crate::wire::Sniffed;

impl<S: Sink> StageContext<S> {
    /// Takes a connection through its stages and hands it over, or closes it.
    pub(super) async fn pass_stages(
        self: SharedContext<S>,
        mut pending: PendingConnection,
        displaced: oneshot::Receiver<()>,
    ) {
        let outcome = tokio::select! {
            biased;
            outcome = self.stages(&mut pending) => outcome,
            Ok(()) = displaced => Err(Closed::End(ConnectionEnd::Displaced)),
        };
        self.count_accepted(&mut pending);
        match outcome {
            Ok(passed) => self.hand_over(pending, passed).await,
            Err(closed) => self.close(&pending, &closed),
        }
    }

    async fn stages(&self, pending: &mut PendingConnection) -> Result<Passed, Closed> {
        proxy::read_header(pending).await?;
        let opened = clock::mono();
        pending.begin(pending.config.limits.first_message_timeout);
        let sniffed = sniff(pending).await?;
        let service = pending.service.clone();
        let served = match sniffed {
            Sniffed::Tls if service.tls => {
                pending.tuple.transport = Transport::Tls;
                self.count_accepted(pending);
                // Most of the memory that a connection needs while it is here is for TLS.
                return Box::pin(tls(self, pending)).await;
            }
            Sniffed::Turn if service.turn => Some(Served::Turn),
            Sniffed::Http => service.http.clone().map(Served::Backend),
            Sniffed::Turn | Sniffed::Tls | Sniffed::Http2 | Sniffed::Proxy | Sniffed::Other => None,
        };
        let Some(served) = served else {
            return Err(proxy::untrusted(pending, sniffed).unwrap_or_else(|| not_served(sniffed, pending)));
        };
        Ok(Passed { tls: None, opened, received: pending.stream.take_received(), served })
    }

    /// Counts a connection once it is known over which transport it came, or that nobody will know.
    fn count_accepted(&self, pending: &mut PendingConnection) {
        if !std::mem::replace(&mut pending.counted, true) {
            self.counters().accepted[StreamCounters::index(pending.tuple.transport)] += 1;
        }
    }

    /// Whoever serves the connection has it from now on.
    async fn hand_over(&self, pending: PendingConnection, passed: Passed) {
        match passed.served.clone() {
            Served::Turn => self.hand_to_worker(pending, passed).await,
            Served::Backend(backend) => splice::hand_over(self, pending, passed, backend),
        }
    }

    async fn hand_to_worker(&self, pending: PendingConnection, passed: Passed) {
        let Passed { tls, opened, received, .. } = passed;
        let PendingConnection { stream, tuple, permit, open, .. } = pending;
        let open = open.unwrap_or_else(|| OpenConnection::new(self.counters.clone(), tuple.transport));
        match stream.into_std() {
            Ok(socket) => {
                self.sink.take(Incoming { socket, tls, tuple, permit, open, opened, received }).await;
            }
            Err(_) => {
                let index = StreamCounters::index(tuple.transport);
                self.counters().closed[index][ConnectionEnd::System] += 1;
            }
        }
    }

    /// Closes a connection, counts and logs its end.
    fn close(&self, pending: &PendingConnection, closed: &Closed) {
        pending.stream.discard();
        match closed {
            Closed::End(why) | Closed::Because(why, ..) => {
                self.counters().closed[StreamCounters::index(pending.tuple.transport)][*why] += 1;
            }
            Closed::Refused(refusal) => {
                self.counters().refused[StreamCounters::index(pending.tuple.transport)][refusal.why] += 1;
            }
            Closed::Handshake(why, _) => self.counters().handshakes_failed[*why] += 1,
        }
        self.log_closed(pending, closed);
    }
}
