//! A TURN client over a UDP socket, as plain as it can be.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use hairpin::auth::md5_key;
use hairpin::wire::{Attribute, Class, Encoder, Message, Method, TransactionId, attribute};

use crate::world::{REALM, receive, socket};

pub struct Client {
    pub socket: UdpSocket,
    pub server: SocketAddr,
    pub user: &'static str,
    nonce: Vec<u8>,
    /// From the last successful Allocate.
    pub relayed: Vec<SocketAddr>,
}

/// An answer.
pub struct Reply(pub Vec<u8>);

impl Client {
    pub fn new(server: SocketAddr) -> Client {
        let ip = match server.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => "127.0.0.1".parse().unwrap(),
            IpAddr::V6(_) => "::1".parse().unwrap(),
        };
        let server = SocketAddr::new(ip, server.port());
        let socket = socket(&ip.to_string());
        // Nobody gets its port while this process runs: the allocation may outlive the client.
        std::mem::forget(socket.try_clone().unwrap());
        Client { socket, server, user: "alice", nonce: Vec::new(), relayed: Vec::new() }
    }

    /// No two requests of all clients have the same.
    fn id() -> TransactionId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut id = [0; 12];
        id[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        TransactionId(id)
    }

    pub fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).unwrap();
    }

    /// Sends a request and takes its answer; a challenge is answered once. Returns `None` if nothing comes.
    pub fn try_ask(
        &mut self,
        method: Method,
        attributes: &[(u16, Vec<u8>)],
        peers: &[SocketAddr],
    ) -> Option<Reply> {
        for _ in 0..2 {
            let mut request = Encoder::new(Class::Request, method, Client::id());
            attributes.iter().for_each(|(kind, value)| request.bytes(*kind, value));
            peers.iter().for_each(|&peer| request.xor_address(attribute::XOR_PEER_ADDRESS, peer));
            if !self.nonce.is_empty() {
                request.text(attribute::USERNAME, self.user);
                request.text(attribute::REALM, REALM);
                request.bytes(attribute::NONCE, &self.nonce);
                request.integrity_sha1(&md5_key(self.user, REALM, "secret"));
            }
            self.send(&request.finish());
            let mut buffer = vec![0; 2048];
            let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
            buffer.truncate(len);
            assert_eq!(from, self.server, "answers come from where the request went");
            let reply = Reply(buffer);
            match reply.attribute(attribute::NONCE) {
                Some(nonce) if matches!(reply.code(), 401 | 438) => self.nonce = nonce.value.to_vec(),
                _ => return Some(reply),
            }
        }
        panic!("challenged twice");
    }

    pub fn ask(&mut self, method: Method, attributes: &[(u16, Vec<u8>)], peers: &[SocketAddr]) -> Reply {
        self.try_ask(method, attributes, peers).expect("an answer")
    }

    /// An allocation in the family that the client came in.
    pub fn allocate_here(&mut self) -> Reply {
        let family = if self.server.is_ipv4() { 1 } else { 2 };
        let family = (attribute::REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0]);
        self.allocate(&[family])
    }

    /// An allocation; `attributes` are added.
    pub fn allocate(&mut self, attributes: &[(u16, Vec<u8>)]) -> Reply {
        let udp = (attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
        let reply = self.ask(Method::Allocate, &[&[udp], attributes].concat(), &[]);
        let message = Message::parse(&reply.0).unwrap();
        let relayed = message.attributes().filter(|found| found.kind == attribute::XOR_RELAYED_ADDRESS);
        self.relayed = relayed.map(|found| found.xor_address().unwrap()).collect();
        reply
    }

    pub fn refresh(&mut self, lifetime: u32) -> Reply {
        self.ask(Method::Refresh, &[(attribute::LIFETIME, lifetime.to_be_bytes().to_vec())], &[])
    }

    pub fn bind(&mut self, channel: u16, peer: SocketAddr) {
        let number = (attribute::CHANNEL_NUMBER, (u32::from(channel) << 16).to_be_bytes().to_vec());
        assert_eq!(self.ask(Method::ChannelBind, &[number], &[peer]).code(), 0);
    }

    pub fn permit(&mut self, peer: SocketAddr) {
        assert_eq!(self.ask(Method::CreatePermission, &[], &[peer]).code(), 0);
    }

    /// A Send indication.
    pub fn indication_message(&self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let mut indication = Encoder::new(Class::Indication, Method::Send, TransactionId([0xAB; 12]));
        indication.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        indication.bytes(attribute::DATA, data);
        indication.finish()
    }

    /// What comes in ChannelData.
    pub fn channel_data(&self) -> (u16, Vec<u8>) {
        let (bytes, from) = receive(&self.socket);
        assert_eq!(from, self.server);
        let [a, b, c, d, data @ ..] = &bytes[..] else { panic!("{bytes:?}") };
        assert_eq!(usize::from(u16::from_be_bytes([*c, *d])), data.len());
        (u16::from_be_bytes([*a, *b]), data.to_vec())
    }

    /// What comes in a Data indication.
    pub fn indication(&self) -> (SocketAddr, Vec<u8>) {
        let (bytes, from) = receive(&self.socket);
        assert_eq!(from, self.server);
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

/// A ChannelData message.
pub fn channel_message(channel: u16, data: &[u8]) -> Vec<u8> {
    [&channel.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}
