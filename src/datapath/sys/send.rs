//! Sends many datagrams in one system call: `sendmmsg(2)`.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::RawAddress;
use super::check;
use super::cmsg::ControlMessages;
use crate::turn::Tos;

/// A datagram to send, or a GSO batch that the kernel segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct OutgoingMessage {
    pub to: SocketAddr,
    /// The address to send from, whose port is ignored; `None` for the socket's own.
    pub source: Option<SocketAddr>,
    pub tos: Tos,
    /// The length of each segment, the last of which may be shorter; `None` for a single datagram.
    pub segment: Option<u16>,
    /// The range of its bytes in the memory passed to [`Sender::send`].
    pub bytes: Range<usize>,
}

/// The arrays that `sendmmsg` needs besides the bytes.
pub(in crate::datapath) struct Sender {
    headers: Box<[libc::mmsghdr]>,
    iovs: Box<[libc::iovec]>,
    names: Box<[RawAddress]>,
    controls: Box<[ControlMessages]>,
}

impl Sender {
    /// A sender of up to `capacity` messages per call.
    pub(in crate::datapath) fn new(capacity: usize) -> Sender {
        let iov = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: the structure consists of pointers and integers, for which zero is valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Sender {
            headers: vec![header; capacity].into(),
            iovs: vec![iov; capacity].into(),
            names: vec![RawAddress::EMPTY; capacity].into(),
            controls: vec![ControlMessages::EMPTY; capacity].into(),
        }
    }

    /// Sends messages whose bytes are in `memory` and returns how many were sent, at least one. An error concerns the first
    /// message.
    ///
    /// # Panics
    /// If a range is out of bounds of `memory`.
    pub(in crate::datapath) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &[u8],
        messages: &[OutgoingMessage],
    ) -> io::Result<usize> {
        let (names, iovs, controls) =
            (self.names.as_mut_ptr(), self.iovs.as_mut_ptr(), self.controls.as_mut_ptr());
        let mut count = 0;
        for (i, (header, message)) in self.headers.iter_mut().zip(messages).enumerate() {
            let bytes = &memory[message.bytes.clone()];
            // SAFETY: the four boxes have the same length, and `i` is less than it.
            let (name, iov, control) = unsafe { (names.add(i), iovs.add(i), controls.add(i)) };
            // SAFETY: each of them points into its box, is initialised, and has no other references now.
            let (namelen, controllen) = unsafe {
                *iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                let control =
                    (*control).set(message.to.is_ipv6(), message.source, message.tos, message.segment);
                ((*name).set(message.to), control)
            };
            header.msg_len = 0;
            header.msg_hdr.msg_name = name.cast();
            header.msg_hdr.msg_namelen = namelen;
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.cast();
            header.msg_hdr.msg_controllen = controllen as _;
            header.msg_hdr.msg_flags = 0;
            count = i + 1;
        }
        // SAFETY: the first `count` headers point to memory that is readable for the lengths they state: names, iovs and
        // controls belong to `self`, and the bytes are borrowed for longer than the call. The kernel does not write to
        // them, although `iov_base` is a mutable pointer, and keeps no pointer.
        check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as _,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::super::option;
    use super::super::receive::{Datagram, Receiver};
    use super::*;

    fn exchange(ip: &str) {
        let bind = || UdpSocket::bind((ip, 0)).unwrap();
        let (from, to) = (bind(), bind());
        let ipv6 = ip.contains(':');
        option::receive_tos(to.as_fd(), ipv6).unwrap();
        option::receive_destination(to.as_fd(), ipv6).unwrap();
        let gro = option::enable_gro(to.as_fd()).is_ok() && option::can_gso(from.as_fd());

        let memory: Vec<u8> = (0..4000u32).map(|i| i as u8).collect();
        let message = |segment, bytes| OutgoingMessage {
            to: to.local_addr().unwrap(),
            source: Some(from.local_addr().unwrap()),
            tos: Tos(0xB9),
            segment,
            bytes,
        };
        let segment = gro.then_some(1000);
        let messages = [message(None, 0..10), message(segment, 10..2510), message(None, 0..0)];
        assert_eq!(Sender::new(4).send(from.as_fd(), &memory, &messages).unwrap(), 3);

        let mut receiver = Receiver::new(4);
        let mut buffers = vec![0; 4 * 4096];
        assert_eq!(receiver.receive(to.as_fd(), buffers.chunks_mut(4096)).unwrap(), 3);
        for (n, message) in messages.iter().enumerate() {
            let len = message.bytes.len();
            let expected = Datagram {
                from: from.local_addr().unwrap(),
                destination: Some(SocketAddr::new(to.local_addr().unwrap().ip(), 0)),
                tos: Tos(0xB9),
                len,
                segment_size: message.segment.map_or(len.max(1), usize::from),
                truncated: false,
            };
            assert_eq!(receiver.datagram(n), Some(expected));
            assert_eq!(buffers[n * 4096..][..len], memory[message.bytes.clone()]);
        }
        let empty = receiver.receive(to.as_fd(), buffers.chunks_mut(4096)).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    /// RFC 8656 §13: DSCP and ECN are sent and received, also with GRO and GSO, and so are source and destination.
    #[test]
    fn datagrams_with_control_messages_over_ipv4() {
        exchange("127.0.0.1");
    }

    /// RFC 8656 §13
    #[test]
    fn datagrams_with_control_messages_over_ipv6() {
        exchange("::1");
    }

    #[test]
    fn a_datagram_longer_than_its_buffer_is_truncated() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[7; 100], socket.local_addr().unwrap()).unwrap();
        let (mut receiver, mut buffer) = (Receiver::new(1), [0; 64]);
        assert_eq!(receiver.receive(socket.as_fd(), std::iter::once(&mut buffer[..])).unwrap(), 1);
        assert!(receiver.datagram(0).unwrap().truncated);
    }
}
