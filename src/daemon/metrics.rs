//! The metrics of a relay. No label has values that clients choose.

use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::backends;
use super::certificates::{CertificateStats, CertificateStatus};
use super::external::ExternalCounts;
use super::heartbeat::{LAGS, LoopLag};
use super::host::UdpErrors;
use crate::counted::{Counted, Counters};
use crate::datapath::stream::stats::HANDSHAKES;
use crate::datapath::{PortUsage, SpliceStats, WorkerStats};
use crate::exposition::{self, Sample, UNLABELLED, counter, gauge, histogram, histograms, row, seconds};
use crate::turn::stats::{LIFETIMES, OUTCOMES, REQUESTS, Stats, TrafficCount};
use crate::turn::{PerFamily, Transport};

/// The relay's addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressCounts {
    /// Those that relay now.
    pub relay: PerFamily<u64>,
    /// How often those that relay have become others.
    pub relay_changes: u64,
    /// The external ones that are asked for.
    pub external: ExternalCounts,
}

/// The configured limits, by the names of their settings.
pub type NamedLimits = Vec<(&'static str, u64)>;

/// Reloads of the configuration. The start counts as one that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct ReloadCounts {
    ok: u64,
    failed: u64,
    last_ok: bool,
    /// When the configuration that is in use was read, in Unix seconds.
    read_at: u64,
    /// How long the last one took.
    took: Duration,
}

impl ReloadCounts {
    /// None yet; the configuration was read at `now`.
    pub fn new(now: u64) -> ReloadCounts {
        ReloadCounts { ok: 0, failed: 0, last_ok: true, read_at: now, took: Duration::ZERO }
    }

    /// Counts a reload at `now`, which took so long.
    pub fn count(&mut self, ok: bool, now: u64, took: Duration) {
        (self.last_ok, self.took) = (ok, took);
        if ok {
            (self.ok, self.read_at) = (self.ok + 1, now);
        } else {
            self.failed += 1;
        }
    }
}

/// What the page shows, read at one time.
pub struct Readings {
    /// The counters of each worker.
    pub workers: Vec<WorkerStats>,
    /// How late each worker is.
    pub lags: Vec<LoopLag>,
    pub ports: PerFamily<PortUsage>,
    pub addresses: AddressCounts,
    pub limits: NamedLimits,
    pub reloads: ReloadCounts,
    pub log_lines_dropped: u64,
    /// The kernel's counters of this host.
    pub host: Vec<UdpErrors>,
    pub draining: bool,
    /// Whether /readyz succeeds.
    pub is_ready: bool,
    pub certificates: CertificateStats,
    pub revocations: RevocationCounts,
    /// Connections to backends.
    pub splices: SpliceStats,
    /// Those of the process.
    pub process: Vec<MetricFamily>,
}

/// Revoked users.
#[derive(Clone, Copy, Debug, Default)]
pub struct RevocationCounts {
    /// Users that are revoked now.
    pub users: u64,
    /// Revocations since the start.
    pub made: u64,
}

/// The page with these readings.
pub fn page(readings: &Readings) -> String {
    exposition::page(families(readings))
}

fn families(readings: &Readings) -> Vec<MetricFamily> {
    let Readings { workers, lags, addresses, limits, reloads, host, certificates, revocations, .. } =
        readings;
    let mut sum = WorkerStats::default();
    workers.iter().for_each(|worker| sum.add(worker));
    let turn = &sum.turn;
    let streams = &sum.sockets.streams;
    let mut families = vec![
        gauge(
            "hairpin_allocations",
            "Current allocations by client transport and address family; one with both families counts in both.",
            relays(turn),
        ),
        counter(
            "hairpin_allocations_opened_total",
            "Allocations created.",
            [row(UNLABELLED, turn.allocations_total)],
        ),
        counter(
            "hairpin_allocations_closed_total",
            "Allocations that have ended, by reason.",
            turn.closed.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        counter(
            "hairpin_probe_allocations_total",
            "Allocations created by probes of the relay, which are not among the others.",
            [row(UNLABELLED, turn.probe_allocations)],
        ),
        histogram(
            "hairpin_allocation_lifetime_seconds",
            "How long allocations lived that have ended, without those of probes.",
            &LIFETIMES,
            &turn.lifetimes,
        ),
        gauge(
            "hairpin_relay_addresses",
            "Addresses that relayed transport addresses are made of now; without any, /readyz fails.",
            by_family(addresses.relay),
        ),
        counter(
            "hairpin_relay_address_changes_total",
            "How often the addresses that relayed transport addresses are made of have become others.",
            [row(UNLABELLED, addresses.relay_changes)],
        ),
        gauge(
            "hairpin_relay_ports",
            "Ports of relayed transport addresses: those of relay.ports at every address that relays now.",
            by_family(readings.ports.map(|ports| ports.total)),
        ),
        gauge(
            "hairpin_relay_ports_in_use",
            "Ports of relayed transport addresses that are taken: by allocations, by reservations (EVEN-PORT), or by another program.",
            by_family(readings.ports.map(|ports| ports.in_use)),
        ),
        counter(
            "hairpin_external_address_changes_total",
            "External addresses that relay.external_ip asks for and that have become others.",
            [row(UNLABELLED, addresses.external.changes)],
        ),
        counter(
            "hairpin_external_address_queries_total",
            "Questions for external addresses, by outcome.",
            [("answered", addresses.external.answered), ("failed", addresses.external.failed)]
                .map(|(outcome, n)| row([("outcome", outcome)], n)),
        ),
        gauge(
            "hairpin_ready",
            "Whether the relay serves clients, as /readyz says: 1, else 0.",
            [row(UNLABELLED, readings.is_ready.into())],
        ),
        gauge(
            "hairpin_draining",
            "Whether the relay drains: 1 while it makes no new allocations, and stops when the running ones have ended; otherwise 0.",
            [row(UNLABELLED, readings.draining.into())],
        ),
        gauge("hairpin_permissions", "Current permissions.", [row(UNLABELLED, turn.permissions)]),
        gauge("hairpin_channels", "Current channel bindings.", [row(UNLABELLED, turn.channels)]),
        counter(
            "hairpin_relayed_packets_total",
            "Relayed packets by direction and client transport.",
            relayed(turn, |traffic| traffic.packets),
        ),
        counter(
            "hairpin_relayed_bytes_total",
            "Relayed bytes of application data by direction and client transport.",
            relayed(turn, |traffic| traffic.bytes),
        ),
        counter(
            "hairpin_dropped_packets_total",
            "Packets that the relay dropped, by reason.",
            turn.dropped.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        counter(
            "hairpin_unsent_packets_total",
            "Packets that this machine could not send, by reason.",
            sum.sockets.unsent.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        counter(
            "hairpin_socket_drops_total",
            "What the kernel dropped because a queue was full: for accept, connection attempts; for the other queues, \
             datagrams, of which those joined by GRO count once.",
            sum.sockets.dropped_by_kernel.iter().map(|(queue, n)| row([("queue", queue.as_str())], n)),
        ),
        gauge(
            "hairpin_connections",
            "Open TCP and TLS connections. A connection counts as TCP until its first bytes show TLS, and as TLS once the handshake \
             is complete.",
            by_stream(streams.open),
        ),
        counter(
            "hairpin_connections_accepted_total",
            "Accepted TCP and TLS connections, those for backends too, once their first bytes tell which they are, or as TCP when they end before.",
            by_stream(streams.accepted),
        ),
        counter(
            "hairpin_connections_refused_total",
            "Connections closed immediately, by the limit that was reached.",
            by_reason(&streams.refused),
        ),
        counter(
            "hairpin_connections_closed_total",
            "Connections that have ended, other than by a failed handshake, by reason.",
            by_reason(&streams.closed),
        ),
        histogram(
            "hairpin_tls_handshake_duration_seconds",
            "How long successful TLS handshakes of clients took, from the acceptance of the connection on, with the round trips.",
            &HANDSHAKES,
            &streams.handshakes,
        ),
        counter(
            "hairpin_tls_handshakes_failed_total",
            "Failed TLS handshakes, by reason.",
            streams.handshakes_failed.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        gauge(
            "hairpin_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that serves expires, in Unix seconds, by its number in the configuration (1 is the default one) and its \
             configured file.",
            by_certificate(certificates, |one| one.expiry),
        ),
        gauge(
            "hairpin_tls_certificate_failing",
            "1 if the files of a certificate cannot be used, so that an earlier one serves, or none.",
            by_certificate(certificates, |one| Some(one.is_failing.into())),
        ),
        counter(
            "hairpin_tls_certificate_reloads_total",
            "Certificates that were read again because their files or the configuration had changed, by outcome: those that are new, \
             and those whose files cannot be used.",
            [("renewed", certificates.renewed), ("failed", certificates.failed)]
                .map(|(outcome, n)| row([("outcome", outcome)], n)),
        ),
        counter(
            "hairpin_connections_dropped_messages_total",
            "Data messages dropped because a TCP or TLS client reads too slowly.",
            by_stream(streams.data_dropped),
        ),
        counter(
            "hairpin_accept_pauses_total",
            "How often accepting connections paused for lack of file descriptors or memory.",
            [row(UNLABELLED, streams.accept_paused)],
        ),
        counter(
            "hairpin_truncated_batches_total",
            "Received batches that were truncated and dropped.",
            [row(UNLABELLED, sum.sockets.truncated)],
        ),
        counter(
            "hairpin_gso_refused_total",
            "Batches that the kernel refused to segment (GSO), so that their datagrams were sent one by one.",
            [row(UNLABELLED, sum.sockets.gso_refused)],
        ),
        counter(
            "hairpin_requests_total",
            "STUN requests received, by method, also those that get no response because a limit or a rule drops it.",
            REQUESTS.iter().zip(turn.requests).map(|(method, n)| row([("method", format!("{method:?}"))], n)),
        ),
        counter(
            "hairpin_responses_total",
            "Responses to STUN requests, by method and outcome: success, or the code of the error.",
            responses(turn),
        ),
        counter(
            "hairpin_auth_failures_total",
            "Requests refused because of their credentials, by reason. The first request of every client counts as no_credentials.",
            turn.auth_failures.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        gauge(
            "hairpin_worker_allocations",
            "Current allocations by worker.",
            by_worker(workers, |worker| worker.turn.allocations),
        ),
        counter(
            "hairpin_worker_requests_total",
            "STUN requests received, by worker.",
            by_worker(workers, |worker| worker.turn.requests.iter().sum()),
        ),
        counter(
            "hairpin_worker_cpu_seconds_total",
            "CPU time of each worker's thread: its rate is the share of a CPU that the worker uses.",
            workers.iter().enumerate().map(|(n, worker)| seconds([numbered(n)], worker.cpu)),
        ),
        histograms(
            "hairpin_worker_loop_lag_seconds",
            "How long each worker took to answer a question that the daemon asks it twice per second.",
            &LAGS,
            lags.iter().enumerate().map(|(n, lag)| ([numbered(n)], lag.replies)),
        ),
        gauge(
            "hairpin_worker_unanswered_seconds",
            "For how long each worker has left a question of the daemon unanswered: it grows while the worker is stuck, otherwise it is 0.",
            lags.iter().enumerate().map(|(n, lag)| seconds([numbered(n)], lag.unanswered)),
        ),
        counter(
            "hairpin_worker_panics_total",
            "How often a worker panicked and restarted without its allocations.",
            by_worker(workers, |worker| worker.panics),
        ),
        counter(
            "hairpin_log_lines_dropped_total",
            "Log lines dropped because the reader of standard error did not keep up.",
            [row(UNLABELLED, readings.log_lines_dropped)],
        ),
        counter(
            "hairpin_host_udp_errors_total",
            "UDP errors that the kernel counted for all programs in this network namespace, by address family and error.",
            host.iter().map(|&(family, error, n)| row([("family", family), ("error", error)], n)),
        ),
        gauge(
            "hairpin_limit",
            "The configured limits, by their names in [limits]; 0 means no limit where it is allowed.",
            limits.iter().map(|(name, limit)| row([("name", *name)], *limit)),
        ),
        counter(
            "hairpin_config_reloads_total",
            "Reloads of the configuration, by result. A failed one has changed nothing.",
            [("ok", reloads.ok), ("failed", reloads.failed)].map(|(result, n)| row([("result", result)], n)),
        ),
        gauge(
            "hairpin_config_last_reload_successful",
            "Whether the last reload of the configuration succeeded; 1 before the first.",
            [row(UNLABELLED, reloads.last_ok.into())],
        ),
        gauge(
            "hairpin_config_last_reload_success_timestamp_seconds",
            "When the configuration that is in use was read, in Unix seconds.",
            [row(UNLABELLED, reloads.read_at)],
        ),
        gauge(
            "hairpin_config_reload_duration_seconds",
            "How long the last reload of the configuration took; 0 before the first.",
            [seconds(UNLABELLED, reloads.took)],
        ),
        gauge(
            "hairpin_build_info",
            "Always 1; the label is the version.",
            [row([("version", env!("CARGO_PKG_VERSION"))], 1)],
        ),
        gauge("hairpin_revocations", "Users that are revoked now.", [row(UNLABELLED, revocations.users)]),
        counter(
            "hairpin_revocations_total",
            "Revocations made since the start.",
            [row(UNLABELLED, revocations.made)],
        ),
    ];
    families.extend(backends::families(&readings.splices));
    families.extend(readings.process.iter().cloned());
    families
}

fn relays(turn: &Stats) -> impl Iterator<Item = Sample> {
    Transport::ALL.iter().zip(turn.relays).flat_map(|(transport, PerFamily { v4, v6 })| {
        let labels = |family| [("transport", transport.as_str()), ("family", family)];
        [row(labels("ipv4"), v4), row(labels("ipv6"), v6)]
    })
}

fn relayed(turn: &Stats, what: impl Fn(&TrafficCount) -> u64 + Copy) -> impl Iterator<Item = Sample> {
    [("to_peer", &turn.to_peer), ("to_client", &turn.to_client)].into_iter().flat_map(
        move |(direction, traffic)| {
            let labels =
                move |transport: &Transport| [("direction", direction), ("transport", transport.as_str())];
            Transport::ALL
                .iter()
                .zip(traffic)
                .map(move |(transport, traffic)| row(labels(transport), what(traffic)))
        },
    )
}

/// The stream transports, in the order of their counters.
const STREAMS: [&str; 2] = ["tcp", "tls"];

fn by_stream(counts: [u64; 2]) -> impl Iterator<Item = Sample> {
    STREAMS.into_iter().zip(counts).map(|(transport, n)| row([("transport", transport)], n))
}

fn by_reason<E: Counted>(counts: &[Counters<E>; 2]) -> impl Iterator<Item = Sample> {
    STREAMS.iter().zip(counts).flat_map(move |(transport, counts)| {
        let labels = move |reason| [("transport", *transport), ("reason", reason)];
        counts.iter().map(move |(reason, n)| row(labels(reason.as_str()), n))
    })
}

fn by_certificate(
    certificates: &CertificateStats,
    what: impl Fn(&CertificateStatus) -> Option<u64>,
) -> impl Iterator<Item = Sample> {
    let all = certificates.certificates.iter().enumerate();
    all.filter_map(move |(n, one)| {
        let labels = [("certificate", (n + 1).to_string()), ("file", one.file.clone())];
        Some(row(labels, what(one)?))
    })
}

fn responses(turn: &Stats) -> impl Iterator<Item = Sample> {
    REQUESTS.iter().zip(&turn.responses).flat_map(|(method, counts)| {
        OUTCOMES.iter().zip(counts).map(move |(code, n)| {
            let outcome = if *code == 0 { "success".to_owned() } else { code.to_string() };
            row([("method", format!("{method:?}")), ("outcome", outcome)], *n)
        })
    })
}

fn by_worker(workers: &[WorkerStats], what: impl Fn(&WorkerStats) -> u64) -> impl Iterator<Item = Sample> {
    workers.iter().enumerate().map(move |(n, worker)| row([numbered(n)], what(worker)))
}

fn numbered(worker: usize) -> (&'static str, String) {
    ("worker", worker.to_string())
}

fn by_family(counts: PerFamily<u64>) -> impl Iterator<Item = Sample> {
    [("ipv4", counts.v4), ("ipv6", counts.v6)].into_iter().map(|(family, n)| row([("family", family)], n))
}

#[cfg(test)]
mod tests;
