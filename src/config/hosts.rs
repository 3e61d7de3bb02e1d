//! The addresses of host names, as far as they are known without asking anyone: literal ones, `localhost`, and /etc/hosts.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most addresses of a name.
const ADDRESSES_MAX: usize = 64;

/// What /etc/hosts says about some names.
#[derive(Default)]
pub struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text of the file (hosts(5)), which can be long, for these names alone.
    pub fn read<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Hosts {
        let wanted: HashSet<String> = names.map(canonical).collect();
        let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words.map(canonical).filter(|name| wanted.contains(name)) {
                let addresses = found.entry(name).or_default();
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
        }
        Hosts(found)
    }

    /// The addresses of one of the names, or of an address.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        let name = canonical(host);
        let mut addresses = self.0.get(&name).cloned().unwrap_or_default();
        // RFC 6761 section 6.3
        if name == "localhost" || name.ends_with(".localhost") {
            addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        }
        addresses
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_addresses_of_the_file() {
        let text = "127.0.0.1 localhost\n127.0.1.1\tRelay.example.org relay # name\n#192.0.2.9 relay\n::1 ip6-localhost\n\
                    fe80::1%lo0 relay\nbroken relay\n192.0.2.7 relay\n192.0.2.7 relay other";
        let names = ["relay", "relay.Example.org.", "ip6-localhost", "localhost", "192.0.2.1"];
        let hosts = Hosts::read(text, names.into_iter());
        for (host, expected) in [
            ("relay", &["127.0.1.1", "192.0.2.7"][..]),
            ("Relay.", &["127.0.1.1", "192.0.2.7"]),
            ("relay.example.org", &["127.0.1.1"]),
            ("ip6-localhost", &["::1"]),
            ("www.localhost", &["127.0.0.1", "::1"]),
            ("2001:db8::1", &["2001:db8::1"]),
            ("other", &[]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(hosts.addresses(host), expected, "{host}");
        }
        let many: String = (0..300).map(|n| format!("10.0.{}.{} relay\n", n / 256, n % 256)).collect();
        assert_eq!(Hosts::read(&many, ["relay"].into_iter()).addresses("relay").len(), ADDRESSES_MAX);
    }
}
