//! The backends of connections that are not for TURN: their metrics, and what health checks add about them.

use prometheus::proto::MetricFamily;

use super::unix_now;
use crate::datapath::{BackendStats, SpliceStats};
use crate::exposition::{Sample, counter, gauge, row};

/// The metrics of connections to backends. There are none without a backend in the configuration.
pub fn families(splices: &SpliceStats) -> Vec<MetricFamily> {
    let all = &splices.backends;
    vec![
        gauge(
            "hairpin_spliced_connections",
            "Open connections to each backend.",
            by_backend(all, |one| one.open),
        ),
        counter(
            "hairpin_spliced_connections_total",
            "Connections that have reached each backend.",
            by_backend(all, |one| one.total),
        ),
        counter(
            "hairpin_spliced_connections_closed_total",
            "Connections to each backend that have ended, by reason.",
            all.iter().flat_map(|one| {
                one.closed
                    .iter()
                    .map(|(why, n)| row([("backend", one.name.clone()), ("reason", why.as_str().into())], n))
            }),
        ),
        counter(
            "hairpin_spliced_bytes_total",
            "Bytes passed on between clients and each backend, decrypted where TLS ends here, by direction.",
            all.iter().flat_map(|one| {
                [("to_backend", one.to_backend), ("to_client", one.to_client)].map(|(direction, n)| {
                    row([("backend", one.name.clone()), ("direction", direction.into())], n)
                })
            }),
        ),
        counter(
            "hairpin_splices_failed_total",
            "Connections that were closed because they did not reach their backend, by reason.",
            all.iter().flat_map(|one| {
                one.failed
                    .iter()
                    .map(|(why, n)| row([("backend", one.name.clone()), ("reason", why.as_str().into())], n))
            }),
        ),
        gauge(
            "hairpin_backend_up",
            "Whether the latest connection to each backend has reached it: 1, also before the first connection, else 0.",
            by_backend(all, |one| one.failure().is_none().into()),
        ),
    ]
}

/// What health checks add, a line per backend that cannot be reached: TURN does not depend on it.
pub fn remarks(splices: &SpliceStats) -> String {
    let remark = |(one, (since, error)): (&BackendStats, (u64, &str))| {
        let seconds = unix_now().saturating_sub(since);
        format!("backend {} has not been reached for {seconds} s: {error}\n", one.name)
    };
    splices.backends.iter().filter_map(|one| Some((one, one.failure()?))).map(remark).collect()
}

fn by_backend(all: &[BackendStats], what: impl Fn(&BackendStats) -> u64) -> impl Iterator<Item = Sample> {
    all.iter().map(move |one| row([("backend", one.name.clone())], what(one)))
}
