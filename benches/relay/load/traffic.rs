//! The open loop: units leave on a fixed grid in time, and what arrives is checked and counted.
//!
//! A unit is a burst of one flow in one direction. Units of all flows and both directions take turns evenly, and
//! those of one tick leave together, as a network card that moderates its interrupts would hand them over.
//!
//! The loop never sleeps, it yields its CPU to the kernel thread that receives there. An idle CPU would have to be
//! woken by whoever sends to it, that is by the relay at its own cost, and on virtual machines that cost exceeds
//! everything that is to be measured. What the loop could have slept is counted instead.

use std::io;
use std::os::fd::AsFd;

use hairpin::wire::{CHANNEL_HEADER, ChannelHeader};

use super::flows::Flow;
use super::tally::Tally;
use super::{Order, Reading};
use crate::clock::Clock;
use crate::sys::{Batch, Epoll, HEADROOM};

/// Flow and direction (4), sequence number (4), time of leaving (8): where every payload begins.
pub const STAMP: usize = 16;
const TO_CLIENT: u32 = 1 << 31;
/// Units that leave in one round at most, so that a late generator still receives.
const UNITS_AT_ONCE: u64 = 64;
const RECEIVE: usize = 16;
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
pub fn run(clock: Clock, order: &Order, flows: &[Flow]) -> io::Result<Outcome> {
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
            sender.send(unit, due(unit), &mut receiver.tally);
            unit += 1;
        }
        let received = receiver.receive();
        std::thread::yield_now();
        let then = std::mem::replace(&mut now, clock.now());
        if unit == first && !received {
            idle += now - then;
        }
    }
    let after = Reading::take(clock, order);
    while clock.now() < close + DRAIN {
        receiver.receive();
        std::thread::yield_now();
    }
    let before = before.unwrap_or(after);
    Ok(Outcome { tally: receiver.tally, before, after, idle })
}

struct Sender<'a> {
    clock: Clock,
    payload: usize,
    burst: usize,
    flows: &'a [Flow],
    sequences: Vec<u32>,
    bytes: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn new(clock: Clock, order: &Order, flows: &'a [Flow]) -> Sender<'a> {
        let &Order { payload, burst, .. } = order;
        let bytes = vec![0; burst * (CHANNEL_HEADER + payload)];
        Sender { clock, payload, burst, flows, sequences: vec![0; 2 * flows.len()], bytes }
    }

    /// Clients and peers take turns, one flow after the other.
    fn send(&mut self, unit: u64, due: u64, tally: &mut Tally) {
        let way = (unit % self.sequences.len() as u64) as usize;
        let (index, to_client) = (way / 2, way % 2 == 1);
        let flow = &self.flows[index];
        let header = if to_client { 0 } else { CHANNEL_HEADER };
        let segment = header + self.payload;
        let now = self.clock.now();
        let bytes = &mut self.bytes[..segment * self.burst];
        for packet in bytes.chunks_exact_mut(segment) {
            let sequence = &mut self.sequences[way];
            *sequence += 1;
            packet[..header].copy_from_slice(&channel_header(flow.channel, self.payload)[..header]);
            let tag = index as u32 | if to_client { TO_CLIENT } else { 0 };
            let stamp = &mut packet[header..header + STAMP];
            stamp[..4].copy_from_slice(&tag.to_be_bytes());
            stamp[4..8].copy_from_slice(&sequence.to_be_bytes());
            stamp[8..].copy_from_slice(&now.to_be_bytes());
        }
        let socket = if to_client { &flow.peer } else { &flow.client };
        // What cannot leave has left all the same: it will be missing.
        let _ = socket.send(bytes);
        tally.left(now, due, self.burst as u64);
    }
}

struct Receiver<'a> {
    clock: Clock,
    payload: usize,
    single: bool,
    flows: &'a [Flow],
    epoll: Epoll,
    batch: Batch,
    tally: Tally,
}

impl<'a> Receiver<'a> {
    fn new(clock: Clock, order: &Order, flows: &'a [Flow], tally: Tally) -> io::Result<Receiver<'a>> {
        let epoll = Epoll::new(256)?;
        for (index, flow) in flows.iter().enumerate() {
            epoll.add(&flow.peer, 2 * index, false)?;
            epoll.add(&flow.client, 2 * index + 1, false)?;
        }
        let (payload, single) = (order.payload, order.burst == 1);
        Ok(Receiver { clock, payload, single, flows, epoll, batch: Batch::new(RECEIVE), tally })
    }

    /// Takes everything that has arrived; whether there was any.
    fn receive(&mut self) -> bool {
        let mut any = false;
        loop {
            let ready = self.epoll.wait(0);
            any |= ready != 0;
            for n in 0..ready {
                self.take(self.epoll.number(n));
            }
            if ready < self.epoll.capacity() {
                return any;
            }
        }
    }

    fn take(&mut self, way: usize) {
        let (flow, at_client) = (&self.flows[way / 2], way % 2 == 1);
        let (socket, header) = if at_client { (&flow.client, CHANNEL_HEADER) } else { (&flow.peer, 0) };
        let expected = Expected {
            header: channel_header(flow.channel, self.payload),
            header_len: header,
            len: header + self.payload,
            tag: (way / 2) as u32 | if at_client { TO_CLIENT } else { 0 },
        };
        if self.single {
            // Most sockets have one packet at a time; the epoll names those again that have more.
            let bytes = &mut self.batch.bytes(0)[HEADROOM..];
            if let Ok(len) = socket.recv(bytes) {
                expected.check(&bytes[..len], self.clock.now(), way, &mut self.tally);
            }
            return;
        }
        let received = self.batch.receive(socket.as_fd(), 0, RECEIVE);
        let now = self.clock.now();
        for slot in 0..received {
            let (len, segment) = (self.batch.len(slot), self.batch.envelope(slot).segment);
            let segment = if segment == 0 { len.max(1) } else { segment };
            for packet in self.batch.bytes(slot)[HEADROOM..HEADROOM + len].chunks(segment) {
                expected.check(packet, now, way, &mut self.tally);
            }
        }
    }
}

/// What every packet that arrives at one socket has in common.
struct Expected {
    header: [u8; CHANNEL_HEADER],
    header_len: usize,
    len: usize,
    tag: u32,
}

impl Expected {
    fn check(&self, packet: &[u8], now: u64, way: usize, tally: &mut Tally) {
        let right = packet.len() == self.len && packet.starts_with(&self.header[..self.header_len]);
        match packet.get(self.header_len..).and_then(Stamp::read) {
            Some(stamp) if right && stamp.tag == self.tag => tally.came(now, way, stamp.sequence, stamp.left),
            _ => tally.wrong += 1,
        }
    }
}

struct Stamp {
    tag: u32,
    sequence: u32,
    left: u64,
}

impl Stamp {
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

fn channel_header(number: u16, payload: usize) -> [u8; CHANNEL_HEADER] {
    let mut bytes = [0; CHANNEL_HEADER];
    ChannelHeader { number, len: payload as u16 }.write(&mut bytes);
    bytes
}
