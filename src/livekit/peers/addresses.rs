//! The SFU's exact addresses with their ports, from everything that is known of it. Pure: what the machine and Redis say is passed in.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::machine::OwnAddress;
use super::sfu::{DEFAULT_PORTS, SfuConfig};
use crate::daemon::addresses::is_private;
use crate::daemon::overlays::exactly;
use crate::turn::peers::{Cidr, PeerRule, refused_by_default};

/// The most addresses of an overlay.
pub const ADDRESSES_MAX: usize = 1024;

/// The most sentences of a kind. Redis may list thousands of addresses.
const WARNINGS_MAX: usize = 8;

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
    let mut foreign = Vec::new();
    for ip in known.nodes {
        // Configured addresses have their ports already.
        let is_listed = || ips.contains(ip) || known.configured.iter().any(|rule| rule.range.contains(*ip));
        match refused(*ip).filter(|_| !known.allow.iter().any(|range| range.contains(*ip))) {
            Some(_) if is_listed() => {}
            Some(kind) => foreign.push(format!(
                "the SFU node {ip} in Redis is left out: its address is not global ({kind}); if it is right, add it or its network \
                 to peers.allow of the sidecar"
            )),
            None => {
                ips.insert(*ip);
            }
        }
    }
    warnings.extend(bounded(foreign, "nodes in Redis whose addresses are not global are left out"));
    let rules =
        ips.iter().map(|ip| rule(*ip, &ports)).chain(known.configured.iter().map(ToString::to_string));
    let mut rules: BTreeSet<String> = rules.collect();
    let mut closed = Vec::new();
    // A relay refuses a whole overlay for one address that it never opens.
    rules.retain(|rule| match exactly(rule) {
        Ok(_) => true,
        Err(why) => {
            closed.push(format!("one of the SFU's addresses is left out: {why}"));
            false
        }
    });
    warnings.extend(bounded(closed, "of the SFU's addresses are left out"));
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

/// The first sentences, and how many more there are of their kind.
fn bounded(mut sentences: Vec<String>, kind: &str) -> Vec<String> {
    let more = sentences.len().saturating_sub(WARNINGS_MAX);
    sentences.truncate(WARNINGS_MAX);
    sentences.extend((more > 0).then(|| format!("{more} more {kind}")));
    sentences
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
        assert!(found.warnings[0].contains("a loopback address"), "{:?}", found.warnings);
        let many: Vec<IpAddr> =
            (0..3000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
        let found = gather(&Known { nodes: &many, ..Known::default() });
        assert_eq!(found.warnings.len(), WARNINGS_MAX + 1);
        assert!(found.warnings[WARNINGS_MAX].starts_with("2992 more nodes"), "{:?}", found.warnings);
    }

    /// A node of the deployment that the operator has listed, or that is on this machine, needs no further entry.
    #[test]
    fn a_node_that_is_listed_already_is_not_left_out() {
        let nodes: Vec<IpAddr> = ["10.0.0.7", "10.0.0.8"].map(|ip| ip.parse().unwrap()).into();
        let config = SfuConfig::read("rtc:\n  node_ip: 10.0.0.7\n").unwrap();
        let configured: Vec<PeerRule> = vec!["10.0.0.8:50000-60000".parse().unwrap()];
        let known =
            Known { config: Some(&config), configured: &configured, nodes: &nodes, ..Known::default() };
        let found = gather(&known);
        assert_eq!(found.rules, ["10.0.0.7:50000-60000", "10.0.0.8:50000-60000"]);
        assert!(found.warnings.is_empty(), "{found:?}");
    }

    /// A relay judges what it is sent as a whole: one address that it never opens must not take the others with it.
    #[test]
    fn what_a_relay_never_opens_is_not_sent() {
        let machine = own(&["8.8.4.4", "2001:0:53aa:64c::7", "2002:808:808::7", "fec0::7"]);
        let found = gathered("", &machine, &[]);
        assert!(found.rules.contains(&"8.8.4.4:50000-60000".to_owned()), "{found:?}");
        assert!(found.rules.iter().all(|rule| exactly(rule).is_ok()), "{found:?}");
        assert!(found.warnings.iter().any(|one| one.contains("Teredo")), "{found:?}");
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
