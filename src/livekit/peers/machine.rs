//! The addresses of this machine that an SFU on it can use.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address with the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// `eth0`
    pub interface: String,
    /// Neither a loopback nor a link-local address.
    pub ip: IpAddr,
}

/// Every address of an interface that is up.
pub fn addresses() -> Vec<OwnAddress> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            is_usable(ip).then_some(OwnAddress { interface: interface.interface_name, ip })
        })
        .collect()
}

/// As LiveKit's `GetLocalIPAddresses`.
fn is_usable(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !is_link_local
}
