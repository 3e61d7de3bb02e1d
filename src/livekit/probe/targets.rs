//! What is dialled: the listeners of a relay on this machine, or the URLs of one elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::livekit::ice_url::{ClientTransport, IceUrl};
use crate::livekit::relays::{RelayAddress, RelayStatus};
use crate::wire::Family;

/// The most targets of a relay in one round.
const TARGETS: usize = 32;

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// How.
    pub transport: ClientTransport,
    /// The address that is dialled.
    pub address: SocketAddr,
    /// The name that clients have, by which TLS is verified.
    pub name: String,
    /// What sentences call it: the listener or the URL.
    pub shown: String,
    /// The relay's ports, as far as they are known: `49152-65535`.
    pub relay_ports: Option<String>,
    /// Whether the relay is on another machine.
    pub is_elsewhere: bool,
}

/// The listeners of a relay on this machine. A wildcard is dialled at an address that relays. TLS is verified by the name in the
/// URLs that clients get.
pub fn listeners(status: &RelayStatus, urls: &[String]) -> Vec<ProbeTarget> {
    let urls: Vec<IceUrl> = urls.iter().filter_map(|url| IceUrl::parse(url)).collect();
    let mut targets: Vec<ProbeTarget> = Vec::new();
    for listener in &status.listeners {
        let Some(transport) = ClientTransport::from_name(&listener.transport) else { continue };
        let Some(ip) = dialled(listener.address.ip(), status) else { continue };
        let address = SocketAddr::new(ip, listener.address.port());
        let target = ProbeTarget {
            transport,
            address,
            name: tls_name(&urls, address),
            shown: listener.address.to_string(),
            relay_ports: status.relay_ports.clone(),
            is_elsewhere: false,
        };
        if !targets.iter().any(|one| (one.transport, one.address) == (transport, address)) {
            targets.push(target);
        }
    }
    targets.truncate(TARGETS);
    targets
}

/// The address to dial for a listener: its own, or one of its family that relays.
fn dialled(listener: IpAddr, status: &RelayStatus) -> Option<IpAddr> {
    if !listener.is_unspecified() {
        return Some(listener);
    }
    let of_family = |relay: &&RelayAddress| relay.address.is_ipv4() == listener.is_ipv4();
    let relay = status.relay_addresses.iter().find(of_family).map(|relay| relay.address);
    // A machine may have no IPv6 although the wildcard is listed.
    relay.or_else(|| listener.is_ipv4().then_some(Ipv4Addr::LOCALHOST.into()))
}

/// The name that clients of this listener have in their URL: of the same port, else of any TLS URL, else the address itself.
fn tls_name(urls: &[IceUrl], address: SocketAddr) -> String {
    let tls = || urls.iter().filter(|url| url.transport == ClientTransport::Tls);
    let of_port = tls().find(|url| url.port == address.port());
    of_port.or_else(|| tls().next()).map_or_else(|| address.ip().to_string(), |url| url.host.clone())
}

/// The family of relayed addresses that probes ask for.
pub fn family(status: &RelayStatus) -> Family {
    let has = |is_ipv4| status.relay_addresses.iter().any(|relay| relay.address.is_ipv4() == is_ipv4);
    if has(true) || !has(false) { Family::V4 } else { Family::V6 }
}

/// The addresses that a relay says it has, inside and outside of a NAT.
pub fn own_addresses(status: &RelayStatus) -> Vec<IpAddr> {
    let relays = status.relay_addresses.iter().flat_map(|relay| [Some(relay.address), relay.external]);
    let listeners = status.listeners.iter().map(|listener| listener.address.ip());
    relays.flatten().chain(listeners.filter(|ip| !ip.is_unspecified())).collect()
}

/// The URLs of a relay elsewhere. Of the addresses of a name, one of the relay's `own` is dialled, because other relays may have the same
/// name; if it has none of them, the first. `resolve` asks for the addresses of a name.
pub async fn elsewhere<F>(
    urls: &[String],
    own: &[IpAddr],
    resolve: impl Fn(String) -> F,
) -> Vec<(ProbeTarget, Result<(), String>)>
where
    F: Future<Output = Result<Vec<IpAddr>, String>>,
{
    let mut targets = Vec::new();
    for url in urls.iter().take(TARGETS) {
        let Some(IceUrl { transport, host, port }) = IceUrl::parse(url) else { continue };
        let found = match host.parse() {
            Ok(ip) => Ok(vec![ip]),
            Err(_) => resolve(host.clone()).await,
        };
        let chosen = found.and_then(|ips| {
            let found = ips.iter().find(|ip| own.contains(ip)).or(ips.first());
            found.copied().ok_or_else(|| "it has no address".to_owned())
        });
        let address = SocketAddr::new(chosen.clone().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
        let target = ProbeTarget {
            transport,
            address,
            name: host,
            shown: url.clone(),
            relay_ports: None,
            is_elsewhere: true,
        };
        targets.push((target, chosen.map(drop)));
    }
    targets
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(listeners: Value, relays: Value) -> RelayStatus {
        serde_json::from_value(json!({
            "instance": "1", "version": "1", "ready": true, "not_ready": null, "draining": null, "ice_urls": [],
            "listeners": listeners, "relay_addresses": relays,
        }))
        .unwrap()
    }

    #[test]
    fn a_wildcard_is_dialled_at_an_address_that_relays() {
        let status = status(
            json!([
                { "transport": "udp", "address": "0.0.0.0:3478" },
                { "transport": "udp", "address": "[::]:3478" },
                { "transport": "tls", "address": "10.0.0.7:443" },
                { "transport": "tls", "address": "0.0.0.0:5349" },
                { "transport": "dtls", "address": "0.0.0.0:5349" },
            ]),
            json!([{ "address": "10.0.0.5", "external": "203.0.113.5" }]),
        );
        let urls =
            ["turns:turn.example.org:5349?transport=tcp", "turns:other.example.org:8443?transport=tcp"];
        let found = listeners(&status, &urls.map(str::to_owned));
        let shown: Vec<_> =
            found.iter().map(|one| format!("{} {} {}", one.transport, one.address, one.name)).collect();
        assert_eq!(
            shown,
            [
                "UDP 10.0.0.5:3478 turn.example.org",
                "TLS 10.0.0.7:443 turn.example.org",
                "TLS 10.0.0.5:5349 turn.example.org"
            ]
        );
        assert_eq!(family(&status), Family::V4);
    }

    #[test]
    fn without_a_name_in_a_url_the_address_is_the_name() {
        let status = status(
            json!([{ "transport": "tls", "address": "[2001:db8::7]:5349" }]),
            json!([{ "address": "2001:db8::5", "external": null }]),
        );
        assert_eq!((listeners(&status, &[])[0].name.as_str(), family(&status)), ("2001:db8::7", Family::V6));
    }

    #[tokio::test]
    async fn a_relay_elsewhere_is_probed_at_its_urls() {
        let urls = [
            "turn:203.0.113.5:3478?transport=udp",
            "turns:turn.example.org:5349?transport=tcp",
            "turn:gone.example.org:80?transport=tcp",
            "stun:203.0.113.5",
        ];
        let resolve = |name: String| async move {
            match name.as_str() {
                "turn.example.org" => Ok(vec!["192.0.2.9".parse().unwrap(), "192.0.2.10".parse().unwrap()]),
                _ => Err("no such name".to_owned()),
            }
        };
        let found = elsewhere(&urls.map(str::to_owned), &[], resolve).await;
        let shown: Vec<_> = found.iter().map(|(one, found)| format!("{} {found:?}", one.address)).collect();
        let expected =
            ["203.0.113.5:3478 Ok(())", "192.0.2.9:5349 Ok(())", "0.0.0.0:80 Err(\"no such name\")"];
        assert_eq!(shown, expected);

        // Several relays behind one name are each probed at their own address.
        let status = status(json!([]), json!([{ "address": "10.0.0.5", "external": "192.0.2.10" }]));
        let found = elsewhere(&urls.map(str::to_owned), &own_addresses(&status), resolve).await;
        assert_eq!(found[1].0.address, "192.0.2.10:5349".parse().unwrap());
    }
}
