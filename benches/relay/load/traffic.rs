//! The open loop: bursts leave at fixed times, and what arrives is checked and counted.
//!
//! A burst belongs to one path, i.e. one flow in one direction; paths take turns. Bursts that are due in one tick leave
//! together, as a network card with interrupt moderation hands packets over.
//!
//! The loop never sleeps but yields to the kernel thread that receives on its CPU. If it slept, every packet of the
//! relay would wake an idle CPU at the relay's cost, which on virtual machines exceeds everything to be measured. The
//! time that it could have slept is counted.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use nix::sys::epoll::EpollTimeout;
use quinn_udp::Transmit;

use super::args::LoadArgs;
use super::counters::Counters;
use super::flow::{ClientSocket, Flow, PEERS_MAX};
use super::frame::Frame;
use super::stamp::{Path, STAMP, Stamp};
use super::tally::Tally;
use crate::clock::Clock;
use crate::epoll::Epoll;
use crate::stream::{self, FramedStream};
use crate::udp::{ReceiveBatch, UdpEndpoint};

/// The most bursts sent before receiving again, for a generator that is late.
const BURSTS_PER_ROUND: u64 = 64;
/// Bytes read from a stream at a time; TLS uses half of them for ciphertext.
const READ: usize = 256 << 10;
/// Nanoseconds to wait for packets after the last one was sent.
const DRAIN: u64 = 300_000_000;

/// The result of a run.
pub struct Outcome {
    pub tally: Tally,
    /// The kernel's counters at the beginning of the window.
    pub before: Counters,
    /// The kernel's counters at the end of the window.
    pub after: Counters,
    /// Nanoseconds in the window with nothing to send and nothing to receive.
    pub idle: u64,
}

/// Sends for the warm-up and the measured time.
pub fn run(clock: Clock, args: &LoadArgs, flows: &mut [Flow]) -> io::Result<Outcome> {
    let start = clock.now() + 10_000_000;
    let open = start + (args.warm_up * 1e9) as u64;
    let close = open + (args.seconds * 1e9) as u64;
    let interval = 1e9 * args.workload.burst as f64 / args.workload.rate as f64;
    let tick = args.tick * 1000;
    let due = |burst: u64| start + ((burst as f64 * interval) as u64).next_multiple_of(tick);

    let mut receiver = Receiver::new(clock, args, flows, Tally::new(2 * flows.len(), open..close))?;
    let mut sender = Sender::new(clock, args, flows);
    let (mut burst, mut before, mut idle, mut now) = (0, None, 0, clock.now());
    loop {
        if now >= open && before.is_none() {
            before = Some(Counters::read(clock, args));
            idle = 0;
        }
        if now >= close {
            break;
        }
        let (first, last) = (burst, burst + BURSTS_PER_ROUND);
        while burst < last && due(burst) <= now {
            sender.send(flows, burst, due(burst), &mut receiver.tally)?;
            burst += 1;
        }
        let received = receiver.receive(flows)?;
        std::thread::yield_now();
        let then = std::mem::replace(&mut now, clock.now());
        if burst == first && !received {
            idle += now - then;
        }
    }
    let after = Counters::read(clock, args);
    while clock.now() < close + DRAIN {
        receiver.receive(flows)?;
        std::thread::yield_now();
    }
    let before = before.unwrap_or(after);
    Ok(Outcome { tally: receiver.tally, before, after, idle })
}

struct Sender {
    clock: Clock,
    payload: usize,
    packets: usize,
    server: SocketAddr,
    /// The last sequence number of each path.
    sequences: Vec<u32>,
    bytes: Vec<u8>,
}

impl Sender {
    fn new(clock: Clock, args: &LoadArgs, flows: &[Flow]) -> Sender {
        let (payload, packets) = (args.workload.payload, args.workload.burst);
        let longest = flows.iter().map(|flow| flow.frame.len()).max().unwrap_or(0);
        let (sequences, bytes) = (vec![0; 2 * flows.len()], vec![0; packets * longest]);
        Sender { clock, payload, packets, server: args.server.into(), sequences, bytes }
    }

    /// Sends a burst on the path whose turn it is.
    fn send(&mut self, flows: &mut [Flow], burst: u64, due: u64, tally: &mut Tally) -> io::Result<()> {
        let path = Path::from_index((burst % self.sequences.len() as u64) as usize);
        let flow = &mut flows[path.flow];
        let segment = if path.to_client { self.payload } else { flow.frame.len() };
        let now = self.clock.now();
        let bytes = &mut self.bytes[..segment * self.packets];
        for packet in bytes.chunks_exact_mut(segment) {
            let sequence = &mut self.sequences[path.index()];
            *sequence += 1;
            let stamp = Stamp { path, sequence: *sequence, sent: now }.write();
            if path.to_client {
                packet[..STAMP].copy_from_slice(&stamp);
            } else {
                flow.frame.write(packet, &stamp);
            }
        }
        let to = |destination| Transmit {
            destination,
            ecn: None,
            contents: bytes,
            segment_size: Some(segment),
            src_ip: None,
        };
        // A packet that cannot be sent counts as sent, and so as lost.
        match &mut flow.client {
            _ if path.to_client => drop(flow.peer.send(&to(flow.relayed.into()))),
            ClientSocket::Datagram(client) => drop(client.send(&to(self.server))),
            ClientSocket::Stream(client) => drop(client.send(bytes)?),
        }
        tally.sent(now, due, self.packets as u64);
        Ok(())
    }
}

struct Receiver {
    clock: Clock,
    payload: usize,
    /// A socket's token is the index of the path that ends there.
    epoll: Epoll,
    batch: ReceiveBatch,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Receiver {
    fn new(clock: Clock, args: &LoadArgs, flows: &[Flow], tally: Tally) -> io::Result<Receiver> {
        let epoll = Epoll::new(256)?;
        for (index, flow) in flows.iter().enumerate() {
            if index < PEERS_MAX {
                epoll.add(&*flow.peer, Path { flow: index, to_client: false }.index())?;
            }
            epoll.add(&flow.client, Path { flow: index, to_client: true }.index())?;
        }
        let (batch, buffer) = (ReceiveBatch::new(), vec![0; READ]);
        Ok(Receiver { clock, payload: args.workload.payload, epoll, batch, buffer, tally })
    }

    /// Receives everything that has arrived and returns whether there was anything.
    fn receive(&mut self, flows: &mut [Flow]) -> io::Result<bool> {
        let mut any = false;
        loop {
            let ready = self.epoll.wait(EpollTimeout::ZERO);
            any |= ready != 0;
            for n in 0..ready {
                self.receive_from(flows, Path::from_index(self.epoll.token(n)))?;
            }
            if ready < self.epoll.capacity() {
                return Ok(any);
            }
        }
    }

    fn receive_from(&mut self, flows: &mut [Flow], path: Path) -> io::Result<()> {
        if !path.to_client {
            let (peer, payload) = (&flows[path.flow].peer, self.payload);
            self.receive_datagrams(peer, |source, packet| {
                let stamp = Stamp::read(packet).filter(|_| packet.len() == payload)?;
                let flow = flows.get(stamp.path.flow).filter(|_| !stamp.path.to_client)?;
                let is_correct = source == SocketAddr::V4(flow.relayed) && Rc::ptr_eq(peer, &flow.peer);
                is_correct.then_some(stamp)
            });
            return Ok(());
        }
        let Flow { client, frame, .. } = &mut flows[path.flow];
        match client {
            ClientSocket::Datagram(client) => {
                self.receive_datagrams(client, |_, packet| read_at_client(frame, packet, path));
            }
            ClientSocket::Stream(client) => self.receive_messages(client, path, frame)?,
        }
        Ok(())
    }

    /// Receives once from a socket; the epoll returns it again if it has more. `read` returns the stamp of a correct
    /// packet.
    fn receive_datagrams(
        &mut self,
        endpoint: &UdpEndpoint,
        read: impl Fn(SocketAddr, &[u8]) -> Option<Stamp>,
    ) {
        let received = endpoint.receive(&mut self.batch);
        let now = self.clock.now();
        for n in 0..received {
            let source = self.batch.meta(n).addr;
            for packet in self.batch.datagrams(n) {
                count(&mut self.tally, read(source, packet), now);
            }
        }
    }

    fn receive_messages(&mut self, client: &mut FramedStream, path: Path, frame: &Frame) -> io::Result<()> {
        let (len, mut at) = (client.read(&mut self.buffer)?, 0);
        let now = self.clock.now();
        while let Some(message) = stream::message_len(&self.buffer[at..len])? {
            count(&mut self.tally, read_at_client(frame, &self.buffer[at..at + message], path), now);
            at += message;
        }
        client.buffer_remainder(&self.buffer[at..len]);
        Ok(())
    }
}

/// The stamp of a correct message to a client.
fn read_at_client(frame: &Frame, message: &[u8], path: Path) -> Option<Stamp> {
    frame.payload(message).and_then(Stamp::read).filter(|stamp| stamp.path == path)
}

fn count(tally: &mut Tally, stamp: Option<Stamp>, now: u64) {
    match stamp {
        Some(Stamp { path, sequence, sent }) => tally.received(now, path.index(), sequence, sent),
        None => tally.wrong += 1,
    }
}
