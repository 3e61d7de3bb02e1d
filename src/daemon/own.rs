//! What packets to this machine may be addressed to: its own addresses and ranges, as the kernel's local routing tables have
//! them. They are more than what interfaces list: all of 127.0.0.0/8, ranges of `ip route add local`, and anycast addresses.
//!
//! Where netlink is not allowed (seccomp, systemd's RestrictAddressFamilies, gVisor) they are read from /proc.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

use super::netlink;
use crate::turn::peers::Cidr;

/// The most ranges of a family that are kept. A machine with more has them widened, which closes too much rather than too
/// little.
const MOST: usize = 65_536;

/// The prefix lengths that ranges are widened to if there are too many, IPv4 and IPv6.
const WIDER: [(u8, u8); 4] = [(24, 64), (16, 48), (12, 32), (8, 16)];

/// Ranges that are this machine's own, whatever can be read. They are never widened.
const ALWAYS: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Stands for every link-local address: interfaces come and go with one each, and a packet without a scope may get to any.
const LINK_LOCAL: &str = "fe80::/10";

/// The own addresses and ranges of this machine: none is contained in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Sorted.
    pub ranges: Vec<Cidr>,
    /// Whether there were too many, so that some are wider than those of the kernel.
    pub widened: bool,
    /// Whether the routes of both families could be read. Otherwise an address may be this machine's own without being among
    /// `ranges`.
    pub complete: bool,
}

impl Own {
    /// Reads them.
    pub fn read() -> Own {
        let (routes, complete) = match netlink::own_routes() {
            Ok(routes) if !routes.is_empty() => (routes, true),
            _ => from_proc(&|name| std::fs::read_to_string(format!("/proc/net/{name}")).ok(), has_ipv6()),
        };
        // A tentative address is not in the tables yet.
        let interfaces = interfaces().into_iter().map(Cidr::from);
        let (ranges, widened) = merge(routes.into_iter().chain(interfaces).collect(), MOST);
        Own { ranges, widened, complete }
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

/// Adds those that always are, removes ranges inside others, and widens those of a family until there are at most `most`; and
/// whether it did.
fn merge(ranges: Vec<Cidr>, most: usize) -> (Vec<Cidr>, bool) {
    let link_local: Cidr = LINK_LOCAL.parse().expect("a range of ours");
    let always = ALWAYS.map(|range| range.parse::<Cidr>().expect("a range of ours"));
    let is_always = |range: &Cidr| always.iter().any(|always| always.covers(range));
    let ranges = ranges.into_iter().map(|range| if link_local.covers(&range) { link_local } else { range });
    let (v4, v6): (Vec<Cidr>, Vec<Cidr>) =
        ranges.filter(|range| !is_always(range)).partition(|range| range.first().is_ipv4());
    let (v4, v4_widened) = widen(v4, most, &WIDER.map(|(v4, _)| v4));
    let (v6, v6_widened) = widen(v6, most, &WIDER.map(|(_, v6)| v6));
    let mut ranges: Vec<Cidr> = v4.into_iter().chain(v6).chain(always).collect();
    disjoin(&mut ranges);
    (ranges, v4_widened || v6_widened)
}

/// Removes ranges inside others and sorts them.
fn disjoin(ranges: &mut Vec<Cidr>) {
    // A range comes before those inside it.
    ranges.sort_unstable_by_key(|range| (range.first(), Reverse(range.last())));
    ranges.dedup_by(|next, range| range.covers(next));
}

/// Widens the ranges of a family to these prefix lengths, one after the other, until there are at most `most`.
fn widen(mut ranges: Vec<Cidr>, most: usize, lengths: &[u8]) -> (Vec<Cidr>, bool) {
    disjoin(&mut ranges);
    let mut widened = false;
    for &length in lengths {
        if ranges.len() <= most {
            break;
        }
        widened = true;
        for range in &mut ranges {
            let wider = Cidr::new(range.first(), length);
            *range = wider.filter(|wider| wider.covers(range)).unwrap_or(*range);
        }
        disjoin(&mut ranges);
    }
    // There are no more /8 and /16 than that in use.
    ranges.truncate(most);
    (ranges, widened)
}

/// Whether this machine supports IPv6.
pub fn has_ipv6() -> bool {
    socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).is_ok()
}

/// The same by the files of /proc/net, which `read` returns by name; and whether both families could be read.
fn from_proc(read: &dyn Fn(&str) -> Option<String>, has_ipv6: bool) -> (Vec<Cidr>, bool) {
    let mut own = from_fib_trie(&read("fib_trie").unwrap_or_default());
    // 127.0.0.0/8 is always there. A machine may have no IPv6 address, but the file exists if it has IPv6.
    let routes = read("ipv6_route");
    let complete = !own.is_empty() && (routes.is_some() || !has_ipv6);
    own.extend(from_ipv6_route(&routes.unwrap_or_default()));
    // Address, interface and more; and interface, name, address and more.
    let addresses = read("if_inet6").unwrap_or_default();
    own.extend(
        addresses.lines().filter_map(|line| hex(line.split_ascii_whitespace().next()?)).map(Cidr::from),
    );
    let anycast = read("anycast6").unwrap_or_default();
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
        let read = |name: &str| {
            let text = match name {
                "fib_trie" => FIB_TRIE,
                "ipv6_route" => IPV6_ROUTE,
                "if_inet6" => "fe8000000000000000fc00fffe000001 02 40 20 80     eth0\n",
                _ => "2    eth0   ff020000000000000000000000000001     1\n",
            };
            Some(text.to_owned())
        };
        let (own, complete) = from_proc(&read, true);
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
        assert_eq!(from_proc(&|_| Some("nonsense |--\n /x y\n".into()), true), (Vec::new(), false));
        // Both families are needed, if there are both
        let without = |missing| move |name: &str| read(name).filter(|_| name != missing);
        assert!(!from_proc(&without("ipv6_route"), true).1 && from_proc(&without("ipv6_route"), false).1);
        assert!(!from_proc(&without("fib_trie"), true).1 && !from_proc(&without("fib_trie"), false).1);
    }

    #[test]
    fn this_machine_is_read_alike_from_proc() {
        let by_proc = from_proc(&|name| std::fs::read_to_string(format!("/proc/net/{name}")).ok(), true);
        let by_netlink = netlink::own_routes().unwrap();
        let missing: Vec<_> = by_netlink.iter().filter(|range| !by_proc.0.contains(range)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn ranges_inside_others_are_left_out() {
        let own =
            merge(ranges(&["127.0.0.1", "::1", "127.0.0.0/8", "10.0.0.1", "127.0.0.0/8", "10.0.0.2"]), MOST);
        assert_eq!(texts(&own.0), ["10.0.0.1/32", "10.0.0.2/32", "127.0.0.0/8", "::1/128"]);
        assert!(!own.1);
    }

    /// Link-local addresses that come and go are no change.
    #[test]
    fn link_local_addresses_are_one_range() {
        let own = merge(ranges(&["fe80::1", "fe80::/64", "fe80::fc:ff:fe00:1", "2001:db8::1"]), MOST);
        assert_eq!(texts(&own.0), ["127.0.0.0/8", "::1/128", "2001:db8::1/128", "fe80::/10"]);
    }

    /// Too many ranges are widened: more than they are is closed to peers, never less.
    #[test]
    fn the_number_of_ranges_is_bounded() {
        let many: Vec<Cidr> = (0..100).map(|n| Cidr::from(IpAddr::from([10, 0, n, 1]))).collect();
        let v6 = ranges(&["2001:db8::1"]);
        let (own, widened) = merge(many.iter().chain(&v6).copied().collect(), 10);
        // Neither the other family nor the loopback addresses
        assert_eq!(texts(&own), ["10.0.0.0/16", "127.0.0.0/8", "::1/128", "2001:db8::1/128"]);
        assert!(widened && many.iter().all(|one| own.iter().any(|range| range.contains(one.first()))));
        assert!(merge((0..=255).map(|n| Cidr::from(IpAddr::from([n, 0, 0, 1]))).collect(), 10).0.len() <= 12);
        assert!(!merge(many, 100).1);
    }

    #[test]
    fn this_machine_has_its_loopback_addresses() {
        let own = Own::read();
        assert!(own.complete && own.may_contain([127, 9, 9, 9].into()));
        assert!(!own.may_contain([192, 0, 2, 254].into()));
    }
}
