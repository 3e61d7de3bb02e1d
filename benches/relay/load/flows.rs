//! The sockets of clients and peers, one each for every allocation.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use hairpin::wire::CHANNEL_HEADER;
use socket2::SockRef;

use super::Order;
use crate::sys;

/// One allocation and both ends of its traffic.
pub struct Flow {
    /// The client.
    pub client: UdpSocket,
    /// The one peer.
    pub peer: UdpSocket,
    /// The channel bound to the peer.
    pub channel: u16,
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
        client: UdpSocket,
        peer: UdpSocket,
        channel: u16,
        relayed: SocketAddrV4,
        order: &Order,
    ) -> io::Result<Flow> {
        for (socket, to, header) in [(&client, order.server, CHANNEL_HEADER), (&peer, relayed, 0)] {
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            if order.burst > 1 {
                sys::receive_segments(socket)?;
                sys::send_segments(socket, header + order.payload)?;
            }
        }
        Ok(Flow { client, peer, channel })
    }
}
