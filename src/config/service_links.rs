//! The variables that Kubernetes adds to every container for the services of its namespace ("service links"). Those of a service
//! called `hairpin`, or `hairpin-` and something, begin like the relay's own variables and are none of them.

use std::net::IpAddr;

/// Whether a variable is one that Kubernetes or Docker makes of a service.
pub fn is_one(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if name.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    // HAIRPIN_PORT_3478_UDP, and the same with _PROTO, _PORT or _ADDR
    let parts: Vec<&str> = name.rsplit('_').take(4).collect();
    match parts[..] {
        [protocol, port, "PORT", ..] if is_protocol(protocol) && is_port(port) => is_url(value),
        ["PROTO", protocol, port, "PORT"] if is_protocol(protocol) && is_port(port) => is_protocol(value),
        ["PORT", protocol, port, "PORT"] if is_protocol(protocol) && is_port(port) => is_port(value),
        ["ADDR", protocol, port, "PORT"] if is_protocol(protocol) && is_port(port) => {
            value.parse::<IpAddr>().is_ok()
        }
        _ => false,
    }
}

/// `tcp://10.0.0.1:3478`
fn is_url(value: &str) -> bool {
    value.split_once("://").is_some_and(|(protocol, _)| is_protocol(protocol))
}

fn is_protocol(text: &str) -> bool {
    ["tcp", "udp", "sctp"].contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
    #[test]
    fn links_of_services_called_hairpin_are_recognised() {
        for (name, value) in [
            ("HAIRPIN_SERVICE_HOST", "10.0.0.1"),
            ("HAIRPIN_SERVICE_HOST", "fd00::1"),
            ("HAIRPIN_SERVICE_PORT", "3478"),
            ("HAIRPIN_SERVICE_PORT_TURN", "3478"),
            ("HAIRPIN_SERVICE_PORT_TURN_UDP", "3478"),
            ("HAIRPIN_PORT", "tcp://10.0.0.1:3478"),
            ("HAIRPIN_PORT", "udp://[fd00::1]:3478"),
            ("HAIRPIN_PORT_3478_UDP", "udp://10.0.0.1:3478"),
            ("HAIRPIN_PORT_3478_UDP_PROTO", "udp"),
            ("HAIRPIN_PORT_3478_UDP_PORT", "3478"),
            ("HAIRPIN_PORT_3478_UDP_ADDR", "10.0.0.1"),
            ("HAIRPIN_UDP_SERVICE_HOST", "10.0.0.1"),
            ("HAIRPIN_UDP_PORT", "udp://10.0.0.1:3478"),
            ("HAIRPIN_HTTP_PORT_9641_TCP_ADDR", "10.0.0.1"),
            ("HAIRPIN_HTTP_PORT_9641_TCP", "tcp://10.0.0.1:9641"),
        ] {
            assert!(is_one(name, value), "{name}={value}");
        }
    }

    #[test]
    fn mistyped_settings_are_no_links() {
        for (name, value) in [
            ("HAIRPIN_PORT", "3478"),
            ("HAIRPIN_UDP_PORT", "3478"),
            ("HAIRPIN_LISTEN_PORT", "0.0.0.0:3478"),
            ("HAIRPIN_RELAY_PORT", "49152-65535"),
            ("HAIRPIN_SERVICE_HOST", "turn.example.org"),
            ("HAIRPIN_SERVICE_PORT", "many"),
            ("HAIRPIN_PORT_RANGE_UDP", "49152-65535"),
        ] {
            assert!(!is_one(name, value), "{name}={value}");
        }
    }
}
