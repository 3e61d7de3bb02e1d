//! Socket addresses in the layout of the kernel.
//!
//! Reading an address removes the IPv6 flow label, and the scope unless the address is link-local, so that the addresses of
//! two packets from one client always compare equal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Storage for a `sockaddr_in` or a `sockaddr_in6`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    /// The first field of both.
    family: libc::sa_family_t,
}

impl RawAddress {
    /// The size of the storage, whichever family it holds.
    pub(super) const SIZE: libc::socklen_t = size_of::<RawAddress>() as libc::socklen_t;

    /// An address of no family.
    pub(super) const EMPTY: RawAddress = RawAddress {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// Writes an address and returns its length, for `msg_namelen`.
    pub(super) fn set(&mut self, addr: SocketAddr) -> libc::socklen_t {
        match addr {
            SocketAddr::V4(addr) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(addr) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// Reads an address that the kernel wrote; `None` for any other family.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: every value starts as `EMPTY` and is only overwritten by `set` or by the kernel, so all bytes are
        // initialised. Both structures consist of integers, for which every bit pattern is valid, and both have the
        // family at the same offset (`repr(C)`).
        unsafe {
            match libc::c_int::from(self.family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port)).into())
                }
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    Some(normalize_v6(ip, u16::from_be(self.v6.sin6_port), self.v6.sin6_scope_id).into())
                }
                _ => None,
            }
        }
    }
}

/// An IPv6 socket address without a flow label, and with a scope only if it is link-local.
pub(super) fn normalize_v6(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddrV6 {
    SocketAddrV6::new(ip, port, 0, if ip.is_unicast_link_local() { scope } else { 0 })
}

/// Normalizes an address from a configuration or a system call in the same way as [`RawAddress::get`].
pub(in crate::datapath) fn normalize(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => normalize_v6(*v6.ip(), v6.port(), v6.scope_id()).into(),
    }
}

/// An IP address with port 0 and, if it is link-local, its interface.
pub(super) fn with_scope(ip: IpAddr, interface: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, 0).into(),
        IpAddr::V6(ip) => normalize_v6(ip, 0, interface).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1:3478", "[2001:db8::1]:49152", "[fe80::1%3]:5", "0.0.0.0:0", "[::]:65535"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut name = RawAddress::EMPTY;
            name.set(addr);
            assert_eq!(name.get(), Some(addr), "{text}");
        }
        assert_eq!(RawAddress::EMPTY.get(), None);
    }

    #[test]
    fn flow_labels_and_unneeded_scopes_are_removed() {
        let mut name = RawAddress::EMPTY;
        name.set(SocketAddrV6::new("2001:db8::1".parse().unwrap(), 7, 0xABCDE, 4).into());
        assert_eq!(name.get(), Some("[2001:db8::1]:7".parse().unwrap()));
        let link: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 9, 4).into();
        assert_eq!(normalize(link), SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 4).into());
    }
}
