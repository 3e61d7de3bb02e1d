//! The minimal relay for UDP clients.
//!
//! Packets to peers leave through one socket per allocation. Packets to clients all leave through the clients' socket,
//! so those that several allocations received in one pass share a system call.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;

use super::event_loop::EventHandler;
use super::header::PayloadHeader;
use super::protocol::AllocationRequest;
use super::sys::{Ancillary, Batch, HEADROOM};
use super::variant::Variant;
use crate::epoll::Epoll;

/// The token of the clients' socket; allocations are numbered from 1.
const LISTENER: usize = 0;

const BATCH: usize = 32;

/// A relay for UDP clients.
pub struct DatagramRelay {
    variant: Variant,
    listener: UdpSocket,
    allocations: Vec<DatagramAllocation>,
    /// From the client's port to the number of its allocation.
    numbers: Vec<u16>,
    to_peers: Batch,
    to_clients: Batch,
    /// Messages in `to_clients` that are ready to send.
    queued: usize,
}

struct DatagramAllocation {
    socket: UdpSocket,
    client: SocketAddrV4,
    peer: SocketAddrV4,
    header: PayloadHeader,
}

impl DatagramRelay {
    /// Opens an allocation per request, until the last request.
    pub fn set_up(listen: SocketAddrV4, variant: Variant) -> io::Result<DatagramRelay> {
        let mut relay = DatagramRelay {
            variant,
            listener: variant.bind(listen)?,
            allocations: Vec::new(),
            numbers: vec![0; 1 << 16],
            to_peers: Batch::new(BATCH),
            to_clients: Batch::new(BATCH),
            queued: 0,
        };
        let mut bytes = [0; 64];
        loop {
            let (len, source) = relay.listener.recv_from(&mut bytes)?;
            let SocketAddr::V4(client) = source else { continue };
            let Some(request) = AllocationRequest::read(&bytes[..len]) else { continue };
            let last = request.last;
            let relayed = relay.allocate(client, request, SocketAddrV4::new(*listen.ip(), 0))?;
            relay.listener.send_to(&relayed.port().to_be_bytes(), client)?;
            if last {
                relay.listener.set_nonblocking(true)?;
                return Ok(relay);
            }
        }
    }

    /// Opens an allocation, or finds the client's.
    fn allocate(
        &mut self,
        client: SocketAddrV4,
        request: AllocationRequest,
        any_port: SocketAddrV4,
    ) -> io::Result<SocketAddr> {
        let number = usize::from(self.numbers[usize::from(client.port())]);
        if number != 0 {
            return self.allocations[number - 1].socket.local_addr();
        }
        let socket = self.variant.bind(any_port)?;
        let relayed = socket.local_addr()?;
        let header = PayloadHeader::new(request.header, false);
        self.allocations.push(DatagramAllocation { socket, client, peer: request.peer, header });
        self.numbers[usize::from(client.port())] = self.allocations.len() as u16;
        Ok(relayed)
    }

    fn serve_clients(&mut self) -> bool {
        let received = self.to_peers.receive(self.listener.as_fd(), 0, BATCH);
        let (mut run, mut current) = (0, 0);
        for slot in 0..received {
            let number = usize::from(self.numbers[usize::from(self.to_peers.source(slot).port())]);
            if number != current {
                self.send_run(current, run..slot);
                (run, current) = (slot, number);
            }
            if number != 0 {
                let ancillary = self.ancillary(&self.to_peers, slot);
                let DatagramAllocation { header, peer, .. } = &self.allocations[number - 1];
                let messages = HEADROOM..HEADROOM + self.to_peers.len(slot);
                let (payloads, size) = header.strip(self.to_peers.bytes(slot), messages, ancillary.segment);
                self.to_peers.prepare(slot, *peer, payloads, outgoing(ancillary, size));
            }
        }
        self.send_run(current, run..received);
        received == BATCH
    }

    /// Sends to the peer of one allocation. Number 0 stands for clients without allocation.
    fn send_run(&mut self, number: usize, slots: Range<usize>) {
        if number != 0 {
            self.to_peers.send(self.allocations[number - 1].socket.as_fd(), slots);
        }
    }

    fn serve_peer(&mut self, index: usize) -> bool {
        if self.queued + self.variant.take > BATCH {
            self.flush();
        }
        let allocation = &self.allocations[index];
        let received = self.to_clients.receive(allocation.socket.as_fd(), self.queued, self.variant.take);
        for slot in self.queued..self.queued + received {
            let ancillary = self.ancillary(&self.to_clients, slot);
            let payloads = HEADROOM..HEADROOM + self.to_clients.len(slot);
            let (messages, size) =
                allocation.header.add(self.to_clients.bytes(slot), payloads, ancillary.segment);
            self.to_clients.prepare(slot, allocation.client, messages, outgoing(ancillary, size));
        }
        self.queued += received;
        received == self.variant.take
    }

    fn ancillary(&self, batch: &Batch, slot: usize) -> Ancillary {
        if self.variant.offload || self.variant.marks { batch.ancillary(slot) } else { Ancillary::default() }
    }
}

impl EventHandler for DatagramRelay {
    fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.add(&self.listener, LISTENER)?;
        for (index, allocation) in self.allocations.iter().enumerate() {
            self.variant.watch(epoll, &allocation.socket, index + 1)?;
        }
        Ok(())
    }

    fn ready(&mut self, token: usize) -> bool {
        if token == LISTENER {
            return self.serve_clients();
        }
        let mut more = self.serve_peer(token - 1);
        while more && self.variant.edge {
            more = self.serve_peer(token - 1);
        }
        more
    }

    fn flush(&mut self) {
        if self.queued != 0 {
            self.to_clients.send(self.listener.as_fd(), 0..self.queued);
            self.queued = 0;
        }
    }
}

/// Control messages for forwarding; the segment length matters only if there are several segments.
fn outgoing(received: Ancillary, segment: usize) -> Ancillary {
    Ancillary { segment: if received.segment == 0 { 0 } else { segment }, ..received }
}
