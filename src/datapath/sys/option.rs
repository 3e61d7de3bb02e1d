//! Socket options, by what they are for. `socket(7)`, `ip(7)`, `ipv6(7)`, `udp(7)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// One instruction of a classic BPF program.
pub(in crate::datapath) use libc::sock_filter as Instruction;

/// Lets other sockets bind to the same address, if they have this option too and belong to the same user.
pub(in crate::datapath) fn share_address(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Says with each datagram where it was sent to.
pub(in crate::datapath) fn receive_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Says with each datagram which TOS or traffic class it had.
pub(in crate::datapath) fn receive_marks(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1),
    }
}

/// Keeps ICMP errors for what was sent in a queue of their own (see [`super::receive`]).
pub(in crate::datapath) fn receive_errors(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// Hands out consecutive datagrams of one sender joined (GRO).
pub(in crate::datapath) fn receive_joined(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// The TOS or traffic class of what a stream sends.
pub(in crate::datapath) fn tos(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<u8> {
    let tos = match ipv6 {
        false => get(socket, libc::IPPROTO_IP, libc::IP_TOS),
        true => get(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    };
    tos.map(|tos| tos as u8)
}

/// Lets a stream take no more than `bytes` that it cannot send yet.
pub(in crate::datapath) fn unsent_at_most(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
}

/// Whether the kernel can cut joined datagrams (GSO).
pub(in crate::datapath) fn can_send_joined(socket: BorrowedFd<'_>) -> bool {
    get(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

/// Leaves the DF bit clear without losing ICMP errors about a packet's size: for IPv4 that is OMIT, for IPv6 DONT.
pub(in crate::datapath) fn may_fragment(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    }
}

/// Sets the DF bit of IPv4 packets.
pub(in crate::datapath) fn dont_fragment(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
}

/// Asks for receive and send buffers of `bytes`: beyond the system's limit if this process may, else up to it. Returns
/// the room there really is to receive and to send.
pub(in crate::datapath) fn buffers(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<(usize, usize)> {
    let want = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let grow = |force, polite| match set(socket, libc::SOL_SOCKET, force, want) {
        Ok(()) => Ok(()),
        Err(_) => set(socket, libc::SOL_SOCKET, polite, want),
    };
    grow(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    grow(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    room(socket)
}

/// The room to receive and to send, in bytes.
pub(in crate::datapath) fn room(socket: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    // The kernel doubles what it is given, for its bookkeeping, and reports that.
    let half = |name| get(socket, libc::SOL_SOCKET, name).map(|got| usize::try_from(got).unwrap_or(0) / 2);
    Ok((half(libc::SO_RCVBUF)?, half(libc::SO_SNDBUF)?))
}

/// What the kernel says of a socket's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct QueueState {
    /// The room that it has, in bytes, as [`room`] tells it.
    pub room: usize,
    /// How often the kernel dropped something since the socket was opened. It wraps.
    pub dropped: u32,
}

/// Asks for the state of a socket's queue: for datagrams what was received, for listeners who waits to be accepted.
pub(in crate::datapath) fn queue(socket: BorrowedFd<'_>) -> io::Result<QueueState> {
    let mut values = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the values and their length outlive the call, which writes at most `len` bytes.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    let room = values[libc::SK_MEMINFO_RCVBUF as usize] as usize / 2;
    Ok(QueueState { room, dropped: values[libc::SK_MEMINFO_DROPS as usize] })
}

/// Lets a program choose the socket of a group that shares an address (see [`share_address`]).
pub(in crate::datapath) fn steer(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the structure and the instructions it points to outlive the call, which copies them and writes to neither.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Sends without checksums, which makes the kernel refuse to cut datagrams.
#[cfg(test)]
pub(in crate::datapath) fn without_checksums(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

/// Sends with these IPv4 options.
#[cfg(test)]
pub(in crate::datapath) fn ip_options(socket: BorrowedFd<'_>, options: &[u8; 8]) -> io::Result<()> {
    // SAFETY: the bytes outlive the call, which only reads them, with their true length.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, options.as_ptr().cast(), 8)
    })?;
    Ok(())
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value outlives the call, which only reads it, with its true length.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn get(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value and its length outlive the call, which writes at most `len` bytes.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}
