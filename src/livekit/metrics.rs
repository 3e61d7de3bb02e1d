//! What the sidecar counts. Labels have few values, none of which a client chooses: rooms and participants never appear.

use prometheus::{Encoder as _, Registry, TextEncoder};

use super::http::counters::HttpCounters;

/// The metrics.
pub struct Metrics {
    registry: Registry,
    /// Those of the HTTP server.
    pub http: HttpCounters,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let http = HttpCounters::new(&registry);
        Metrics { registry, http }
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
