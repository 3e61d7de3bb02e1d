//! The sockets of clients and peers, one each for every allocation.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::SockRef;

use crate::sys;

/// One allocation and both ends of its traffic.
pub struct Flow {
    /// The client.
    pub client: UdpSocket,
    /// The one peer.
    pub peer: UdpSocket,
    /// The channel bound to the peer.
    pub channel: u16,
    /// The relayed transport address.
    pub relayed: SocketAddrV4,
}

const SOCKET_BUFFER: usize = 4 << 20;

/// A socket that never loses what arrives while the generator sleeps.
pub fn socket(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
    sys::receive_segments(&socket)?;
    Ok(socket)
}

/// A socket's own address, which is IPv4 here.
pub fn address(socket: &UdpSocket) -> io::Result<SocketAddrV4> {
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}
