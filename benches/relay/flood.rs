//! Strangers: thousands of senders, each with its own address and port, that never get an allocation.
//!
//! Like the load generator this is an open loop, but it sleeps between its ticks, because nothing here is measured.
//! Responses are received and discarded, except for the challenges that requests with a wrong password need.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use clap::Args;
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use quinn_udp::Transmit;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::clock::Clock;
use crate::credentials::Challenge;
use crate::testbed::STRANGERS_NETWORK;
use crate::udp::{BATCH, ReceiveBatch, UdpEndpoint};
use crate::workload::{StrangerMessage, Strangers};

/// Arguments of the process that floods.
#[derive(Args)]
pub struct FloodArgs {
    /// The relay's address for clients.
    #[arg(long)]
    server: SocketAddrV4,
    #[command(flatten)]
    strangers: Strangers,
    /// Seconds until the end.
    #[arg(long)]
    seconds: f64,
}

/// Sockets, and so source ports. Stranger n uses socket n modulo this number.
const SOCKETS: usize = 16;
/// Datagrams that leave one socket before the next one takes over.
const DATAGRAMS_PER_TURN: u64 = 64;
const TICK: Duration = Duration::from_millis(1);
const GARBAGE_MAX: usize = 1200;
/// REQUESTED-TRANSPORT: UDP.
const UDP: u32 = 17 << 24;
const WRONG_PASSWORD: &str = "wrong-horse";

/// Floods until the time is over.
pub fn run(args: &FloodArgs) -> io::Result<()> {
    let mut flood = Flood::new(args)?;
    let clock = Clock::start();
    let (mut sent, mut turn) = (0, 0);
    loop {
        let elapsed = clock.now();
        if elapsed as f64 >= args.seconds * 1e9 {
            return Ok(());
        }
        let due = (elapsed as u128 * u128::from(args.strangers.rate) / 1_000_000_000) as u64;
        while sent < due {
            let count = DATAGRAMS_PER_TURN.min(due - sent);
            flood.receive(turn % SOCKETS);
            flood.send(turn % SOCKETS, count);
            sent += count;
            turn += 1;
        }
        std::thread::sleep(TICK);
    }
}

struct Flood {
    server: SocketAddrV4,
    message: StrangerMessage,
    sockets: Vec<UdpEndpoint>,
    /// The next stranger of each socket.
    next: Vec<usize>,
    /// The last challenge of each stranger.
    challenges: Vec<Option<Challenge>>,
    received: ReceiveBatch,
    rng: StdRng,
}

impl Flood {
    fn new(args: &FloodArgs) -> io::Result<Flood> {
        let Strangers { message, sources, rate } = args.strangers;
        let sockets = (0..SOCKETS).map(|_| UdpEndpoint::bind_with_offload(Ipv4Addr::UNSPECIFIED, 0));
        Ok(Flood {
            server: args.server,
            message,
            sockets: sockets.collect::<io::Result<_>>()?,
            next: (0..SOCKETS).collect(),
            challenges: (0..sources.max(SOCKETS)).map(|_| None).collect(),
            received: ReceiveBatch::new(),
            rng: StdRng::seed_from_u64(rate),
        })
    }

    /// Sends a datagram from each of the next strangers of a socket.
    fn send(&mut self, socket: usize, count: u64) {
        for _ in 0..count {
            let stranger = self.next[socket];
            let next = stranger + SOCKETS;
            self.next[socket] = if next < self.challenges.len() { next } else { socket };
            let contents = &self.datagram(stranger);
            let src_ip = Some(IpAddr::V4(address(*self.server.ip(), stranger)));
            let destination = self.server.into();
            let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
            // A full queue drops datagrams, as a network would.
            let _ = self.sockets[socket].send(&transmit);
        }
    }

    /// Receives all responses of a socket.
    fn receive(&mut self, socket: usize) {
        loop {
            let received = self.sockets[socket].receive(&mut self.received);
            if self.message == StrangerMessage::Passwords {
                (0..received).for_each(|n| self.read_challenges(n));
            }
            if received < BATCH {
                return;
            }
        }
    }

    fn read_challenges(&mut self, n: usize) {
        let Some(IpAddr::V4(to)) = self.received.meta(n).dst_ip else { return };
        let stranger = to.to_bits().wrapping_sub(address(*self.server.ip(), 0).to_bits()) as usize;
        let Some(challenge) = self.challenges.get_mut(stranger) else { return };
        for response in self.received.datagrams(n) {
            let Ok(response) = Message::parse(response) else { continue };
            *challenge = Challenge::read(&response, WRONG_PASSWORD).ok().or(challenge.take());
        }
    }

    fn datagram(&mut self, stranger: usize) -> Vec<u8> {
        let id = TransactionId(self.rng.random());
        let mut request = match self.message {
            StrangerMessage::Garbage => return garbage(&mut self.rng),
            StrangerMessage::Binding => return Encoder::new(Class::Request, Method::Binding, id).finish(),
            StrangerMessage::Requests | StrangerMessage::Passwords => {
                Encoder::new(Class::Request, Method::Allocate, id)
            }
        };
        request.u32(attribute::REQUESTED_TRANSPORT, UDP);
        if let Some(challenge) = &self.challenges[stranger] {
            challenge.sign(&mut request);
        }
        request.finish()
    }
}

/// A stranger's address: on the clients' host, or on the loopback device without namespaces.
pub fn address(server: Ipv4Addr, stranger: usize) -> Ipv4Addr {
    let network = if server.is_loopback() { Ipv4Addr::new(127, 64, 0, 0) } else { STRANGERS_NETWORK.0 };
    Ipv4Addr::from_bits(network.to_bits() + 1 + stranger as u32)
}

/// Random bytes. Two thirds begin like ChannelData or a Send indication, so that they reach the queue of the calls'
/// packets.
fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..=GARBAGE_MAX)];
    rng.fill_bytes(&mut bytes);
    match (rng.random_range(0..3), &mut bytes[..]) {
        (0, [first, ..]) => *first = 0x40 | *first & 0x0F,
        (1, [first, second, ..]) => (*first, *second) = (0x00, 0x16),
        _ => {}
    }
    bytes
}
