//! A TURN client over TCP or TLS, or over UDP beside them, as plain as it can be.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hairpin::auth::md5_key;
use hairpin::wire::{self, Attribute, Class, Encoder, Message, Method, TransactionId, attribute};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::world::{REALM, Relay};

pub struct Client {
    pub stream: Stream,
    /// What arrived and is not looked at yet.
    pub buffer: Vec<u8>,
    nonce: Vec<u8>,
    next_id: u8,
    /// From the last successful Allocate.
    pub relayed: Vec<SocketAddr>,
}

pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// No stream, but a message with a multiple of four bytes looks the same.
    Udp(UdpSocket),
}

/// An answer.
pub struct Reply(pub Vec<u8>);

pub fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// What a TLS client is, that trusts the relay.
pub fn tls_config(relay: &Relay, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(relay.certificate.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A handshake that is made.
pub fn tls(relay: &Relay, config: ClientConfig) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = "relay.example.org".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(relay.tls));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

impl Client {
    pub fn over_tcp(server: SocketAddr) -> Client {
        Client::over(Stream::Tcp(connect(server)))
    }

    pub fn over_tls(relay: &Relay, version: &'static SupportedProtocolVersion) -> Client {
        Client::over(Stream::Tls(Box::new(tls(relay, tls_config(relay, version)).unwrap())))
    }

    pub fn over_udp(server: SocketAddr) -> Client {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(server).unwrap();
        Client::over(Stream::Udp(socket))
    }

    pub fn over(stream: Stream) -> Client {
        Client { stream, buffer: Vec::new(), nonce: Vec::new(), next_id: 0, relayed: Vec::new() }
    }

    pub fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tcp(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
            Stream::Udp(_) => panic!("no stream"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes).unwrap(),
            Stream::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Stream::Tls(tls) => {
                tls.write_all(bytes).unwrap();
                tls.flush().unwrap();
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn end_sending(&mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// The next message with its padding; `None` at the end of the stream.
    pub fn try_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let whole = wire::frame_len(&self.buffer).expect("the server's stream is in order");
            if let Some(len) = whole.filter(|&len| len <= self.buffer.len()) {
                let rest = self.buffer.split_off(len);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            let mut bytes = vec![0; 65_536];
            let len = match &mut self.stream {
                Stream::Tcp(socket) => socket.read(&mut bytes)?,
                Stream::Tls(tls) => tls.read(&mut bytes)?,
                Stream::Udp(socket) => socket.recv(&mut bytes)?,
            };
            if len == 0 {
                assert!(self.buffer.is_empty(), "only whole messages: {:?}", self.buffer);
                return Ok(None);
            }
            self.buffer.extend_from_slice(&bytes[..len]);
        }
    }

    pub fn message(&mut self) -> Vec<u8> {
        self.try_message().expect("a message in time").expect("a message")
    }

    /// The server closes, or has closed, the stream, with or without more messages.
    pub fn assert_closed(&mut self) {
        loop {
            match self.try_message() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    assert!(
                        !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                        "it is open"
                    );
                    return;
                }
            }
        }
    }

    pub fn request(
        &mut self,
        method: Method,
        attributes: &[(u16, Vec<u8>)],
        peers: &[SocketAddr],
    ) -> Vec<u8> {
        self.next_id = self.next_id.wrapping_add(1);
        let mut request = Encoder::new(Class::Request, method, TransactionId([self.next_id; 12]));
        attributes.iter().for_each(|(kind, value)| request.bytes(*kind, value));
        peers.iter().for_each(|&peer| request.xor_address(attribute::XOR_PEER_ADDRESS, peer));
        if !self.nonce.is_empty() {
            request.text(attribute::USERNAME, "alice");
            request.text(attribute::REALM, REALM);
            request.bytes(attribute::NONCE, &self.nonce);
            request.integrity_sha1(&md5_key("alice", REALM, "secret"));
        }
        request.finish()
    }

    /// Sends a request and takes its answer; a challenge is answered once.
    pub fn ask(&mut self, method: Method, attributes: &[(u16, Vec<u8>)], peers: &[SocketAddr]) -> Reply {
        for _ in 0..2 {
            let request = self.request(method, attributes, peers);
            self.send(&request);
            let reply = Reply(self.message());
            assert_eq!(Message::parse(&reply.0).unwrap().transaction_id().0, [self.next_id; 12]);
            match reply.attribute(attribute::NONCE) {
                Some(nonce) if matches!(reply.code(), 401 | 438) => self.nonce = nonce.value.to_vec(),
                _ => return reply,
            }
        }
        panic!("challenged twice");
    }

    pub fn allocation() -> Vec<(u16, Vec<u8>)> {
        vec![(attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])]
    }

    pub fn allocate(&mut self) -> Reply {
        let reply = self.ask(Method::Allocate, &Client::allocation(), &[]);
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

    pub fn bind(&mut self, channel: u16, peer: &UdpSocket) {
        self.bind_to(channel, peer.local_addr().unwrap());
    }

    pub fn bind_to(&mut self, channel: u16, peer: SocketAddr) {
        let number = (attribute::CHANNEL_NUMBER, (u32::from(channel) << 16).to_be_bytes().to_vec());
        assert_eq!(self.ask(Method::ChannelBind, &[number], &[peer]).code(), 0);
    }

    pub fn permit(&mut self, peer: &UdpSocket) {
        let peer = peer.local_addr().unwrap();
        assert_eq!(self.ask(Method::CreatePermission, &[], &[peer]).code(), 0);
    }

    /// What comes in ChannelData.
    pub fn channel_data(&mut self) -> (u16, Vec<u8>) {
        let message = self.message();
        let [a, b, c, d, data @ ..] = &message[..] else { panic!("{message:?}") };
        let (data, padding) = data.split_at(u16::from_be_bytes([*c, *d]).into());
        assert!(padding.iter().all(|&byte| byte == 0), "{padding:?}");
        (u16::from_be_bytes([*a, *b]), data.to_vec())
    }

    /// What comes in a Data indication.
    pub fn indication(&mut self) -> (SocketAddr, Vec<u8>) {
        let bytes = self.message();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::Data));
        let peer = message.attribute(attribute::XOR_PEER_ADDRESS).unwrap().xor_address().unwrap();
        (peer, message.attribute(attribute::DATA).unwrap().value.to_vec())
    }
}

impl Reply {
    /// 0 is success.
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

/// A ChannelData message, padded as in a stream.
pub fn channel_message(channel: u16, data: &[u8]) -> Vec<u8> {
    let padding = vec![0; wire::padding(data.len())];
    [&channel.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data, &padding].concat()
}

/// A Send indication.
pub fn send_message(peer: &UdpSocket, data: &[u8]) -> Vec<u8> {
    let mut indication = Encoder::new(Class::Indication, Method::Send, TransactionId([0xAB; 12]));
    indication.xor_address(attribute::XOR_PEER_ADDRESS, peer.local_addr().unwrap());
    indication.bytes(attribute::DATA, data);
    indication.finish()
}
