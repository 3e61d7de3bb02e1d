//! Batched datagram I/O and an epoll, straight from libc: the benchmark's only `unsafe`.
//!
//! The generator and the bare relays both stand on it, so that neither pays for more than its system calls.
//! IPv4 only: a benchmark needs one family, and the smaller address keeps the floor low.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Free bytes in front of every received message: for each of the 64 segments of a batch what stands before and behind
/// the payload of a Data indication.
pub const HEADROOM: usize = 64 * (36 + 4);
/// The most segments that one message may carry when it leaves.
pub const MAX_SEGMENTS: usize = 64;

/// Odd in cache lines: buffers 64 KiB apart would share one set of every cache.
const SLOT: usize = HEADROOM + 65_536 + 320;
const CONTROL: usize = 16;

/// What a message may say about itself besides its source.
#[derive(Clone, Copy, Default)]
pub struct Envelope {
    /// The length of each segment when several came or go together, else 0.
    pub segment: usize,
    /// The address the message was sent to, or is to leave from.
    pub local: Option<Ipv4Addr>,
    /// DSCP and ECN.
    pub tos: Option<u8>,
}

/// Messages in memory of their own, received with one system call and sent with one.
pub struct Batch {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<[u64; CONTROL]>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// Slots from here on are ready to be received into.
    dirty: usize,
}

impl Batch {
    /// Room for so many messages.
    pub fn new(slots: usize) -> Batch {
        // SAFETY: these are C structs of integers and pointers, for which all zeroes is a valid value.
        let (name, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Batch {
            bytes: vec![0; slots * SLOT],
            names: vec![name; slots],
            controls: vec![[0; CONTROL]; slots],
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; slots],
            headers: vec![header; slots],
            dirty: slots,
        }
    }

    /// How many messages fit.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Receives up to `limit` messages into the slots from `at` on, without waiting; 0 when there are none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, at: usize, limit: usize) -> usize {
        let end = self.slots().min(at + limit);
        for slot in at..end.min(self.dirty) {
            self.prepare(slot);
        }
        if end >= self.dirty {
            self.dirty = at;
        }
        // SAFETY: headers at..end are prepared: each points to a name, a control buffer, a vector and bytes of this
        // batch, of the lengths given, none of which moves while the batch lives.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr().add(at),
                (end - at) as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        // A pending ICMP error is reported once and says nothing about the next message; the caller comes back.
        let received = usize::try_from(received).unwrap_or(0);
        self.dirty = self.dirty.max(at + received);
        received
    }

    /// Where the message in this slot came from.
    pub fn from(&self, slot: usize) -> SocketAddrV4 {
        let name = &self.names[slot];
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port))
    }

    /// The length of the message in this slot; it stands behind [`HEADROOM`].
    pub fn len(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    /// The whole buffer of a slot.
    pub fn bytes(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * SLOT..(slot + 1) * SLOT]
    }

    /// What came with the message in this slot.
    pub fn envelope(&self, slot: usize) -> Envelope {
        let mut envelope = Envelope::default();
        let header = &self.headers[slot].msg_hdr;
        // SAFETY: the kernel filled the control buffer and set its length; the CMSG walk stays inside it, and each
        // value is read unaligned with the size its type has in the kernel.
        unsafe {
            let mut cmsg = libc::CMSG_FIRSTHDR(header);
            while !cmsg.is_null() {
                let data = libc::CMSG_DATA(cmsg);
                match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        envelope.segment = data.cast::<libc::c_int>().read_unaligned() as usize;
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        envelope.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                    }
                    (libc::IPPROTO_IP, libc::IP_TOS) => envelope.tos = Some(*data),
                    _ => {}
                }
                cmsg = libc::CMSG_NXTHDR(header, cmsg);
            }
        }
        envelope
    }

    /// Makes `range` of this slot's buffer a message to `to`.
    pub fn aim(&mut self, slot: usize, to: SocketAddrV4, range: std::ops::Range<usize>, envelope: Envelope) {
        self.names[slot] = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        self.dirty = self.dirty.max(slot + 1);
        self.point(slot, range);
        let header = &mut self.headers[slot].msg_hdr;
        // SAFETY: the control buffer holds the three messages that may be written (24 + 24 + 32 of 128 bytes), and
        // CMSG_FIRSTHDR and CMSG_NXTHDR are only asked while msg_controllen covers the whole buffer.
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
            if envelope.segment != 0 {
                let segment = envelope.segment as u16;
                put(libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), 2);
            }
            if let Some(tos) = envelope.tos {
                let tos = libc::c_int::from(tos);
                put(libc::IPPROTO_IP, libc::IP_TOS, (&raw const tos).cast(), 4);
            }
            if let Some(local) = envelope.local {
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

    /// Sends the messages of these slots; how many went out.
    pub fn send(&mut self, socket: BorrowedFd<'_>, slots: std::ops::Range<usize>) -> usize {
        let (headers, mut sent) = (&mut self.headers[slots], 0);
        let mut at = 0;
        while at < headers.len() {
            // SAFETY: every header was filled by `aim` and points into this batch, which outlives the call.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(at),
                    (headers.len() - at) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // A message that cannot leave costs itself, not those behind it.
            let done = usize::try_from(done).unwrap_or(0);
            sent += done;
            at += done.max(1);
        }
        sent
    }

    fn prepare(&mut self, slot: usize) {
        self.point(slot, HEADROOM..HEADROOM + 65_536);
    }

    fn point(&mut self, slot: usize, range: std::ops::Range<usize>) {
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

/// Has the kernel hand over segments of one flow together.
pub fn receive_segments(socket: impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Has the kernel cut all that is sent into segments of this length.
pub fn send_segments(socket: impl AsFd, segment: usize) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, segment as libc::c_int)
}

/// Has every message say where it was sent to and how it was marked.
pub fn receive_marks(socket: impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is an int, as these options want it, and its length is given.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) })
        .map(drop)
}

/// A level-triggered epoll over sockets, each known by a number.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Asks for at most so many events at a time.
    pub fn new(events: usize) -> io::Result<Epoll> {
        // SAFETY: no pointer is passed; the descriptor that comes back is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; events] })
    }

    /// Watches a descriptor for input; at an edge, only what comes anew is told.
    pub fn add(&self, fd: impl AsFd, number: usize, edge: bool) -> io::Result<()> {
        let interest = if edge { libc::EPOLLIN | libc::EPOLLET } else { libc::EPOLLIN };
        let mut event = libc::epoll_event { events: interest as u32, u64: number as u64 };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the event is valid for the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// How many events are asked for at a time.
    pub fn capacity(&self) -> usize {
        self.events.len()
    }

    /// Waits: -1 for ever, 0 not at all, else so many milliseconds. How many sockets have something.
    pub fn wait(&mut self, milliseconds: i32) -> usize {
        let (events, capacity) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        // SAFETY: `events` has room for `capacity` of them.
        let ready = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, capacity, milliseconds) };
        usize::try_from(ready).unwrap_or(0)
    }

    /// The number of the n-th socket that has something.
    pub fn number(&self, n: usize) -> usize {
        self.events[n].u64 as usize
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Has tokio watch an epoll for input.
pub fn watch(epoll: Epoll) -> io::Result<AsyncFd<Epoll>> {
    // SAFETY: the descriptor is the epoll's own, always the same one, and open as long as the epoll lives.
    unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }.map_err(io::Error::from)
}

/// A timer that an epoll can watch, set once rather than with every wait.
pub struct Timer(OwnedFd);

impl Timer {
    /// Fires every so many milliseconds.
    pub fn every(milliseconds: i64) -> io::Result<Timer> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        let period = libc::timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the descriptor that comes back is nobody else's; the setting is valid for the call.
        unsafe {
            let fd = OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?);
            check(libc::timerfd_settime(fd.as_raw_fd(), 0, &setting, std::ptr::null_mut()))?;
            Ok(Timer(fd))
        }
    }

    /// Takes the expiry, so that the epoll rests again.
    pub fn clear(&self) {
        let mut expiries = 0u64;
        // SAFETY: a timer's read writes eight bytes, into a u64.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut expiries).cast(), 8) };
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
