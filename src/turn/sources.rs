//! Exempt sources: balancers, NAT gateways and proxies, behind which many clients share an address. Limits per source are
//! larger for them, but not absent: the source of a datagram can be forged.

use std::net::IpAddr;
use std::sync::Arc;

use super::peers::Cidr;

/// The ranges of `limits.exempt_sources`, sorted and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExemptSources(Arc<[(IpAddr, IpAddr)]>);

impl ExemptSources {
    /// How many times as large the limits of an exempt source are.
    pub const FACTOR: u32 = 100;

    /// The sources in any of `ranges`.
    pub fn new(ranges: &[Cidr]) -> ExemptSources {
        let mut sorted: Vec<(IpAddr, IpAddr)> =
            ranges.iter().map(|range| (range.first(), range.last())).collect();
        sorted.sort_unstable();
        let mut disjoint: Vec<(IpAddr, IpAddr)> = Vec::new();
        for (first, last) in sorted {
            match disjoint.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => disjoint.push((first, last)),
            }
        }
        ExemptSources(disjoint.into())
    }

    /// Whether `source` is exempt. The number of ranges hardly matters, because a flood of forged sources asks this for each
    /// packet.
    pub fn contains(&self, source: IpAddr) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= source);
        after > 0 && source <= self.0[after - 1].1
    }

    /// By how much the limits of `source` are multiplied.
    pub fn factor(&self, source: IpAddr) -> u32 {
        if self.contains(source) { ExemptSources::FACTOR } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_may_overlap_and_touch() {
        let ranges = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "11.0.0.0/8", "fd00::/8", "::1"];
        let exempt = ExemptSources::new(&ranges.map(|range| range.parse().unwrap()));
        for (source, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.200.0.1", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::", false),
            ("::1", true),
            ("::10.0.0.1", false),
            ("fcff::1", false),
            ("fd12::1", true),
            ("fe00::", false),
        ] {
            assert_eq!(exempt.contains(ip(source)), expected, "{source}");
            assert_eq!(exempt.factor(ip(source)), if expected { 100 } else { 1 });
        }
        let everything = ExemptSources::new(&["0.0.0.0/0".parse().unwrap()]);
        assert!(everything.contains(ip("255.255.255.255")) && !everything.contains(ip("::")));
        assert!(!ExemptSources::default().contains(ip("0.0.0.0")));
    }
}
