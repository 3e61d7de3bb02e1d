//! Storms: clients that are challenged, make an allocation, bind a channel and delete the allocation, again and again.
//!
//! This is a closed loop: every client has one request in flight, so the relay is never short of work. Each allocation
//! has its own client port, because coturn refuses a 5-tuple whose allocation was just deleted. The minimal relay
//! gets the same number of requests, of about the same length. The sockets are std's: each carries a few single
//! requests, for which quinn-udp would only add the cost of its socket options.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use hairpin::wire::{Class, Encoder, Message, Method, TransactionId, attribute};
use nix::sys::epoll::EpollTimeout;
use serde_json::{Value, json};

use super::args::LoadArgs;
use super::counters::Counters;
use super::setup::UDP;
use super::tally::Histogram;
use crate::clock::Clock;
use crate::credentials::{Challenge, PASSWORD};
use crate::epoll::Epoll;
use crate::floor::protocol::StormRequest;
use crate::workload::SetupProtocol;

/// Nanoseconds after which a request without response is sent again.
const TIMEOUT: u64 = 500_000_000;
/// Retransmissions per request, enough for a server that is still starting.
const TRIES: u32 = 20;
const CLIENT_PORTS: Range<u16> = 10_000..65_000;
const CHANNEL: u32 = 0x4000 << 16;
/// A peer that does not exist.
const PEER_PORT: u16 = 9;

/// Storms for the warm-up and the measured time, and returns the figures.
pub fn run(args: &LoadArgs) -> Result<Value> {
    let clock = Clock::start();
    let mut storm = Storm::new(clock, args)?;
    storm.await_server()?;
    let open = clock.now() + (args.warm_up * 1e9) as u64;
    let close = open + (args.seconds * 1e9) as u64;
    let (mut before, mut idle, mut now) = (None, 0, clock.now());
    while now < close {
        if now >= open && before.is_none() {
            before = Some(Counters::read(clock, args));
            (storm.tally, idle) = (StormTally::new(), 0);
        }
        let received = storm.receive()?;
        storm.retransmit(now)?;
        std::thread::yield_now();
        let then = std::mem::replace(&mut now, clock.now());
        if !received {
            idle += now - then;
        }
    }
    let after = Counters::read(clock, args);
    Ok(storm.tally.report(&before.unwrap_or(after), &after, idle))
}

struct Storm<'a> {
    clock: Clock,
    args: &'a LoadArgs,
    epoll: Epoll,
    ports: ClientPorts,
    clients: Vec<StormClient>,
    /// When to look for requests without response.
    next_check: u64,
    tally: StormTally,
}

/// A client and its request in flight.
struct StormClient {
    socket: UdpSocket,
    step: Step,
    challenge: Option<Challenge>,
    /// The number of the request, from which its transaction id is made.
    transaction: u64,
    request: Vec<u8>,
    sent: u64,
    tries: u32,
    /// The time of the first request.
    began: u64,
}

#[derive(Clone, Copy)]
enum Step {
    /// An Allocate request without credentials, which is challenged.
    Challenge,
    Allocate,
    Bind,
    Delete,
}

enum Response {
    Success,
    Challenge(Challenge),
    /// An error response with this code.
    Error(u16),
    /// A response to an earlier request.
    Stale,
}

impl<'a> Storm<'a> {
    fn new(clock: Clock, args: &'a LoadArgs) -> Result<Storm<'a>> {
        let epoll = Epoll::new(256)?;
        let mut ports = ClientPorts(CLIENT_PORTS.start);
        let now = clock.now();
        let clients = (0..args.workload.allocations).map(|index| {
            let mut client = StormClient::new(ports.connect(args)?, now);
            epoll.add(&client.socket, index)?;
            client.send_request(args, now);
            Ok(client)
        });
        let clients = clients.collect::<Result<_>>()?;
        Ok(Storm { clock, args, epoll, ports, clients, next_check: 0, tally: StormTally::new() })
    }

    /// Retransmits the first requests until there is a response.
    fn await_server(&mut self) -> Result<()> {
        while !self.receive()? {
            self.retransmit(self.clock.now())?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Continues with every client that has a response, and returns whether there was one.
    fn receive(&mut self) -> Result<bool> {
        let ready = self.epoll.wait(EpollTimeout::ZERO);
        let mut bytes = [0; 2048];
        for n in 0..ready {
            let index = self.epoll.token(n);
            let client = &mut self.clients[index];
            let Ok(len) = client.socket.recv(&mut bytes) else { continue };
            let now = self.clock.now();
            client.step = match (client.read(self.args.setup, &bytes[..len])?, client.step) {
                (Response::Stale, _) => continue,
                (Response::Challenge(challenge), step) => {
                    client.challenge = Some(challenge);
                    if matches!(step, Step::Challenge) { Step::Allocate } else { step }
                }
                (Response::Success, Step::Challenge) => Step::Allocate,
                (Response::Success, Step::Allocate) => Step::Bind,
                (Response::Success, Step::Bind) => Step::Delete,
                (response, _) => {
                    match response {
                        Response::Error(code) => self.tally.error(code),
                        _ => self.tally.duration.add(now - client.began, 1),
                    }
                    *client = StormClient::new(self.ports.connect(self.args)?, now);
                    self.epoll.add(&client.socket, index)?;
                    Step::Challenge
                }
            };
            client.tries = 0;
            client.send_request(self.args, now);
        }
        Ok(ready != 0)
    }

    /// Retransmits requests that have waited too long.
    fn retransmit(&mut self, now: u64) -> Result<()> {
        if now < self.next_check {
            return Ok(());
        }
        self.next_check = now + TIMEOUT / 5;
        for client in self.clients.iter_mut().filter(|client| now > client.sent + TIMEOUT) {
            self.tally.retransmissions += 1;
            client.tries += 1;
            if client.tries > TRIES {
                bail!("the server does not respond");
            }
            client.send(now);
        }
        Ok(())
    }
}

impl StormClient {
    fn new(socket: UdpSocket, now: u64) -> StormClient {
        let (step, request) = (Step::Challenge, Vec::new());
        StormClient {
            socket,
            step,
            challenge: None,
            transaction: 0,
            request,
            sent: now,
            tries: 0,
            began: now,
        }
    }

    /// Sends the request of its step.
    fn send_request(&mut self, args: &LoadArgs, now: u64) {
        self.transaction += 1;
        self.request = match args.setup {
            SetupProtocol::Turn => self.turn_request(args.peer_ip),
            SetupProtocol::Floor => match self.step {
                Step::Allocate => StormRequest::Open.write(self.transaction),
                Step::Challenge | Step::Bind => StormRequest::Echo.write(self.transaction),
                Step::Delete => StormRequest::Close.write(self.transaction),
            },
        };
        self.send(now);
    }

    fn send(&mut self, now: u64) {
        self.sent = now;
        // A request that cannot be sent is retransmitted like one that was lost.
        let _ = self.socket.send(&self.request);
    }

    fn turn_request(&self, peer_ip: Ipv4Addr) -> Vec<u8> {
        let method = match self.step {
            Step::Challenge | Step::Allocate => Method::Allocate,
            Step::Bind => Method::ChannelBind,
            Step::Delete => Method::Refresh,
        };
        let mut request = Encoder::new(Class::Request, method, self.id());
        match self.step {
            Step::Challenge | Step::Allocate => request.u32(attribute::REQUESTED_TRANSPORT, UDP),
            Step::Bind => {
                let peer = SocketAddr::V4(SocketAddrV4::new(peer_ip, PEER_PORT));
                request.u32(attribute::CHANNEL_NUMBER, CHANNEL);
                request.xor_address(attribute::XOR_PEER_ADDRESS, peer);
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

    fn read(&self, setup: SetupProtocol, response: &[u8]) -> Result<Response> {
        if setup == SetupProtocol::Floor {
            return Ok(if response == self.request { Response::Success } else { Response::Stale });
        }
        let response = Message::parse(response).context("the response is malformed")?;
        if response.transaction_id() != self.id() {
            return Ok(Response::Stale);
        }
        if response.class() == Class::Success {
            return Ok(Response::Success);
        }
        let error = response.attribute(attribute::ERROR_CODE).context("an error response without a code")?;
        Ok(match error.error_code()?.0 {
            401 | 438 => Response::Challenge(Challenge::read(&response, PASSWORD)?),
            code => Response::Error(code),
        })
    }
}

/// The port of the next client.
struct ClientPorts(u16);

impl ClientPorts {
    fn connect(&mut self, args: &LoadArgs) -> io::Result<UdpSocket> {
        loop {
            let port = self.0;
            self.0 = if port + 1 == CLIENT_PORTS.end { CLIENT_PORTS.start } else { port + 1 };
            match UdpSocket::bind((args.client_ip, port)) {
                Ok(socket) => {
                    socket.connect(args.server)?;
                    socket.set_nonblocking(true)?;
                    return Ok(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was counted in the measured time.
struct StormTally {
    /// The duration of each allocation, from its first request to the response to its deletion.
    duration: Histogram,
    retransmissions: u64,
    errors: u64,
    last_error: u16,
}

impl StormTally {
    fn new() -> StormTally {
        StormTally { duration: Histogram::new(), retransmissions: 0, errors: 0, last_error: 0 }
    }

    fn error(&mut self, code: u16) {
        self.errors += 1;
        self.last_error = code;
    }

    fn report(&self, before: &Counters, after: &Counters, idle: u64) -> Value {
        let usage = after.since(before);
        let allocations = self.duration.total().max(1) as f64;
        let busy = 1.0 - idle as f64 / 1e9 / usage.seconds;
        let mut warnings = Vec::new();
        if self.errors != 0 {
            warnings.push(format!("{} requests failed, the last with {}", self.errors, self.last_error));
        }
        json!({
            "ns_per_allocation": (usage.server + usage.server_napi) / allocations,
            "server_ns_per_allocation": usage.server / allocations,
            "napi_ns_per_allocation": usage.server_napi / allocations,
            "allocations_per_second": allocations / usage.seconds,
            "relay_cpu": usage.relay_cpu(),
            "others_cpu": usage.others,
            "retransmissions": self.retransmissions,
            "errors": self.errors,
            "delay_us": {
                "p50": self.duration.quantile(0.5) as f64 / 1e3,
                "p99": self.duration.quantile(0.99) as f64 / 1e3,
            },
            "generator": { "cpu": busy },
            "warnings": warnings,
        })
    }
}
