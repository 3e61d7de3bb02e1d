//! Messages to and from a relay over UDP, TCP or TLS, one at a time. A stream is cut into messages by their lengths (RFC 8656
//! section 12.5); whatever the other side sends takes no more memory than two of the longest messages.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::tls::{Roots, handshake};
use crate::livekit::ice_url::ClientTransport;
use crate::wire::{ChannelRange, FRAME_MAX, frame_len};

/// The only channel that probes bind. Data on others comes from no relay; `HTTP` would be the begin of some.
pub const CHANNEL: u16 = 0x4000;

/// A connection, of whatever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A way to a relay.
pub struct Link(Kind);

enum Kind {
    Datagrams(UdpSocket),
    Stream {
        stream: Box<dyn Stream>,
        /// What was read and is no complete message yet.
        buffer: Vec<u8>,
    },
}

impl Link {
    /// Connects until `deadline`. TLS is verified by `name` and `roots`.
    ///
    /// # Errors
    /// Nobody listens, or browsers would refuse the certificate.
    pub async fn connect(
        transport: ClientTransport,
        to: SocketAddr,
        name: &str,
        roots: &Roots,
        deadline: Instant,
    ) -> Result<Link, Failure> {
        let unreachable = |error: io::Error| Failure::of_connection(&error);
        if transport == ClientTransport::Udp {
            let any: SocketAddr =
                if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
            socket.connect(to).await.map_err(unreachable)?;
            return Ok(Link(Kind::Datagrams(socket)));
        }
        let tcp = timeout_at(deadline, TcpStream::connect(to)).await.map_err(|_| Failure::Silent)?;
        let tcp = tcp.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let stream: Box<dyn Stream> = match transport {
            ClientTransport::Tls => {
                let tls = timeout_at(deadline, handshake(tcp, name, roots)).await;
                Box::new(tls.map_err(|_| Failure::Mute)??)
            }
            ClientTransport::Udp | ClientTransport::Tcp => Box::new(tcp),
        };
        Ok(Link(Kind::Stream { stream, buffer: Vec::new() }))
    }

    /// Whether messages get lost and are to be repeated.
    pub fn is_lossy(&self) -> bool {
        matches!(self.0, Kind::Datagrams(_))
    }

    /// What it is if nothing comes back. A connection that was accepted is no firewall's doing.
    pub fn silence(&self) -> Failure {
        if self.is_lossy() { Failure::Silent } else { Failure::Mute }
    }

    /// Sends a message, which is padded for a stream.
    ///
    /// # Errors
    /// The connection has ended, or nobody listens.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match &mut self.0 {
            Kind::Datagrams(socket) => match socket.send(message).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::of_connection(&error)),
            },
            Kind::Stream { stream, .. } => {
                let padding = crate::wire::padding(message.len());
                let sent = async {
                    stream.write_all(message).await?;
                    stream.write_all(&[0; 4][..padding]).await?;
                    stream.flush().await
                };
                sent.await.map_err(|error| Failure::of_exchange(&error))
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// The connection has ended, nobody listens, or this can be no TURN server.
    pub async fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        match &mut self.0 {
            Kind::Datagrams(socket) => {
                let mut bytes = vec![0; FRAME_MAX];
                let len = socket.recv(&mut bytes).await.map_err(|error| Failure::of_connection(&error))?;
                bytes.truncate(len);
                Ok(bytes)
            }
            Kind::Stream { stream, buffer } => loop {
                let number = buffer.first_chunk().map(|number| u16::from_be_bytes(*number));
                if number.is_some_and(|number| number > CHANNEL) {
                    return Err(Failure::NotTurn);
                }
                match frame_len(buffer, ChannelRange::Rfc8656) {
                    Err(_) => return Err(Failure::NotTurn),
                    Ok(Some(len)) if buffer.len() >= len => {
                        let rest = buffer.split_off(len);
                        return Ok(std::mem::replace(buffer, rest));
                    }
                    Ok(_) => {}
                }
                let mut more = [0; 4096];
                match stream.read(&mut more).await {
                    Ok(0) => return Err(Failure::Closed),
                    Ok(len) => buffer.extend_from_slice(&more[..len]),
                    Err(error) => return Err(Failure::of_exchange(&error)),
                }
            },
        }
    }
}
