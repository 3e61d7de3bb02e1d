//! Batched datagram I/O for the minimal relay: the benchmark's only `unsafe`.
//!
//! Written here because the relay sends to many destinations per call, each with its own control messages, which
//! neither quinn-udp nor nix offers. IPv4 only: one family is enough, and the smaller address keeps the floor low.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::epoll::Epoll;

/// The most segments of one outgoing message (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;
/// Free bytes before every received message: room for the header and padding of a Data indication per segment.
pub const HEADROOM: usize = MAX_SEGMENTS * (36 + 4);

const MESSAGE: usize = 65_536;
/// An odd number of cache lines, because buffers 64 KiB apart would compete for the same cache sets.
const SLOT: usize = HEADROOM + MESSAGE + 320;
const CONTROL: usize = 16;

/// Control messages of a datagram.
#[derive(Clone, Copy, Default)]
pub struct Ancillary {
    /// The length of each segment if the message has several, otherwise 0.
    pub segment: usize,
    /// The destination address of a received message, the source address of an outgoing one.
    pub local: Option<Ipv4Addr>,
    /// DSCP and ECN.
    pub tos: Option<u8>,
}

/// Messages and their buffers, received with one system call and sent with one.
pub struct Batch {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<[u64; CONTROL]>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// The first slot from which on all are prepared for receiving.
    ready_from: usize,
}

impl Batch {
    /// Allocates room for `slots` messages.
    pub fn new(slots: usize) -> Batch {
        // SAFETY: these are C structs of integers and pointers, for which all zeroes is a valid value.
        let (name, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Batch {
            bytes: vec![0; slots * SLOT],
            names: vec![name; slots],
            controls: vec![[0; CONTROL]; slots],
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; slots],
            headers: vec![header; slots],
            ready_from: slots,
        }
    }

    fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Receives up to `limit` messages into the slots from `at` on, without waiting, and returns their number.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, at: usize, limit: usize) -> usize {
        let end = self.slots().min(at + limit);
        for slot in at..end.min(self.ready_from) {
            self.point(slot, HEADROOM..HEADROOM + MESSAGE);
        }
        if end >= self.ready_from {
            self.ready_from = at;
        }
        // SAFETY: `point` has prepared the headers at..end: each points to a name, a control buffer, a vector and bytes
        // of this batch, with their lengths, none of which moves while the batch lives.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr().add(at),
                (end - at) as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        // An ICMP error is reported once and says nothing about the next message, so the caller just tries again.
        let received = usize::try_from(received).unwrap_or(0);
        self.ready_from = self.ready_from.max(at + received);
        received
    }

    /// The source address of the message in this slot.
    pub fn source(&self, slot: usize) -> SocketAddrV4 {
        let name = &self.names[slot];
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port))
    }

    /// The length of the message in this slot; it begins at [`HEADROOM`].
    pub fn len(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    /// The whole buffer of a slot.
    pub fn bytes(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * SLOT..(slot + 1) * SLOT]
    }

    /// The control messages received with the message in this slot.
    pub fn ancillary(&self, slot: usize) -> Ancillary {
        let mut ancillary = Ancillary::default();
        let header = &self.headers[slot].msg_hdr;
        // SAFETY: the kernel filled the control buffer and set its length; the iteration stays inside it, and each value
        // is read unaligned with the size that its type has in the kernel.
        unsafe {
            let mut cmsg = libc::CMSG_FIRSTHDR(header);
            while !cmsg.is_null() {
                let data = libc::CMSG_DATA(cmsg);
                match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        ancillary.segment = data.cast::<libc::c_int>().read_unaligned() as usize;
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        ancillary.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                    }
                    (libc::IPPROTO_IP, libc::IP_TOS) => ancillary.tos = Some(*data),
                    _ => {}
                }
                cmsg = libc::CMSG_NXTHDR(header, cmsg);
            }
        }
        ancillary
    }

    /// Makes `range` of this slot's buffer an outgoing message.
    pub fn prepare(&mut self, slot: usize, to: SocketAddrV4, range: Range<usize>, ancillary: Ancillary) {
        self.names[slot] = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        self.ready_from = self.ready_from.max(slot + 1);
        self.point(slot, range);
        let header = &mut self.headers[slot].msg_hdr;
        // SAFETY: the control buffer has room for all three control messages (24 + 24 + 32 of 128 bytes), and
        // CMSG_FIRSTHDR is called while msg_controllen covers the whole buffer.
        unsafe {
            let mut used = 0;
            let mut cmsg = libc::CMSG_FIRSTHDR(header);
            let mut put = |level, kind, value: *const u8, len: usize| {
                (*cmsg).cmsg_level = level;
                (*cmsg).cmsg_type = kind;
                (*cmsg).cmsg_len = libc::CMSG_LEN(len as u32) as usize;
                std::ptr::copy_nonoverlapping(value, libc::CMSG_DATA(cmsg), len);
                let space = libc::CMSG_SPACE(len as u32) as usize;
                used += space;
                cmsg = cmsg.byte_add(space);
            };
            if ancillary.segment != 0 {
                let segment = ancillary.segment as u16;
                put(libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), 2);
            }
            if let Some(tos) = ancillary.tos {
                let tos = libc::c_int::from(tos);
                put(libc::IPPROTO_IP, libc::IP_TOS, (&raw const tos).cast(), 4);
            }
            if let Some(local) = ancillary.local {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put(
                    libc::IPPROTO_IP,
                    libc::IP_PKTINFO,
                    (&raw const info).cast(),
                    size_of::<libc::in_pktinfo>(),
                );
            }
            header.msg_controllen = used;
        }
    }

    /// Sends the messages of these slots.
    pub fn send(&mut self, socket: BorrowedFd<'_>, slots: Range<usize>) {
        let headers = &mut self.headers[slots];
        let mut at = 0;
        while at < headers.len() {
            // SAFETY: `prepare` has filled every header, which points into this batch.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(at),
                    (headers.len() - at) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // A message that cannot be sent is skipped, so that the rest of the batch still leaves.
            at += usize::try_from(sent).unwrap_or(0).max(1);
        }
    }

    fn point(&mut self, slot: usize, range: Range<usize>) {
        let bytes = &mut self.bytes[slot * SLOT..(slot + 1) * SLOT][range];
        self.vectors[slot] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut self.vectors[slot];
        header.msg_iovlen = 1;
        header.msg_control = self.controls[slot].as_mut_ptr().cast();
        header.msg_controllen = size_of::<[u64; CONTROL]>();
    }
}

/// Registers an epoll instance with tokio, for input.
pub fn register(epoll: Epoll) -> io::Result<AsyncFd<Epoll>> {
    // SAFETY: the epoll owns its file descriptor, always returns the same one, and keeps it open while it lives.
    unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }.map_err(io::Error::from)
}
