//! The open loop: units leave on a fixed grid in time, and what arrives is checked and counted.
//!
//! A unit is a burst of one flow in one direction. Units of all flows and both directions take turns evenly, and
//! those of one tick leave together, as a network card that moderates its interrupts would hand them over.
//!
//! The loop never sleeps, it yields its CPU to the kernel thread that receives there. An idle CPU would have to be
//! woken by whoever sends to it, that is by the relay at its own cost, and on virtual machines that cost exceeds
//! everything that is to be measured. What the loop could have slept is counted instead.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::rc::Rc;

use super::flows::{Connection, Flow, PEERS};
use super::frame::Frame;
use super::tally::Tally;
use super::{Order, Reading};
use crate::clock::Clock;
use crate::stream::{self, Stream};
use crate::sys::{Batch, Epoll, HEADROOM};

/// Flow and direction (4), sequence number (4), time of leaving (8): where every payload begins.
pub const STAMP: usize = 16;
const TO_CLIENT: u32 = 1 << 31;
/// Units that leave in one round at most, so that a late generator still receives.
const UNITS_AT_ONCE: u64 = 64;
const RECEIVE: usize = 16;
/// Bytes that are read from a stream at a time; TLS takes half of them.
const READ: usize = 256 << 10;
/// How long packets may still arrive after the last has left.
const DRAIN: u64 = 300_000_000;

/// What came of it.
pub struct Outcome {
    /// What was counted here.
    pub tally: Tally,
    /// What the kernel had counted when the window opened.
    pub before: Reading,
    /// And when it closed.
    pub after: Reading,
    /// For how long in between there was nothing to send and nothing had arrived.
    pub idle: u64,
}

/// Sends for as long as ordered.
pub fn run(clock: Clock, order: &Order, flows: &mut [Flow]) -> io::Result<Outcome> {
    let start = clock.now() + 10_000_000;
    let open = start + (order.warm_up * 1e9) as u64;
    let close = open + (order.seconds * 1e9) as u64;
    let interval = 1e9 * order.burst as f64 / order.rate as f64;
    let tick = order.tick * 1000;
    let due = |unit: u64| start + ((unit as f64 * interval) as u64).next_multiple_of(tick);

    let mut receiver = Receiver::new(clock, order, flows, Tally::new(2 * flows.len(), open..close))?;
    let mut sender = Sender::new(clock, order, flows);
    let (mut unit, mut before, mut idle, mut now) = (0, None, 0, clock.now());
    loop {
        if now >= open && before.is_none() {
            before = Some(Reading::take(clock, order));
            idle = 0;
        }
        if now >= close {
            break;
        }
        let (first, last) = (unit, unit + UNITS_AT_ONCE);
        while unit < last && due(unit) <= now {
            sender.send(flows, unit, due(unit), &mut receiver.tally)?;
            unit += 1;
        }
        let received = receiver.receive(flows)?;
        std::thread::yield_now();
        let then = std::mem::replace(&mut now, clock.now());
        if unit == first && !received {
            idle += now - then;
        }
    }
    let after = Reading::take(clock, order);
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
    burst: usize,
    sequences: Vec<u32>,
    bytes: Vec<u8>,
}

impl Sender {
    fn new(clock: Clock, order: &Order, flows: &[Flow]) -> Sender {
        let &Order { payload, burst, .. } = order;
        let longest = flows.iter().map(|flow| flow.frame.len()).max().unwrap_or(0);
        let (sequences, bytes) = (vec![0; 2 * flows.len()], vec![0; burst * longest]);
        Sender { clock, payload, burst, sequences, bytes }
    }

    /// Clients and peers take turns, one flow after the other.
    fn send(&mut self, flows: &mut [Flow], unit: u64, due: u64, tally: &mut Tally) -> io::Result<()> {
        let way = (unit % self.sequences.len() as u64) as usize;
        let (flow, to_client) = (&mut flows[way / 2], to_client(way));
        let segment = if to_client { self.payload } else { flow.frame.len() };
        let now = self.clock.now();
        let bytes = &mut self.bytes[..segment * self.burst];
        for packet in bytes.chunks_exact_mut(segment) {
            let sequence = &mut self.sequences[way];
            *sequence += 1;
            let stamp = Stamp { tag: tag(way), sequence: *sequence, left: now }.write();
            if to_client {
                packet[..STAMP].copy_from_slice(&stamp);
            } else {
                flow.frame.write(packet, &stamp);
            }
        }
        // What cannot leave has left all the same: it will be missing.
        match &mut flow.client {
            _ if to_client => drop(flow.peer.send_to(bytes, flow.relayed)),
            Connection::Datagrams(client) => drop(client.send(bytes)),
            Connection::Stream(client) => drop(client.send(bytes)?),
        }
        tally.left(now, due, self.burst as u64);
        Ok(())
    }
}

struct Receiver {
    clock: Clock,
    payload: usize,
    single: bool,
    epoll: Epoll,
    batch: Batch,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Receiver {
    fn new(clock: Clock, order: &Order, flows: &[Flow], tally: Tally) -> io::Result<Receiver> {
        let epoll = Epoll::new(256)?;
        for (index, flow) in flows.iter().enumerate() {
            if index < PEERS {
                epoll.add(&*flow.peer, 2 * index, false)?;
            }
            epoll.add(&flow.client, 2 * index + 1, false)?;
        }
        let (payload, single) = (order.payload, order.burst == 1);
        let (batch, buffer) = (Batch::new(RECEIVE), vec![0; READ]);
        Ok(Receiver { clock, payload, single, epoll, batch, buffer, tally })
    }

    /// Takes everything that has arrived; whether there was any.
    fn receive(&mut self, flows: &mut [Flow]) -> io::Result<bool> {
        let mut any = false;
        loop {
            let ready = self.epoll.wait(0);
            any |= ready != 0;
            for n in 0..ready {
                let way = self.epoll.number(n);
                self.take(flows, way)?;
            }
            if ready < self.epoll.capacity() {
                return Ok(any);
            }
        }
    }

    fn take(&mut self, flows: &mut [Flow], way: usize) -> io::Result<()> {
        if !to_client(way) {
            let (peer, payload) = (&flows[way / 2].peer, self.payload);
            self.datagrams(peer, |from, packet| {
                let stamp = Stamp::read(packet).filter(|_| packet.len() == payload)?;
                let flow = flows.get(stamp.tag as usize)?;
                let right = from == SocketAddr::V4(flow.relayed) && Rc::ptr_eq(peer, &flow.peer);
                right.then_some((2 * stamp.tag as usize, stamp))
            });
            return Ok(());
        }
        let Flow { client, frame, .. } = &mut flows[way / 2];
        match client {
            Connection::Datagrams(client) => {
                self.datagrams(client, |_, packet| at_client(frame, packet, way));
            }
            Connection::Stream(client) => self.messages(client, way, frame)?,
        }
        Ok(())
    }

    /// `read` says which way a packet came, if it is right.
    fn datagrams(&mut self, socket: &UdpSocket, read: impl Fn(SocketAddr, &[u8]) -> Option<(usize, Stamp)>) {
        if self.single {
            // Most sockets have one packet at a time; the epoll names those again that have more.
            if let Ok((len, from)) = socket.recv_from(&mut self.buffer) {
                count(&mut self.tally, read(from, &self.buffer[..len]), self.clock.now());
            }
            return;
        }
        let received = self.batch.receive(socket.as_fd(), 0, RECEIVE);
        let now = self.clock.now();
        for slot in 0..received {
            let from = SocketAddr::V4(self.batch.from(slot));
            let (len, segment) = (self.batch.len(slot), self.batch.envelope(slot).segment);
            let segment = if segment == 0 { len.max(1) } else { segment };
            for packet in self.batch.bytes(slot)[HEADROOM..HEADROOM + len].chunks(segment) {
                count(&mut self.tally, read(from, packet), now);
            }
        }
    }

    fn messages(&mut self, client: &mut Stream, way: usize, frame: &Frame) -> io::Result<()> {
        let (len, mut at) = (client.read(&mut self.buffer)?, 0);
        let now = self.clock.now();
        while let Some(message) = stream::message(&self.buffer[at..len])? {
            count(&mut self.tally, at_client(frame, &self.buffer[at..at + message], way), now);
            at += message;
        }
        client.keep(&self.buffer[at..len]);
        Ok(())
    }
}

/// What a client was sent, if it is what it should be.
fn at_client(frame: &Frame, packet: &[u8], way: usize) -> Option<(usize, Stamp)> {
    let stamp = frame.payload(packet).and_then(Stamp::read)?;
    (stamp.tag == tag(way)).then_some((way, stamp))
}

/// A packet that arrived, and which way if it was right.
fn count(tally: &mut Tally, packet: Option<(usize, Stamp)>, now: u64) {
    match packet {
        Some((way, stamp)) => tally.came(now, way, stamp.sequence, stamp.left),
        None => tally.wrong += 1,
    }
}

/// Flow and direction.
fn tag(way: usize) -> u32 {
    (way / 2) as u32 | if to_client(way) { TO_CLIENT } else { 0 }
}

/// A flow has the numbers of two ways, this one's is odd.
fn to_client(way: usize) -> bool {
    way % 2 == 1
}

struct Stamp {
    tag: u32,
    sequence: u32,
    left: u64,
}

impl Stamp {
    fn write(&self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..4].copy_from_slice(&self.tag.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.left.to_be_bytes());
        bytes
    }

    fn read(payload: &[u8]) -> Option<Stamp> {
        let (tag, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (left, _) = rest.split_first_chunk()?;
        Some(Stamp {
            tag: u32::from_be_bytes(*tag),
            sequence: u32::from_be_bytes(*sequence),
            left: u64::from_be_bytes(*left),
        })
    }
}
