//! An entry of `peers.allow` and `peers.deny`: a range of addresses, perhaps with ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Cidr, CidrError};

/// A range of addresses, all ports of them or some: `10.0.0.0/8`, `203.0.113.7:50000-60000`, `[2001:db8::7]:7882`,
/// `[2001:db8::/32]:7882`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerRule {
    /// The addresses.
    pub range: Cidr,
    /// The first and the last port; `None`: every port.
    ports: Option<(u16, u16)>,
}

/// Why text is not a [`PeerRule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRuleError {
    /// The range of addresses.
    #[error(transparent)]
    Range(#[from] CidrError),
    /// The brackets around an IPv6 address.
    #[error("an IPv6 address or range with ports is written in brackets")]
    Brackets,
    /// The ports after the colon.
    #[error("not a port from 1 to 65535, or a range of them, after the colon")]
    Ports,
    /// The last port is less than the first.
    #[error("the range of ports is reversed")]
    ReversedPorts(PeerRule),
    /// The first and the last address, as coturn has it: the same addresses as CIDR ranges.
    #[error("a range of addresses is written in CIDR notation, not as its first and last address")]
    FirstLast(Vec<PeerRule>),
}

/// The most ranges that an error suggests.
const SUGGESTED: usize = 16;

impl PeerRule {
    /// The ports.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.map_or(0..=u16::MAX, |(first, last)| first..=last)
    }

    /// Whether it is about some ports only.
    pub fn has_ports(&self) -> bool {
        self.ports.is_some()
    }
}

impl From<Cidr> for PeerRule {
    fn from(range: Cidr) -> PeerRule {
        PeerRule { range, ports: None }
    }
}

impl FromStr for PeerRule {
    type Err = PeerRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addresses, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or(PeerRuleError::Brackets)?;
                match after.strip_prefix(':') {
                    Some(ports) => (inside, Some(ports)),
                    None if after.is_empty() => (inside, None),
                    None => return Err(PeerRuleError::Brackets),
                }
            }
            // An IPv6 address without brackets has more than one colon
            None => match text.split_once(':') {
                Some((address, ports)) if !ports.contains(':') => (address, Some(ports)),
                // Ports after the length, without brackets
                _ if text.split_once('/').is_some_and(|(_, length)| length.contains(':')) => {
                    return Err(PeerRuleError::Brackets);
                }
                _ => (text, None),
            },
        };
        let ports = ports.map(port_range).transpose()?;
        let reversed = ports.is_some_and(|(first, last)| first > last);
        let ports = ports.map(|(first, last)| (first.min(last), first.max(last)));
        if let Some((Ok(first), Ok(last))) =
            addresses.split_once('-').map(|(first, last)| (first.trim().parse(), last.trim().parse()))
            && let Some(ranges) = ranges(first, last)
        {
            return Err(PeerRuleError::FirstLast(
                ranges.into_iter().map(|range| PeerRule { range, ports }).collect(),
            ));
        }
        let rule = PeerRule { range: addresses.parse()?, ports };
        if reversed { Err(PeerRuleError::ReversedPorts(rule)) } else { Ok(rule) }
    }
}

impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.range.first().is_ipv6() && self.has_ports();
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        match self.range.is_one() {
            true => write!(f, "{open}{}{close}", self.range.first())?,
            false => write!(f, "{open}{}{close}", self.range)?,
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

impl fmt::Debug for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PeerRuleError {
    /// What to write instead.
    pub fn fix(&self) -> String {
        match self {
            PeerRuleError::Range(CidrError::HostBits(range)) => {
                format!("write \"{range}\", or the address alone")
            }
            PeerRuleError::Range(_) => "write it like \"192.0.2.0/24\" or \"2001:db8::/32\"".into(),
            PeerRuleError::Brackets => {
                "write it like \"[2001:db8::7]:7882\" or \"[2001:db8::/32]:50000-60000\"".into()
            }
            PeerRuleError::Ports => {
                "write it like \"192.0.2.7:7882\" or \"192.0.2.7:50000-60000\"; without ports, all of them are meant"
                    .into()
            }
            PeerRuleError::ReversedPorts(rule) => format!("write \"{rule}\""),
            PeerRuleError::FirstLast(rules) => {
                let shown: Vec<_> = rules.iter().take(SUGGESTED).map(|rule| format!("\"{rule}\"")).collect();
                let more = rules.len().saturating_sub(SUGGESTED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("write {}{more}", shown.join(", "))
            }
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), PeerRuleError> {
    let port = |text: &str| match text.trim().parse() {
        Ok(0) | Err(_) => Err(PeerRuleError::Ports),
        Ok(port) => Ok(port),
    };
    match text.split_once('-') {
        Some((first, last)) => Ok((port(first)?, port(last)?)),
        None => port(text).map(|port| (port, port)),
    }
}

/// The fewest ranges that have the addresses between these two and no others. `None`: of different families.
fn ranges(one: IpAddr, other: IpAddr) -> Option<Vec<Cidr>> {
    let (width, one, other) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (32, one.to_bits().into(), other.to_bits().into()),
        (IpAddr::V6(one), IpAddr::V6(other)) => (128, one.to_bits(), other.to_bits()),
        _ => return None,
    };
    let address = |bits: u128| match width {
        32 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    let host_bits = |count: u32| u128::MAX.checked_shr(128 - count).unwrap_or(0);
    let (mut first, last) = (one.min(other), one.max(other));
    let mut ranges = Vec::new();
    loop {
        // The largest range that starts here and ends no later
        let mut host = first.trailing_zeros().min(width);
        while first | host_bits(host) > last {
            host -= 1;
        }
        ranges.extend(Cidr::new(address(first), (width - host) as u8));
        let end = first | host_bits(host);
        if end == last {
            return Some(ranges);
        }
        first = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (String, String) {
        let error = text.parse::<PeerRule>().unwrap_err();
        (error.to_string(), error.fix())
    }

    #[test]
    fn addresses_with_and_without_ports() {
        for (text, shown, ports) in [
            ("10.0.0.0/8", "10.0.0.0/8", 0..=65535),
            ("203.0.113.7", "203.0.113.7", 0..=65535),
            ("203.0.113.7/32", "203.0.113.7", 0..=65535),
            ("203.0.113.7:7882", "203.0.113.7:7882", 7882..=7882),
            ("203.0.113.7:50000-60000", "203.0.113.7:50000-60000", 50000..=60000),
            ("10.0.0.0/8:5000-6000", "10.0.0.0/8:5000-6000", 5000..=6000),
            ("2001:db8::/32", "2001:db8::/32", 0..=65535),
            ("2001:db8::7", "2001:db8::7", 0..=65535),
            ("[2001:db8::7]", "2001:db8::7", 0..=65535),
            ("[2001:db8::7]:7882", "[2001:db8::7]:7882", 7882..=7882),
            ("[2001:db8::/32]:1-65535", "[2001:db8::/32]:1-65535", 1..=65535),
        ] {
            let rule: PeerRule = text.parse().unwrap();
            assert_eq!((rule.to_string().as_str(), rule.ports()), (shown, ports), "{text}");
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }

    #[test]
    fn mistakes_are_told_with_the_fix() {
        for (text, what, fix) in [
            ("ten", "not an IP address", "like \"192.0.2.0/24\""),
            ("10.0.0.0/40", "the prefix length must be a number from 0 to 32", "like \"192.0.2.0/24\""),
            ("10.0.0.1/8", "has bits set after the prefix", "write \"10.0.0.0/8\""),
            ("10.0.0.1/8:80", "has bits set after the prefix", "write \"10.0.0.0/8\""),
            ("203.0.113.7:", "not a port", "like \"192.0.2.7:7882\""),
            ("203.0.113.7:0", "not a port", "like \"192.0.2.7:7882\""),
            ("203.0.113.7:0-65535", "not a port", "without ports, all of them are meant"),
            ("203.0.113.7:65536", "not a port", "like \"192.0.2.7:7882\""),
            ("203.0.113.7:80-90-100", "not a port", "like \"192.0.2.7:7882\""),
            ("203.0.113.7:90-80", "reversed", "write \"203.0.113.7:80-90\""),
            ("[2001:db8::7]7882", "brackets", "like \"[2001:db8::7]:7882\""),
            ("2001:db8::/32:7882", "brackets", "\"[2001:db8::/32]:50000-60000\""),
            ("[2001:db8::7", "brackets", "like \"[2001:db8::7]:7882\""),
            ("[2001:db8::]/32:7882", "brackets", "\"[2001:db8::/32]:50000-60000\""),
        ] {
            let (found, how) = error(text);
            assert!(found.contains(what) && how.contains(fix), "{text}: {found}; {how}");
        }
    }

    /// coturn's allowed-peer-ip and denied-peer-ip take the first and the last address.
    #[test]
    fn a_range_in_coturns_form_is_told_in_cidr_notation() {
        for (text, fix) in [
            ("10.0.0.0-10.255.255.255", "write \"10.0.0.0/8\""),
            ("0.0.0.0-255.255.255.255", "write \"0.0.0.0/0\""),
            ("10.0.0.5-10.0.0.5", "write \"10.0.0.5\""),
            ("10.0.0.1-10.0.0.4", "write \"10.0.0.1\", \"10.0.0.2/31\", \"10.0.0.4\""),
            ("172.31.255.255 - 172.16.0.0", "write \"172.16.0.0/12\""),
            ("10.0.0.0-10.0.0.255:80", "write \"10.0.0.0/24:80\""),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "write \"::/0\""),
            ("2001:db8::-2001:db8::ffff", "write \"2001:db8::/112\""),
        ] {
            let (what, how) = error(text);
            assert!(what.contains("CIDR notation"), "{text}: {what}");
            assert_eq!(how, fix, "{text}");
        }
        let (_, how) = error("0.0.0.1-255.255.255.254");
        assert!(how.ends_with(" and 46 more"), "{how}");
        assert_eq!(error("10.0.0.0-2001:db8::1").0, "not an IP address");
    }
}
