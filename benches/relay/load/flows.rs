//! The sockets of clients and peers: one client for every allocation, and up to a bound one peer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use socket2::SockRef;

use super::Order;
use super::frame::Frame;
use crate::stream::Stream;
use crate::sys;

/// One allocation and both ends of its traffic.
pub struct Flow {
    /// The client.
    pub client: Connection,
    /// The one peer, which may be that of others too.
    pub peer: Rc<UdpSocket>,
    /// Where the peer reaches the client.
    pub relayed: SocketAddrV4,
    /// What client and relay say to each other.
    pub frame: Frame,
}

/// How a client reaches the relay.
pub enum Connection {
    Datagrams(UdpSocket),
    Stream(Stream),
}

/// The most peers there are, so that 10,000 allocations stay within the usual bounds of open files.
pub const PEERS: usize = 1000;

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
        peer: Rc<UdpSocket>,
        frame: Frame,
        relayed: SocketAddrV4,
        order: &Order,
    ) -> io::Result<Flow> {
        match &client {
            Connection::Datagrams(client) => {
                client.connect(order.server)?;
                settle(client, frame.len(), order.burst)?;
            }
            Connection::Stream(client) => client.is_set_up()?,
        }
        settle(&peer, order.payload, order.burst)?;
        Ok(Flow { client, peer, relayed, frame })
    }
}

fn settle(socket: &UdpSocket, segment: usize, burst: usize) -> io::Result<()> {
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
