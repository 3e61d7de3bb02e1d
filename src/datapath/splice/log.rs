//! What the log says of connections to backends.

use std::borrow::Cow;
use std::net::SocketAddr;

use tracing::{debug, info, warn};

use super::backends::{BackendState, Failed};
use super::request::Splice;
use super::stats::{BackendHealth, SpliceEnd, SpliceFailure};
use crate::datapath::clock;
use crate::datapath::line_budget::LineBudget;
use crate::datapath::stream::admission::{Displacing, Refusal};
use crate::turn::Now;

/// The address of a backend. It is the operator's own, so it is never masked.
pub(super) fn address(address: SocketAddr) -> String {
    address.to_string()
}

/// A connection has not reached its backend, and is closed. Returns the number of the outage if one begins.
pub(super) fn failed(splice: &Splice, state: &BackendState, why: SpliceFailure, error: &str) -> Option<u64> {
    let Now { mono, unix } = clock::now();
    let Failed { line, outage } = state.failed(why, error, mono, unix);
    let Some(suppressed) = line else { return outage };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let Splice { client, server, connection, .. } = *splice;
    let (backend, reason, fix, connection) = (state.name.as_str(), why.as_str(), why.fix(), connection.0);
    let what = match why {
        SpliceFailure::Loop => "a connection is closed, since its backend leads back to this relay",
        _ if why.is_of_backend() => "a connection is closed, since its backend cannot be reached",
        _ => "a connection is closed before it has reached its backend",
    };
    warn!(
        backend,
        reason,
        error,
        fix,
        %client,
        %server,
        connection,
        suppressed,
        "{what}"
    );
    outage
}

/// A connection was refused by a limit of this relay.
pub(super) fn refused(splice: &Splice, state: &BackendState, refusal: Refusal) {
    let Now { mono, unix } = clock::now();
    let Refusal { source, limit, setting, .. } = refusal;
    let why = SpliceFailure::Limit;
    let Some(suppressed) = state.failed(why, setting, mono, unix).line else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let Splice { client, server, connection, .. } = *splice;
    let (backend, reason, fix, connection) = (state.name.as_str(), why.as_str(), why.fix(), connection.0);
    info!(
        backend,
        reason,
        %source,
        setting,
        limit,
        fix,
        %client,
        %server,
        connection,
        suppressed,
        "a connection to a backend is refused: there are too many"
    );
}

/// The oldest connection of a source makes room for a new one.
pub(super) fn displaced(lines: &mut LineBudget, displacing: Displacing) {
    let Some(suppressed) = lines.take(clock::mono()) else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let Displacing { source, limit, by_open_files } = displacing;
    let (setting, fix) = match by_open_files {
        true => ("LimitNOFILE", "unless this is an attack, raise LimitNOFILE (systemd) or ulimit -n"),
        false => ("limits.spliced_connections", "unless this is an attack, raise limits.spliced_connections"),
    };
    warn!(
        %source,
        setting,
        limit,
        fix,
        suppressed,
        "as many connections go to backends as may: closed the oldest one of the busiest source to admit a new one"
    );
}

/// A backend has been reached, of which this was known before.
pub(super) fn reached(state: &BackendState, before: &BackendHealth) {
    if let BackendHealth::Failing { since, .. } = before {
        let seconds = clock::now().unix.saturating_sub(*since);
        info!(backend = state.name.as_str(), seconds, "a backend can be reached again");
    }
}

/// A connection has ended.
pub(super) fn closed(splice: &Splice, state: &BackendState, why: SpliceEnd) {
    let Splice { client, server, connection, .. } = *splice;
    let (backend, reason, connection) = (state.name.as_str(), why.as_str(), connection.0);
    debug!(backend, reason, %client, %server, connection, "a connection to a backend has ended");
}

/// What ended so many connections with the process.
pub(super) fn cut(connections: usize) {
    if connections > 0 {
        let are: Cow<'_, str> = match connections {
            1 => "a connection to a backend is".into(),
            n => format!("{n} connections to backends are").into(),
        };
        info!(connections, "{are} cut, since the relay stops");
    }
}
