//! The SFU's exact addresses with their ports, from everything that is known of it. Pure: what the machine and Redis say is passed in.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::machine::OwnAddress;
use super::sfu::{DEFAULT_PORTS, SfuConfig};
use crate::daemon::addresses::is_private;
use crate::turn::peers::{Cidr, PeerRule, refused_by_default};

/// The most addresses of an overlay.
pub const ADDRESSES_MAX: usize = 1024;

/// What is known of the SFU.
#[derive(Default)]
pub struct Known<'a> {
    /// LiveKit's configuration, if LiveKit is on this machine.
    pub config: Option<&'a SfuConfig>,
    /// `peers.addresses`
    pub configured: &'a [PeerRule],
    /// The addresses of nodes in Redis.
    pub nodes: &'a [IpAddr],
    /// `peers.allow`
    pub allow: &'a [Cidr],
    /// The addresses of this machine.
    pub own: &'a [OwnAddress],
    /// The external addresses of relays on this machine, each after the one inside.
    pub external: &'a [(IpAddr, IpAddr)],
}

/// What relays are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SfuAddresses {
    /// Exact addresses with ports, sorted, each once.
    pub rules: Vec<String>,
    /// What was left out, and what is not known, in whole sentences.
    pub warnings: Vec<String>,
}

/// Puts together what is known.
pub fn gather(known: &Known<'_>) -> SfuAddresses {
    let mut warnings = Vec::new();
    let ports = known.config.map_or(DEFAULT_PORTS, |config| config.ports.clone());
    let mut ips = known.config.map(|config| of_config(config, known, &mut warnings)).unwrap_or_default();
    for ip in known.nodes {
        match refused(*ip).filter(|_| !known.allow.iter().any(|range| range.contains(*ip))) {
            Some(kind) => warnings.push(format!(
                "the SFU node {ip} in Redis is left out: its address is not global ({kind}); if it is right, add it or its network \
                 to peers.allow of the sidecar"
            )),
            None => {
                ips.insert(*ip);
            }
        }
    }
    let never = |ip: &IpAddr| {
        let kind = never_open(*ip)?;
        Some(format!("{ip} is left out of the SFU's addresses: no relay opens a {kind} address"))
    };
    warnings.extend(ips.iter().filter_map(never));
    ips.retain(|ip| never_open(*ip).is_none());
    let configured: Vec<&PeerRule> = known.configured.iter().collect();
    warnings.extend(configured.iter().filter_map(|rule| never(&rule.range.first())));
    let configured = configured.into_iter().filter(|rule| never_open(rule.range.first()).is_none());
    let rules: BTreeSet<String> =
        ips.iter().map(|ip| rule(*ip, &ports)).chain(configured.map(ToString::to_string)).collect();
    if rules.len() > ADDRESSES_MAX {
        warnings.push(format!(
            "the SFU has {} addresses, but a relay takes {ADDRESSES_MAX}: the others cannot be reached over it",
            rules.len()
        ));
    }
    SfuAddresses { rules: rules.into_iter().take(ADDRESSES_MAX).collect(), warnings }
}

/// The addresses that LiveKit with this configuration advertises on this machine, and those behind them.
fn of_config(config: &SfuConfig, known: &Known<'_>, warnings: &mut Vec<String>) -> BTreeSet<IpAddr> {
    let own = known.own.iter().filter(|own| config.filter.passes(&own.interface, own.ip));
    let own: BTreeSet<IpAddr> = own.map(|own| own.ip).collect();
    let mut ips: BTreeSet<IpAddr> = config.node_ips.iter().copied().collect();
    // Without node_ip every address of the machine is a candidate; with use_external_ip they are what is behind the NAT.
    if ips.is_empty() || config.use_external_ip || config.advertise_internal_ip {
        ips.extend(&own);
    }
    let is_own = |ip: &IpAddr| known.own.iter().any(|own| own.ip == *ip);
    for (inside, outside) in known.external.iter().filter(|(inside, _)| is_own(inside)) {
        if config.use_external_ip && own.contains(inside) {
            ips.insert(*outside);
        }
        // The relay sends to the address inside, without passing the NAT.
        if ips.contains(outside) {
            ips.insert(*inside);
        }
    }
    if config.use_external_ip && known.nodes.is_empty() && ips.iter().copied().all(is_private) {
        warnings.push(
            "LiveKit has use_external_ip, but no relay knows the external address of this machine; set relay.external_ip of the \
             relay, or add the address with its ports to peers.addresses of the sidecar"
                .into(),
        );
    }
    ips
}

/// `203.0.113.7:50000-60000`
pub fn rule(ip: IpAddr, ports: &RangeInclusive<u16>) -> String {
    let first = SocketAddr::new(ip, *ports.start());
    match ports.start() == ports.end() {
        true => first.to_string(),
        false => format!("{first}-{}", ports.end()),
    }
}

/// What an address is, if it is not global.
fn refused(ip: IpAddr) -> Option<&'static str> {
    let is_in =
        |(range, _): &(&str, &'static str)| range.parse::<Cidr>().is_ok_and(|range| range.contains(ip));
    refused_by_default().find(is_in).map(|(_, kind)| kind)
}

/// What an address is that a relay refuses in every overlay, together with all others in the same request.
fn never_open(ip: IpAddr) -> Option<&'static str> {
    /// Whose names are the same as in the relay's own table.
    const KINDS: [&str; 12] = [
        "this network",
        "loopback",
        "link-local, cloud metadata",
        "multicast",
        "reserved, broadcast",
        "link-local",
        "IPv4-mapped",
        "IPv4-compatible",
        "6to4",
        "Teredo",
        "local NAT64",
        "reserved",
    ];
    let nat64: Cidr = "64:ff9b::/96".parse().ok()?;
    match nat64.contains(ip) {
        true => Some("NAT64"),
        false => refused(ip).filter(|kind| KINDS.contains(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(addresses: &[&str]) -> Vec<OwnAddress> {
        let own =
            |(n, ip): (usize, &&str)| OwnAddress { interface: format!("eth{n}"), ip: ip.parse().unwrap() };
        addresses.iter().enumerate().map(own).collect()
    }

    fn gathered(yaml: &str, own: &[OwnAddress], external: &[(&str, &str)]) -> SfuAddresses {
        let config = SfuConfig::read(yaml).unwrap();
        let external: Vec<_> = external
            .iter()
            .map(|(inside, outside)| (inside.parse().unwrap(), outside.parse().unwrap()))
            .collect();
        gather(&Known { config: Some(&config), own, external: &external, ..Known::default() })
    }

    /// One VPS: SFU and relay on one public address.
    #[test]
    fn an_sfu_on_this_machine_has_its_addresses() {
        let machine = own(&["8.8.4.4", "2a00::7"]);
        let found = gathered("", &machine, &[]);
        assert_eq!(found.rules, ["8.8.4.4:50000-60000", "[2a00::7]:50000-60000"]);
        assert!(found.warnings.is_empty());
        let found = gathered("rtc:\n  node_ip: 8.8.4.4\n  udp_port: 7882\n", &machine, &[]);
        assert_eq!(found.rules, ["8.8.4.4:7882"]);
        let found = gathered("rtc:\n  ips:\n    includes: [8.8.4.0/24]\n", &machine, &[]);
        assert_eq!(found.rules, ["8.8.4.4:50000-60000"]);
    }

    /// Behind a 1:1 NAT both the external address, which LiveKit advertises, and the one inside are reached.
    #[test]
    fn behind_a_nat_both_addresses_are_open() {
        let (machine, nat) = (own(&["10.0.0.7"]), [("10.0.0.7", "8.8.4.4")]);
        let both = ["10.0.0.7:50000-60000", "8.8.4.4:50000-60000"];
        for yaml in ["rtc:\n  use_external_ip: true\n", "rtc:\n  node_ip: 8.8.4.4\n"] {
            assert_eq!(gathered(yaml, &machine, &nat).rules, both, "{yaml}");
        }
        let found = gathered("rtc:\n  use_external_ip: true\n", &machine, &[]);
        assert_eq!(found.rules, ["10.0.0.7:50000-60000"]);
        assert!(found.warnings[0].contains("set relay.external_ip"), "{found:?}");
        // Another machine's NAT is none of this one's business
        let found = gathered("rtc:\n  node_ip: 8.8.4.4\n", &machine, &[("10.0.0.9", "8.8.4.4")]);
        assert_eq!(found.rules, ["8.8.4.4:50000-60000"]);
    }

    #[test]
    fn nodes_that_are_not_global_need_an_entry() {
        let nodes: Vec<IpAddr> = ["8.8.4.4", "10.0.0.7", "127.0.0.1"].map(|ip| ip.parse().unwrap()).into();
        let found = gather(&Known { nodes: &nodes, ..Known::default() });
        assert_eq!(found.rules, ["8.8.4.4:50000-60000"]);
        assert_eq!(found.warnings.len(), 2);
        assert!(found.warnings[0].contains("10.0.0.7") && found.warnings[0].contains("peers.allow"));
        let allow: Vec<Cidr> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
        let found = gather(&Known { nodes: &nodes, allow: &allow, ..Known::default() });
        assert_eq!(found.rules, ["10.0.0.7:50000-60000", "8.8.4.4:50000-60000"]);
        assert!(found.warnings[0].contains("no relay opens a loopback address"), "{:?}", found.warnings);
    }

    #[test]
    fn what_the_configuration_lists_is_added_and_the_number_is_bounded() {
        let configured: Vec<PeerRule> =
            (0..1100).map(|n| format!("8.8.{}.{}:7882", n / 250, n % 250).parse().unwrap()).collect();
        let found = gather(&Known { configured: &configured, ..Known::default() });
        assert_eq!(found.rules.len(), ADDRESSES_MAX);
        assert!(found.warnings[0].contains("1100 addresses"));
        let mut sorted = found.rules.clone();
        sorted.sort();
        assert_eq!(found.rules, sorted);
    }
}
