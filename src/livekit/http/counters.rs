//! What the HTTP server counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::routes::ROUTES;

/// The route of requests for paths that do not exist.
pub const OTHER: &str = "other";

/// Classes of status codes.
const CLASSES: [&str; 4] = ["2xx", "4xx", "5xx", "other"];

/// Who gets credentials.
const CALLERS: [&str; 2] = ["participant", "backend"];

/// Why no credential is issued.
const REASONS: [&str; 14] = [
    "bad_request",
    "bad_signature",
    "expired",
    "forbidden",
    "malformed_token",
    "no_identity",
    "no_relay",
    "no_room",
    "no_room_join",
    "no_secret",
    "not_yet_valid",
    "rate_limited",
    "unauthorized",
    "unknown_key",
];

/// The counters of the HTTP server.
pub struct HttpCounters {
    /// Credentials issued by the ICE-server API.
    issued: IntCounterVec,
    refused: IntCounterVec,
    requests: IntCounterVec,
    /// Open connections.
    pub connections: IntGauge,
    /// TLS handshakes that have failed.
    pub handshakes_failed: IntCounter,
    certificate_expiry: IntGaugeVec,
}

impl HttpCounters {
    /// All of them, at zero.
    pub fn new(registry: &Registry) -> HttpCounters {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("a valid family")
        };
        let counters = HttpCounters {
            issued: vec(
                "hairpin_livekit_credentials_issued_total",
                "Credentials that the ICE-server API has issued, by who asked.",
                &["caller"],
            ),
            refused: vec(
                "hairpin_livekit_credentials_refused_total",
                "Requests for ICE servers that were refused, by the code of the error.",
                &["reason"],
            ),
            requests: vec(
                "hairpin_livekit_http_requests_total",
                "HTTP requests by route and class of the status code.",
                &["route", "status"],
            ),
            connections: IntGauge::new("hairpin_livekit_http_connections", "Open HTTP connections.")
                .expect("a valid family"),
            handshakes_failed: IntCounter::new(
                "hairpin_livekit_http_tls_handshakes_failed_total",
                "TLS handshakes of the HTTP server that have failed.",
            )
            .expect("a valid family"),
            certificate_expiry: IntGaugeVec::new(
                Opts::new(
                    "hairpin_livekit_http_certificate_expiry_timestamp_seconds",
                    "When the certificate of http.cert expires, in Unix seconds.",
                ),
                &["file"],
            )
            .expect("a valid family"),
        };
        // Rates need a first value, which is zero.
        for caller in CALLERS {
            counters.issued.with_label_values(&[caller]);
        }
        for reason in REASONS {
            counters.refused.with_label_values(&[reason]);
        }
        let routes = ROUTES.iter().map(|route| route.path).chain([OTHER]);
        for (route, class) in routes.flat_map(|route| CLASSES.map(|class| (route, class))) {
            counters.requests.with_label_values(&[route, class]);
        }
        let families: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(counters.issued.clone()),
            Box::new(counters.refused.clone()),
            Box::new(counters.requests.clone()),
            Box::new(counters.connections.clone()),
            Box::new(counters.handshakes_failed.clone()),
            Box::new(counters.certificate_expiry.clone()),
        ];
        for family in families {
            registry.register(family).expect("each family is registered once");
        }
        counters
    }

    /// A credential was issued to this kind of caller.
    pub fn issued(&self, caller: &'static str) {
        self.issued.with_label_values(&[caller]).inc();
    }

    /// A request for ICE servers was refused with this code.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A request for this route got this status.
    pub fn responded(&self, route: &'static str, status: u16) {
        let class = match status / 100 {
            2 => "2xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        };
        self.requests.with_label_values(&[route, class]).inc();
    }

    /// There is no certificate any more, or it is that of another file.
    pub fn forget_certificate(&self) {
        self.certificate_expiry.reset();
    }

    /// When the certificate of this file expires, in Unix seconds.
    pub fn set_certificate_expiry(&self, file: &str, expiry: u64) {
        self.certificate_expiry.with_label_values(&[file]).set(expiry as i64);
    }
}

#[cfg(test)]
mod tests {
    use crate::livekit::metrics::Metrics;

    #[test]
    fn every_series_begins_at_zero() {
        let metrics = Metrics::new();
        let page = metrics.page(true);
        for line in [
            "hairpin_livekit_credentials_issued_total{caller=\"backend\"} 0",
            "hairpin_livekit_credentials_refused_total{reason=\"rate_limited\"} 0",
            "hairpin_livekit_http_requests_total{route=\"/v1/ice-servers\",status=\"4xx\"} 0",
            "hairpin_livekit_http_requests_total{route=\"other\",status=\"5xx\"} 0",
            "hairpin_livekit_http_connections 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("certificate_expiry"), "there is no certificate");
        metrics.http.set_certificate_expiry("fullchain.pem", 1_800_000_000);
        let line = "certificate_expiry_timestamp_seconds{file=\"fullchain.pem\"} 1800000000";
        assert!(metrics.page(true).contains(line));
        metrics.http.forget_certificate();
        assert!(!metrics.page(true).contains("certificate_expiry"), "a reload has removed it");
    }
}
