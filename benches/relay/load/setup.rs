//! Makes the allocations: over TURN with long-term credentials (RFC 8656 §7, §12), or with the requests of the minimal
//! relay.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use rustls::ClientConfig;

use super::args::LoadArgs;
use super::flow::{self, ClientSocket, Flow};
use super::frame::Frame;
use crate::credentials::{Challenge, PASSWORD};
use crate::floor::protocol::AllocationRequest;
use crate::stream::FramedStream;
use crate::tls;
use crate::workload::{ClientTransport, Framing, SetupProtocol};

/// The first channel number. Numbers repeat after 4096 allocations, which have clients of their own.
const FIRST_CHANNEL: u16 = 0x4000;
const CHANNELS: usize = 0x1000;
/// REQUESTED-TRANSPORT: UDP.
pub const UDP: u32 = 17 << 24;
/// Attempts to reach a server that is still starting.
const TRIES: u32 = 40;
const TIMEOUT: Duration = Duration::from_millis(250);
const RESPONSE_MAX: usize = 64 << 10;

/// Makes every allocation.
pub fn open(args: &LoadArgs) -> Result<Vec<Flow>> {
    let allocations = args.workload.allocations;
    let mut flows: Vec<Flow> = Vec::with_capacity(allocations);
    let mut turn = TurnClient { server: args.server, challenge: None, transactions: 0 };
    let tls = args.certificate.as_deref().map(tls::client_config).transpose()?;
    for index in 0..allocations {
        let mut client = connect(args, tls.as_ref())?;
        let peer = match flows.get(index % flow::PEERS_MAX) {
            Some(other) => Rc::clone(&other.peer),
            None => Rc::new(flow::bind_peer(args).context("binding a peer's socket")?),
        };
        let channel = FIRST_CHANNEL + (index % CHANNELS) as u16;
        let peer_address = peer.address()?;
        let frame = Frame::new(&args.workload, channel, peer_address);
        let relayed = match args.setup {
            SetupProtocol::Turn => turn.allocate(&mut client, &frame)?,
            SetupProtocol::Floor => {
                let (header, last) = (frame.header_to_client(), index + 1 == allocations);
                let request = AllocationRequest { peer: peer_address, header, last }.write();
                let port = exchange(&mut client, args.server, &request, |response| response.len() == 2)?;
                SocketAddrV4::new(*args.server.ip(), u16::from_be_bytes([port[0], port[1]]))
            }
        };
        flows.push(Flow::new(client, peer, frame, relayed, args.server)?);
    }
    Ok(flows)
}

fn connect(args: &LoadArgs, tls: Option<&Arc<ClientConfig>>) -> Result<ClientSocket> {
    if args.workload.transport == ClientTransport::Udp {
        return Ok(ClientSocket::Datagram(flow::bind_client(args)?));
    }
    let from = SocketAddrV4::new(args.client_ip, 0);
    for _ in 0..TRIES {
        match FramedStream::connect(from, args.server, tls) {
            Ok(stream) => {
                stream.set_read_timeout(TIMEOUT)?;
                return Ok(ClientSocket::Stream(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::thread::sleep(TIMEOUT),
            Err(error) => return Err(error).context("connecting to the server"),
        }
    }
    bail!("the server refuses connections")
}

/// Sends a request, again if necessary, until there is a response that `accept` accepts.
fn exchange(
    client: &mut ClientSocket,
    server: SocketAddrV4,
    request: &[u8],
    accept: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    match client {
        ClientSocket::Datagram(endpoint) => exchange_datagrams(endpoint.socket(), server, request, accept),
        ClientSocket::Stream(stream) => exchange_over_stream(stream, request, accept),
    }
}

fn exchange_datagrams(
    socket: &UdpSocket,
    server: SocketAddrV4,
    request: &[u8],
    accept: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut bytes = [0; 2048];
    for _ in 0..TRIES {
        socket.send_to(request, server)?;
        while let Ok((len, source)) = socket.recv_from(&mut bytes) {
            if source == SocketAddr::V4(server) && accept(&bytes[..len]) {
                return Ok(bytes[..len].to_vec());
            }
        }
    }
    bail!("the server does not respond")
}

/// A stream carries nothing but the response, which may arrive in parts.
fn exchange_over_stream(
    stream: &mut FramedStream,
    request: &[u8],
    accept: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>> {
    stream.send(request)?;
    let mut bytes = vec![0; RESPONSE_MAX];
    for _ in 0..TRIES {
        let len = stream.read(&mut bytes)?;
        if accept(&bytes[..len]) {
            return Ok(bytes[..len].to_vec());
        }
        stream.buffer_remainder(&bytes[..len]);
    }
    bail!("the server does not respond")
}

/// The requests of a TURN client.
struct TurnClient {
    server: SocketAddrV4,
    challenge: Option<Challenge>,
    transactions: u64,
}

impl TurnClient {
    /// Makes an allocation with a channel or a permission, and returns the relayed transport address.
    fn allocate(&mut self, client: &mut ClientSocket, frame: &Frame) -> Result<SocketAddrV4> {
        // A nonce may be bound to the client that received it.
        self.challenge = None;
        let response = self.request(client, Method::Allocate, |request| {
            request.u32(attribute::REQUESTED_TRANSPORT, UDP);
        })?;
        let response = parse(&response)?;
        let relayed = response.attribute(attribute::XOR_RELAYED_ADDRESS).context("no relayed address")?;
        let SocketAddr::V4(relayed) = relayed.xor_address()? else {
            bail!("the relayed address is not IPv4")
        };
        let method = match frame.framing() {
            Framing::Channel => Method::ChannelBind,
            Framing::Indication => Method::CreatePermission,
        };
        self.request(client, method, |request| {
            if frame.framing() == Framing::Channel {
                request.u32(attribute::CHANNEL_NUMBER, u32::from(frame.channel()) << 16);
            }
            request.xor_address(attribute::XOR_PEER_ADDRESS, frame.peer());
        })?;
        Ok(relayed)
    }

    /// Sends a request, again with credentials when it is challenged (RFC 8489 §9.2.5), and returns the success
    /// response.
    fn request(
        &mut self,
        client: &mut ClientSocket,
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
            let response = exchange(client, self.server, &request.finish(), |bytes| {
                Message::parse(bytes).is_ok_and(|response| response.transaction_id() == id)
            })?;
            let message = parse(&response)?;
            if message.class() == Class::Success {
                return Ok(response);
            }
            let error =
                message.attribute(attribute::ERROR_CODE).context("an error response without a code")?;
            let (code, reason) = error.error_code()?;
            ensure!(matches!(code, 401 | 438), "{method:?} failed: {code} {reason}");
            self.challenge = Some(Challenge::read(&message, PASSWORD)?);
        }
        Err(anyhow!("the server keeps challenging {method:?} requests"))
    }
}

fn parse(bytes: &[u8]) -> Result<Message<'_>> {
    Message::parse(bytes).context("the response is malformed")
}
