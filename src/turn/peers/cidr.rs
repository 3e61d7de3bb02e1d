//! Ranges of addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub(super) addr: IpAddr,
    pub(super) len: u8,
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

    /// Whether a rule for a part of this own range opens it. `widened`: some own ranges are wider than those of the kernel, so
    /// most of such a part may be elsewhere.
    pub fn opens_in_part(&self, widened: bool) -> bool {
        self.addr.is_loopback() || !widened && !is_link_local(self.addr)
    }

    /// Whether it is a single address.
    pub fn is_one(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// The IPv4 address inside an IPv6 one of this NAT64 prefix (RFC 6052 section 2.2).
    pub(super) fn embedded(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
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

/// RFC 4291 section 2.5.6. All such addresses count as this machine's own, because which of them are depends on the link.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
