//! Which peers may be reached: one function, [`PeerRules::judge`], for permissions, channels and packets (RFC 8656 sections
//! 10.2, 11.2, 12.2 and 21).
//!
//! A relay is a way into the network around it, so everything that is not a global unicast address is refused unless the
//! operator allows it. Tunnels that hide an IPv4 address in an IPv6 one are always refused; a NAT64 address is judged by
//! the IPv4 address inside.
//!
//! An address is judged once. The resulting [`Scope`] decides about the ports of each packet without walking lists.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::External;

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// Why text is not a [`Cidr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No address before the slash.
    #[error("not an IP address")]
    Address,
    /// No length after the slash, or one longer than the address.
    #[error("the prefix length must be a number from 0 to {0}")]
    Length(u8),
    /// Bits are set after the prefix: probably a typing mistake.
    #[error("has bits set after the prefix; did you mean {0}?")]
    HostBits(Cidr),
}

impl Cidr {
    /// The range of `len` leading bits of `addr`; bits after them are cleared. `None` if the address has fewer.
    pub fn new(addr: IpAddr, len: u8) -> Option<Cidr> {
        let addr = match addr {
            IpAddr::V4(v4) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Cidr { addr, len })
    }

    /// Whether `ip` is in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Cidr::new(ip, self.len).is_some_and(|range| range.addr == self.addr)
    }

    /// The first address of the range.
    pub fn first(&self) -> IpAddr {
        self.addr
    }

    /// The last address of the range.
    pub fn last(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | host))
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | host))
            }
        }
    }

    /// Whether every address of `other` is in the range.
    pub fn covers(&self, other: &Cidr) -> bool {
        self.contains(other.first()) && self.contains(other.last())
    }

    /// The IPv4 address inside an IPv6 one of this NAT64 prefix (RFC 6052 section 2.2).
    fn embedded(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.contains(IpAddr::V6(ip)) {
            return None;
        }
        let bytes = ip.octets();
        let start = usize::from(self.len / 8);
        let mut inside = [0; 4];
        // Byte 8 is never part of it
        let places = (start..16).filter(|&i| i != 8);
        for (to, from) in inside.iter_mut().zip(places) {
            *to = bytes[from];
        }
        Some(Ipv4Addr::from(inside))
    }
}

impl From<IpAddr> for Cidr {
    /// The range of this address only.
    fn from(addr: IpAddr) -> Cidr {
        Cidr { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| CidrError::Address)?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let len = match len {
            Some(len) => len.parse().map_err(|_| CidrError::Length(most))?,
            None => most,
        };
        let range = Cidr::new(addr, len).ok_or(CidrError::Length(most))?;
        if range.addr != addr {
            return Err(CidrError::HostBits(range));
        }
        Ok(range)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The configuration of [`PeerRules`].
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Ranges that the operator allows. They override the built-in refusals with the same or a shorter prefix.
    pub allow: Vec<Cidr>,
    /// Ranges that the operator denies. They override `allow` unless that is more specific.
    pub deny: Vec<Cidr>,
    /// NAT64 prefixes of this network besides 64:ff9b::/96, of 32, 40, 48, 56, 64 or 96 bits.
    pub nat64: Vec<Cidr>,
    /// The relay's own relayed addresses as peers know them: behind a NAT, the external ones.
    pub relay: Vec<IpAddr>,
    /// What packets to this machine may be addressed to, as the kernel's local routing table has it: addresses and ranges
    /// such as 127.0.0.0/8. A wildcard endpoint listens on all of them.
    pub own: Vec<Cidr>,
    /// The relay's own listeners and its HTTP endpoints: always refused.
    pub endpoints: Vec<SocketAddr>,
}

/// Refused by default: everything that is not a global unicast address (IANA special-purpose registries).
const DENIED: [(&str, &str); 27] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, cloud metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved, broadcast"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard only"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/9", "link-local and site-local"),
    ("ff00::/8", "multicast"),
];

/// IPv6 addresses that stand for IPv4 ones or for tunnels: always refused (RFC 8656 section 21.4).
const TUNNELS: [(&str, &str); 4] = [
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::/96", "IPv4-compatible"),
    ("2002::/16", "6to4"),
    ("2001::/32", "Teredo"),
];

/// The well-known NAT64 prefix (RFC 6052 section 2.1).
const NAT64: &str = "64:ff9b::/96";

/// Every port but 0.
const EVERY_PORT: [(u16, u16); 1] = [(1, u16::MAX)];

/// Why a peer may not be reached. For the log; the client sees 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden(pub &'static str);

/// Which ports of a peer's address may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every port.
    EveryPort,
    /// The ports that these rules open.
    Ports(Arc<PortRules>),
}

/// Rules for the ports of one address.
#[derive(Debug, PartialEq, Eq)]
pub struct PortRules {
    /// The ports that are open: sorted, disjoint, inclusive ranges.
    open: Box<[(u16, u16)]>,
    /// Relayed transport addresses that hold an allocation are open too: the local address they are bound to.
    live: Option<IpAddr>,
    /// Sorted ports that are closed even if they are live: the relay's own endpoints.
    closed: Box<[u16]>,
    /// The address that packets are really sent to: the local one behind an external one.
    send_to: IpAddr,
}

impl Scope {
    /// Judges a port. `is_live` tells whether a relayed transport address, by its local name, holds an allocation now.
    ///
    /// # Errors
    /// The port may not be reached now.
    pub fn check(&self, port: u16, is_live: impl FnOnce(SocketAddr) -> bool) -> Result<(), Forbidden> {
        match self {
            _ if port == 0 => Err(Forbidden("port 0")),
            Scope::EveryPort => Ok(()),
            Scope::Ports(rules) if rules.is_open(port) => Ok(()),
            Scope::Ports(rules) if rules.is_endpoint(port) => Err(Forbidden("this server's own endpoint")),
            Scope::Ports(rules) if rules.live.is_none() => Err(Forbidden("the port is not allowed")),
            Scope::Ports(rules) if rules.live.is_some_and(|ip| is_live(SocketAddr::new(ip, port))) => Ok(()),
            Scope::Ports(_) => Err(Forbidden("no allocation at this relayed address")),
        }
    }

    /// Whether the port may be reached, now or once a relayed address lives there.
    pub(super) fn admits(&self, port: u16) -> bool {
        self.check(port, |_| true).is_ok()
    }

    /// The address that packets to a peer at this address are really sent to.
    pub(super) fn send_to(&self, peer: SocketAddr) -> SocketAddr {
        match self {
            Scope::EveryPort => peer,
            Scope::Ports(rules) => SocketAddr::new(rules.send_to, peer.port()),
        }
    }
}

impl PortRules {
    /// Opens the sorted, disjoint ranges of `open`, and live relayed addresses at `live`, except for the sorted ports of
    /// `closed`.
    fn new(open: &[(u16, u16)], live: Option<IpAddr>, closed: Vec<u16>, send_to: IpAddr) -> PortRules {
        let mut ranges = Vec::new();
        for &(first, last) in open {
            let mut start = u32::from(first);
            for port in closed.iter().copied().filter(|port| (first..=last).contains(port)) {
                if start < u32::from(port) {
                    ranges.push((start as u16, port - 1));
                }
                start = u32::from(port) + 1;
            }
            if start <= u32::from(last) {
                ranges.push((start as u16, last));
            }
        }
        PortRules { open: ranges.into(), live, closed: closed.into(), send_to }
    }

    fn is_open(&self, port: u16) -> bool {
        let after = self.open.partition_point(|&(first, _)| first <= port);
        after.checked_sub(1).is_some_and(|at| port <= self.open[at].1)
    }

    fn is_endpoint(&self, port: u16) -> bool {
        self.closed.binary_search(&port).is_ok()
    }
}

/// Who may be reached, made once from [`Rules`].
#[derive(Clone, Debug)]
pub struct PeerRules {
    allow: Vec<Cidr>,
    deny: Vec<Cidr>,
    denied: Vec<(Cidr, &'static str)>,
    tunnels: Vec<(Cidr, &'static str)>,
    nat64: Vec<Cidr>,
    relay: Vec<IpAddr>,
    own: Vec<Cidr>,
    endpoints: Vec<SocketAddr>,
}

impl PeerRules {
    /// Prepares the rules.
    pub fn new(rules: Rules) -> PeerRules {
        let built_in = |table: &[(&str, &'static str)]| -> Vec<(Cidr, &'static str)> {
            table.iter().map(|(range, name)| (range.parse().expect("a range of ours"), *name)).collect()
        };
        let mut nat64 = rules.nat64;
        nat64.push(NAT64.parse().expect("a range of ours"));
        PeerRules {
            allow: rules.allow,
            deny: rules.deny,
            denied: built_in(&DENIED),
            tunnels: built_in(&TUNNELS),
            nat64,
            relay: rules.relay,
            own: rules.own,
            endpoints: rules.endpoints,
        }
    }

    /// Judges a peer's address. Each port is judged by the [`Scope`].
    ///
    /// # Errors
    /// No port of the address may be reached: 403, or the packet is dropped.
    pub fn judge(&self, ip: IpAddr, external: &External) -> Result<Scope, Forbidden> {
        if let IpAddr::V6(v6) = ip {
            if let Some((_, name)) = self.tunnels.iter().find(|(range, _)| range.contains(ip)) {
                return Err(Forbidden(name));
            }
            if let Some(inside) = self.nat64.iter().find_map(|prefix| prefix.embedded(v6)) {
                // Packets go to the NAT64, whatever the address inside is called here
                return self.judge_unicast(IpAddr::V4(inside), external, |_| ip);
            }
        }
        self.judge_unicast(ip, external, |inside| inside)
    }

    /// Judges an address that hides no other. `send_to` makes of the address's local name the one to send packets to.
    fn judge_unicast(
        &self,
        ip: IpAddr,
        external: &External,
        send_to: impl Fn(IpAddr) -> IpAddr,
    ) -> Result<Scope, Forbidden> {
        let allowed = longest(&self.allow, ip);
        if let Some(denied) = longest(&self.deny, ip)
            && allowed.is_none_or(|allowed| allowed <= denied)
        {
            return Err(Forbidden("denied by the configuration"));
        }
        let local = external.inside(SocketAddr::new(ip, 0)).ip();
        let endpoints = self.endpoints_at(ip);
        let rules = |open: &[(u16, u16)], live, to| {
            Ok(Scope::Ports(Arc::new(PortRules::new(open, live, endpoints.clone(), send_to(to)))))
        };
        let own = self.relay.contains(&ip);
        let exact = allowed.is_some_and(|len| len == if ip.is_ipv4() { 32 } else { 128 });
        if own && !exact {
            // Two clients of this relay meet here, and nobody else on this machine is reached
            return rules(&[], Some(local), local);
        }
        let refused =
            self.denied.iter().filter(|(range, _)| range.contains(ip)).max_by_key(|(range, _)| range.len);
        if let Some((range, name)) = refused
            && allowed.is_none_or(|allowed| allowed < range.len)
        {
            return Err(Forbidden(name));
        }
        if own || self.is_own(ip) {
            rules(&EVERY_PORT, None, local)
        } else if !endpoints.is_empty() {
            rules(&EVERY_PORT, None, ip)
        } else {
            Ok(Scope::EveryPort)
        }
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|range| range.contains(ip))
    }

    /// The ports of this relay's own endpoints at an address, sorted.
    fn endpoints_at(&self, ip: IpAddr) -> Vec<u16> {
        let is_here = |endpoint: &&SocketAddr| {
            endpoint.ip() == ip
                || endpoint.ip().is_unspecified() && (self.is_own(ip) || self.relay.contains(&ip))
        };
        let mut ports: Vec<u16> = self.endpoints.iter().filter(is_here).map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

fn longest(ranges: &[Cidr], ip: IpAddr) -> Option<u8> {
    ranges.iter().filter(|range| range.contains(ip)).map(|range| range.len).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "10.1.1.1";

    fn rules(allow: &[&str], deny: &[&str]) -> PeerRules {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        PeerRules::new(Rules {
            allow: ranges(allow),
            deny: ranges(deny),
            nat64: vec!["2a00:64::/48".parse().unwrap()],
            relay: vec![OWN.parse().unwrap()],
            own: vec![OWN.parse().unwrap(), "8.8.4.4".parse().unwrap()],
            endpoints: vec!["0.0.0.0:3478".parse().unwrap(), "127.0.0.1:9641".parse().unwrap()],
        })
    }

    fn may(rules: &PeerRules, ip: &str) -> bool {
        scope(rules, ip).is_ok()
    }

    fn scope(rules: &PeerRules, ip: &str) -> Result<Scope, Forbidden> {
        rules.judge(ip.parse().unwrap(), &External::default())
    }

    fn may_at(rules: &PeerRules, ip: &str, port: u16, live: bool) -> bool {
        scope(rules, ip).is_ok_and(|scope| scope.check(port, |_| live).is_ok())
    }

    /// RFC 8656 §21: each range that is refused by default, with its first and last address.
    #[test]
    fn refuses_everything_that_is_not_global() {
        let rules = rules(&[], &[]);
        for (range, name) in DENIED.iter().chain(&TUNNELS) {
            let range: Cidr = range.parse().unwrap();
            let last = match range.addr {
                IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                    v4.to_bits() | u32::MAX.checked_shr(range.len.into()).unwrap_or(0),
                )),
                IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(
                    v6.to_bits() | u128::MAX.checked_shr(range.len.into()).unwrap_or(0),
                )),
            };
            for ip in [range.addr, last] {
                assert!(
                    !may(&rules, &ip.to_string()) || ip == OWN.parse::<IpAddr>().unwrap(),
                    "{ip} is {name}"
                );
            }
        }
        for ip in [
            "fec0::1",
            "febf::1",
            "192.0.0.8",
            "255.255.255.255",
            "::7f00:1",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(!may(&rules, ip), "{ip}");
        }
    }

    /// RFC 8656 §10.2: global unicast addresses may be reached.
    #[test]
    fn allows_what_is_global() {
        let rules = rules(&[], &[]);
        for ip in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1",
            "2001:4860::1",
        ] {
            assert_eq!(scope(&rules, ip), Ok(Scope::EveryPort), "{ip}");
        }
    }

    /// RFC 8656 §21.4: an IPv4 address inside a NAT64 address is judged as IPv4.
    #[test]
    fn looks_into_nat64() {
        let rules = rules(&[], &[]);
        assert!(may(&rules, "64:ff9b::8.8.8.8"));
        assert!(!may(&rules, "64:ff9b::127.0.0.1"));
        assert!(!may(&rules, "64:ff9b::a9fe:a9fe"));
        // RFC 6052 §2.2: a 48-bit prefix, the address around byte 8.
        assert!(!may(&rules, "2a00:64:0:7f00:0:100::"));
        assert!(may(&rules, "2a00:64:0:808:8:800::"));
    }

    /// RFC 8656 §10.2: the operator's ranges; the more specific wins, deny wins a tie, and both beat the defaults.
    #[test]
    fn weighs_allow_and_deny() {
        let open = rules(&["10.0.0.0/8", "127.0.0.1"], &["10.2.0.0/16", "9.9.9.0/24", "10.3.0.0/16"]);
        assert!(may(&open, "10.9.9.9"));
        assert!(may(&open, "127.0.0.1"));
        assert!(!may(&open, "127.0.0.2"));
        assert!(!may(&open, "10.2.0.1"));
        assert!(!may(&open, "9.9.9.9"));
        assert!(!may(&rules(&["9.9.9.0/24"], &["9.9.9.0/24"]), "9.9.9.9"));
        // A wide allow undoes no built-in refusal, a narrow list can stand alone.
        assert!(!may(&rules(&["0.0.0.0/0"], &[]), "10.9.9.9"));
        let only = rules(&["8.8.8.8"], &["0.0.0.0/0", "::/0"]);
        assert!(may(&only, "8.8.8.8"));
        assert!(!may(&only, "8.8.8.9"));
        assert!(!may(&only, OWN));
        // Tunnels stay shut whatever is allowed.
        assert!(!may(&rules(&["::/0", "2002::/16", "::ffff:0:0/96"], &[]), "2002::1"));
        assert!(!may(&rules(&["::ffff:0:0/96"], &[]), "::ffff:8.8.8.8"));
    }

    /// RFC 8656 §9: two clients of one relay meet at its own address, at live allocations only.
    #[test]
    fn own_addresses_open_live_ports_only() {
        let rules = rules(&[], &[]);
        assert!(may(&rules, OWN));
        assert!(may_at(&rules, OWN, 50000, true));
        assert!(!may_at(&rules, OWN, 50000, false));
        // The same address behind a NAT is asked about by its local name
        let external = External::new(vec![("10.9.9.9".parse().unwrap(), OWN.parse().unwrap())]);
        let scope = rules.judge(OWN.parse().unwrap(), &external).unwrap();
        assert!(scope.check(50000, |local| local == "10.9.9.9:50000".parse().unwrap()).is_ok());
        let peer = SocketAddr::new(OWN.parse().unwrap(), 50000);
        assert_eq!(scope.send_to(peer), "10.9.9.9:50000".parse().unwrap());
    }

    /// RFC 8656 §21: the relay's own endpoints are refused by address and port, whatever is allowed.
    #[test]
    fn endpoints_are_never_peers() {
        let rules = rules(&["0.0.0.0/0", "127.0.0.0/8", OWN, "8.8.4.4"], &[]);
        assert!(!may_at(&rules, OWN, 3478, true) && may_at(&rules, OWN, 3479, false));
        assert!(!may_at(&rules, "127.0.0.1", 9641, true) && may_at(&rules, "127.0.0.1", 9642, false));
        assert!(!may_at(&rules, "8.8.4.4", 3478, true) && may_at(&rules, "8.8.4.4", 53, false));
        assert!(!may_at(&rules, "8.8.8.8", 0, true) && may_at(&rules, "8.8.8.8", 3478, false));
    }

    /// Closed ports are cut out of the open ranges, at their edges and inside.
    #[test]
    fn closed_ports_are_cut_out() {
        let open = |ranges: &[(u16, u16)], closed: &[u16]| {
            PortRules::new(ranges, None, closed.to_vec(), OWN.parse().unwrap()).open.into_vec()
        };
        assert_eq!(open(&EVERY_PORT, &[]), [(1, 65535)]);
        assert_eq!(open(&EVERY_PORT, &[1, 2, 80, 65535]), [(3, 79), (81, 65534)]);
        assert_eq!(open(&[(10, 20), (30, 30), (40, 50)], &[5, 15, 30, 60]), [(10, 14), (16, 20), (40, 50)]);
        assert_eq!(open(&[], &[80]), []);
    }

    #[test]
    fn reads_ranges() {
        assert_eq!("10.0.0.0/8".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("::1".parse::<Cidr>().unwrap().to_string(), "::1/128");
        assert_eq!(
            "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string(),
            "has bits set after the prefix; did you mean 10.0.0.0/8?"
        );
        assert_eq!("10.0.0.0/33".parse::<Cidr>(), Err(CidrError::Length(32)));
        assert_eq!("ten".parse::<Cidr>(), Err(CidrError::Address));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<Cidr>().unwrap().contains("::1".parse().unwrap()));
    }
}
