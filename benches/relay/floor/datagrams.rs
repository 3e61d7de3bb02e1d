//! What the floor does for UDP clients: a header off and on to the peer, a header on and back to the client.
//!
//! In one direction each message leaves through its allocation's socket; in the other all leave through the
//! clients' socket, so that what several allocations received in one round goes out with one system call.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use super::header::Header;
use super::{Ask, Relay, Shape};
use crate::sys::{Batch, Envelope, Epoll, HEADROOM};

/// The number of the clients' socket; allocations count from 1.
const LISTENER: usize = 0;

const BATCH: usize = 32;

/// For UDP clients.
pub struct Datagrams {
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
    header: Header,
}

impl Datagrams {
    /// Opens an allocation for each client that asks, until the last has.
    pub fn set_up(listen: SocketAddrV4, shape: Shape) -> io::Result<Datagrams> {
        let mut relay = Datagrams {
            shape,
            listener: shape.socket(listen)?,
            flows: Vec::new(),
            numbers: vec![0; 1 << 16],
            to_peers: Batch::new(BATCH),
            to_clients: Batch::new(BATCH),
            waiting: 0,
        };
        let mut bytes = [0; 64];
        loop {
            let (len, from) = relay.listener.recv_from(&mut bytes)?;
            let (SocketAddr::V4(client), Some(ask)) = (from, Ask::read(&bytes[..len])) else { continue };
            let last = ask.last;
            let relayed = relay.allocate(client, ask, SocketAddrV4::new(*listen.ip(), 0))?;
            relay.listener.send_to(&relayed.port().to_be_bytes(), client)?;
            if last {
                relay.listener.set_nonblocking(true)?;
                return Ok(relay);
            }
        }
    }

    /// Opens an allocation, or finds the one the client has.
    fn allocate(&mut self, client: SocketAddrV4, ask: Ask, any: SocketAddrV4) -> io::Result<SocketAddr> {
        let number = usize::from(self.numbers[usize::from(client.port())]);
        if number != 0 {
            return self.flows[number - 1].socket.local_addr();
        }
        let socket = self.shape.socket(any)?;
        let relayed = socket.local_addr()?;
        // Only a stream has ChannelData padded (RFC 8656 §12.5).
        let header = Header::new(ask.header, false);
        self.flows.push(Flow { socket, client, peer: ask.peer, header });
        self.numbers[usize::from(client.port())] = self.flows.len() as u16;
        Ok(relayed)
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
                let Flow { header, peer, .. } = &self.flows[number - 1];
                let messages = HEADROOM..HEADROOM + self.to_peers.len(slot);
                let (payloads, size) = header.strip(self.to_peers.bytes(slot), messages, envelope.segment);
                self.to_peers.aim(slot, *peer, payloads, outgoing(envelope, size));
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
            let payloads = HEADROOM..HEADROOM + self.to_clients.len(slot);
            let (messages, size) = flow.header.add(self.to_clients.bytes(slot), payloads, envelope.segment);
            self.to_clients.aim(slot, flow.client, messages, outgoing(envelope, size));
        }
        self.waiting += received;
        received == self.shape.take
    }

    fn envelope(&self, batch: &Batch, slot: usize) -> Envelope {
        if self.shape.offload || self.shape.marks { batch.envelope(slot) } else { Envelope::default() }
    }
}

impl Relay for Datagrams {
    fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.add(&self.listener, LISTENER, false)?;
        let mut sockets = self.flows.iter().enumerate();
        sockets.try_for_each(|(index, flow)| epoll.add(&flow.socket, index + 1, self.shape.edge))
    }

    fn ready(&mut self, number: usize) -> bool {
        if number == LISTENER {
            return self.serve_clients();
        }
        let mut more = self.serve_peer(number - 1);
        while more && self.shape.edge {
            more = self.serve_peer(number - 1);
        }
        more
    }

    fn flush(&mut self) {
        if self.waiting != 0 {
            self.to_clients.send(self.listener.as_fd(), 0..self.waiting);
            self.waiting = 0;
        }
    }
}

/// The length of segments matters only where there are several.
fn outgoing(envelope: Envelope, segment: usize) -> Envelope {
    Envelope { segment: if envelope.segment == 0 { 0 } else { segment }, ..envelope }
}
