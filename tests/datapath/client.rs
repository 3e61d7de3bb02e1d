//! A minimal TURN client over UDP, TCP or TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hairpin::auth::md5_key;
use hairpin::wire::{self, Attribute, Class, Encoder, Message, Method, TransactionId, attribute};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::world::{REALM, Relay, TIMEOUT, socket};

pub struct Client {
    pub socket: ClientSocket,
    pub server: SocketAddr,
    pub user: &'static str,
    /// Bytes of a stream that were received after the last message.
    buffer: Vec<u8>,
    pub nonce: Vec<u8>,
    /// The relayed transport addresses from the last successful Allocate.
    pub relayed: Vec<SocketAddr>,
}

pub enum ClientSocket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A response.
pub struct Reply(pub Vec<u8>);

pub fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// The configuration of a TLS client that trusts the certificate of the relay.
pub fn tls_config(relay: &Relay, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(relay.certificate.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects and completes a TLS handshake.
pub fn tls(relay: &Relay, config: ClientConfig) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    handshake(connect(relay.tls), config)
}

/// A TLS client on a connection that is open already.
pub fn tls_over(relay: &Relay, connection: TcpStream) -> Client {
    let stream = handshake(connection, tls_config(relay, &rustls::version::TLS13)).unwrap();
    Client::over_stream(ClientSocket::Tls(Box::new(stream)))
}

fn handshake(
    socket: TcpStream,
    config: ClientConfig,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = "relay.example.org".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

impl Client {
    pub fn over_udp(server: SocketAddr) -> Client {
        let socket = socket(&server.ip().to_string());
        // Keeps the port in use until the process ends, because an allocation may outlive its client.
        std::mem::forget(socket.try_clone().unwrap());
        Client::over(ClientSocket::Udp(socket), server)
    }

    pub fn over_tcp(server: SocketAddr) -> Client {
        Client::over_stream(ClientSocket::Tcp(connect(server)))
    }

    pub fn over_tls(relay: &Relay, version: &'static SupportedProtocolVersion) -> Client {
        Client::over_stream(ClientSocket::Tls(Box::new(tls(relay, tls_config(relay, version)).unwrap())))
    }

    /// A client on an established connection.
    pub fn over_stream(socket: ClientSocket) -> Client {
        let server = match &socket {
            ClientSocket::Udp(_) => panic!("a stream"),
            ClientSocket::Tcp(socket) => socket.peer_addr().unwrap(),
            ClientSocket::Tls(tls) => tls.sock.peer_addr().unwrap(),
        };
        Client::over(socket, server)
    }

    fn over(socket: ClientSocket, server: SocketAddr) -> Client {
        let (buffer, nonce, relayed) = (Vec::new(), Vec::new(), Vec::new());
        Client { socket, server, user: "alice", buffer, nonce, relayed }
    }

    pub fn udp(&self) -> &UdpSocket {
        let ClientSocket::Udp(socket) = &self.socket else { panic!("not a UDP client") };
        socket
    }

    /// The TCP socket of a TCP or TLS client.
    pub fn tcp(&self) -> &TcpStream {
        match &self.socket {
            ClientSocket::Udp(_) => panic!("not a stream client"),
            ClientSocket::Tcp(socket) => socket,
            ClientSocket::Tls(tls) => &tls.sock,
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            ClientSocket::Udp(socket) => assert_eq!(socket.send_to(bytes, self.server).unwrap(), bytes.len()),
            ClientSocket::Tcp(socket) => socket.write_all(bytes).unwrap(),
            ClientSocket::Tls(tls) => {
                tls.write_all(bytes).unwrap();
                tls.flush().unwrap();
            }
        }
    }

    /// Shuts down the sending side.
    pub fn end_sending(&mut self) {
        if let ClientSocket::Tls(tls) = &mut self.socket {
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
        self.tcp().shutdown(Shutdown::Write).unwrap();
    }

    /// The next message, with its padding in a stream; `None` at the end of the stream.
    pub fn try_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; 65_536];
        loop {
            let whole = wire::frame_len(&self.buffer, wire::ChannelRange::Rfc5766)
                .expect("the server's stream can be framed");
            if let Some(len) = whole.filter(|&len| len <= self.buffer.len()) {
                let rest = self.buffer.split_off(len);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            let len = match &mut self.socket {
                ClientSocket::Udp(socket) => {
                    let (len, from) = socket.recv_from(&mut bytes)?;
                    assert_eq!(from, self.server, "it comes from the address that the client uses");
                    bytes.truncate(len);
                    return Ok(Some(bytes));
                }
                ClientSocket::Tcp(socket) => socket.read(&mut bytes)?,
                ClientSocket::Tls(tls) => tls.read(&mut bytes)?,
            };
            if len == 0 {
                assert!(self.buffer.is_empty(), "the stream ends within a message: {:?}", self.buffer);
                return Ok(None);
            }
            self.buffer.extend_from_slice(&bytes[..len]);
        }
    }

    pub fn message(&mut self) -> Vec<u8> {
        self.try_message().expect("a message in time").expect("a message")
    }

    /// Fails unless the server closes the stream, possibly after more messages.
    pub fn assert_closed(&mut self) {
        loop {
            match self.try_message() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    assert!(
                        !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                        "the stream is open"
                    );
                    return;
                }
            }
        }
    }

    pub fn request(&self, method: Method, attributes: &[(u16, Vec<u8>)], peers: &[SocketAddr]) -> Vec<u8> {
        let mut request = Encoder::new(Class::Request, method, unique_id());
        attributes.iter().for_each(|(kind, value)| request.bytes(*kind, value));
        peers.iter().for_each(|&peer| request.xor_address(attribute::XOR_PEER_ADDRESS, peer));
        if !self.nonce.is_empty() {
            request.text(attribute::USERNAME, self.user);
            request.text(attribute::REALM, REALM);
            request.bytes(attribute::NONCE, &self.nonce);
            request.integrity_sha1(&md5_key(self.user, REALM, "secret"));
        }
        request.finish()
    }

    /// Sends a request and returns its response; repeats the request once after a challenge.
    pub fn ask(&mut self, method: Method, attributes: &[(u16, Vec<u8>)], peers: &[SocketAddr]) -> Reply {
        for _ in 0..2 {
            let request = self.request(method, attributes, peers);
            self.send(&request);
            let reply = Reply(self.message());
            assert_eq!(reply.0[8..20], request[8..20], "the transaction ID");
            match reply.attribute(attribute::NONCE) {
                Some(nonce) if matches!(reply.code(), 401 | 438) => self.nonce = nonce.value.to_vec(),
                _ => return reply,
            }
        }
        panic!("challenged twice");
    }

    /// The attributes of an Allocate request.
    pub fn allocation() -> Vec<(u16, Vec<u8>)> {
        vec![(attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])]
    }

    /// Allocates with REQUESTED-ADDRESS-FAMILY, in the family that the client uses itself.
    pub fn allocate_own_family(&mut self) -> Reply {
        let family = if self.server.is_ipv4() { 1 } else { 2 };
        self.allocate(&[(attribute::REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0])])
    }

    /// Allocates with additional attributes.
    pub fn allocate(&mut self, attributes: &[(u16, Vec<u8>)]) -> Reply {
        let reply = self.ask(Method::Allocate, &[&Client::allocation(), attributes].concat(), &[]);
        let message = Message::parse(&reply.0).unwrap();
        let relayed = message.attributes().filter(|found| found.kind == attribute::XOR_RELAYED_ADDRESS);
        self.relayed = relayed.map(|found| found.xor_address().unwrap()).collect();
        reply
    }

    pub fn refresh(&mut self, lifetime: u32) -> Reply {
        self.ask(Method::Refresh, &[(attribute::LIFETIME, lifetime.to_be_bytes().to_vec())], &[])
    }

    pub fn binding(&mut self) -> Reply {
        self.ask(Method::Binding, &[], &[])
    }

    pub fn bind(&mut self, channel: u16, peer: SocketAddr) {
        let number = (attribute::CHANNEL_NUMBER, (u32::from(channel) << 16).to_be_bytes().to_vec());
        assert_eq!(self.ask(Method::ChannelBind, &[number], &[peer]).code(), 0);
    }

    pub fn permit(&mut self, peer: SocketAddr) {
        assert_eq!(self.ask(Method::CreatePermission, &[], &[peer]).code(), 0);
    }

    /// The channel and the data of the next message, a ChannelData message.
    pub fn channel_data(&mut self) -> (u16, Vec<u8>) {
        let message = self.message();
        let [a, b, c, d, data @ ..] = &message[..] else { panic!("{message:?}") };
        let (data, padding) = data.split_at(u16::from_be_bytes([*c, *d]).into());
        assert!(padding.iter().all(|&byte| byte == 0), "{padding:?}");
        assert!(padding.is_empty() || !matches!(self.socket, ClientSocket::Udp(_)), "{padding:?}");
        (u16::from_be_bytes([*a, *b]), data.to_vec())
    }

    /// The peer and the data of the next message, a Data indication.
    pub fn indication(&mut self) -> (SocketAddr, Vec<u8>) {
        let bytes = self.message();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        let peer = message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address().unwrap();
        (peer, message.attribute(attribute::DATA).unwrap().value.to_vec())
    }
}

impl Reply {
    /// The error code, or 0 for a success response.
    pub fn code(&self) -> u16 {
        match self.attribute(attribute::ERROR_CODE) {
            Some(error) => u16::from(error.value[2]) * 100 + u16::from(error.value[3]),
            None => 0,
        }
    }

    pub fn attribute(&self, kind: u16) -> Option<Attribute<'_>> {
        Message::parse(&self.0).unwrap().attribute(kind)
    }
}

/// A transaction ID that no other request has.
fn unique_id() -> TransactionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 12];
    id[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    TransactionId(id)
}

/// A ChannelData message as in a datagram.
pub fn channel_message(channel: u16, data: &[u8]) -> Vec<u8> {
    [&channel.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}

/// A ChannelData message as in a stream, padded to a multiple of four bytes.
pub fn padded_channel_message(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut message = channel_message(channel, data);
    message.resize(message.len() + wire::padding(data.len()), 0);
    message
}

/// A Send indication.
pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut indication = Encoder::new(Class::Indication, Method::Send, TransactionId([0xAB; 12]));
    indication.xor_address(attribute::XOR_PEER_ADDRESS, peer);
    indication.bytes(attribute::DATA, data);
    indication.finish()
}
