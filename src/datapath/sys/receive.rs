//! Receiving many datagrams in one system call, and what became of those that were sent: `recvmmsg(2)`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::address::Name;
use super::check;
use super::cmsg::{ControlMessages, Reported};
use crate::turn::Tos;

/// A datagram, or several of one sender that the kernel joined (GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it was sent to (port 0), if the socket says so.
    pub destination: Option<SocketAddr>,
    pub tos: Tos,
    /// Its length, all joined datagrams together.
    pub len: usize,
    /// The length of each joined datagram but the last, which may be shorter. Never 0.
    pub segment_size: usize,
    /// It was longer than its buffer.
    pub truncated: bool,
}

/// What `recvmmsg` needs beside buffers.
pub(in crate::datapath) struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    iovs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[ControlMessages]>,
}

impl Receiver {
    /// One that takes up to `most` datagrams a call.
    pub(in crate::datapath) fn new(most: usize) -> Receiver {
        let iov = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: the structure consists of pointers and integers, for which zero is a value.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Receiver {
            headers: vec![header; most].into(),
            iovs: vec![iov; most].into(),
            names: vec![Name::EMPTY; most].into(),
            controls: vec![ControlMessages::EMPTY; most].into(),
        }
    }

    /// Receives a datagram into each buffer, as long as there are some; returns how many. Fewer than there are buffers
    /// means that the socket was empty, or that an error waits to be told.
    pub(in crate::datapath) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.call(socket, buffers, libc::MSG_DONTWAIT)
    }

    /// Takes the first entry of the socket's error queue: where the datagram had been sent to, and what is said of it. It
    /// must be one that keeps errors (see [`super::option::receive_errors`]).
    pub(in crate::datapath) fn error(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<(SocketAddr, Reported)>> {
        // The datagram's bytes come back too, and are not needed.
        let mut bytes = [0; 1];
        let one = std::iter::once(&mut bytes[..]);
        self.call(socket, one, libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE)?;
        let accompanied = self.controls[0].get(self.headers[0].msg_hdr.msg_controllen as _);
        Ok(self.names[0].get().zip(accompanied.error))
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
            // SAFETY: the four boxes are of one length, and `i` is below it.
            let (name, iov, control) = unsafe { (names.add(i), iovs.add(i), controls.add(i)) };
            // SAFETY: `iov` is within its box, which nothing else refers to meanwhile.
            unsafe { *iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() } };
            header.msg_len = 0;
            header.msg_hdr.msg_name = name.cast();
            header.msg_hdr.msg_namelen = Name::SIZE;
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.cast();
            header.msg_hdr.msg_controllen = ControlMessages::SIZE as _;
            header.msg_hdr.msg_flags = 0;
            count = i + 1;
        }
        // SAFETY: the first `count` headers point to memory that is writable for the lengths they state: names, iovs and
        // controls belong to `self`, the buffers are borrowed exclusively for `'a`, which outlasts the call. The
        // kernel writes initialised bytes only, and keeps no pointer.
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

    /// The `n`th datagram of the last call; `None` if it came from no address of the Internet.
    pub(in crate::datapath) fn datagram(&self, n: usize) -> Option<Datagram> {
        let header = &self.headers[n];
        let accompanied = self.controls[n].get(header.msg_hdr.msg_controllen as _);
        let len = header.msg_len as usize;
        Some(Datagram {
            from: self.names[n].get()?,
            destination: accompanied.destination,
            tos: accompanied.tos,
            len,
            segment_size: accompanied.segment.unwrap_or(len).max(1),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}
