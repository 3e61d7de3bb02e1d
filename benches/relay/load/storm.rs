//! Storms: clients that come, are challenged, allocate, bind a channel and delete their allocation; then others come.
//!
//! A closed loop: every client has one request on its way, so the relay sets the pace and is never short of work.
//! Each has a port of its own, since coturn refuses an address whose allocation was just deleted. The floor is asked
//! the same four times, in datagrams of about the same length.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use serde_json::{Value, json};

use super::allocate::{Challenge, UDP};
use super::tally::Histogram;
use super::{Order, Protocol, Reading};
use crate::clock::Clock;
use crate::floor::storm::Ask;
use crate::sys::Epoll;

/// After so long without an answer a request is repeated.
const PATIENCE: u64 = 500_000_000;
/// A server that starts, or refuses everything, gets so many repetitions from one client.
const TRIES: u32 = 20;
/// Clients have these ports, one after the other.
const PORTS: std::ops::Range<u16> = 10_000..65_000;
const CHANNEL: u32 = 0x4000 << 16;
/// A peer that nobody is.
const PEER_PORT: u16 = 9;

/// Storms for as long as ordered; what was seen.
pub fn run(order: &Order) -> Result<Value> {
    let clock = Clock::start();
    let mut storm = Storm::new(clock, order)?;
    storm.await_server()?;
    let open = clock.now() + (order.warm_up * 1e9) as u64;
    let close = open + (order.seconds * 1e9) as u64;
    let (mut before, mut idle, mut now) = (None, 0, clock.now());
    while now < close {
        if now >= open && before.is_none() {
            before = Some(Reading::take(clock, order));
            (storm.seen, idle) = (Seen::new(), 0);
        }
        let received = storm.receive()?;
        storm.repeat(now)?;
        std::thread::yield_now();
        let then = std::mem::replace(&mut now, clock.now());
        if !received {
            idle += now - then;
        }
    }
    let after = Reading::take(clock, order);
    Ok(storm.seen.report(&before.unwrap_or(after), &after, idle))
}

struct Storm<'a> {
    clock: Clock,
    order: &'a Order,
    epoll: Epoll,
    ports: Ports,
    clients: Vec<Client>,
    /// When to look who waits too long.
    look: u64,
    seen: Seen,
}

/// One client and the request it waits for.
struct Client {
    socket: UdpSocket,
    step: Step,
    challenge: Option<Challenge>,
    /// Counts requests; the id of the one on its way.
    transaction: u64,
    request: Vec<u8>,
    sent: u64,
    tries: u32,
    /// When its allocation was asked for.
    began: u64,
}

#[derive(Clone, Copy)]
enum Step {
    /// To be told the realm and a nonce.
    Introduce,
    Allocate,
    Bind,
    Delete,
}

/// What an answer says.
enum Said {
    Done,
    /// Once more, with these credentials.
    Prove(Challenge),
    /// A refusal, by its code.
    No(u16),
    /// Not an answer to the request on its way.
    Nothing,
}

impl<'a> Storm<'a> {
    fn new(clock: Clock, order: &'a Order) -> Result<Storm<'a>> {
        let epoll = Epoll::new(256)?;
        let mut ports = Ports(PORTS.start);
        let now = clock.now();
        let clients = (0..order.allocations).map(|index| {
            let mut client = Client::new(ports.socket(order)?, now);
            epoll.add(&client.socket, index, false)?;
            client.ask(order, now);
            Ok(client)
        });
        let clients = clients.collect::<Result<_>>()?;
        Ok(Storm { clock, order, epoll, ports, clients, look: 0, seen: Seen::new() })
    }

    /// Repeats the first requests until there is an answer.
    fn await_server(&mut self) -> Result<()> {
        while !self.receive()? {
            self.repeat(self.clock.now())?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Goes on with every client that has an answer; whether there was any.
    fn receive(&mut self) -> Result<bool> {
        let ready = self.epoll.wait(0);
        let mut bytes = [0; 2048];
        for n in 0..ready {
            let index = self.epoll.number(n);
            let client = &mut self.clients[index];
            let Ok(len) = client.socket.recv(&mut bytes) else { continue };
            let now = self.clock.now();
            client.step = match (client.hear(self.order.protocol, &bytes[..len])?, client.step) {
                (Said::Nothing, _) => continue,
                (Said::Prove(challenge), step) => {
                    client.challenge = Some(challenge);
                    if matches!(step, Step::Introduce) { Step::Allocate } else { step }
                }
                (Said::Done, Step::Introduce) => Step::Allocate,
                (Said::Done, Step::Allocate) => Step::Bind,
                (Said::Done, Step::Bind) => Step::Delete,
                (said, _) => {
                    match said {
                        Said::No(code) => self.seen.refused(code),
                        _ => self.seen.whole.add(now - client.began, 1),
                    }
                    *client = Client::new(self.ports.socket(self.order)?, now);
                    self.epoll.add(&client.socket, index, false)?;
                    Step::Introduce
                }
            };
            client.tries = 0;
            client.ask(self.order, now);
        }
        Ok(ready != 0)
    }

    /// Repeats what was not answered for too long.
    fn repeat(&mut self, now: u64) -> Result<()> {
        if now < self.look {
            return Ok(());
        }
        self.look = now + PATIENCE / 5;
        for client in self.clients.iter_mut().filter(|client| now > client.sent + PATIENCE) {
            self.seen.repeated += 1;
            client.tries += 1;
            if client.tries > TRIES {
                bail!("the server does not answer");
            }
            client.send(now);
        }
        Ok(())
    }
}

impl Client {
    fn new(socket: UdpSocket, now: u64) -> Client {
        let (step, request) = (Step::Introduce, Vec::new());
        Client { socket, step, challenge: None, transaction: 0, request, sent: now, tries: 0, began: now }
    }

    /// Sends the request that its step needs.
    fn ask(&mut self, order: &Order, now: u64) {
        self.transaction += 1;
        self.request = match order.protocol {
            Protocol::Turn => self.turn_request(order),
            Protocol::Floor => match self.step {
                Step::Allocate => Ask::Open.write(self.transaction),
                Step::Introduce | Step::Bind => Ask::Nothing.write(self.transaction),
                Step::Delete => Ask::Close.write(self.transaction),
            },
        };
        self.send(now);
    }

    fn send(&mut self, now: u64) {
        self.sent = now;
        // What could not be sent is repeated like what was lost.
        let _ = self.socket.send(&self.request);
    }

    fn turn_request(&self, order: &Order) -> Vec<u8> {
        let method = match self.step {
            Step::Introduce | Step::Allocate => Method::Allocate,
            Step::Bind => Method::ChannelBind,
            Step::Delete => Method::Refresh,
        };
        let mut request = Encoder::new(Class::Request, method, self.id());
        match self.step {
            Step::Introduce | Step::Allocate => request.u32(attribute::REQUESTED_TRANSPORT, UDP),
            Step::Bind => {
                request.u32(attribute::CHANNEL_NUMBER, CHANNEL);
                request.xor_address(attribute::XOR_PEER_ADDRESS, SocketAddr::from((order.ip, PEER_PORT)));
            }
            Step::Delete => request.u32(attribute::LIFETIME, 0),
        }
        if let Some(challenge) = &self.challenge {
            challenge.sign(&mut request);
        }
        request.finish()
    }

    fn id(&self) -> TransactionId {
        let mut id = TransactionId([0; 12]);
        id.0[4..].copy_from_slice(&self.transaction.to_be_bytes());
        id
    }

    fn hear(&self, protocol: Protocol, answer: &[u8]) -> Result<Said> {
        if protocol == Protocol::Floor {
            return Ok(if answer == self.request { Said::Done } else { Said::Nothing });
        }
        let answer = Message::parse(answer).context("the answer is malformed")?;
        if answer.transaction_id() != self.id() {
            return Ok(Said::Nothing);
        }
        if answer.class() == Class::Success {
            return Ok(Said::Done);
        }
        let error = answer.attribute(attribute::ERROR_CODE).context("an error without a code")?;
        Ok(match error.error_code()?.0 {
            401 | 438 => Said::Prove(Challenge::read(&answer)?),
            code => Said::No(code),
        })
    }
}

/// The next client's port.
struct Ports(u16);

impl Ports {
    fn socket(&mut self, order: &Order) -> io::Result<UdpSocket> {
        loop {
            let port = self.0;
            self.0 = if port + 1 == PORTS.end { PORTS.start } else { port + 1 };
            match UdpSocket::bind((order.ip, port)) {
                Ok(socket) => {
                    socket.connect(order.server)?;
                    socket.set_nonblocking(true)?;
                    return Ok(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was counted in the window.
struct Seen {
    /// How long each allocation took, from its request to the answer of its deletion.
    whole: Histogram,
    repeated: u64,
    refused: u64,
    last_refusal: u16,
}

impl Seen {
    fn new() -> Seen {
        Seen { whole: Histogram::new(), repeated: 0, refused: 0, last_refusal: 0 }
    }

    fn refused(&mut self, code: u16) {
        self.refused += 1;
        self.last_refusal = code;
    }

    fn report(&self, before: &Reading, after: &Reading, idle: u64) -> Value {
        let spent = after.since(before);
        let allocations = self.whole.total().max(1) as f64;
        let busy = 1.0 - idle as f64 / 1e9 / spent.seconds;
        let mut behind = Vec::new();
        if self.refused != 0 {
            behind
                .push(format!("{} requests were refused, the last with {}", self.refused, self.last_refusal));
        }
        json!({
            "ns_per_allocation": (spent.server + spent.napi) / allocations,
            "server_ns_per_allocation": spent.server / allocations,
            "napi_ns_per_allocation": spent.napi / allocations,
            "allocations_per_second": allocations / spent.seconds,
            "relay_cpu": spent.relay_cpu(),
            "others_cpu": spent.others,
            "repeated": self.repeated,
            "refused": self.refused,
            "delay_us": {
                "p50": self.whole.quantile(0.5) as f64 / 1e3,
                "p99": self.whole.quantile(0.99) as f64 / 1e3,
            },
            "generator": { "cpu": busy, "behind": behind },
        })
    }
}
