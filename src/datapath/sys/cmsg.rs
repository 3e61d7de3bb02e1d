//! ControlMessages messages: what accompanies a datagram in and out. `cmsg(3)`, `ip(7)`, `ipv6(7)`, `udp(7)`.
//!
//! They are built and read as bytes, by the layout that `CMSG_LEN` and `CMSG_NXTHDR` describe; so there is no `unsafe` here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address;
use crate::turn::Tos;

/// What came with a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accompanied {
    /// Where it was sent to (port 0); only from sockets that were told to say it.
    pub(super) destination: Option<SocketAddr>,
    pub(super) tos: Tos,
    /// The size of each datagram, if the kernel joined several.
    pub(super) segment: Option<usize>,
    /// What became of a datagram that was sent; only from an error queue.
    pub(super) error: Option<Reported>,
}

/// An entry of an error queue (`struct sock_extended_err`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Reported {
    /// As an error number of the system.
    pub errno: u32,
    /// Who says so: [`LOCAL`] for this machine.
    pub origin: u8,
    /// The type of an ICMP message.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU, where there is one.
    pub info: u32,
}

/// [`Reported::origin`] of what this machine found out by itself (`SO_EE_ORIGIN_LOCAL`).
pub(in crate::datapath) const LOCAL: u8 = 1;

impl Reported {
    fn read(data: &[u8]) -> Option<Reported> {
        let &[a, b, c, d, origin, kind, code, _, e, f, g, h] = data.first_chunk()?;
        Some(Reported {
            errno: u32::from_ne_bytes([a, b, c, d]),
            origin,
            kind,
            code,
            info: u32::from_ne_bytes([e, f, g, h]),
        })
    }
}

/// A buffer for the control messages of one datagram.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlMessages([u8; ControlMessages::SIZE]);

/// The length, level and type that begin each message; what follows is aligned like a `size_t`.
const HEADER: usize = align(size_of::<usize>() + 2 * size_of::<libc::c_int>());

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

impl ControlMessages {
    /// Three messages at most, the longest with 20 bytes (`in6_pktinfo`), and some to spare.
    pub(super) const SIZE: usize = 128;

    /// A buffer without messages.
    pub(super) const EMPTY: ControlMessages = ControlMessages([0; ControlMessages::SIZE]);

    /// Writes the messages for a datagram to send; returns their length. `source`: the address it is to leave from.
    pub(super) fn set(
        &mut self,
        ipv6: bool,
        source: Option<SocketAddr>,
        tos: Tos,
        segment: Option<u16>,
    ) -> usize {
        let mut at = 0;
        match source {
            Some(SocketAddr::V4(addr)) => {
                // in_pktinfo: interface (0: by routing), source address, destination (ignored)
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&addr.ip().octets());
                at = self.push(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(SocketAddr::V6(addr)) => {
                // in6_pktinfo: source address, interface
                let mut info = [0; 20];
                info[..16].copy_from_slice(&addr.ip().octets());
                info[16..].copy_from_slice(&addr.scope_id().to_ne_bytes());
                at = self.push(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if tos.0 != 0 {
            let value = libc::c_int::from(tos.0).to_ne_bytes();
            at = match ipv6 {
                false => self.push(at, libc::IPPROTO_IP, libc::IP_TOS, &value),
                true => self.push(at, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value),
            };
        }
        if let Some(segment) = segment {
            at = self.push(at, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }

    fn push(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        let (int, size) = (size_of::<libc::c_int>(), size_of::<usize>());
        let end = at + HEADER + data.len();
        let message = &mut self.0[at..end];
        message[..size].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        message[size..size + int].copy_from_slice(&level.to_ne_bytes());
        message[size + int..size + 2 * int].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..].copy_from_slice(data);
        at + align(HEADER + data.len())
    }

    /// Reads the messages that the kernel wrote into the first `len` bytes.
    pub(super) fn get(&self, len: usize) -> Accompanied {
        let mut found = Accompanied::default();
        let mut rest = self.0.get(..len).unwrap_or(&self.0);
        while let Some((level, kind, data, next)) = split(rest) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    if let Some(&[a, b, c, d]) = data.get(8..12) {
                        found.destination =
                            Some(address::with_scope(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), 0));
                    }
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    if let Some((ip, interface)) = data.split_first_chunk::<16>() {
                        let ip = IpAddr::V6(Ipv6Addr::from(*ip));
                        found.destination = Some(address::with_scope(ip, int(interface).unwrap_or(0) as u32));
                    }
                }
                // The kernel hands out IP_TOS as one byte, IPV6_TCLASS as an int.
                (libc::IPPROTO_IP, libc::IP_TOS) => found.tos = Tos(data.first().copied().unwrap_or(0)),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => found.tos = Tos(int(data).unwrap_or(0) as u8),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    found.error = Reported::read(data);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    found.segment =
                        int(data).and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
                }
                _ => {}
            }
            rest = next;
        }
        found
    }
}

fn int(data: &[u8]) -> Option<libc::c_int> {
    Some(libc::c_int::from_ne_bytes(*data.first_chunk()?))
}

/// The first message's level, type and data, and the messages after it.
fn split(bytes: &[u8]) -> Option<(libc::c_int, libc::c_int, &[u8], &[u8])> {
    let size = size_of::<usize>();
    let len = usize::from_ne_bytes(*bytes.first_chunk()?);
    let data = bytes.get(HEADER..len)?;
    let level = int(&bytes[size..])?;
    let kind = int(&bytes[size + size_of::<libc::c_int>()..])?;
    Some((level, kind, data, bytes.get(align(len)..).unwrap_or(&[])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout is the C library's.
    #[test]
    fn lengths_are_those_of_the_c_library() {
        for len in [1, 2, 4, 12, 20] {
            // SAFETY: both compute with integers alone.
            let (space, length) = unsafe { (libc::CMSG_SPACE(len as u32), libc::CMSG_LEN(len as u32)) };
            assert_eq!(HEADER + len, length as usize);
            assert_eq!(align(HEADER + len), space as usize);
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut control = ControlMessages::EMPTY;
        let source: SocketAddr = "[fe80::7%2]:0".parse().unwrap();
        let len = control.set(true, Some(source), Tos(0xB9), Some(1200));
        let got = control.get(len);
        assert_eq!((got.destination, got.tos), (Some(source), Tos(0xB9)));
        assert_eq!(got.segment, None, "UDP_SEGMENT goes out only");
        assert_eq!(control.set(false, None, Tos(0), None), 0, "no message where none is needed");
    }

    #[test]
    fn broken_lengths_end_the_list() {
        for len in [0, 1, HEADER - 1, ControlMessages::SIZE + 1, usize::MAX] {
            let mut control = ControlMessages::EMPTY;
            control.0[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control.get(ControlMessages::SIZE), Accompanied::default());
        }
    }
}
