//! The counters as Prometheus metric families; no other file knows Prometheus. No label has values that clients choose.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use super::certificates::{CertificateStats, CertificateStatus};
use super::external::ExternalCounts;
use super::host::UdpErrors;
use crate::counted::{Counted, Counters};
use crate::datapath::WorkerStats;
use crate::turn::stats::{OUTCOMES, REQUESTS, Stats, TrafficCount};
use crate::turn::{PerFamily, Transport};

/// The relay's addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressCounts {
    /// Those that relay now.
    pub relay: PerFamily<u64>,
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
}

impl ReloadCounts {
    /// None yet; the configuration was read at `now`.
    pub fn new(now: u64) -> ReloadCounts {
        ReloadCounts { ok: 0, failed: 0, last_ok: true, read_at: now }
    }

    /// Counts a reload at `now`.
    pub fn count(&mut self, ok: bool, now: u64) {
        self.last_ok = ok;
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
    pub addresses: AddressCounts,
    pub limits: NamedLimits,
    pub reloads: ReloadCounts,
    pub log_lines_dropped: u64,
    /// The kernel's counters of this host.
    pub host: Vec<UdpErrors>,
    pub draining: bool,
    pub certificates: CertificateStats,
    pub revocations: RevocationCounts,
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
    let mut page = Vec::new();
    // Encoding only fails for a family without rows, or if writing fails.
    let mut families = families(readings);
    // Without /proc the host has no counters, and not every relay has a certificate.
    families.retain(|family| !family.get_metric().is_empty());
    let written = TextEncoder::new().encode(&families, &mut page);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(page).unwrap_or_default()
}

fn families(readings: &Readings) -> Vec<MetricFamily> {
    let Readings { workers, addresses, limits, reloads, host, certificates, revocations, .. } = readings;
    let mut sum = WorkerStats::default();
    workers.iter().for_each(|worker| sum.add(worker));
    let turn = &sum.turn;
    let streams = &sum.sockets.streams;
    vec![
        gauge(
            "hairpin_allocations",
            "Current allocations by client transport and address family; one with both families counts in both.",
            relays(turn),
        ),
        counter(
            "hairpin_allocations_opened_total",
            "Allocations created.",
            [row([], turn.allocations_total)],
        ),
        counter(
            "hairpin_allocations_closed_total",
            "Allocations that have ended, by reason.",
            turn.closed.iter().map(|(why, n)| row([("reason", why.as_str())], n)),
        ),
        counter(
            "hairpin_probe_allocations_total",
            "Allocations created by probes of the relay, which are not among the others.",
            [row([], turn.probe_allocations)],
        ),
        gauge(
            "hairpin_relay_addresses",
            "Addresses that relayed transport addresses are made of now; without any, /readyz fails.",
            [("ipv4", addresses.relay.v4), ("ipv6", addresses.relay.v6)]
                .map(|(family, n)| row([("family", family)], n)),
        ),
        counter(
            "hairpin_external_address_changes_total",
            "External addresses that relay.external_ip asks for and that have become others.",
            [row([], addresses.external.changes)],
        ),
        counter(
            "hairpin_external_address_queries_total",
            "Questions for external addresses, by outcome.",
            [("answered", addresses.external.answered), ("failed", addresses.external.failed)]
                .map(|(outcome, n)| row([("outcome", outcome)], n)),
        ),
        gauge(
            "hairpin_draining",
            "Whether the relay drains: 1 while it makes no new allocations, and stops when the running ones have ended; otherwise 0.",
            [row([], readings.draining.into())],
        ),
        gauge("hairpin_permissions", "Current permissions.", [row([], turn.permissions)]),
        gauge("hairpin_channels", "Current channel bindings.", [row([], turn.channels)]),
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
            "Open TCP and TLS connections; TLS connections count once their handshake is complete.",
            by_stream(streams.open),
        ),
        counter(
            "hairpin_connections_accepted_total",
            "Accepted TCP and TLS connections.",
            by_stream(streams.accepted),
        ),
        counter(
            "hairpin_connections_refused_total",
            "Connections closed immediately, by the limit that was reached.",
            by_reason(&streams.refused),
        ),
        counter(
            "hairpin_connections_closed_total",
            "Closed connections, by reason.",
            by_reason(&streams.closed),
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
            [row([], streams.accept_paused)],
        ),
        counter(
            "hairpin_truncated_batches_total",
            "Received batches that were truncated and dropped.",
            [row([], sum.sockets.truncated)],
        ),
        counter(
            "hairpin_gso_refused_total",
            "Batches that the kernel refused to segment (GSO), so that their datagrams were sent one by one.",
            [row([], sum.sockets.gso_refused)],
        ),
        counter(
            "hairpin_requests_total",
            "STUN requests received, by method, also those that get no response because a limit or a rule drops it.",
            REQUESTS
                .iter()
                .zip(turn.requests)
                .map(|(method, n)| row([("method", &format!("{method:?}"))], n)),
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
            "hairpin_worker_panics_total",
            "How often a worker panicked and restarted without its allocations.",
            by_worker(workers, |worker| worker.panics),
        ),
        counter(
            "hairpin_log_lines_dropped_total",
            "Log lines dropped because the reader of standard error did not keep up.",
            [row([], readings.log_lines_dropped)],
        ),
        counter(
            "hairpin_host_udp_errors_total",
            "UDP errors that the kernel counted for all programs in this network namespace, by address family and error.",
            host.iter().map(|&(family, error, n)| row([("family", family), ("error", error)], n)),
        ),
        gauge(
            "hairpin_limit",
            "The configured limits, by their names in [limits]; 0 means no limit where it is allowed.",
            limits.iter().map(|(name, limit)| row([("name", name)], *limit)),
        ),
        counter(
            "hairpin_config_reloads_total",
            "Reloads of the configuration, by result. A failed one has changed nothing.",
            [("ok", reloads.ok), ("failed", reloads.failed)].map(|(result, n)| row([("result", result)], n)),
        ),
        gauge(
            "hairpin_config_last_reload_successful",
            "Whether the last reload of the configuration succeeded; 1 before the first.",
            [row([], reloads.last_ok.into())],
        ),
        gauge(
            "hairpin_config_last_reload_success_timestamp_seconds",
            "When the configuration that is in use was read, in Unix seconds.",
            [row([], reloads.read_at)],
        ),
        gauge(
            "hairpin_build_info",
            "Always 1; the label is the version.",
            [row([("version", env!("CARGO_PKG_VERSION"))], 1)],
        ),
        gauge("hairpin_revocations", "Users that are revoked now.", [row([], revocations.users)]),
        counter(
            "hairpin_revocations_total",
            "Revocations made since the start.",
            [row([], revocations.made)],
        ),
    ]
}

/// A value and its labels.
type Sample = (Vec<LabelPair>, u64);

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
    STREAMS.iter().zip(counts).map(|(transport, n)| row([("transport", transport)], n))
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
        let number = (n + 1).to_string();
        Some(row([("certificate", &*number), ("file", &one.file)], what(one)?))
    })
}

fn responses(turn: &Stats) -> impl Iterator<Item = Sample> {
    REQUESTS.iter().zip(&turn.responses).flat_map(|(method, counts)| {
        OUTCOMES.iter().zip(counts).map(move |(code, n)| {
            let outcome = if *code == 0 { "success".to_owned() } else { code.to_string() };
            row([("method", &format!("{method:?}")), ("outcome", &outcome)], *n)
        })
    })
}

fn by_worker(workers: &[WorkerStats], what: impl Fn(&WorkerStats) -> u64) -> impl Iterator<Item = Sample> {
    workers.iter().enumerate().map(move |(n, worker)| row([("worker", &*n.to_string())], what(worker)))
}

fn row<const N: usize>(labels: [(&str, &str); N], value: u64) -> Sample {
    let labels = labels.map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    (labels.into(), value)
}

fn counter(name: &str, help: &str, rows: impl IntoIterator<Item = Sample>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, rows, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

fn gauge(name: &str, help: &str, rows: impl IntoIterator<Item = Sample>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, rows, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    rows: impl IntoIterator<Item = Sample>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let metrics = rows.into_iter().map(|(labels, value)| {
        let mut metric = Metric::from_label(labels);
        // Prometheus values are floating-point numbers, exact up to 2^53.
        set(&mut metric, value as f64);
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthReason;
    use crate::config::Settings;
    use crate::datapath::stats::SocketQueue;
    use crate::datapath::stream::stats::{ConnectionEnd, HandshakeFailure};
    use crate::turn::stats::Dropped;
    use crate::wire::Method;

    fn worker() -> WorkerStats {
        let mut worker = WorkerStats::default();
        worker.turn.relays[0] = PerFamily { v4: 3, v6: 1 };
        worker.turn.to_peer[0] = TrafficCount { packets: 5, bytes: 500 };
        worker.turn.dropped[Dropped::NoPermission] = 7;
        worker.sockets.dropped_by_kernel[SocketQueue::Relay] = 12;
        worker.sockets.streams.open = [4, 2];
        worker.sockets.streams.closed[1][ConnectionEnd::Idle] = 6;
        worker.sockets.streams.handshakes_failed[HandshakeFailure::TooSlow] = 8;
        worker.sockets.streams.data_dropped = [9, 0];
        worker.turn.auth_failures[AuthReason::WrongPassword] = 2;
        let method = REQUESTS.iter().position(|&method| method == Method::Allocate).unwrap();
        (worker.turn.requests[method], worker.turn.responses[method][0]) = (5, 3);
        worker
    }

    fn certificates() -> CertificateStats {
        let one = CertificateStatus {
            file: "fullchain.pem".into(),
            expiry: Some(1_800_000_000),
            is_failing: true,
            ..CertificateStatus::default()
        };
        CertificateStats { certificates: vec![one], renewed: 3, failed: 2 }
    }

    #[test]
    fn the_counters_of_workers_are_added_up() {
        let mut reloads = ReloadCounts::new(7);
        reloads.count(true, 8);
        reloads.count(false, 9);
        let page = page(&Readings {
            workers: vec![worker(), worker()],
            addresses: AddressCounts {
                relay: PerFamily { v4: 2, v6: 0 },
                external: ExternalCounts { changes: 3, answered: 9, failed: 2 },
            },
            limits: vec![("channels", 256)],
            reloads,
            log_lines_dropped: 11,
            host: vec![("ipv6", "memory", 5)],
            draining: true,
            certificates: certificates(),
            revocations: RevocationCounts { users: 1, made: 2 },
        });
        for line in [
            "hairpin_external_address_changes_total 3",
            "hairpin_external_address_queries_total{outcome=\"failed\"} 2",
            "hairpin_allocations{transport=\"udp\",family=\"ipv4\"} 6",
            "hairpin_allocations{transport=\"udp\",family=\"ipv6\"} 2",
            "hairpin_relayed_packets_total{direction=\"to_peer\",transport=\"udp\"} 10",
            "hairpin_relayed_bytes_total{direction=\"to_peer\",transport=\"udp\"} 1000",
            "hairpin_relayed_bytes_total{direction=\"to_client\",transport=\"udp\"} 0",
            "hairpin_dropped_packets_total{reason=\"no_permission\"} 14",
            "hairpin_socket_drops_total{queue=\"relay\"} 24",
            "hairpin_auth_failures_total{reason=\"wrong_password\"} 4",
            "hairpin_requests_total{method=\"Allocate\"} 10",
            "hairpin_responses_total{method=\"Allocate\",outcome=\"success\"} 6",
            "hairpin_worker_requests_total{worker=\"1\"} 5",
            "hairpin_connections{transport=\"tls\"} 4",
            "hairpin_connections_closed_total{transport=\"tls\",reason=\"idle\"} 12",
            "hairpin_connections_closed_total{transport=\"tcp\",reason=\"idle\"} 0",
            "hairpin_connections_refused_total{transport=\"tcp\",reason=\"connections_per_source\"} 0",
            "hairpin_tls_handshakes_failed_total{reason=\"too_slow\"} 16",
            "hairpin_connections_dropped_messages_total{transport=\"tcp\"} 18",
            "hairpin_tls_certificate_expiry_timestamp_seconds{certificate=\"1\",file=\"fullchain.pem\"} 1800000000",
            "hairpin_tls_certificate_failing{certificate=\"1\",file=\"fullchain.pem\"} 1",
            "hairpin_tls_certificate_reloads_total{outcome=\"renewed\"} 3",
            "hairpin_tls_certificate_reloads_total{outcome=\"failed\"} 2",
            "hairpin_relay_addresses{family=\"ipv4\"} 2",
            "hairpin_relay_addresses{family=\"ipv6\"} 0",
            "hairpin_draining 1",
            "hairpin_limit{name=\"channels\"} 256",
            "hairpin_log_lines_dropped_total 11",
            "hairpin_revocations 1",
            "hairpin_revocations_total 2",
            "hairpin_config_reloads_total{result=\"ok\"} 1",
            "hairpin_config_reloads_total{result=\"failed\"} 1",
            "hairpin_config_last_reload_successful 0",
            "hairpin_config_last_reload_success_timestamp_seconds 8",
            "hairpin_host_udp_errors_total{family=\"ipv6\",error=\"memory\"} 5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    fn readings(host: Vec<UdpErrors>) -> Readings {
        Readings {
            workers: vec![worker()],
            addresses: AddressCounts::default(),
            limits: Settings::default().limits_by_name(),
            reloads: ReloadCounts::new(7),
            log_lines_dropped: 0,
            host,
            draining: false,
            certificates: certificates(),
            revocations: RevocationCounts::default(),
        }
    }

    fn all() -> Vec<MetricFamily> {
        families(&readings(vec![("ipv4", "memory", 5)]))
    }

    #[test]
    fn every_family_has_a_help_text_and_a_type() {
        let page = page(&readings(Vec::new()));
        let (help, kinds) =
            (page.matches("# HELP hairpin_").count(), page.matches("# TYPE hairpin_").count());
        assert!(page.contains("hairpin_limit{name=\"user_allocations\"} 1000\n"), "{page}");
        // A family without rows is left out.
        let without_host = all().len() - 1;
        assert_eq!((help, kinds), (without_host, without_host), "{page}");
    }

    /// docs/metrics.md has a row for each family, with its labels and its help text.
    #[test]
    fn every_family_is_documented() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap();
        let documented: Vec<_> = page.lines().filter(|line| line.starts_with("| `hairpin_")).collect();
        let rows: Vec<_> = all().iter().map(documentation).collect();
        assert_eq!(documented, rows, "{}", rows.join("\n"));
    }

    /// docs/metrics.md says for each reason of a dropped packet or a closed connection what to do.
    #[test]
    fn every_reason_is_documented() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap();
        let dropped = WorkerStats::default().turn.dropped;
        let dropped = dropped.iter().map(|(reason, _)| reason.as_str());
        for reason in dropped.chain(ConnectionEnd::ALL.map(ConnectionEnd::as_str)) {
            let start = format!("| `{reason}` | ");
            let row = page.lines().find(|line| line.starts_with(&start));
            let cells = row.map(|row| row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).count());
            assert_eq!(cells, Some(3), "{reason} has no row");
        }
    }

    fn documentation(family: &MetricFamily) -> String {
        let labels = family.get_metric()[0].get_label().iter().map(|label| format!("`{}`", label.name()));
        let labels: Vec<_> = labels.collect();
        format!("| `{}` | {} | {} |", family.name(), labels.join(", "), family.help())
    }
}
