//! Ports: which ones to open, and those that relay and SFU both want.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::livekit::relays::RelayStatus;

/// What a firewall has to let in: `udp 3478, tcp 3478 and 5349, udp 49152-65535`.
pub fn to_open(status: &RelayStatus) -> String {
    let mut ports: BTreeMap<bool, Vec<u16>> = BTreeMap::new();
    for listener in status.listeners.iter().filter(|listener| !listener.address.ip().is_loopback()) {
        ports.entry(listener.transport != "udp").or_default().push(listener.address.port());
    }
    let mut parts = Vec::new();
    for (is_tcp, mut ports) in ports {
        ports.sort_unstable();
        ports.dedup();
        let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
        parts.push(format!("{} {}", if is_tcp { "tcp" } else { "udp" }, listed.join(" and ")));
    }
    parts.extend(status.relay_ports.as_ref().map(|ports| format!("udp {ports}")));
    parts.join(", ")
}

/// `49152-65535`
pub fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

/// The ports in both ranges.
pub fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*one.start().max(other.start()), *one.end().min(other.end()));
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ports_to_open_are_those_of_listeners_and_relayed_addresses() {
        let status: RelayStatus = serde_json::from_value(json!({
            "instance": "1", "version": "1", "ready": true, "not_ready": null, "draining": null, "ice_urls": [],
            "listeners": [
                { "transport": "tcp", "address": "0.0.0.0:3478" }, { "transport": "udp", "address": "0.0.0.0:3478" },
                { "transport": "tls", "address": "[::]:5349" }, { "transport": "tls", "address": "127.0.0.1:9999" },
            ],
            "relay_addresses": [], "relay_ports": "49152-65535",
        }))
        .unwrap();
        assert_eq!(to_open(&status), "udp 3478, tcp 3478 and 5349, udp 49152-65535");
    }

    #[test]
    fn ranges_overlap_at_their_common_ports() {
        let range = |text| range(text).unwrap();
        assert_eq!(overlap(&range("49152-65535"), &range("50000-60000")), Some(50_000..=60_000));
        assert_eq!(overlap(&range("30000-40000"), &range("7882")), None);
        assert_eq!((super::range("a-b"), super::range("1-70000")), (None, None));
    }
}
