//! The kernel's routes by netlink: which addresses and ranges are this machine's own, and when something about addresses
//! changes. See `netlink(7)` and `rtnetlink(7)`.
//!
//! Three fields of one message are read here, so there is no crate for it: those that know all of rtnetlink refuse a message
//! with an attribute in a form they do not expect, and an own address that is overlooked is open to peers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use tokio::io::unix::AsyncFd;

use crate::datapath::filter_dumps;
use crate::turn::peers::Cidr;

/// What is followed: links, whose end removes IPv4 routes without a message of their own, addresses and routes.
const GROUPS: libc::c_int = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// Bytes of a datagram: the kernel sends at most 32 KiB at a time.
const DATAGRAM: usize = 64 << 10;

/// Bytes that may wait for this process, so that a burst of changes rarely overruns. If one does, everything is read again.
const BUFFER: usize = 1 << 20;

/// How long the kernel may take for a reply. It usually makes one during the call.
const TIMEOUT: libc::time_t = 2;

/// How often a table is read again that changes meanwhile.
const ATTEMPTS: usize = 3;

/// The sizes of `struct nlmsghdr`, `struct rtmsg` and `struct rtattr`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const ATTRIBUTE: usize = 4;

/// Tells that something about this machine's addresses may have changed.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Follows the kernel's messages from now on. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// This process may not use netlink, or has no file descriptor left.
    pub fn follow() -> io::Result<Changes> {
        let socket = open(SockFlag::SOCK_NONBLOCK, GROUPS as u32)?;
        // A smaller buffer only overruns more often.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        #[allow(
            deprecated,
            reason = "its replacement is unsafe for the sake of types that do not own their descriptor"
        )]
        Ok(Changes(AsyncFd::new(socket)?))
    }

    /// Waits for a message that concerns addresses.
    ///
    /// # Errors
    /// Nothing can be received any more.
    pub async fn next(&self) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let mut ready = self.0.readable().await?;
            match receive(self.0.get_ref(), &mut buffer) {
                Ok(datagram) if messages(datagram).any(|message| message.concerns_addresses()) => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                // Messages were lost, so anything may have changed.
                Err(Errno::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Discards the messages that have arrived.
    pub fn discard(&self) {
        let mut buffer = vec![0; DATAGRAM];
        // The bound is far above what the buffer of the socket holds.
        for _ in 0..BUFFER {
            if let Err(Errno::EAGAIN) = receive(self.0.get_ref(), &mut buffer) {
                return;
            }
        }
    }
}

/// The destinations of all routes that deliver to this machine, of every routing table, including those of VRFs.
///
/// # Errors
/// This process may not use netlink, or the kernel did not answer in time.
pub fn own_routes() -> io::Result<Vec<Cidr>> {
    let mut own = Vec::new();
    // Subnet-router anycast addresses of IPv6 are of a type of their own.
    for (family, kind) in [
        (libc::AF_INET, libc::RTN_LOCAL),
        (libc::AF_INET6, libc::RTN_LOCAL),
        (libc::AF_INET6, libc::RTN_ANYCAST),
    ] {
        own.extend(dump(family as u8, kind)?);
    }
    Ok(own)
}

fn dump(family: u8, kind: u8) -> io::Result<Vec<Cidr>> {
    for _ in 0..ATTEMPTS {
        if let Some(routes) = try_dump(family, kind)? {
            return Ok(routes);
        }
    }
    Err(io::Error::other("the routing tables change too fast to be read"))
}

/// The own routes of a family; `None` if they changed while they were read.
fn try_dump(family: u8, kind: u8) -> io::Result<Option<Vec<Cidr>>> {
    let socket = open(SockFlag::empty(), 0)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT, 0))?;
    // An older kernel sends every route, and those of other types are skipped below.
    let _ = filter_dumps(socket.as_fd());
    send(socket.as_raw_fd(), &request(family, kind), MsgFlags::empty())?;
    let (mut routes, mut buffer, mut changed) = (Vec::new(), vec![0; DATAGRAM], false);
    loop {
        let datagram = match receive(&socket, &mut buffer) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        for message in messages(datagram) {
            changed |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok((!changed).then_some(routes)),
                libc::NLMSG_ERROR => return Err(message.error()),
                _ => routes.extend(message.route().and_then(|route| route.own())),
            }
        }
    }
}

fn open(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// The next datagram of the kernel; empty if another process has sent it.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> nix::Result<&'a [u8]> {
    let (len, from) = recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer)?;
    let is_kernel = from.is_some_and(|from| from.pid() == 0);
    Ok(if is_kernel { &buffer[..len] } else { &[] })
}

/// RTM_GETROUTE for the routes of a type in all tables.
fn request(family: u8, kind: u8) -> [u8; HEADER + ROUTE] {
    let mut request = [0; HEADER + ROUTE];
    request[0..4].copy_from_slice(&((HEADER + ROUTE) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request[HEADER] = family;
    request[HEADER + 7] = kind;
    request
}

/// A message of the kernel.
struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

/// The messages in a datagram, up to one that is cut off.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = rest.get(HEADER..len)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            payload,
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl Message<'_> {
    /// Of thousands of routes to elsewhere, as a router has them, only the default ones matter: they choose the source
    /// address.
    fn concerns_addresses(&self) -> bool {
        match self.route() {
            Some(route) => route.is_own() || route.len <= 1,
            None => true,
        }
    }

    fn route(&self) -> Option<Route> {
        let is_route = [libc::RTM_NEWROUTE, libc::RTM_DELROUTE].contains(&self.kind);
        if is_route { Route::parse(self.payload) } else { None }
    }

    /// The error of NLMSG_ERROR.
    fn error(&self) -> io::Error {
        let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        io::Error::from_raw_os_error(-code)
    }
}

/// A route.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    kind: u8,
    /// The length of the prefix.
    len: u8,
    /// `None` for a default route.
    destination: Option<IpAddr>,
}

impl Route {
    /// `None` if the bytes are not a route of IPv4 or IPv6.
    fn parse(payload: &[u8]) -> Option<Route> {
        let (fixed, mut attributes) = payload.split_first_chunk::<ROUTE>()?;
        let (family, len, kind) = (fixed[0], fixed[1], fixed[7]);
        let mut destination = None;
        while let Some(header) = attributes.first_chunk::<ATTRIBUTE>() {
            let size = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let value = attributes.get(ATTRIBUTE..size)?;
            if u16::from_ne_bytes([header[2], header[3]]) == libc::RTA_DST {
                destination = Some(match i32::from(family) {
                    libc::AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
                    libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
                    _ => return None,
                });
            }
            attributes = attributes.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Route { kind, len, destination })
    }

    /// Whether it delivers to this machine.
    fn is_own(&self) -> bool {
        [libc::RTN_LOCAL, libc::RTN_ANYCAST].contains(&self.kind)
    }

    /// Its destination, if that is this machine's own. A default route is not: a transparent proxy has one of type local.
    fn own(&self) -> Option<Cidr> {
        let destination = self.destination.filter(|_| self.is_own() && self.len > 0)?;
        Cidr::new(destination, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel writes it: `fixed` of `struct rtmsg`, and attributes.
    fn message(kind: u16, fixed: [u8; ROUTE], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend(fixed);
        for (kind, value) in attributes {
            bytes.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let len = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    fn fixed(family: libc::c_int, len: u8, kind: u8) -> [u8; ROUTE] {
        [family as u8, len, 0, 0, 255, 0, 0, kind, 0, 0, 0, 0]
    }

    fn own(datagram: &[u8]) -> Vec<String> {
        messages(datagram)
            .filter_map(|message| message.route()?.own())
            .map(|range| range.to_string())
            .collect()
    }

    const LOCAL: u8 = libc::RTN_LOCAL;
    const UNICAST: u8 = libc::RTN_UNICAST;

    #[test]
    fn own_ranges_are_read_whatever_other_attributes_a_route_has() {
        let v6: Ipv6Addr = "2001:db8::".parse().unwrap();
        let mut datagram = message(
            libc::RTM_NEWROUTE,
            fixed(libc::AF_INET, 24, LOCAL),
            &[(15, &[255, 0, 0, 0]), (999, &[1]), (libc::RTA_DST, &[198, 51, 100, 0])],
        );
        let anycast = fixed(libc::AF_INET6, 128, libc::RTN_ANYCAST);
        datagram.extend(message(libc::RTM_NEWROUTE, anycast, &[(libc::RTA_DST, &v6.octets())]));
        // Elsewhere, a default route, and an address of the other family's size.
        let unicast = fixed(libc::AF_INET, 24, UNICAST);
        datagram.extend(message(libc::RTM_NEWROUTE, unicast, &[(libc::RTA_DST, &[192, 0, 2, 0])]));
        datagram.extend(message(libc::RTM_NEWROUTE, fixed(libc::AF_INET, 0, LOCAL), &[]));
        let odd = fixed(libc::AF_INET6, 24, LOCAL);
        datagram.extend(message(libc::RTM_NEWROUTE, odd, &[(libc::RTA_DST, &[192, 0, 2, 0])]));
        assert_eq!(own(&datagram), ["198.51.100.0/24", "2001:db8::/128"]);
    }

    #[test]
    fn bytes_that_are_cut_off_anywhere_are_no_problem() {
        let route = fixed(libc::AF_INET, 32, LOCAL);
        let mut datagram = message(libc::RTM_NEWROUTE, route, &[(libc::RTA_DST, &[192, 0, 2, 1])]);
        datagram.extend(datagram.clone());
        for len in 0..datagram.len() {
            assert!(own(&datagram[..len]).len() <= 1, "{len}");
        }
        // Lengths that are too small to be true.
        let mut zero = datagram.clone();
        zero[0] = 0;
        assert_eq!(own(&zero).len(), 0);
        zero[0] = datagram[0];
        zero[HEADER + ROUTE] = 0;
        assert_eq!(own(&zero).len(), 1);
    }

    #[test]
    fn routes_to_elsewhere_are_no_change() {
        let concerns = |bytes: &[u8]| messages(bytes).any(|message| message.concerns_addresses());
        let route = |len, kind| message(libc::RTM_DELROUTE, fixed(libc::AF_INET, len, kind), &[]);
        assert!(!concerns(&route(24, UNICAST)));
        assert!(concerns(&route(0, UNICAST)) && concerns(&route(32, LOCAL)));
        assert!(concerns(&message(libc::RTM_NEWADDR, fixed(libc::AF_INET, 24, 0), &[])));
        assert!(!concerns(&[]));
    }

    #[test]
    fn this_machine_has_its_loopback_range() {
        let own: Vec<_> = own_routes().unwrap().iter().map(ToString::to_string).collect();
        assert!(own.iter().any(|range| range == "127.0.0.0/8"), "{own:?}");
    }
}
