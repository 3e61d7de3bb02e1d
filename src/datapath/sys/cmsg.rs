//! Control messages: ancillary data of datagrams that are received or sent. `cmsg(3)`, `ip(7)`, `ipv6(7)`, `udp(7)`.
//!
//! They are written and parsed as bytes, in the layout that `CMSG_LEN` and `CMSG_NXTHDR` describe, which needs no `unsafe`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address;
use crate::turn::Tos;

/// The control messages of a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancillary {
    /// The address it was sent to, with port 0; only if the socket has IP_PKTINFO enabled.
    pub(super) destination: Option<SocketAddr>,
    pub(super) tos: Tos,
    /// The size of each segment, if this is a GRO batch.
    pub(super) segment: Option<usize>,
    /// The error of a sent datagram; only from an error queue.
    pub(super) error: Option<QueuedError>,
}

/// An entry of an error queue (`struct sock_extended_err`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct QueuedError {
    /// The error as an errno value.
    pub errno: u32,
    /// Who reported it: [`ORIGIN_LOCAL`] for this machine.
    pub origin: u8,
    /// The type of the ICMP message.
    pub kind: u8,
    /// The code of the ICMP message.
    pub code: u8,
    /// The MTU, for errors that have one.
    pub info: u32,
}

/// [`QueuedError::origin`] of an error that this machine detected itself (`SO_EE_ORIGIN_LOCAL`).
pub(in crate::datapath) const ORIGIN_LOCAL: u8 = 1;

impl QueuedError {
    fn read(data: &[u8]) -> Option<QueuedError> {
        let &[a, b, c, d, origin, kind, code, _, e, f, g, h] = data.first_chunk()?;
        Some(QueuedError {
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

/// The size of `cmsghdr`: length, level and type. The data after it is aligned like a `size_t`.
const HEADER: usize = align(size_of::<usize>() + 2 * size_of::<libc::c_int>());

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

impl ControlMessages {
    /// More than three messages need, the longest of which has 20 bytes of data (`in6_pktinfo`).
    pub(super) const SIZE: usize = 128;

    /// A buffer without messages.
    pub(super) const EMPTY: ControlMessages = ControlMessages([0; ControlMessages::SIZE]);

    /// Writes the messages of a datagram to send, from the address `source`; returns their length.
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
                // in_pktinfo: interface (0: chosen by routing), source address, destination (ignored)
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

    /// Parses the messages that the kernel wrote into the first `len` bytes.
    pub(super) fn get(&self, len: usize) -> Ancillary {
        let mut found = Ancillary::default();
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
                // The kernel delivers IP_TOS as one byte and IPV6_TCLASS as an int.
                (libc::IPPROTO_IP, libc::IP_TOS) => found.tos = Tos(data.first().copied().unwrap_or(0)),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => found.tos = Tos(int(data).unwrap_or(0) as u8),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    found.error = QueuedError::read(data);
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

/// Splits off the first message: its level, type and data, and the messages after it.
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

    #[test]
    fn the_layout_matches_the_c_library() {
        for len in [1, 2, 4, 12, 20] {
            // SAFETY: both only do integer arithmetic.
            let (space, length) = unsafe { (libc::CMSG_SPACE(len as u32), libc::CMSG_LEN(len as u32)) };
            assert_eq!(HEADER + len, length as usize);
            assert_eq!(align(HEADER + len), space as usize);
        }
    }

    #[test]
    fn messages_round_trip() {
        let mut control = ControlMessages::EMPTY;
        let source: SocketAddr = "[fe80::7%2]:0".parse().unwrap();
        let len = control.set(true, Some(source), Tos(0xB9), Some(1200));
        let got = control.get(len);
        assert_eq!((got.destination, got.tos), (Some(source), Tos(0xB9)));
        assert_eq!(got.segment, None, "UDP_SEGMENT is only sent, never received");
        assert_eq!(control.set(false, None, Tos(0), None), 0, "no messages are needed");
    }

    #[test]
    fn an_invalid_length_ends_the_list() {
        for len in [0, 1, HEADER - 1, ControlMessages::SIZE + 1, usize::MAX] {
            let mut control = ControlMessages::EMPTY;
            control.0[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control.get(ControlMessages::SIZE), Ancillary::default());
        }
    }
}
