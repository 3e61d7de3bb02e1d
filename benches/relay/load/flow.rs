//! The flows and their sockets: one client per allocation, and one peer per allocation up to a limit.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::sched::{CloneFlags, setns};
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

/// Ports of peers on the relay's host: below the ports that servers relay from.
const PORTS_ON_RELAY: Range<u16> = 20_000..32_000;

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

/// Binds a peer's socket, in the network namespace of the peers.
pub fn bind_peer(args: &LoadArgs) -> io::Result<UdpEndpoint> {
    let on_relay = args.peer_ip == *args.server.ip();
    let ports = if on_relay { PORTS_ON_RELAY } else { 0..1 };
    in_namespace(args.peer_namespace, || {
        for port in ports {
            match bind(args, args.peer_ip, port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    })?
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

/// Calls `open` in the network namespace of a process. Sockets stay in the namespace in which they are opened.
fn in_namespace<T>(pid: Option<u32>, open: impl FnOnce() -> T) -> io::Result<T> {
    let Some(pid) = pid else { return Ok(open()) };
    let own = File::open("/proc/thread-self/ns/net")?;
    setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
    let opened = open();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    Ok(opened)
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ClientSocket::Datagram(endpoint) => endpoint.as_fd(),
            ClientSocket::Stream(stream) => stream.as_fd(),
        }
    }
}
