//! TCP connections, with or without TLS, for the load generator's clients and for the minimal relay.
//!
//! A connection blocks during the set-up only. A partial write is completed before the next one; a message that cannot
//! be written at all is dropped instead of queued.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use hairpin::wire;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

/// The most plaintext that rustls may add to a read from a record it had buffered in part.
const RECORD: usize = 17 << 10;

/// A TCP or TLS connection that carries messages.
pub struct FramedStream {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
    /// The rest of a partial write. With TLS, rustls buffers it.
    unsent: Vec<u8>,
    /// The beginning of a message that is not complete.
    remainder: Vec<u8>,
}

impl FramedStream {
    /// Connects and completes the TLS handshake.
    pub fn connect(
        from: SocketAddrV4,
        server: SocketAddrV4,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<FramedStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect(&server.into())?;
        let tls = tls.map(|config| ClientConnection::new(config.clone(), (*server.ip()).into())).transpose();
        FramedStream::new(socket.into(), tls.map_err(io::Error::other)?.map(Connection::Client))
    }

    /// Accepts a connection and completes the TLS handshake.
    pub fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<FramedStream> {
        let (socket, _) = listener.accept()?;
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose();
        FramedStream::new(socket, tls.map_err(io::Error::other)?.map(Connection::Server))
    }

    fn new(mut socket: TcpStream, tls: Option<Connection>) -> io::Result<FramedStream> {
        socket.set_nodelay(true)?;
        let mut tls = tls.map(Box::new);
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(None);
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
        }
        Ok(FramedStream { socket, tls, unsent: Vec::new(), remainder: Vec::new() })
    }

    /// Limits how long a blocking read waits.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))
    }

    /// Ends the set-up: from now on nothing blocks.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Writes messages, perhaps in part. Returns false if nothing could be written.
    pub fn send(&mut self, messages: &[u8]) -> io::Result<bool> {
        let FramedStream { socket, tls: Some(tls), .. } = self else { return self.send_plain(messages) };
        if !flush_tls(tls, socket)? {
            return Ok(false);
        }
        tls.writer().write_all(messages)?;
        flush_tls(tls, socket).map(|_| true)
    }

    fn send_plain(&mut self, messages: &[u8]) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            let Some(count) = unless_blocked(self.socket.write(&self.unsent))? else { return Ok(false) };
            self.unsent.drain(..count);
        }
        let Some(count) = unless_blocked(self.socket.write(messages))? else { return Ok(false) };
        self.unsent.extend_from_slice(&messages[count..]);
        Ok(true)
    }

    /// Fills the buffer with the remainder of the previous read and the bytes received since, and returns their number.
    /// TLS uses the second half of the buffer for ciphertext.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let kept = self.remainder.len();
        buffer[..kept].copy_from_slice(&self.remainder);
        self.remainder.clear();
        let Some(tls) = &mut self.tls else {
            return Ok(kept + receive(&mut self.socket, &mut buffer[kept..])?);
        };
        let (plain, cipher) = buffer.split_at_mut(buffer.len() / 2);
        // The last flight of the handshake may have carried data.
        let mut len = kept + read_plaintext(tls, &mut plain[kept..])?;
        if len == kept {
            let room = plain.len().saturating_sub(kept + RECORD);
            let count = receive(&mut self.socket, &mut cipher[..room])?;
            let mut rest = &cipher[..count];
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                len += read_plaintext(tls, &mut plain[len..])?;
            }
        }
        Ok(len)
    }

    /// Keeps an incomplete message for the next read.
    pub fn buffer_remainder(&mut self, bytes: &[u8]) {
        self.remainder.extend_from_slice(bytes);
    }
}

impl AsFd for FramedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The length of the first message, if it is complete.
pub fn message_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let len = wire::frame_len(bytes, wire::ChannelRange::Rfc8656).map_err(io::Error::other)?;
    Ok(len.filter(|&len| len <= bytes.len()))
}

/// Writes the ciphertext that rustls has buffered, and returns whether all of it was written.
fn flush_tls(tls: &mut Connection, socket: &mut TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        if unless_blocked(tls.write_tls(socket))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the plaintext that rustls has decrypted.
fn read_plaintext(tls: &mut Connection, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(count @ 1..) = unless_blocked(tls.reader().read(&mut buffer[len..]))? {
        len += count;
    }
    Ok(len)
}

fn receive(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match unless_blocked(socket.read(buffer))? {
        Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection")),
        count => Ok(count.unwrap_or(0)),
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
