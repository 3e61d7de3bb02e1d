//! The open loop: units leave on a fixed grid in time, and what arrives is checked and counted.
//!
//! A unit is a burst of one flow in one direction. Units of all flows and both directions take turns evenly. The
//! loop sleeps between rounds rather than waiting for packets, so that it never competes with the kernel thread that
//! receives on its CPU; a round is short against the delays that matter, and sets the resolution of their measure.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::time::Duration;

use hairpin::wire::{CHANNEL_HEADER, ChannelHeader};

use super::flows::Flow;
use super::tally::Tally;
use super::{Order, Reading};
use crate::clock::Clock;
use crate::sys::{Batch, Envelope, Epoll, HEADROOM};

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
}

/// Sends for as long as ordered.
pub fn run(clock: Clock, order: &Order, flows: &[Flow]) -> io::Result<Outcome> {
    // A round is shorter than the kernel's usual slack of 50 us; where it cannot be had the lateness shows it.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let start = clock.now() + 10_000_000;
    let open = start + (order.warm_up * 1e9) as u64;
    let close = open + (order.seconds * 1e9) as u64;
    let interval = 1e9 * order.burst as f64 / order.rate as f64;
    let due = |unit: u64| start + (unit as f64 * interval) as u64;

    let mut receiver = Receiver::new(clock, order.payload, flows, Tally::new(2 * flows.len(), open..close))?;
    let mut sender = Sender::new(clock, order, flows);
    let (mut unit, mut before, mut round) = (0, None, start);
    loop {
        let now = clock.now();
        if now >= open && before.is_none() {
            before = Some(Reading::take(clock, order));
        }
        if now >= close {
            break;
        }
        let last = unit + UNITS_AT_ONCE;
        while unit < last && due(unit) <= now {
            sender.send(unit, due(unit), &mut receiver.tally);
            unit += 1;
        }
        receiver.receive();
        round = (round + order.tick * 1000).max(due(unit));
        let now = clock.now();
        if round > now {
            std::thread::sleep(Duration::from_nanos(round - now));
        } else {
            round = now;
        }
    }
    let after = Reading::take(clock, order);
    while clock.now() < close + DRAIN {
        receiver.receive();
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = before.unwrap_or(after);
    Ok(Outcome { tally: receiver.tally, before, after })
}

struct Sender<'a> {
    clock: Clock,
    server: SocketAddrV4,
    payload: usize,
    burst: usize,
    flows: &'a [Flow],
    sequences: Vec<u32>,
    batch: Batch,
}

impl<'a> Sender<'a> {
    fn new(clock: Clock, order: &Order, flows: &'a [Flow]) -> Sender<'a> {
        let &Order { server, payload, burst, .. } = order;
        Sender { clock, server, payload, burst, flows, sequences: vec![0; 2 * flows.len()], batch: Batch::new(1) }
    }

    /// Clients and peers take turns, one flow after the other.
    fn send(&mut self, unit: u64, due: u64, tally: &mut Tally) {
        let way = (unit % self.sequences.len() as u64) as usize;
        let (index, to_client) = (way / 2, way % 2 == 1);
        let flow = &self.flows[index];
        let header = if to_client { 0 } else { CHANNEL_HEADER };
        let segment = header + self.payload;
        let now = self.clock.now();
        let bytes = &mut self.batch.bytes(0)[HEADROOM..];
        for packet in bytes.chunks_exact_mut(segment).take(self.burst) {
            let sequence = &mut self.sequences[way];
            *sequence += 1;
            packet[..header].copy_from_slice(&channel_header(flow.channel, self.payload)[..header]);
            let tag = index as u32 | if to_client { TO_CLIENT } else { 0 };
            let stamp = &mut packet[header..header + STAMP];
            stamp[..4].copy_from_slice(&tag.to_be_bytes());
            stamp[4..8].copy_from_slice(&sequence.to_be_bytes());
            stamp[8..].copy_from_slice(&now.to_be_bytes());
        }
        let envelope = Envelope { segment: if self.burst == 1 { 0 } else { segment }, ..Envelope::default() };
        let (socket, to) = if to_client { (&flow.peer, flow.relayed) } else { (&flow.client, self.server) };
        self.batch.aim(0, to, HEADROOM..HEADROOM + segment * self.burst, envelope);
        self.batch.send(socket.as_fd(), 0..1);
        tally.left(now, due, self.burst as u64);
    }
}

struct Receiver<'a> {
    clock: Clock,
    payload: usize,
    flows: &'a [Flow],
    epoll: Epoll,
    batch: Batch,
    tally: Tally,
}

impl<'a> Receiver<'a> {
    fn new(clock: Clock, payload: usize, flows: &'a [Flow], tally: Tally) -> io::Result<Receiver<'a>> {
        let epoll = Epoll::new(256)?;
        for (index, flow) in flows.iter().enumerate() {
            epoll.add(&flow.peer, 2 * index, false)?;
            epoll.add(&flow.client, 2 * index + 1, false)?;
        }
        Ok(Receiver { clock, payload, flows, epoll, batch: Batch::new(RECEIVE), tally })
    }

    /// Takes everything that has arrived.
    fn receive(&mut self) {
        loop {
            let ready = self.epoll.wait(0);
            for n in 0..ready {
                self.take(self.epoll.number(n));
            }
            if ready < self.epoll.capacity() {
                return;
            }
        }
    }

    fn take(&mut self, way: usize) {
        let (flow, at_client) = (&self.flows[way / 2], way % 2 == 1);
        let socket = if at_client { &flow.client } else { &flow.peer };
        let received = self.batch.receive(socket.as_fd(), 0, RECEIVE);
        let now = self.clock.now();
        let (header, tag) = if at_client { (CHANNEL_HEADER, TO_CLIENT) } else { (0, 0) };
        let expected = &channel_header(flow.channel, self.payload)[..header];
        for slot in 0..received {
            let len = self.batch.len(slot);
            let segment = match self.batch.envelope(slot).segment {
                0 => len.max(1),
                segment => segment,
            };
            for packet in self.batch.bytes(slot)[HEADROOM..HEADROOM + len].chunks(segment) {
                let right = packet.len() == header + self.payload && packet.starts_with(expected);
                match Stamp::read(&packet[header.min(packet.len())..]) {
                    Some(stamp) if right && stamp.tag == (way / 2) as u32 | tag => {
                        self.tally.came(now, way, stamp.sequence, stamp.left);
                    }
                    _ => self.tally.wrong += 1,
                }
            }
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
