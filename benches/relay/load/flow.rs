//! The flows and their sockets: one client per allocation, and one peer per allocation up to a limit.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use socket2::SockRef;

use super::args::LoadArgs;
use super::frame::Frame;
use crate::stream::FramedStream;
use crate::udp::UdpEndpoint;

/// An allocation and both ends of its traffic.
pub struct Flow {
    pub client: ClientSocket,
    /// The only peer, which may be shared with other flows.
    pub peer: Rc<UdpEndpoint>,
    /// The relayed transport address.
    pub relayed: SocketAddrV4,
    pub frame: Frame,
}

/// A client's socket.
pub enum ClientSocket {
    Datagram(UdpEndpoint),
    Stream(FramedStream),
}

/// The maximum number of peers, so that 10,000 allocations fit into the usual limit of open files.
pub const PEERS_MAX: usize = 1000;

const SOCKET_BUFFER: usize = 4 << 20;

impl Flow {
    /// Prepares the sockets for traffic.
    pub fn new(
        mut client: ClientSocket,
        peer: Rc<UdpEndpoint>,
        frame: Frame,
        relayed: SocketAddrV4,
        server: SocketAddrV4,
    ) -> io::Result<Flow> {
        match &mut client {
            ClientSocket::Datagram(client) => {
                client.connect(server)?;
                client.socket().set_nonblocking(true)?;
            }
            ClientSocket::Stream(client) => client.set_nonblocking()?,
        }
        Ok(Flow { client, peer, relayed, frame })
    }
}

/// Binds a UDP client's socket.
pub fn bind_client(args: &LoadArgs) -> io::Result<UdpEndpoint> {
    bind(args, args.client_ip, 0)
}

/// Binds a peer's socket.
pub fn bind_peer(args: &LoadArgs) -> io::Result<UdpEndpoint> {
    bind(args, args.peer_ip, 0)
}

fn bind(args: &LoadArgs, ip: Ipv4Addr, port: u16) -> io::Result<UdpEndpoint> {
    let has_bursts = args.workload.burst > 1;
    let endpoint =
        if has_bursts { UdpEndpoint::bind_with_offload(ip, port) } else { UdpEndpoint::bind(ip, port) }?;
    // Large buffers lose nothing while the generator is busy sending.
    let socket = SockRef::from(endpoint.socket());
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(endpoint)
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ClientSocket::Datagram(endpoint) => endpoint.as_fd(),
            ClientSocket::Stream(stream) => stream.as_fd(),
        }
    }
}
