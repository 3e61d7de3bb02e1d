//! The minimal relay for TCP and TLS clients.
//!
//! Messages are found by their lengths alone. The payloads of one read leave together, and everything that a peer sent
//! in one pass is one write, with TLS one record. A pass reads first and sends at its end: sending brings TCP
//! acknowledgements, and handling them between reads would make the kernel and the relay alternate on the CPU.

use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustls::ServerConfig;

use super::event_loop::EventHandler;
use super::header::PayloadHeader;
use super::protocol::AllocationRequest;
use super::sys::{Ancillary, Batch, HEADROOM, MAX_SEGMENTS};
use super::variant::Variant;
use crate::epoll::Epoll;
use crate::stream::FramedStream;

/// Bytes per read, at most what one segmented message can carry. TLS uses half of them for ciphertext.
const READ: usize = 60_000;
/// Reads whose payloads are queued at a time.
const BATCH: usize = 64;

/// A relay for clients with a connection each.
pub struct StreamRelay {
    variant: Variant,
    /// A connection's token is twice the index, its relay socket's token is one more.
    allocations: Vec<StreamAllocation>,
    to_peers: Batch,
    /// The allocation of each queued slot of `to_peers`.
    queued_reads: Vec<usize>,
    to_client: Batch,
    /// The allocations with outgoing bytes.
    queued_writes: Vec<usize>,
}

struct StreamAllocation {
    stream: FramedStream,
    socket: UdpSocket,
    peer: SocketAddrV4,
    header: PayloadHeader,
    outgoing: Vec<u8>,
}

impl StreamRelay {
    /// Accepts connections and opens an allocation per connection, until the last request.
    pub fn set_up(
        listen: SocketAddrV4,
        tls: Option<&Arc<ServerConfig>>,
        variant: Variant,
    ) -> io::Result<StreamRelay> {
        let listener = TcpListener::bind(listen)?;
        let mut allocations = Vec::new();
        let mut last = false;
        while !last {
            let mut stream = FramedStream::accept(&listener, tls)?;
            let request = read_request(&mut stream)?;
            let socket = variant.bind(SocketAddrV4::new(*listen.ip(), 0))?;
            stream.send(&socket.local_addr()?.port().to_be_bytes())?;
            stream.set_nonblocking()?;
            last = request.last;
            let (peer, header) = (request.peer, PayloadHeader::new(request.header, true));
            allocations.push(StreamAllocation { stream, socket, peer, header, outgoing: Vec::new() });
        }
        Ok(StreamRelay {
            variant,
            allocations,
            to_peers: Batch::new(BATCH),
            queued_reads: Vec::new(),
            to_client: Batch::new(variant.take),
            queued_writes: Vec::new(),
        })
    }

    fn serve_client(&mut self, index: usize) {
        if self.queued_reads.len() == BATCH {
            self.send_queued_reads();
        }
        let StreamAllocation { stream, socket, peer, header, .. } = &mut self.allocations[index];
        let (batch, slot) = (&mut self.to_peers, self.queued_reads.len());
        // A closed connection has nothing left to measure.
        let Ok(len) = stream.read(&mut batch.bytes(slot)[..READ]) else { return };
        let mut at = 0;
        while let Some(stride) = header.message_len(&batch.bytes(slot)[at..len]) {
            if at > 0 {
                // A slot holds one run of equally long messages; only the last run of a read is queued.
                batch.send(socket.as_fd(), slot..slot + 1);
            }
            let same_length = |message: &&[u8]| header.message_len(message) == Some(stride);
            let messages = batch.bytes(slot)[at..len].chunks(stride);
            let count = messages.take(MAX_SEGMENTS).take_while(same_length).count();
            let end = at + count * stride;
            let (payloads, size) = header.strip(batch.bytes(slot), at..end, stride);
            let segment = if count == 1 { 0 } else { size };
            batch.prepare(slot, *peer, payloads, Ancillary { segment, ..Ancillary::default() });
            at = end;
        }
        stream.buffer_remainder(&batch.bytes(slot)[at..len]);
        if at > 0 {
            self.queued_reads.push(index);
        }
    }

    /// Reads from the relay socket and returns whether there may be more.
    fn serve_peer(&mut self, index: usize) -> bool {
        let StreamAllocation { socket, header, outgoing, .. } = &mut self.allocations[index];
        let received = self.to_client.receive(socket.as_fd(), 0, self.variant.take);
        if received > 0 && outgoing.is_empty() {
            self.queued_writes.push(index);
        }
        for slot in 0..received {
            let payloads = HEADROOM..HEADROOM + self.to_client.len(slot);
            let segment = self.to_client.ancillary(slot).segment;
            let bytes = self.to_client.bytes(slot);
            let (messages, _) = header.add(bytes, payloads, segment);
            outgoing.extend_from_slice(&bytes[messages]);
        }
        received == self.variant.take
    }

    fn send_queued_reads(&mut self) {
        for (slot, index) in self.queued_reads.drain(..).enumerate() {
            self.to_peers.send(self.allocations[index].socket.as_fd(), slot..slot + 1);
        }
    }
}

impl EventHandler for StreamRelay {
    fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        for (index, allocation) in self.allocations.iter().enumerate() {
            epoll.add(&allocation.stream, 2 * index)?;
            self.variant.watch(epoll, &allocation.socket, 2 * index + 1)?;
        }
        Ok(())
    }

    fn ready(&mut self, token: usize) -> bool {
        let (index, is_relay_socket) = (token / 2, token % 2 == 1);
        if !is_relay_socket {
            self.serve_client(index);
            return false;
        }
        let mut more = self.serve_peer(index);
        while more && self.variant.edge {
            more = self.serve_peer(index);
        }
        more
    }

    fn flush(&mut self) {
        self.send_queued_reads();
        for index in self.queued_writes.drain(..) {
            let StreamAllocation { stream, outgoing, .. } = &mut self.allocations[index];
            // Bytes that the connection cannot take are dropped, and show as loss.
            let _ = stream.send(outgoing);
            outgoing.clear();
        }
    }
}

fn read_request(stream: &mut FramedStream) -> io::Result<AllocationRequest> {
    let mut bytes = vec![0; READ];
    loop {
        let len = stream.read(&mut bytes)?;
        if let Some(request) = AllocationRequest::read(&bytes[..len]) {
            return Ok(request);
        }
        stream.buffer_remainder(&bytes[..len]);
    }
}
