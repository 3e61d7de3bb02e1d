//! A relay socket: bound exclusively to one address and port (never with SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::ports::Port;
use crate::datapath::drops::{DropCounter, QueueLoss};
use crate::datapath::sys::option;
use crate::wire::Family;

/// The requested buffer size of a relay socket, which holds a video key frame.
pub(in crate::datapath) const BUFFER: usize = 1 << 20;

/// The requested buffer size of a reserved socket, which nobody reads: the kernel raises it to its minimum. Otherwise a few
/// hundred reservations could fill `net.ipv4.udp_mem`, and every UDP socket of the machine would lose packets.
const RESERVED_BUFFER: usize = 1;

/// More datagrams than the buffer of a reserved socket holds.
const RESERVED_DATAGRAMS: usize = 16;

/// A relay socket with its port. The socket is closed before the port is released.
pub(in crate::datapath) struct RelaySocket {
    socket: UdpSocket,
    port: Port,
    /// The last pass of the worker that received something from it.
    served: u64,
    drops: DropCounter,
}

impl RelaySocket {
    /// Opens the socket of a port.
    pub(in crate::datapath) fn open(port: Port, gro: bool) -> Result<RelaySocket, (Port, io::Error)> {
        RelaySocket::with_buffer(port, gro, BUFFER)
    }

    /// Opens the socket of a port that is reserved for a later allocation.
    pub(in crate::datapath) fn reserve(port: Port, gro: bool) -> Result<RelaySocket, (Port, io::Error)> {
        RelaySocket::with_buffer(port, gro, RESERVED_BUFFER)
    }

    fn with_buffer(port: Port, gro: bool, buffer: usize) -> Result<RelaySocket, (Port, io::Error)> {
        match bind(port.addr(), gro, buffer) {
            Ok(socket) => Ok(RelaySocket { socket, port, served: 0, drops: DropCounter::default() }),
            Err(error) => Err((port, error)),
        }
    }

    /// Prepares a reserved socket for its allocation: what arrived before is discarded, and later losses are counted.
    pub(super) fn claim(&mut self) -> io::Result<()> {
        option::buffers(self.socket.as_fd(), BUFFER)?;
        let mut byte = [0];
        // The minimal buffer held very few datagrams, so this ends even while more arrive.
        for _ in 0..RESERVED_DATAGRAMS {
            if self.socket.recv(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
        }
        let _ = self.drops.take(self.socket.as_fd());
        Ok(())
    }

    /// The relayed transport address.
    pub(in crate::datapath) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The address family.
    pub(in crate::datapath) fn family(&self) -> Family {
        Family::of(self.addr().ip())
    }

    /// Allows other clients of this relay to send to it.
    pub(super) fn set_live(&self) {
        self.port.set_live();
    }

    /// Records that a pass received something; true if the previous pass did too.
    pub(super) fn served(&mut self, pass: u64) -> bool {
        std::mem::replace(&mut self.served, pass) + 1 == pass
    }

    /// What its queue has dropped since the last call.
    pub(super) fn take_drops(&self) -> QueueLoss {
        self.drops.take(self.socket.as_fd())
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(addr: SocketAddr, gro: bool, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    option::may_fragment(socket.as_fd(), addr.is_ipv6())?;
    // Missing kernel features were logged when the listeners were opened.
    let _ = option::receive_tos(socket.as_fd(), addr.is_ipv6());
    if gro {
        let _ = option::enable_gro(socket.as_fd());
    }
    // RFC 8656 §11.5: ICMP errors are relayed to the client
    option::receive_errors(socket.as_fd(), addr.is_ipv6())?;
    option::buffers(socket.as_fd(), buffer)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
