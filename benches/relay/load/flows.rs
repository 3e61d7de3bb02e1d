//! The sockets of clients and peers, one each for every allocation.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;

use super::Order;
use super::frame::Frame;
use crate::stream::Stream;
use crate::sys;

/// One allocation and both ends of its traffic.
pub struct Flow {
    /// The client.
    pub client: Connection,
    /// The one peer.
    pub peer: UdpSocket,
    /// What client and relay say to each other.
    pub frame: Frame,
}

/// How a client reaches the relay.
pub enum Connection {
    Datagrams(UdpSocket),
    Stream(Stream),
}

const SOCKET_BUFFER: usize = 4 << 20;

/// A socket that loses nothing while the generator is busy sending.
pub fn socket(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

/// A socket's own address, which is IPv4 here.
pub fn address(socket: &UdpSocket) -> io::Result<SocketAddrV4> {
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

impl Flow {
    /// Ready for traffic: everything that can be settled once for a socket is not repeated for each packet.
    pub fn new(
        client: Connection,
        peer: UdpSocket,
        frame: Frame,
        relayed: SocketAddrV4,
        order: &Order,
    ) -> io::Result<Flow> {
        match &client {
            Connection::Datagrams(client) => settle(client, order.server, frame.len(), order.burst)?,
            Connection::Stream(client) => client.is_set_up()?,
        }
        settle(&peer, relayed, order.payload, order.burst)?;
        Ok(Flow { client, peer, frame })
    }
}

fn settle(socket: &UdpSocket, to: SocketAddrV4, segment: usize, burst: usize) -> io::Result<()> {
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    if burst > 1 {
        sys::receive_segments(socket)?;
        sys::send_segments(socket, segment)?;
    }
    Ok(())
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Datagrams(socket) => socket.as_fd(),
            Connection::Stream(stream) => stream.as_fd(),
        }
    }
}
