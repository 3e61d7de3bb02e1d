//! The addresses to relay with: whether a configured one can be used, and otherwise the source address of each family's
//! default route. Loopback and link-local addresses cannot be reached from elsewhere and temporary ones (RFC 8981) expire, so
//! these are never chosen.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::own::Own;

/// A relayed address and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The address.
    pub address: IpAddr,
    /// Why it was chosen.
    pub why: Why,
}

/// Why a relayed address was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The configuration lists it.
    Configured,
    /// It is the source address of the default route.
    DefaultRoute,
    /// The source address of the default route is temporary; this is a permanent one of the same interface.
    Permanent,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Configured => "configured",
            Why::DefaultRoute => "source address of the default route",
            Why::Permanent => "permanent address, instead of the default route's temporary one",
        };
        write!(f, "{} ({why})", self.address)
    }
}

/// Why a family has no relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is no default route.
    #[error("there is no default route")]
    NoRoute,
    /// Its source address cannot be reached from elsewhere.
    #[error("the default route's source address {0} cannot be reached from elsewhere")]
    Local(IpAddr),
    /// Its interface has only temporary addresses.
    #[error("the default route's source address {0} is temporary, and its interface has no permanent one")]
    Temporary(Ipv6Addr),
    /// It cannot be used yet, or not any more.
    #[error("no socket can be bound to the default route's source address {0}")]
    Gone(IpAddr),
}

/// Addresses of a DNS root server, which are reached by the default route. Their routes are looked up; no packet is sent.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)), 53);
const FAR_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 0x2, 0x30)), 53);

/// The IPv4 address to relay with.
///
/// # Errors
///
/// Returns an [`Unusable`] if there is no default route or its source address cannot be reached from elsewhere.
pub fn discover_v4() -> Result<Chosen, Unusable> {
    choose_v4(source(FAR_V4))
}

/// The IPv6 address to relay with.
///
/// # Errors
///
/// Returns an [`Unusable`] if there is no default route, or if its source address is temporary or cannot be reached from
/// elsewhere.
pub fn discover_v6() -> Result<Chosen, Unusable> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    choose_v6(source(FAR_V6), &table)
}

/// The addresses to relay with if none is configured.
pub fn discovered() -> Vec<IpAddr> {
    [discover_v4(), discover_v6()].into_iter().flatten().map(|chosen| chosen.address).collect()
}

/// Why an address of relay.addresses cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No interface has it.
    #[error("this machine does not have it")]
    NotHere,
    /// RFC 4862: another host may have it.
    #[error("duplicate address detection has not finished")]
    Tentative,
    /// RFC 4862: another host has it.
    #[error("duplicate address detection has failed: another host on its link has it")]
    Duplicate,
}

/// Whether relay sockets can be bound to an address: it is among `own`, and the kernel agrees.
///
/// # Errors
///
/// Returns what it lacks.
pub fn check(address: IpAddr, own: &Own) -> Result<(), Missing> {
    if own.may_contain(address) && can_bind(address) {
        return Ok(());
    }
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    Err(missing(address, &table))
}

/// `table` is the text of /proc/net/if_inet6.
fn missing(address: IpAddr, table: &str) -> Missing {
    let flags = |entry: &InterfaceAddress| (IpAddr::from(entry.address) == address).then_some(entry.flags);
    let flags = table.lines().filter_map(InterfaceAddress::parse).find_map(|entry| flags(&entry));
    match flags {
        Some(flags) if flags & FAILED != 0 => Missing::Duplicate,
        Some(flags) if flags & TENTATIVE != 0 => Missing::Tentative,
        Some(_) | None => Missing::NotHere,
    }
}

/// With net.ipv4.ip_nonlocal_bind or its IPv6 counterpart, as keepalived wants it, this is true of every address.
fn can_bind(address: IpAddr) -> bool {
    // Any other error, such as a missing interface for a link-local address, means that the address exists.
    let kind = UdpSocket::bind(SocketAddr::new(address, 0)).map_err(|error| error.kind());
    kind.err() != Some(io::ErrorKind::AddrNotAvailable)
}

/// Whether an address is only reachable inside its own network: RFC 1918, RFC 6598 and RFC 4193.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64,
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The source address of packets to `far`.
fn source(far: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn choose_v4(source: Option<IpAddr>) -> Result<Chosen, Unusable> {
    match source {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => {
            if v4.is_loopback() || v4.is_link_local() {
                return Err(Unusable::Local(v4.into()));
            }
            Ok(Chosen { address: v4.into(), why: Why::DefaultRoute })
        }
        _ => Err(Unusable::NoRoute),
    }
}

/// `table` is the text of /proc/net/if_inet6.
fn choose_v6(source: Option<IpAddr>, table: &str) -> Result<Chosen, Unusable> {
    let Some(IpAddr::V6(v6)) = source else { return Err(Unusable::NoRoute) };
    if v6.is_unspecified() {
        return Err(Unusable::NoRoute);
    }
    if v6.is_loopback() || v6.is_unicast_link_local() {
        return Err(Unusable::Local(v6.into()));
    }
    let entries: Vec<InterfaceAddress> = table.lines().filter_map(InterfaceAddress::parse).collect();
    let Some(own) = entries.iter().find(|entry| entry.address == v6) else {
        // Without information from the kernel the address is taken as permanent.
        return Ok(Chosen { address: v6.into(), why: Why::DefaultRoute });
    };
    if own.is_permanent() {
        return Ok(Chosen { address: v6.into(), why: Why::DefaultRoute });
    }
    // Addresses in the same /64 are routed alike; another prefix may not be.
    entries
        .iter()
        .find(|other| {
            other.interface == own.interface && other.prefix() == own.prefix() && other.is_permanent()
        })
        .map(|other| Chosen { address: other.address.into(), why: Why::Permanent })
        .ok_or(Unusable::Temporary(v6))
}

/// Flags of addresses: IFA_F_* of linux/if_addr.h.
const TEMPORARY: u8 = 0x01;
const FAILED: u8 = 0x08;
const DEPRECATED: u8 = 0x20;
const TENTATIVE: u8 = 0x40;

/// A line of /proc/net/if_inet6: address, interface index, prefix length, scope, flags, name; all in hex.
struct InterfaceAddress {
    address: Ipv6Addr,
    interface: u32,
    flags: u8,
}

impl InterfaceAddress {
    fn parse(line: &str) -> Option<InterfaceAddress> {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?.into();
        let interface = u32::from_str_radix(words.next()?, 16).ok()?;
        let flags = u8::from_str_radix(words.nth(2)?, 16).ok()?;
        Some(InterfaceAddress { address, interface, flags })
    }

    /// Neither temporary nor failed, deprecated or tentative.
    fn is_permanent(&self) -> bool {
        self.flags & (TEMPORARY | FAILED | DEPRECATED | TENTATIVE) == 0
    }

    fn prefix(&self) -> u128 {
        self.address.to_bits() >> 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const TABLE: &str = "\
20010db8000000000000000000000007 02 40 00 01     eth0
20010db8000000000000000000000008 02 40 00 20     eth0
20010db8000000010000000000000009 02 40 00 80     eth0
20010db8000000000000000000000010 03 40 00 80     eth1
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
";

    #[test]
    fn the_source_address_of_the_default_route_is_chosen() {
        assert_eq!(
            choose_v4(Some(ip("10.0.0.7"))),
            Ok(Chosen { address: ip("10.0.0.7"), why: Why::DefaultRoute })
        );
        assert_eq!(choose_v6(Some(ip("2001:db8:0:1::9")), TABLE).unwrap().why, Why::DefaultRoute);
        assert_eq!(choose_v6(Some(ip("2001:db8::7")), "").unwrap().why, Why::DefaultRoute);
    }

    #[test]
    fn local_addresses_are_refused() {
        assert_eq!(choose_v4(None), Err(Unusable::NoRoute));
        assert_eq!(choose_v4(Some(ip("0.0.0.0"))), Err(Unusable::NoRoute));
        assert_eq!(choose_v4(Some(ip("127.0.0.1"))), Err(Unusable::Local(ip("127.0.0.1"))));
        assert_eq!(choose_v4(Some(ip("169.254.3.4"))), Err(Unusable::Local(ip("169.254.3.4"))));
        assert_eq!(choose_v6(None, TABLE), Err(Unusable::NoRoute));
        assert_eq!(choose_v6(Some(ip("::1")), TABLE), Err(Unusable::Local(ip("::1"))));
        assert_eq!(choose_v6(Some(ip("fe80::1")), TABLE), Err(Unusable::Local(ip("fe80::1"))));
    }

    /// RFC 8981: a temporary address expires while calls still use it.
    #[test]
    fn a_permanent_address_is_chosen_instead_of_a_temporary_one() {
        let temporary: Ipv6Addr = "2001:db8::7".parse().unwrap();
        assert_eq!(choose_v6(Some(temporary.into()), TABLE), Err(Unusable::Temporary(temporary)));
        let more = format!("{TABLE}20010db8000000000000000000000011 02 40 00 80     eth0\n");
        let permanent = Chosen { address: ip("2001:db8::11"), why: Why::Permanent };
        assert_eq!(choose_v6(Some(temporary.into()), &more), Ok(permanent));
    }

    #[test]
    fn this_machine_has_its_loopback_address() {
        let own = Own::read();
        assert_eq!(check(ip("127.0.0.1"), &own), Ok(()));
        assert_eq!(check(ip("127.9.9.9"), &own), Ok(()), "all of 127.0.0.0/8 is local");
        assert_eq!(check(ip("192.0.2.254"), &own), Err(Missing::NotHere));
        assert_eq!(check(ip("2001:db8::fe"), &own), Err(Missing::NotHere));
        // Without a list the kernel decides alone.
        let unknown = Own { ranges: Vec::new(), widened: false, complete: false };
        assert_eq!(check(ip("127.0.0.1"), &unknown), Ok(()));
        assert_eq!(check(ip("192.0.2.254"), &unknown), Err(Missing::NotHere));
    }

    #[test]
    fn an_address_under_duplicate_address_detection_is_told_apart() {
        let table = "\
20010db8000000000000000000000001 02 40 00 40     eth0
20010db8000000000000000000000002 02 40 00 c8     eth0
20010db8000000000000000000000003 02 40 00 80     eth0
";
        assert_eq!(missing(ip("2001:db8::1"), table), Missing::Tentative);
        assert_eq!(missing(ip("2001:db8::2"), table), Missing::Duplicate);
        assert_eq!(missing(ip("2001:db8::4"), table), Missing::NotHere);
        assert_eq!(missing(ip("192.0.2.1"), table), Missing::NotHere);
    }

    #[test]
    fn private_networks_are_recognised() {
        for private in ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.255", "fd00::1"] {
            assert!(is_private(ip(private)), "{private}");
        }
        for public in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }
}
