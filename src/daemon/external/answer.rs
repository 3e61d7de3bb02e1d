//! Questions about external addresses, and which answers are believed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::daemon::addresses;
use crate::turn::PerFamily;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The addresses of a DNS name.
    Name(String),
    /// The external address of a relayed one.
    Auto(IpAddr),
}

/// An answer. With `auto`, the family without an address, or both, relays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub addresses: PerFamily<Option<IpAddr>>,
    /// Who said it.
    pub source: &'static str,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Name(name) => write!(f, "the addresses of {name}"),
            Question::Auto(local) => write!(f, "the external address of {local}"),
        }
    }
}

/// An answer with one address.
pub(super) fn one(public: IpAddr, source: &'static str) -> Answer {
    let addresses = match public.is_ipv4() {
        true => PerFamily { v4: Some(public), v6: None },
        false => PerFamily { v4: None, v6: Some(public) },
    };
    Answer { addresses, source }
}

/// Refuses answers with an address that cannot be public, whoever gave them.
pub(super) fn valid(answer: Answer) -> Result<Answer, String> {
    match answer.addresses.present().find(|(_, public)| !may_be_public(**public)) {
        Some((_, public)) => Err(format!("{} says {public}, which is not a public address", answer.source)),
        None => Ok(answer),
    }
}

/// Whether an address may be reached from elsewhere. Addresses for documentation may: networks in laboratories use them.
fn may_be_public(ip: IpAddr) -> bool {
    let is_special = match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224 || v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.to_ipv4().is_some()
                || v6.segments()[0] & 0xE000 != 0x2000
        }
    };
    !is_special && !ip.is_loopback() && !addresses::is_private(ip)
}

/// Whether an address of this machine is its own external one. IPv6 is not translated, but for private addresses.
pub(super) fn is_public(ip: IpAddr) -> bool {
    const DOCUMENTATION: [(Ipv4Addr, u32); 4] = [
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
    ];
    let within = |v4: Ipv4Addr| {
        DOCUMENTATION.iter().any(|(net, len)| (v4.to_bits() ^ net.to_bits()) >> (32 - len) == 0)
    };
    may_be_public(ip) && !matches!(ip, IpAddr::V4(v4) if within(v4))
}

/// An answer as the log tells it.
pub(super) fn told(question: &Question, answer: &Answer) -> String {
    let addresses = list(answer);
    match question {
        Question::Name(name) => format!("{name} is {addresses} (DNS)"),
        Question::Auto(local) if answer.addresses.present().any(|(_, public)| public == local) => {
            format!("{local} is advertised as it is ({})", answer.source)
        }
        Question::Auto(local) => {
            format!("the external address of {local} is {addresses} ({})", answer.source)
        }
    }
}

/// Its addresses.
pub(super) fn list(answer: &Answer) -> String {
    let addresses: Vec<_> = answer.addresses.present().map(|(_, public)| public.to_string()).collect();
    addresses.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_addresses_are_believed() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.1.1",
            "192.168.0.1",
            "172.16.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::808:808",
        ] {
            assert!(valid(one(ip(text), "AWS")).is_err(), "{text}");
            assert!(!is_public(ip(text)), "{text}");
        }
        for text in ["8.8.8.8", "203.0.113.5", "2001:db8::1", "2a00::1"] {
            assert!(valid(one(ip(text), "AWS")).is_ok(), "{text}");
        }
        assert!(is_public(ip("8.8.8.8")) && is_public(ip("2a00::1")) && !is_public(ip("203.0.113.5")));
    }
}
