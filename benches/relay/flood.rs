//! Strangers: thousands of senders without an allocation, each with an address and a port of its own, who send what gets
//! them nowhere.
//!
//! An open loop like the generator's, but one that sleeps between its ticks: it is not what is measured. Answers are
//! received and thrown away, but for the nonces that a wrong password needs.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::case::Nuisance;
use crate::clock::Clock;
use crate::contestant::USER;
use crate::sys::{self, Batch, Envelope, HEADROOM};
use crate::testbed::STRANGERS;

/// What a flooding process is told to do.
#[derive(Args, Clone)]
pub struct Order {
    /// The relay.
    #[arg(long)]
    pub server: SocketAddrV4,
    /// What is sent.
    #[arg(long)]
    pub kind: Nuisance,
    /// Addresses it comes from.
    #[arg(long)]
    pub sources: usize,
    /// Datagrams a second.
    #[arg(long)]
    pub rate: u64,
    /// How long.
    #[arg(long)]
    pub seconds: f64,
}

/// Ports that strangers send from, each of them from one.
const PORTS: usize = 16;
/// Datagrams in one system call.
const CALL: usize = 64;
const TICK: Duration = Duration::from_millis(1);
/// The longest garbage.
const LONGEST: usize = 1200;
const UDP: u32 = 17 << 24;

/// Floods until its time is over.
pub fn run(order: &Order) -> io::Result<()> {
    let mut strangers = Strangers::new(order)?;
    let clock = Clock::start();
    let (mut sent, mut turn) = (0, 0);
    loop {
        let elapsed = clock.now();
        if elapsed as f64 >= order.seconds * 1e9 {
            return Ok(());
        }
        let due = (elapsed as u128 * u128::from(order.rate) / 1_000_000_000) as u64;
        while sent < due {
            let count = CALL.min((due - sent) as usize);
            strangers.listen(turn % PORTS);
            strangers.send(turn % PORTS, count);
            sent += count as u64;
            turn += 1;
        }
        std::thread::sleep(TICK);
    }
}

struct Strangers {
    server: SocketAddrV4,
    kind: Nuisance,
    sockets: Vec<UdpSocket>,
    /// Whose turn it is, of those of each socket.
    next: Vec<usize>,
    /// What each was told to come back with.
    challenges: Vec<Option<Challenge>>,
    batch: Batch,
    rng: StdRng,
}

struct Challenge {
    realm: String,
    nonce: String,
}

impl Strangers {
    fn new(order: &Order) -> io::Result<Strangers> {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            sys::receive_marks(&socket)?;
            Ok(socket)
        };
        let sockets = (0..PORTS).map(|_| socket()).collect::<io::Result<_>>()?;
        Ok(Strangers {
            server: order.server,
            kind: order.kind,
            sockets,
            next: (0..PORTS).collect(),
            challenges: (0..order.sources.max(PORTS)).map(|_| None).collect(),
            batch: Batch::new(CALL),
            rng: StdRng::seed_from_u64(order.rate),
        })
    }

    /// A datagram from each of the next few of a socket's strangers.
    fn send(&mut self, socket: usize, count: usize) {
        for slot in 0..count {
            let stranger = self.next[socket];
            let next = stranger + PORTS;
            self.next[socket] = if next < self.challenges.len() { next } else { socket };
            let said = self.say(stranger);
            let range = HEADROOM..HEADROOM + said.len();
            self.batch.bytes(slot)[range.clone()].copy_from_slice(&said);
            let envelope =
                Envelope { local: Some(address(*self.server.ip(), stranger)), ..Envelope::default() };
            self.batch.aim(slot, self.server, range, envelope);
        }
        self.batch.send(self.sockets[socket].as_fd(), 0..count);
    }

    /// Takes what has come to a socket.
    fn listen(&mut self, socket: usize) {
        let received = self.batch.receive(self.sockets[socket].as_fd(), 0, CALL);
        if self.kind != Nuisance::Passwords {
            return;
        }
        for slot in 0..received {
            let Some(to) = self.batch.envelope(slot).local else { continue };
            let stranger = u32::from(to).wrapping_sub(u32::from(address(*self.server.ip(), 0))) as usize;
            let len = self.batch.len(slot);
            let answer = &self.batch.bytes(slot)[HEADROOM..HEADROOM + len];
            if let Some(challenge) = self.challenges.get_mut(stranger) {
                *challenge = Challenge::read(answer).or(challenge.take());
            }
        }
    }

    fn say(&mut self, stranger: usize) -> Vec<u8> {
        let id = TransactionId(self.rng.random());
        let mut request = match self.kind {
            Nuisance::Garbage => return garbage(&mut self.rng),
            Nuisance::Binding => return Encoder::new(Class::Request, Method::Binding, id).finish(),
            Nuisance::Requests | Nuisance::Passwords => Encoder::new(Class::Request, Method::Allocate, id),
        };
        request.u32(attribute::REQUESTED_TRANSPORT, UDP);
        if let Some(challenge) = &self.challenges[stranger] {
            request.text(attribute::USERNAME, USER);
            request.text(attribute::REALM, &challenge.realm);
            request.text(attribute::NONCE, &challenge.nonce);
            request.integrity_sha1(&self.rng.random::<[u8; 16]>());
        }
        request.finish()
    }
}

impl Challenge {
    fn read(answer: &[u8]) -> Option<Challenge> {
        let answer = Message::parse(answer).ok()?;
        let text = |kind| Some(answer.attribute(kind)?.utf8().ok()?.to_owned());
        Some(Challenge { realm: text(attribute::REALM)?, nonce: text(attribute::NONCE)? })
    }
}

/// Where a stranger lives: on the clients' host, or on the loopback device with everybody else.
fn address(server: Ipv4Addr, stranger: usize) -> Ipv4Addr {
    let network = if server.is_loopback() { Ipv4Addr::new(127, 64, 0, 0) } else { STRANGERS.0 };
    Ipv4Addr::from_bits(network.to_bits() + 1 + stranger as u32)
}

/// Random bytes; of two in three the beginning is that of ChannelData or a Send indication, so that they get into the
/// queue of the calls' packets.
fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..=LONGEST)];
    rng.fill_bytes(&mut bytes);
    match (rng.random_range(0..3), &mut bytes[..]) {
        (0, [first, ..]) => *first = 0x40 | *first & 0x0F,
        (1, [first, second, ..]) => (*first, *second) = (0x00, 0x16),
        _ => {}
    }
    bytes
}
