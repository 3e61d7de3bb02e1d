//! A TCP connection, with TLS on it or without, for the generator's clients and for the floor alike.
//!
//! It blocks while things are set up and never afterwards. What a write could not finish is continued before the next;
//! what finds no room at all is not sent, and nothing is queued for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use hairpin::wire;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

/// What rustls may already hold of a record that a reading completes.
const RECORD: usize = 17 << 10;

/// One connection.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
    /// What is still to go out of a write that has begun; with TLS it is rustls that has it.
    unsent: Vec<u8>,
    /// The beginning of a message that has not come in whole.
    unfinished: Vec<u8>,
}

impl Stream {
    /// A client's, the handshake done.
    pub fn connect(
        from: SocketAddrV4,
        server: SocketAddrV4,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Stream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect(&server.into())?;
        let tls = tls.map(|config| ClientConnection::new(config.clone(), (*server.ip()).into())).transpose();
        Stream::new(socket.into(), tls.map_err(io::Error::other)?.map(Connection::Client))
    }

    /// A server's, the handshake done.
    pub fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<Stream> {
        let (socket, _) = listener.accept()?;
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose();
        Stream::new(socket, tls.map_err(io::Error::other)?.map(Connection::Server))
    }

    fn new(mut socket: TcpStream, tls: Option<Connection>) -> io::Result<Stream> {
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
        Ok(Stream { socket, tls, unsent: Vec::new(), unfinished: Vec::new() })
    }

    /// For so long a reading waits while things are set up; without it for ever.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Nothing blocks any more.
    pub fn is_set_up(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Writes all of these messages or begins to; false if none could begin.
    pub fn send(&mut self, messages: &[u8]) -> io::Result<bool> {
        let Stream { socket, tls: Some(tls), .. } = self else { return self.send_plain(messages) };
        if !push(tls, socket)? {
            return Ok(false);
        }
        tls.writer().write_all(messages)?;
        push(tls, socket).map(|_| true)
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

    /// Puts what was kept at the beginning of the buffer, what there is to read behind it, and says how much that is.
    /// TLS needs half of the buffer for itself.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let kept = self.unfinished.len();
        buffer[..kept].copy_from_slice(&self.unfinished);
        self.unfinished.clear();
        let Some(tls) = &mut self.tls else {
            return Ok(kept + receive(&mut self.socket, &mut buffer[kept..])?);
        };
        let (plain, cipher) = buffer.split_at_mut(buffer.len() / 2);
        // A handshake may have brought something with its end.
        let mut len = kept + decrypted(tls, &mut plain[kept..])?;
        if len == kept {
            let room = plain.len().saturating_sub(kept + RECORD);
            let count = receive(&mut self.socket, &mut cipher[..room])?;
            let mut rest = &cipher[..count];
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                len += decrypted(tls, &mut plain[len..])?;
            }
        }
        Ok(len)
    }

    /// Keeps what no message was made of yet, for the next reading.
    pub fn keep(&mut self, rest: &[u8]) {
        self.unfinished.extend_from_slice(rest);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The length of the message that these bytes begin with, once it is there in whole.
pub fn message(bytes: &[u8]) -> io::Result<Option<usize>> {
    let len = wire::frame_len(bytes).map_err(io::Error::other)?;
    Ok(len.filter(|&len| len <= bytes.len()))
}

/// Writes what rustls has encrypted; whether all of it went.
fn push(tls: &mut Connection, socket: &mut TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        if unless_blocked(tls.write_tls(socket))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes what rustls has decrypted.
fn decrypted(tls: &mut Connection, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(count @ 1..) = unless_blocked(tls.reader().read(&mut buffer[len..]))? {
        len += count;
    }
    Ok(len)
}

fn receive(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match unless_blocked(socket.read(buffer))? {
        Some(0) => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side has closed a connection"))
        }
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
