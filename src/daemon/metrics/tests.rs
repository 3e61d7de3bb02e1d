//! Tests of the page: what is counted is shown, documented, and has labels that no client chooses.

use super::*;
use crate::auth::AuthReason;
use crate::config::Settings;
use crate::daemon::process::Process;
use crate::datapath::stats::{SocketQueue, Unsent};
use crate::datapath::stream::stats::{AdmissionRefusal, ConnectionEnd, HandshakeFailure};
use crate::datapath::{BackendHealth, BackendStats, SpliceEnd, SpliceFailure, SpliceStats};
use crate::turn::CloseReason;
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
    worker.sockets.streams.handshakes.observe(&HANDSHAKES, Duration::from_millis(20));
    for lived in [60, 70] {
        worker.turn.lifetimes.observe(&LIFETIMES, Duration::from_secs(lived));
    }
    worker.cpu = Duration::from_millis(1250);
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

/// A backend that cannot be reached.
fn splices() -> SpliceStats {
    let mut one = BackendStats {
        name: "web.internal:8443".into(),
        open: 3,
        total: 8,
        to_backend: 100,
        to_client: 200,
        failed: Counters::default(),
        closed: Counters::default(),
        health: BackendHealth::Failing { since: 7, error: "192.0.2.9:8443: no answer".into() },
    };
    (one.failed[SpliceFailure::Timeout], one.closed[SpliceEnd::Finished]) = (4, 5);
    SpliceStats { connections: 3, backends: vec![one] }
}

#[test]
fn the_counters_of_workers_are_added_up() {
    let mut reloads = ReloadCounts::new(7);
    reloads.count(true, 8, Duration::from_secs(1));
    reloads.count(false, 9, Duration::from_millis(250));
    let mut lag = LoopLag { unanswered: Duration::from_millis(1500), ..LoopLag::default() };
    lag.replies.observe(&LAGS, Duration::from_millis(30));
    let page = page(&Readings {
        workers: vec![worker(), worker()],
        lags: vec![LoopLag::default(), lag],
        ports: PerFamily {
            v4: PortUsage { total: 16_384, in_use: 70 },
            v6: PortUsage { total: 0, in_use: 0 },
        },
        addresses: AddressCounts {
            relay: PerFamily { v4: 2, v6: 0 },
            relay_changes: 4,
            external: ExternalCounts { changes: 3, answered: 9, failed: 2 },
        },
        limits: vec![("channels", 256)],
        reloads,
        log_lines_dropped: 11,
        host: vec![("ipv6", "memory", 5)],
        draining: true,
        is_ready: false,
        certificates: certificates(),
        revocations: RevocationCounts { users: 1, made: 2 },
        splices: splices(),
        process: Vec::new(),
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
        "hairpin_ready 0",
        "hairpin_relay_address_changes_total 4",
        "hairpin_relay_ports{family=\"ipv4\"} 16384",
        "hairpin_relay_ports_in_use{family=\"ipv4\"} 70",
        "hairpin_relay_ports{family=\"ipv6\"} 0",
        "hairpin_allocation_lifetime_seconds_bucket{le=\"60\"} 2",
        "hairpin_allocation_lifetime_seconds_bucket{le=\"300\"} 4",
        "hairpin_allocation_lifetime_seconds_sum 260",
        "hairpin_tls_handshake_duration_seconds_bucket{le=\"0.025\"} 2",
        "hairpin_worker_cpu_seconds_total{worker=\"1\"} 1.25",
        "hairpin_worker_loop_lag_seconds_bucket{worker=\"1\",le=\"0.025\"} 0",
        "hairpin_worker_loop_lag_seconds_bucket{worker=\"1\",le=\"0.05\"} 1",
        "hairpin_worker_loop_lag_seconds_count{worker=\"0\"} 0",
        "hairpin_worker_unanswered_seconds{worker=\"1\"} 1.5",
        "hairpin_config_reload_duration_seconds 0.25",
        "hairpin_limit{name=\"channels\"} 256",
        "hairpin_log_lines_dropped_total 11",
        "hairpin_revocations 1",
        "hairpin_revocations_total 2",
        "hairpin_config_reloads_total{result=\"ok\"} 1",
        "hairpin_config_reloads_total{result=\"failed\"} 1",
        "hairpin_config_last_reload_successful 0",
        "hairpin_config_last_reload_success_timestamp_seconds 8",
        "hairpin_host_udp_errors_total{family=\"ipv6\",error=\"memory\"} 5",
        "hairpin_spliced_connections{backend=\"web.internal:8443\"} 3",
        "hairpin_spliced_connections_total{backend=\"web.internal:8443\"} 8",
        "hairpin_spliced_connections_closed_total{backend=\"web.internal:8443\",reason=\"finished\"} 5",
        "hairpin_spliced_bytes_total{backend=\"web.internal:8443\",direction=\"to_client\"} 200",
        "hairpin_splices_failed_total{backend=\"web.internal:8443\",reason=\"timeout\"} 4",
        "hairpin_backend_up{backend=\"web.internal:8443\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

fn readings(host: Vec<UdpErrors>) -> Readings {
    Readings {
        workers: vec![worker()],
        lags: vec![LoopLag::default()],
        ports: PerFamily::default(),
        addresses: AddressCounts::default(),
        limits: Settings::default().limits_by_name(),
        reloads: ReloadCounts::new(7),
        log_lines_dropped: 0,
        host,
        draining: false,
        is_ready: true,
        certificates: certificates(),
        revocations: RevocationCounts::default(),
        splices: splices(),
        process: Process::start().families(),
    }
}

fn all() -> Vec<MetricFamily> {
    families(&readings(vec![("ipv4", "memory", 5)]))
}

#[test]
fn every_family_has_a_help_text_and_a_type() {
    let page = page(&readings(Vec::new()));
    let (help, kinds) = (page.matches("# HELP ").count(), page.matches("# TYPE ").count());
    assert!(page.contains("hairpin_limit{name=\"user_allocations\"} 1000\n"), "{page}");
    // A family without rows is left out.
    let without_host = all().len() - 1;
    assert_eq!((help, kinds), (without_host, without_host), "{page}");
}

/// A label has the names of an enum, the numbers of workers or certificates, or what the configuration says. A client
/// chooses none of them.
#[test]
fn labels_have_values_of_enums_and_of_the_configuration() {
    fn names<E: Counted>() -> Vec<String> {
        E::VALUES.iter().map(|value| value.as_str().to_owned()).collect()
    }
    let of = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let known = |family: &str, label: &str| match (family, label) {
        (_, "transport") => Transport::ALL.iter().map(|transport| transport.as_str().to_owned()).collect(),
        (_, "family") => of(&["ipv4", "ipv6"]),
        (_, "backend") => of(&["web.internal:8443"]),
        ("hairpin_spliced_connections_closed_total", "reason") => names::<SpliceEnd>(),
        ("hairpin_splices_failed_total", "reason") => names::<SpliceFailure>(),
        ("hairpin_spliced_bytes_total", "direction") => of(&["to_backend", "to_client"]),
        (_, "direction") => of(&["to_peer", "to_client"]),
        (_, "worker") => of(&["0"]),
        (_, "queue") => names::<SocketQueue>(),
        ("hairpin_allocations_closed_total", "reason") => names::<CloseReason>(),
        ("hairpin_dropped_packets_total", "reason") => names::<Dropped>(),
        ("hairpin_unsent_packets_total", "reason") => names::<Unsent>(),
        ("hairpin_connections_refused_total", "reason") => names::<AdmissionRefusal>(),
        ("hairpin_connections_closed_total", "reason") => names::<ConnectionEnd>(),
        ("hairpin_tls_handshakes_failed_total", "reason") => names::<HandshakeFailure>(),
        ("hairpin_auth_failures_total", "reason") => names::<AuthReason>(),
        (_, "method") => REQUESTS.iter().map(|method| format!("{method:?}")).collect(),
        ("hairpin_responses_total", "outcome") => {
            OUTCOMES[1..].iter().map(u16::to_string).chain(["success".to_owned()]).collect()
        }
        ("hairpin_external_address_queries_total", "outcome") => of(&["answered", "failed"]),
        ("hairpin_tls_certificate_reloads_total", "outcome") => of(&["renewed", "failed"]),
        ("hairpin_config_reloads_total", "result") => of(&["ok", "failed"]),
        ("hairpin_host_udp_errors_total", "error") => of(&["memory"]),
        ("hairpin_limit", "name") => {
            Settings::default().limits_by_name().iter().map(|(name, _)| (*name).to_owned()).collect()
        }
        (_, "certificate") => of(&["1"]),
        (_, "file") => of(&["fullchain.pem"]),
        (_, "version") => of(&[env!("CARGO_PKG_VERSION")]),
        (family, label) => panic!("who chooses the values of {label} of {family}?"),
    };
    for family in all() {
        for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let known: Vec<String> = known(family.name(), label.name());
            assert!(known.iter().any(|value| value == label.value()), "{}: {}", family.name(), label.value());
        }
    }
}

/// docs/metrics.md has a row for each family, with its labels and its help text.
#[test]
fn every_family_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let documented: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| `hairpin_") || line.starts_with("| `process_"))
        .collect();
    let rows: Vec<_> = all().iter().map(exposition::documentation).collect();
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

/// docs/metrics.md says for each reason of a connection to a backend that failed or ended what to do.
#[test]
fn every_reason_of_backends_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, page) = page.split_once("## Connections to backends").unwrap();
    let failures = SpliceFailure::ALL.map(SpliceFailure::as_str);
    for reason in failures.into_iter().chain(SpliceEnd::ALL.map(SpliceEnd::as_str)) {
        assert!(page.contains(&format!("\n| `{reason}` | ")), "{reason} has no row");
    }
}

/// A backend that cannot be reached is named by health checks, which do not fail for it.
#[test]
fn health_checks_name_backends_that_cannot_be_reached() {
    let remarks = backends::remarks(&splices());
    assert!(remarks.starts_with("backend web.internal:8443 has not been reached for "), "{remarks}");
    assert!(remarks.ends_with(" s: 192.0.2.9:8443: no answer\n"), "{remarks}");
}
