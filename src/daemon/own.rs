//! What packets to this machine may be addressed to: its own addresses and ranges, as the kernel's local routing tables have
//! them. They are more than what interfaces list: all of 127.0.0.0/8, ranges of `ip route add local`, and anycast addresses.
//!
//! Where netlink is not allowed (seccomp, systemd's RestrictAddressFamilies, gVisor) they are read from /proc.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

use super::netlink;
use crate::turn::peers::Cidr;

/// The most ranges that are kept. A machine with more has them widened, which closes too much rather than too little.
const MOST: usize = 4096;

/// The prefix lengths that ranges are widened to if there are too many, IPv4 and IPv6.
const WIDER: [(u8, u8); 4] = [(24, 64), (16, 48), (12, 32), (8, 16)];

/// Ranges that are this machine's own, whatever can be read.
const ALWAYS: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The own addresses and ranges of this machine: none is contained in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Sorted.
    pub ranges: Vec<Cidr>,
    /// Whether routes could be read. Otherwise an address may be this machine's own without being among `ranges`.
    pub complete: bool,
}

impl Own {
    /// Reads them.
    pub fn read() -> Own {
        let (routes, complete) = match netlink::own_routes() {
            Ok(routes) if !routes.is_empty() => (routes, true),
            _ => from_proc(&|name| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default()),
        };
        let always = ALWAYS.map(|range| range.parse().expect("a range of ours"));
        // A tentative address is not in the tables yet.
        let interfaces = interfaces().into_iter().map(Cidr::from);
        Own { ranges: merge(routes.into_iter().chain(interfaces).chain(always).collect(), MOST), complete }
    }

    /// Whether an address is this machine's own, as far as that is known.
    pub fn may_contain(&self, ip: IpAddr) -> bool {
        !self.complete || self.ranges.iter().any(|range| range.contains(ip))
    }
}

/// The addresses of interfaces.
fn interfaces() -> Vec<IpAddr> {
    // It needs netlink, too.
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

/// Removes ranges inside others, and widens all of them until there are at most `most`.
fn merge(mut ranges: Vec<Cidr>, most: usize) -> Vec<Cidr> {
    let mut wider = WIDER.iter();
    loop {
        // A range comes before those inside it.
        ranges.sort_unstable_by_key(|range| (range.first(), Reverse(range.last())));
        ranges.dedup_by(|next, range| range.covers(next));
        if ranges.len() <= most {
            return ranges;
        }
        let Some(&(v4, v6)) = wider.next() else {
            // There are no more /8 and /16 than that in use.
            ranges.truncate(most);
            return ranges;
        };
        for range in &mut ranges {
            let wider = Cidr::new(range.first(), if range.first().is_ipv4() { v4 } else { v6 });
            *range = wider.filter(|wider| wider.covers(range)).unwrap_or(*range);
        }
    }
}

/// The same by the files of /proc/net, which `read` returns by name; and whether both families could be read.
fn from_proc(read: &dyn Fn(&str) -> String) -> (Vec<Cidr>, bool) {
    let v4 = from_fib_trie(&read("fib_trie"));
    let complete = !v4.is_empty();
    let mut own = v4;
    own.extend(from_ipv6_route(&read("ipv6_route")));
    // Address, interface and more; and interface, name, address and more.
    let addresses = read("if_inet6");
    own.extend(
        addresses.lines().filter_map(|line| hex(line.split_ascii_whitespace().next()?)).map(Cidr::from),
    );
    let anycast = read("anycast6");
    own.extend(anycast.lines().filter_map(|line| hex(line.split_ascii_whitespace().nth(2)?)).map(Cidr::from));
    (own, complete)
}

/// A leaf is a line `|-- 192.0.2.1`; lines such as `/32 host LOCAL` that follow are the routes of that address.
fn from_fib_trie(table: &str) -> Vec<Cidr> {
    let (mut own, mut leaf) = (Vec::new(), None::<Ipv4Addr>);
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if let Some(route) = line.strip_prefix('/')
            && let Some(leaf) = leaf
        {
            let mut words = route.split_ascii_whitespace();
            let len = words.next().and_then(|len| len.parse().ok()).filter(|&len| len > 0);
            if words.nth(1) == Some("LOCAL") {
                own.extend(len.and_then(|len| Cidr::new(leaf.into(), len)));
            }
        }
    }
    own
}

/// Destination, its length, source, its length, next hop, metric, references, uses, flags, interface; all but the last in hex.
fn from_ipv6_route(table: &str) -> Vec<Cidr> {
    /// RTF_LOCAL and RTF_ANYCAST of linux/ipv6_route.h.
    const OWN: u32 = 0x8000_0000 | 0x0010_0000;
    let route = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let destination = hex(words.next()?)?;
        let len = u8::from_str_radix(words.next()?, 16).ok().filter(|&len| len > 0)?;
        let flags = u32::from_str_radix(words.nth(6)?, 16).ok()?;
        if flags & OWN != 0 { Cidr::new(destination, len) } else { None }
    };
    table.lines().filter_map(route).collect()
}

fn hex(text: &str) -> Option<IpAddr> {
    Some(Ipv6Addr::from_bits(u128::from_str_radix(text, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ranges: &[Cidr]) -> Vec<String> {
        ranges.iter().map(ToString::to_string).collect()
    }

    fn ranges(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 198.51.100.0/24 2 0 2
        |-- 198.51.100.0
           /24 link UNICAST
           /25 host LOCAL
Id 100:
  |-- 0.0.0.0
     /0 host LOCAL
";

    const IPV6_ROUTE: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
20010db8000100000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 80000001       lo
20010db8000000000000000000000000 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000001 00000000 00300001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 80200001       lo
";

    #[test]
    fn proc_tells_the_same_as_netlink() {
        let (own, complete) = from_proc(&|name| match name {
            "fib_trie" => FIB_TRIE.into(),
            "ipv6_route" => IPV6_ROUTE.into(),
            "if_inet6" => "fe8000000000000000fc00fffe000001 02 40 20 80     eth0\n".into(),
            _ => "2    eth0   ff020000000000000000000000000001     1\n".into(),
        });
        let expected = [
            "127.0.0.0/8",
            "127.0.0.1/32",
            "198.51.100.0/25",
            "2001:db8:1::/64",
            "2001:db8::/128",
            "fe80::fc:ff:fe00:1/128",
            "ff02::1/128",
        ];
        assert_eq!((texts(&own), complete), (expected.map(str::to_owned).to_vec(), true));
        assert_eq!(from_proc(&|_| "nonsense |--\n /x y\n".into()), (Vec::new(), false));
    }

    #[test]
    fn this_machine_is_read_alike_from_proc() {
        let by_proc = from_proc(&|name| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap());
        let by_netlink = netlink::own_routes().unwrap();
        let missing: Vec<_> = by_netlink.iter().filter(|range| !by_proc.0.contains(range)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn ranges_inside_others_are_left_out() {
        let own =
            merge(ranges(&["127.0.0.1", "::1", "127.0.0.0/8", "10.0.0.1", "127.0.0.0/8", "10.0.0.2"]), MOST);
        assert_eq!(texts(&own), ["10.0.0.1/32", "10.0.0.2/32", "127.0.0.0/8", "::1/128"]);
    }

    /// Too many ranges are widened: more than they are is closed to peers, never less.
    #[test]
    fn the_number_of_ranges_is_bounded() {
        let many: Vec<Cidr> = (0..100).map(|n| Cidr::from(IpAddr::from([10, 0, n, 1]))).collect();
        let own = merge(many.clone(), 10);
        assert_eq!(texts(&own), ["10.0.0.0/16"]);
        assert!(many.iter().all(|one| own.iter().any(|range| range.contains(one.first()))));
        assert!(merge((0..=255).map(|n| Cidr::from(IpAddr::from([n, 0, 0, 1]))).collect(), 10).len() <= 10);
    }

    #[test]
    fn this_machine_has_its_loopback_addresses() {
        let own = Own::read();
        assert!(own.complete && own.may_contain([127, 9, 9, 9].into()));
        assert!(!own.may_contain([192, 0, 2, 254].into()));
    }
}
