//! The UDP sockets of clients, peers and strangers.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

/// The most messages received per call.
pub const BATCH: usize = 16;
/// The longest message: the kernel joins segments up to this length.
const MESSAGE: usize = 1 << 16;

/// A non-blocking UDP socket, with GSO and GRO of quinn-udp or without.
///
/// Single packets use the standard library: quinn-udp's control messages, and the destination that it passes even on a
/// connected socket, cost 1 us of CPU time per call, 20 % of a CPU at 100,000 packets per second.
pub struct UdpEndpoint {
    socket: UdpSocket,
    offload: Option<UdpSocketState>,
    is_connected: bool,
}

impl UdpEndpoint {
    /// Binds a socket that sends and receives single datagrams.
    pub fn bind(ip: Ipv4Addr, port: u16) -> io::Result<UdpEndpoint> {
        let socket = UdpSocket::bind((ip, port))?;
        socket.set_nonblocking(true)?;
        Ok(UdpEndpoint { socket, offload: None, is_connected: false })
    }

    /// Binds a socket that can send and receive several segments at a time.
    pub fn bind_with_offload(ip: Ipv4Addr, port: u16) -> io::Result<UdpEndpoint> {
        let socket = UdpSocket::bind((ip, port))?;
        let offload = Some(UdpSocketState::new((&socket).into())?);
        Ok(UdpEndpoint { socket, offload, is_connected: false })
    }

    /// Accepts and sends nothing but packets from and to this address.
    pub fn connect(&mut self, to: SocketAddrV4) -> io::Result<()> {
        self.socket.connect(to)?;
        self.is_connected = true;
        Ok(())
    }

    /// The socket, to set options or to use it in blocking mode.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The socket's own address.
    pub fn address(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// Sends a datagram or, with offload, several segments.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match &self.offload {
            Some(offload) => offload.try_send((&self.socket).into(), transmit),
            None if self.is_connected => self.socket.send(transmit.contents).map(drop),
            None => self.socket.send_to(transmit.contents, transmit.destination).map(drop),
        }
    }

    /// Receives messages into `batch` and returns their number: up to [`BATCH`] with offload, otherwise at most one. An
    /// error counts as no message: either there is none, or it is an ICMP error, which the kernel reports once.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> usize {
        let ReceiveBatch { buffers, meta } = batch;
        let Some(offload) = &self.offload else {
            let Ok((len, source)) = self.socket.recv_from(&mut buffers[0]) else { return 0 };
            (meta[0].addr, meta[0].len, meta[0].stride) = (source, len, len);
            return 1;
        };
        let mut buffers = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        offload.recv((&self.socket).into(), &mut buffers, meta).unwrap_or(0)
    }
}

impl AsFd for UdpEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the messages of one call.
pub struct ReceiveBatch {
    buffers: [Vec<u8>; BATCH],
    meta: [RecvMeta; BATCH],
}

impl ReceiveBatch {
    pub fn new() -> ReceiveBatch {
        let buffers = std::array::from_fn(|_| vec![0; MESSAGE]);
        ReceiveBatch { buffers, meta: [RecvMeta::default(); BATCH] }
    }

    /// The source and, with offload, the destination of the n-th message.
    pub fn meta(&self, n: usize) -> &RecvMeta {
        &self.meta[n]
    }

    /// The datagrams of the n-th message.
    pub fn datagrams(&self, n: usize) -> impl Iterator<Item = &[u8]> {
        let RecvMeta { len, stride, .. } = self.meta[n];
        self.buffers[n][..len].chunks(stride.max(1))
    }
}
