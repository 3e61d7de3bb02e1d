//! What the sidecar counts. Labels have few values, none of which a client chooses: rooms and participants never appear.

use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::http::counters::HttpCounters;
use super::lifecycle_metrics::LifecycleMetrics;
use super::probe::metrics::ProbeMetrics;
use crate::daemon::process::Process;
use crate::daemon::unix_now;
use crate::exposition;

/// The metrics.
pub struct Metrics {
    registry: Registry,
    process: Process,
    /// Those of the HTTP server.
    pub http: HttpCounters,
    /// What is counted of participants that leave.
    pub lifecycle: Arc<LifecycleMetrics>,
    /// What probes of relays show.
    pub probes: ProbeMetrics,
    /// Reloads of the configuration.
    pub reloads: ReloadMetrics,
    ready: IntGauge,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let (http, lifecycle) = (HttpCounters::new(&registry), Arc::new(LifecycleMetrics::new(&registry)));
        let (probes, reloads) = (ProbeMetrics::new(&registry), ReloadMetrics::new(&registry));
        let ready = IntGauge::new(
            "hairpin_livekit_ready",
            "Whether calls can be served, as /readyz says: 1, else 0.",
        );
        let build =
            Opts::new("hairpin_livekit_build_info", "Always 1; the label is the version of the sidecar.");
        let build = IntGaugeVec::new(build, &["version"]).expect("a metric of ours");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let ready = ready.expect("a metric of ours");
        registry.register(Box::new(build)).expect("registered once");
        registry.register(Box::new(ready.clone())).expect("registered once");
        Metrics { registry, process: Process::start(), http, lifecycle, probes, reloads, ready }
    }

    /// The page for Prometheus, of a sidecar that is ready or not.
    pub fn page(&self, is_ready: bool) -> String {
        self.ready.set(is_ready.into());
        exposition::page(self.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(self.process.families());
        families
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Reloads of the configuration, under the names that those of the relay have.
pub struct ReloadMetrics {
    total: IntCounterVec,
    successful: IntGauge,
    read_at: IntGauge,
    took: Gauge,
}

impl ReloadMetrics {
    /// None yet; the configuration was read just now.
    fn new(registry: &Registry) -> ReloadMetrics {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a metric of ours");
            registry.register(Box::new(gauge.clone())).expect("registered once");
            gauge
        };
        let total = Opts::new(
            "hairpin_livekit_config_reloads_total",
            "Reloads of the configuration, by result. A failed one has changed nothing.",
        );
        let metrics = ReloadMetrics {
            total: IntCounterVec::new(total, &["result"]).expect("a metric of ours"),
            successful: gauge(
                "hairpin_livekit_config_last_reload_successful",
                "Whether the last reload of the configuration succeeded; 1 before the first.",
            ),
            read_at: gauge(
                "hairpin_livekit_config_last_reload_success_timestamp_seconds",
                "When the configuration that is in use was read, in Unix seconds.",
            ),
            took: Gauge::new(
                "hairpin_livekit_config_reload_duration_seconds",
                "How long the last reload of the configuration took; 0 before the first.",
            )
            .expect("a metric of ours"),
        };
        registry.register(Box::new(metrics.total.clone())).expect("registered once");
        registry.register(Box::new(metrics.took.clone())).expect("registered once");
        for result in ["ok", "failed"] {
            metrics.total.with_label_values(&[result]);
        }
        metrics.successful.set(1);
        metrics.read_at.set(unix_now() as i64);
        metrics
    }

    /// Counts a reload that took so long.
    pub fn count(&self, is_ok: bool, took: Duration) {
        self.total.with_label_values(&[if is_ok { "ok" } else { "failed" }]).inc();
        self.successful.set(is_ok.into());
        self.took.set(took.as_secs_f64());
        if is_ok {
            self.read_at.set(unix_now() as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::ice_url::ClientTransport;
    use crate::livekit::relays::Probe;

    /// docs/livekit.md has a row for each family, with its labels and its help text.
    #[test]
    fn every_family_is_documented() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/livekit.md");
        let page = std::fs::read_to_string(path).unwrap();
        let is_row =
            |line: &&str| ["| `hairpin_livekit_", "| `process_"].iter().any(|start| line.starts_with(start));
        let documented: Vec<_> = page.lines().filter(is_row).collect();
        let metrics = Metrics::new();
        metrics.lifecycle.relays(["relay"].into_iter());
        metrics.http.set_certificate_expiry("fullchain.pem", 1);
        metrics.probes.relay("relay", true);
        let (transport, outcome) = (ClientTransport::Udp, Ok(Duration::ZERO));
        metrics.probes.publish("relay", &[Probe { transport, target: String::new(), port: 1, outcome }]);
        let rows: Vec<_> = metrics.families().iter().map(exposition::documentation).collect();
        assert_eq!(documented, rows, "{}", rows.join("\n"));
    }

    /// A failed reload keeps the time of the configuration that is in use, and shows as the last one.
    #[test]
    fn reloads_are_shown_by_result() {
        let metrics = Metrics::new();
        metrics.reloads.read_at.set(7);
        metrics.reloads.count(false, Duration::from_millis(250));
        let page = metrics.page(false);
        for line in [
            "hairpin_livekit_config_reloads_total{result=\"ok\"} 0",
            "hairpin_livekit_config_reloads_total{result=\"failed\"} 1",
            "hairpin_livekit_config_last_reload_successful 0",
            "hairpin_livekit_config_last_reload_success_timestamp_seconds 7",
            "hairpin_livekit_config_reload_duration_seconds 0.25",
            "hairpin_livekit_ready 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        metrics.reloads.count(true, Duration::ZERO);
        let page = metrics.page(true);
        assert!(page.contains("hairpin_livekit_config_last_reload_successful 1\n"), "{page}");
        assert!(page.contains("hairpin_livekit_ready 1\n") && metrics.reloads.read_at.get() > 7);
    }
}
