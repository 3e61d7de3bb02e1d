//! What probes show, for Prometheus. Relays have the names of the configuration.

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use crate::livekit::ice_url::ClientTransport;
use crate::livekit::relays::Probe;

/// The metrics of probes.
#[derive(Clone)]
pub struct ProbeMetrics {
    up: IntGaugeVec,
    success: IntGaugeVec,
    seconds: GaugeVec,
}

impl ProbeMetrics {
    /// Without a probe, in this registry.
    ///
    /// # Panics
    /// They are registered twice.
    pub fn new(registry: &Registry) -> ProbeMetrics {
        let labels = ["relay", "transport"];
        let up = Opts::new(
            "hairpin_livekit_relay_up",
            "Whether clients are sent to a relay: 1 if it answers, is ready, does not drain, has said who is revoked, and a URL of it works, else 0.",
        );
        let success = Opts::new(
            "hairpin_livekit_probe_success",
            "Whether the last probe of each listener of this transport has succeeded: 1, else 0.",
        );
        let seconds = Opts::new(
            "hairpin_livekit_probe_seconds",
            "How long the last successful probe has taken, of several listeners the longest: two allocations, and data in both directions.",
        );
        let metrics = ProbeMetrics {
            up: IntGaugeVec::new(up, &["relay"]).expect("a metric of ours"),
            success: IntGaugeVec::new(success, &labels).expect("a metric of ours"),
            seconds: GaugeVec::new(seconds, &labels).expect("a metric of ours"),
        };
        registry.register(Box::new(metrics.up.clone())).expect("registered once");
        registry.register(Box::new(metrics.success.clone())).expect("registered once");
        registry.register(Box::new(metrics.seconds.clone())).expect("registered once");
        metrics
    }

    /// Shows whether clients are sent to a relay.
    pub fn relay(&self, relay: &str, is_up: bool) {
        self.up.with_label_values(&[relay]).set(is_up.into());
    }

    /// Shows nothing of the probes of a relay any more.
    pub fn forget_probes(&self, relay: &str) {
        self.publish(relay, &[]);
    }

    /// Shows nothing of a relay any more.
    pub fn forget(&self, relay: &str) {
        self.forget_probes(relay);
        // Nothing was there to be removed.
        let _ = self.up.remove_label_values(&[relay]);
    }

    /// Shows a round of a relay.
    pub fn publish(&self, relay: &str, probes: &[Probe]) {
        for transport in ClientTransport::ALL {
            let labels = [relay, transport.as_str()];
            let of_transport: Vec<_> = probes.iter().filter(|probe| probe.transport == transport).collect();
            if of_transport.is_empty() {
                // There is none of it, or not any more; nothing was there to be removed.
                let _ = self.success.remove_label_values(&labels);
                let _ = self.seconds.remove_label_values(&labels);
                continue;
            }
            let all = of_transport.iter().all(|probe| probe.is_ok());
            self.success.with_label_values(&labels).set(all.into());
            let longest = of_transport.iter().filter_map(|probe| probe.outcome.as_ref().ok()).max();
            if let Some(longest) = longest {
                self.seconds.with_label_values(&labels).set(longest.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn transports_without_a_listener_have_no_metric() {
        let metrics = ProbeMetrics::new(&Registry::new());
        let probe = |transport, outcome| Probe { transport, target: String::new(), port: 1, outcome };
        let took = |millis| Ok(Duration::from_millis(millis));
        let failed = || Err("fails".to_owned());
        let udp = ClientTransport::Udp;
        metrics.publish(
            "local",
            &[probe(udp, took(5)), probe(udp, took(9)), probe(ClientTransport::Tls, failed())],
        );
        let success = |transport| metrics.success.with_label_values(&["local", transport]).get();
        assert_eq!((success("udp"), success("tls")), (1, 0));
        assert_eq!(metrics.seconds.with_label_values(&["local", "udp"]).get(), 0.009);
        metrics.publish("local", &[probe(udp, took(5)), probe(udp, failed())]);
        assert_eq!(success("udp"), 0);
        metrics.publish("local", &[]);
        use prometheus::core::Collector as _;
        metrics.success.remove_label_values(&["local", "tls"]).ok();
        assert_eq!(metrics.success.collect()[0].get_metric().len(), 0);
    }
}
