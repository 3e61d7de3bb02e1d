//! What the floor does with packets: a header off and on to the peer, a header on and back to the client.
//!
//! In one direction each message leaves through its allocation's socket; in the other all leave through the
//! clients' socket, so that what several allocations received in one round goes out with one system call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use socket2::SockRef;

use super::Shape;
use crate::sys::{self, Batch, Envelope, HEADROOM, MAX_SEGMENTS};

/// The number of the clients' socket; allocations count from 1.
pub const LISTENER: usize = 0;

const HEADER: usize = 4;
const BATCH: usize = 32;
const SOCKET_BUFFER: usize = 4 << 20;

pub struct Relay {
    shape: Shape,
    listener: UdpSocket,
    flows: Vec<Flow>,
    /// Client's port to number of its allocation.
    numbers: Vec<u16>,
    to_peers: Batch,
    to_clients: Batch,
    /// How many messages wait for the clients' socket.
    waiting: usize,
}

struct Flow {
    socket: UdpSocket,
    client: SocketAddrV4,
    peer: SocketAddrV4,
    channel: u16,
}

impl Relay {
    pub fn new(listener: UdpSocket, shape: Shape) -> io::Result<Relay> {
        let (to_peers, to_clients) = (Batch::new(BATCH), Batch::new(BATCH));
        let relay = Relay {
            shape,
            listener,
            flows: Vec::new(),
            numbers: vec![0; 1 << 16],
            to_peers,
            to_clients,
            waiting: 0,
        };
        relay.prepare(&relay.listener)?;
        Ok(relay)
    }

    pub fn listener(&self) -> &UdpSocket {
        &self.listener
    }

    /// The sockets of the allocations, in the order of their numbers.
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.flows.iter().map(|flow| &flow.socket)
    }

    /// Opens an allocation, or finds the one the client has.
    pub fn allocate(
        &mut self,
        client: SocketAddrV4,
        peer: SocketAddrV4,
        channel: u16,
        ip: Ipv4Addr,
    ) -> io::Result<SocketAddr> {
        let number = usize::from(self.numbers[usize::from(client.port())]);
        if number != 0 {
            return self.flows[number - 1].socket.local_addr();
        }
        let socket = UdpSocket::bind((ip, 0))?;
        self.prepare(&socket)?;
        let relayed = socket.local_addr()?;
        self.flows.push(Flow { socket, client, peer, channel });
        self.numbers[usize::from(client.port())] = self.flows.len() as u16;
        Ok(relayed)
    }

    fn prepare(&self, socket: &UdpSocket) -> io::Result<()> {
        SockRef::from(socket).set_recv_buffer_size(SOCKET_BUFFER)?;
        SockRef::from(socket).set_send_buffer_size(SOCKET_BUFFER)?;
        if self.shape.offload {
            sys::receive_segments(socket)?;
        }
        if self.shape.marks {
            sys::receive_marks(socket)?;
        }
        Ok(())
    }

    /// Forwards what the socket of this number has; whether it may have more.
    pub fn ready(&mut self, number: usize) -> bool {
        if number == LISTENER { self.serve_clients() } else { self.serve_peer(number - 1) }
    }

    fn serve_clients(&mut self) -> bool {
        let received = self.to_peers.receive(self.listener.as_fd(), 0, BATCH);
        let (mut run, mut current) = (0, 0);
        for slot in 0..received {
            let number = usize::from(self.numbers[usize::from(self.to_peers.from(slot).port())]);
            if number != current {
                self.send_run(current, run..slot);
                (run, current) = (slot, number);
            }
            if number != 0 {
                let envelope = self.envelope(&self.to_peers, slot);
                let range = strip(&mut self.to_peers, slot, envelope.segment);
                let peer = self.flows[number - 1].peer;
                self.to_peers.aim(slot, peer, range, outgoing(envelope, |segment| segment - HEADER));
            }
        }
        self.send_run(current, run..received);
        received == BATCH
    }

    /// Sends to one allocation's peer; strangers, number 0, have none.
    fn send_run(&mut self, number: usize, slots: std::ops::Range<usize>) {
        if number != 0 {
            self.to_peers.send(self.flows[number - 1].socket.as_fd(), slots);
        }
    }

    fn serve_peer(&mut self, index: usize) -> bool {
        if self.waiting + self.shape.take > BATCH {
            self.flush();
        }
        let flow = &self.flows[index];
        let received = self.to_clients.receive(flow.socket.as_fd(), self.waiting, self.shape.take);
        for slot in self.waiting..self.waiting + received {
            let envelope = self.envelope(&self.to_clients, slot);
            let range = add(&mut self.to_clients, slot, envelope.segment, flow.channel);
            self.to_clients.aim(slot, flow.client, range, outgoing(envelope, |segment| segment + HEADER));
        }
        self.waiting += received;
        received == self.shape.take
    }

    /// Sends what waits for the clients' socket; the loop calls it at the end of each round.
    pub fn flush(&mut self) {
        if self.waiting != 0 {
            self.to_clients.send(self.listener.as_fd(), 0..self.waiting);
            self.waiting = 0;
        }
    }

    fn envelope(&self, batch: &Batch, slot: usize) -> Envelope {
        if self.shape.offload || self.shape.marks { batch.envelope(slot) } else { Envelope::default() }
    }
}

fn outgoing(envelope: Envelope, length: impl FnOnce(usize) -> usize) -> Envelope {
    let segment = if envelope.segment == 0 { 0 } else { length(envelope.segment) };
    Envelope { segment, ..envelope }
}

/// Takes the header off every segment; where the payloads then stand. The first segment stays in place.
fn strip(batch: &mut Batch, slot: usize, segment: usize) -> std::ops::Range<usize> {
    let end = HEADROOM + batch.len(slot);
    let (mut from, mut to) = (HEADROOM, HEADROOM + HEADER);
    if segment == 0 || batch.len(slot) <= segment {
        return to..end;
    }
    let bytes = batch.bytes(slot);
    while from < end {
        let next = end.min(from + segment);
        if from != HEADROOM {
            bytes.copy_within(from + HEADER..next, to);
        }
        to += next - from - HEADER;
        from = next;
    }
    HEADROOM + HEADER..to
}

/// Puts a header before every segment; where the messages then stand. The last segment stays in place.
fn add(batch: &mut Batch, slot: usize, segment: usize, channel: u16) -> std::ops::Range<usize> {
    let len = batch.len(slot);
    let segment = if segment == 0 { len.max(1) } else { segment };
    let count = len.div_ceil(segment).clamp(1, MAX_SEGMENTS);
    let start = HEADROOM - count * HEADER;
    let bytes = batch.bytes(slot);
    let mut to = start;
    for n in 0..count {
        let from = HEADROOM + n * segment;
        let payload = segment.min(len - n * segment);
        bytes[to..to + 2].copy_from_slice(&channel.to_be_bytes());
        bytes[to + 2..to + 4].copy_from_slice(&(payload as u16).to_be_bytes());
        if n + 1 < count {
            bytes.copy_within(from..from + payload, to + HEADER);
        }
        to += HEADER + payload;
    }
    start..HEADROOM + len
}
