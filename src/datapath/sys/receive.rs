//! Receives many datagrams, or an entry of an error queue, in one system call: `recvmmsg(2)`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::RawAddress;
use super::check;
use super::cmsg::{ControlMessages, QueuedError};
use crate::turn::Tos;

/// A datagram, or a GRO batch of several from one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Datagram {
    /// The source address.
    pub from: SocketAddr,
    /// The address it was sent to, with port 0, if the socket reports it.
    pub destination: Option<SocketAddr>,
    pub tos: Tos,
    /// The length of the datagram or of the whole batch.
    pub len: usize,
    /// The length of each segment; the last one may be shorter. Never 0.
    pub segment_size: usize,
    /// The buffer was too short for it.
    pub truncated: bool,
}

/// The arrays that `recvmmsg` needs besides the buffers.
pub(in crate::datapath) struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    iovs: Box<[libc::iovec]>,
    names: Box<[RawAddress]>,
    controls: Box<[ControlMessages]>,
}

impl Receiver {
    /// A receiver of up to `capacity` datagrams per call.
    pub(in crate::datapath) fn new(capacity: usize) -> Receiver {
        let iov = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: the structure consists of pointers and integers, for which zero is valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Receiver {
            headers: vec![header; capacity].into(),
            iovs: vec![iov; capacity].into(),
            names: vec![RawAddress::EMPTY; capacity].into(),
            controls: vec![ControlMessages::EMPTY; capacity].into(),
        }
    }

    /// Receives one datagram per buffer and returns how many were received. If there are fewer than buffers, the socket has
    /// no more, or it has a pending error.
    pub(in crate::datapath) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.call(socket, buffers, libc::MSG_DONTWAIT)
    }

    /// Takes the first entry of a socket's error queue: the destination of the datagram and the error. The queue must be
    /// enabled with [`super::option::receive_errors`].
    pub(in crate::datapath) fn receive_error(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<(SocketAddr, QueuedError)>> {
        // The payload of the datagram is returned too, but not needed.
        let mut bytes = [0; 1];
        let one = std::iter::once(&mut bytes[..]);
        self.call(socket, one, libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE)?;
        let ancillary = self.controls[0].get(self.headers[0].msg_hdr.msg_controllen as _);
        Ok(self.names[0].get().zip(ancillary.error))
    }

    fn call<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        let (names, iovs, controls) =
            (self.names.as_mut_ptr(), self.iovs.as_mut_ptr(), self.controls.as_mut_ptr());
        let mut count = 0;
        for (i, (header, buffer)) in self.headers.iter_mut().zip(buffers).enumerate() {
            // SAFETY: the four boxes have the same length, and `i` is less than it.
            let (name, iov, control) = unsafe { (names.add(i), iovs.add(i), controls.add(i)) };
            // SAFETY: `iov` points into its box, which has no other references now.
            unsafe { *iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() } };
            header.msg_len = 0;
            header.msg_hdr.msg_name = name.cast();
            header.msg_hdr.msg_namelen = RawAddress::SIZE;
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.cast();
            header.msg_hdr.msg_controllen = ControlMessages::SIZE as _;
            header.msg_hdr.msg_flags = 0;
            count = i + 1;
        }
        // SAFETY: the first `count` headers point to memory that is writable for the lengths they state: names, iovs and
        // controls belong to `self`, and the buffers are borrowed exclusively for `'a`, which outlives the call. The
        // kernel only writes initialised bytes and keeps no pointer.
        check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as _,
                flags as _,
                ptr::null_mut(),
            )
        })
    }

    /// The `n`th datagram of the last call; `None` if its source is neither IPv4 nor IPv6.
    pub(in crate::datapath) fn datagram(&self, n: usize) -> Option<Datagram> {
        let header = &self.headers[n];
        let ancillary = self.controls[n].get(header.msg_hdr.msg_controllen as _);
        let len = header.msg_len as usize;
        Some(Datagram {
            from: self.names[n].get()?,
            destination: ancillary.destination,
            tos: ancillary.tos,
            len,
            segment_size: ancillary.segment.unwrap_or(len).max(1),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}
