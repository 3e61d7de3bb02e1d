//! Socket options by purpose. See `socket(7)`, `ip(7)`, `ipv6(7)`, `udp(7)`.
//!
//! `nix` and `socket2` set what they know; only path MTU discovery, SO_MEMINFO and netlink are left to this file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::SockRef;

use super::check;

/// One instruction of a classic BPF program.
pub(in crate::datapath) use libc::sock_filter as Instruction;

/// Lets other sockets of the same user bind to the same address if they set SO_REUSEPORT too.
pub(in crate::datapath) fn share_address(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_reuse_port(true)
}

/// Lets a socket be bound to an address that this machine does not have yet; it is served once the machine has it.
pub(crate) fn allow_missing_address(socket: &socket2::Socket, addr: std::net::SocketAddr) {
    // Where the kernel has no such option, binding to a missing address fails.
    let _ = if addr.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) };
}

/// Lets a netlink socket ask for some entries of a table instead of all. `netlink(7)`, Linux 4.20.
pub(crate) fn filter_dumps(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)
}

/// Reports the destination address of each received datagram.
pub(in crate::datapath) fn receive_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        true => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Reports the TOS or traffic class of each received datagram.
pub(in crate::datapath) fn receive_tos(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    match ipv6 {
        false => socket.set_recv_tos_v4(true),
        true => socket.set_recv_tclass_v6(true),
    }
}

/// Keeps the ICMP errors of sent packets in the socket's error queue (see [`super::receive`]).
pub(in crate::datapath) fn receive_errors(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        true => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// Turns on GRO: consecutive datagrams of one sender arrive as one batch.
pub(in crate::datapath) fn enable_gro(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::UdpGroSegment, &true)?)
}

/// The TOS or traffic class of what a stream socket sends.
pub(in crate::datapath) fn tos(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<u8> {
    let tos = match ipv6 {
        false => getsockopt(&socket, sockopt::Ipv4Tos)?,
        true => getsockopt(&socket, sockopt::Ipv6TClass)?,
    };
    Ok(tos as u8)
}

/// Whether the kernel can segment datagrams (GSO).
pub(in crate::datapath) fn can_gso(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, sockopt::UdpGsoSegment).is_ok()
}

/// Leaves the DF bit clear without losing ICMP errors about a packet's size: for IPv4 that is OMIT, for IPv6 DONT.
///
/// With IP_PMTUDISC_DONT "fragmentation needed" never reaches the IPv4 error queue; with IPV6_PMTUDISC_OMIT "packet too
/// big" never reaches the IPv6 one.
pub(in crate::datapath) fn may_fragment(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    }
}

/// Sets the DF bit of IPv4 packets; IPv6 packets are not fragmented here. What is longer than the path's MTU is an error.
pub(in crate::datapath) fn dont_fragment(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    }
}

/// Asks for receive and send buffers of `bytes`: beyond the system's limit if this process may, otherwise up to it. Returns
/// the sizes that the kernel granted, receive first.
pub(in crate::datapath) fn buffers(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<(usize, usize)> {
    if setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &bytes)?;
    }
    buffer_sizes(socket)
}

/// The sizes of the receive and the send buffer in bytes.
pub(in crate::datapath) fn buffer_sizes(socket: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    // The kernel doubles the size it is given, for its bookkeeping, and reports the doubled value.
    Ok((getsockopt(&socket, sockopt::RcvBuf)? / 2, getsockopt(&socket, sockopt::SndBuf)? / 2))
}

/// The state of a socket's receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct QueueState {
    /// Its size in bytes, as [`buffer_sizes`] reports it.
    pub size: usize,
    /// How many datagrams or connections the kernel has dropped since the socket was opened. It wraps.
    pub dropped: u32,
}

/// Reads the state of a socket's receive queue: of datagrams, or of connections that wait to be accepted.
pub(in crate::datapath) fn queue_state(socket: BorrowedFd<'_>) -> io::Result<QueueState> {
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
    let size = values[libc::SK_MEMINFO_RCVBUF as usize] as usize / 2;
    Ok(QueueState { size, dropped: values[libc::SK_MEMINFO_DROPS as usize] })
}

/// Bytes that a stream socket has not sent, or whose receipt is not acknowledged: SIOCOUTQ of `tcp(7)`.
pub(in crate::datapath) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the value outlives the call, which writes one integer to it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Attaches a program that picks the socket of a group that shares an address (see [`share_address`]).
pub(in crate::datapath) fn steer(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies the instructions during the call and writes to none of them.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    Ok(setsockopt(&socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// Lets the kernel size the send buffer again, as it does by itself until a program sets a size. Before Linux 5.15 there is no
/// way back; then the buffer gets the size that the kernel grants at most without privileges.
pub(in crate::datapath) fn unlock_send_buffer(socket: BorrowedFd<'_>) -> io::Result<()> {
    let unlocked = set(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0);
    // The kernel cuts it down to net.core.wmem_max.
    unlocked.or_else(|_| Ok(setsockopt(&socket, sockopt::SndBuf, &(i32::MAX as usize / 2))?))
}

/// socket(7) calls it SO_BUF_LOCK; it is newer than the headers of `libc`.
const SO_BUF_LOCK: libc::c_int = 72;

/// Sends without checksums, which makes the kernel refuse to segment datagrams.
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
