//! Connections that another server gets.

use super::context::StageContext;
use super::pending::{Passed, PendingConnection};
use crate::datapath::splice::backend::Backend;
use crate::datapath::splice::request::{Splice, SpliceRequest};
use crate::datapath::stream::stats::{ConnectionEnd, StreamCounters};

/// Hands a connection over to those that are passed on to backends. It does not count among TURN's any more.
pub(super) fn hand_over<S>(
    context: &StageContext<S>,
    pending: PendingConnection,
    passed: Passed,
    backend: Backend,
) {
    let Passed { tls, received, .. } = passed;
    let PendingConnection { stream, tuple, permit, open, .. } = pending;
    let splice =
        Splice { backend, client: tuple.client, server: tuple.server, connection: permit.connection() };
    drop((permit, open));
    match stream.into_std() {
        Ok(socket) => context.splicer.splice(SpliceRequest { socket, tls, received, splice }),
        Err(_) => {
            let index = StreamCounters::index(tuple.transport);
            context.counters().closed[index][ConnectionEnd::System] += 1;
        }
    }
}
