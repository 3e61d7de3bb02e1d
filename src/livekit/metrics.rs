//! What the sidecar counts. Labels have few values, none of which a client chooses: rooms and participants never appear.

use std::sync::Arc;

use prometheus::{Encoder as _, Registry, TextEncoder};

use super::http::counters::HttpCounters;
use super::lifecycle_metrics::LifecycleMetrics;
use super::probe::metrics::ProbeMetrics;

/// The metrics.
pub struct Metrics {
    registry: Registry,
    /// Those of the HTTP server.
    pub http: HttpCounters,
    /// What is counted of participants that leave.
    pub lifecycle: Arc<LifecycleMetrics>,
    /// What probes of relays show.
    pub probes: ProbeMetrics,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let (http, lifecycle) = (HttpCounters::new(&registry), Arc::new(LifecycleMetrics::new(&registry)));
        Metrics { probes: ProbeMetrics::new(&registry), registry, http, lifecycle }
    }

    /// The page for Prometheus.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        // Writing to memory fails only for metrics without a name or a sample.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        String::from_utf8(page).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::livekit::ice_url::ClientTransport;
    use crate::livekit::relays::Probe;

    /// docs/livekit.md has a row for each family, with its labels and its help text.
    #[test]
    fn every_family_is_documented() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/livekit.md");
        let page = std::fs::read_to_string(path).unwrap();
        let mut documented: Vec<_> =
            page.lines().filter(|line| line.starts_with("| `hairpin_livekit_")).collect();
        documented.sort_unstable();
        let metrics = Metrics::new();
        metrics.lifecycle.relays(["relay"].into_iter());
        metrics.http.set_certificate_expiry("fullchain.pem", 1);
        metrics.probes.relay("relay", true);
        let (transport, outcome) = (ClientTransport::Udp, Ok(Duration::ZERO));
        metrics.probes.publish("relay", &[Probe { transport, target: String::new(), port: 1, outcome }]);
        let rows: Vec<_> = metrics.registry.gather().iter().map(documentation).collect();
        assert_eq!(documented, rows, "{}", rows.join("\n"));
    }

    fn documentation(family: &prometheus::proto::MetricFamily) -> String {
        let labels = family.get_metric()[0].get_label().iter().map(|label| format!("`{}`", label.name()));
        let labels: Vec<_> = labels.collect();
        format!("| `{}` | {} | {} |", family.name(), labels.join(", "), family.help())
    }
}
