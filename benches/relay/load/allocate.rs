//! Sets flows up: over TURN with long-term credentials (RFC 8656 §7, §12), or as the floor has it.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use md5::{Digest, Md5};
use rustls::ClientConfig;

use super::flows::{self, Connection, Flow};
use super::frame::Frame;
use super::{Order, Protocol};
use crate::case::{Client, Form};
use crate::contestant::{PASSWORD, USER};
use crate::floor::Ask;
use crate::stream::Stream;
use crate::tls;

/// The first channel; numbers repeat after 4096 allocations, which is as good since each has its own.
const FIRST_CHANNEL: u16 = 0x4000;
const CHANNELS: usize = 0x1000;
/// REQUESTED-TRANSPORT of every allocation.
pub const UDP: u32 = 17 << 24;
/// A server that starts gets so many tries of this length to answer.
const TRIES: u32 = 40;
const PATIENCE: Duration = Duration::from_millis(250);
/// What an answer has room in.
const ANSWER: usize = 64 << 10;

/// Opens every allocation.
pub fn open(order: &Order) -> Result<Vec<Flow>> {
    let mut flows: Vec<Flow> = Vec::with_capacity(order.allocations);
    let mut turn = Turn { server: order.server, challenge: None, transactions: 0 };
    let tls = order.certificate.as_deref().map(tls::client).transpose()?;
    for index in 0..order.allocations {
        let mut client = connect(order, tls.as_ref())?;
        let peer = match flows.get(index % flows::PEERS) {
            Some(other) => Rc::clone(&other.peer),
            None => Rc::new(flows::socket(order.ip)?),
        };
        let channel = FIRST_CHANNEL + (index % CHANNELS) as u16;
        let at = flows::address(&peer)?;
        let frame = Frame::new(order.client, order.form, channel, at, order.payload);
        let relayed = match order.protocol {
            Protocol::Turn => turn.allocate(&mut client, &frame)?,
            Protocol::Floor => {
                let last = index + 1 == order.allocations;
                let ask = Ask { peer: at, header: frame.returning(), last };
                let port = exchange(&mut client, order.server, &ask.write(), |answer| answer.len() == 2)?;
                SocketAddrV4::new(*order.server.ip(), u16::from_be_bytes([port[0], port[1]]))
            }
        };
        flows.push(Flow::new(client, peer, frame, relayed, order)?);
    }
    Ok(flows)
}

fn connect(order: &Order, tls: Option<&Arc<ClientConfig>>) -> Result<Connection> {
    if order.client == Client::Udp {
        return Ok(Connection::Datagrams(flows::socket(order.ip)?));
    }
    let from = SocketAddrV4::new(order.ip, 0);
    for _ in 0..TRIES {
        match Stream::connect(from, order.server, tls) {
            Ok(stream) => {
                stream.set_patience(PATIENCE)?;
                return Ok(Connection::Stream(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::thread::sleep(PATIENCE),
            Err(error) => return Err(error).context("connecting to the server"),
        }
    }
    bail!("the server does not listen")
}

/// Asks until there is an answer that pleases.
fn exchange(
    client: &mut Connection,
    server: SocketAddrV4,
    question: &[u8],
    pleases: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    match client {
        Connection::Datagrams(socket) => by_datagrams(socket, server, question, pleases),
        Connection::Stream(stream) => over_stream(stream, question, pleases),
    }
}

fn by_datagrams(
    client: &UdpSocket,
    server: SocketAddrV4,
    question: &[u8],
    pleases: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 2048];
    for _ in 0..TRIES {
        client.send_to(question, server)?;
        while let Ok((len, from)) = client.recv_from(&mut bytes) {
            if from == SocketAddr::V4(server) && pleases(&bytes[..len]) {
                return Ok(bytes[..len].to_vec());
            }
        }
    }
    bail!("the server does not answer")
}

/// Nothing comes over a stream but what was asked for, so all that comes is the answer, perhaps not in whole yet.
fn over_stream(stream: &mut Stream, question: &[u8], pleases: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    stream.send(question)?;
    let mut bytes = vec![0; ANSWER];
    for _ in 0..TRIES {
        let len = stream.read(&mut bytes)?;
        if pleases(&bytes[..len]) {
            return Ok(bytes[..len].to_vec());
        }
        stream.keep(&bytes[..len]);
    }
    bail!("the server does not answer")
}

/// As much of a TURN client as it takes.
struct Turn {
    server: SocketAddrV4,
    challenge: Option<Challenge>,
    transactions: u64,
}

/// What requests prove themselves with.
pub struct Challenge {
    realm: String,
    nonce: String,
    key: [u8; 16],
}

impl Turn {
    fn allocate(&mut self, client: &mut Connection, frame: &Frame) -> Result<SocketAddrV4> {
        // A nonce may be bound to the client that got it.
        self.challenge = None;
        let answer = self.request(client, Method::Allocate, |request| {
            request.u32(attribute::REQUESTED_TRANSPORT, UDP);
        })?;
        let answer = parse(&answer)?;
        let relayed = answer.attribute(attribute::XOR_RELAYED_ADDRESS).context("no relayed address")?;
        let SocketAddr::V4(relayed) = relayed.xor_address()? else {
            bail!("the relayed address is not IPv4")
        };
        let method = match frame.form() {
            Form::Channel => Method::ChannelBind,
            Form::Indication => Method::CreatePermission,
        };
        self.request(client, method, |request| {
            if frame.form() == Form::Channel {
                request.u32(attribute::CHANNEL_NUMBER, u32::from(frame.channel()) << 16);
            }
            request.xor_address(attribute::XOR_PEER_ADDRESS, frame.peer());
        })?;
        Ok(relayed)
    }

    /// One request, repeated with credentials when it is challenged (RFC 8489 §9.2.5); its success answer.
    fn request(
        &mut self,
        client: &mut Connection,
        method: Method,
        fill: impl Fn(&mut Encoder),
    ) -> Result<Vec<u8>> {
        for _ in 0..3 {
            self.transactions += 1;
            let mut id = TransactionId([0; 12]);
            id.0[4..].copy_from_slice(&self.transactions.to_be_bytes());
            let mut request = Encoder::new(Class::Request, method, id);
            fill(&mut request);
            if let Some(challenge) = &self.challenge {
                challenge.sign(&mut request);
            }
            let answer = exchange(client, self.server, &request.finish(), |bytes| {
                Message::parse(bytes).is_ok_and(|answer| answer.transaction_id() == id)
            })?;
            let message = parse(&answer)?;
            if message.class() == Class::Success {
                return Ok(answer);
            }
            let error = message.attribute(attribute::ERROR_CODE).context("an error without a code")?;
            let (code, reason) = error.error_code()?;
            ensure!(matches!(code, 401 | 438), "{method:?} was answered {code} {reason}");
            self.challenge = Some(Challenge::read(&message)?);
        }
        Err(anyhow!("{method:?} is challenged again and again"))
    }
}

impl Challenge {
    /// Without PASSWORD-ALGORITHM the key is MD5 (RFC 8489 §9.2.2).
    pub fn read(answer: &Message<'_>) -> Result<Challenge> {
        let realm = answer.attribute(attribute::REALM).context("a challenge without realm")?.utf8()?;
        let nonce = answer.attribute(attribute::NONCE).context("a challenge without nonce")?.utf8()?;
        let key = Md5::digest(format!("{USER}:{realm}:{PASSWORD}")).into();
        Ok(Challenge { realm: realm.to_owned(), nonce: nonce.to_owned(), key })
    }

    /// Nothing may follow but FINGERPRINT.
    pub fn sign(&self, request: &mut Encoder) {
        request.text(attribute::USERNAME, USER);
        request.text(attribute::REALM, &self.realm);
        request.text(attribute::NONCE, &self.nonce);
        request.integrity_sha1(&self.key);
    }
}

fn parse(bytes: &[u8]) -> Result<Message<'_>> {
    Message::parse(bytes).context("the answer is malformed")
}
