//! What the floor does for clients that come over TCP or TLS: messages are found by their lengths alone, payloads of one
//! reading leave together, and what a peer sent in one round is one write, with TLS one record.
//!
//! A round is read first and sent afterwards: what is sent brings acknowledgements, and each of those that comes in
//! between would have the kernel take turns with the relay.

use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustls::ServerConfig;

use super::header::Header;
use super::{Ask, Relay, Shape};
use crate::stream::Stream;
use crate::sys::{Batch, Envelope, Epoll, HEADROOM, MAX_SEGMENTS};

/// Bytes that are read from a client at a time: no more than one run of datagrams may have. TLS takes half of them.
const READ: usize = 60_000;
/// Readings that wait to be sent.
const BATCH: usize = 64;

/// For clients with a connection each.
pub struct Streams {
    shape: Shape,
    /// A client's number is twice its place, its relay socket's one more.
    clients: Vec<Client>,
    to_peers: Batch,
    /// Whose reading waits in each slot.
    read: Vec<usize>,
    to_client: Batch,
    /// For whom something waits.
    written: Vec<usize>,
}

struct Client {
    stream: Stream,
    socket: UdpSocket,
    peer: SocketAddrV4,
    header: Header,
    outgoing: Vec<u8>,
}

impl Streams {
    /// Takes connections and opens an allocation for each, until the last has come.
    pub fn set_up(
        listen: SocketAddrV4,
        tls: Option<&Arc<ServerConfig>>,
        shape: Shape,
    ) -> io::Result<Streams> {
        let listener = TcpListener::bind(listen)?;
        let mut clients = Vec::new();
        let mut last = false;
        while !last {
            let mut stream = Stream::accept(&listener, tls)?;
            let ask = question(&mut stream)?;
            let socket = shape.socket(SocketAddrV4::new(*listen.ip(), 0))?;
            stream.send(&socket.local_addr()?.port().to_be_bytes())?;
            stream.is_set_up()?;
            let Ask { peer, header, .. } = ask;
            last = ask.last;
            let header = Header::new(header, true);
            clients.push(Client { stream, socket, peer, header, outgoing: Vec::new() });
        }
        let (to_peers, to_client) = (Batch::new(BATCH), Batch::new(shape.take));
        Ok(Streams { shape, clients, to_peers, read: Vec::new(), to_client, written: Vec::new() })
    }

    fn serve_client(&mut self, place: usize) {
        if self.read.len() == BATCH {
            self.send_readings();
        }
        let Client { stream, socket, peer, header, .. } = &mut self.clients[place];
        let (batch, slot) = (&mut self.to_peers, self.read.len());
        // A client that is gone has no more to measure.
        let Ok(len) = stream.read(&mut batch.bytes(slot)[..READ]) else { return };
        let mut at = 0;
        while let Some(stride) = header.message(&batch.bytes(slot)[at..len]) {
            if at > 0 {
                // Only the last run of a reading can wait.
                batch.send(socket.as_fd(), slot..slot + 1);
            }
            let alike = |message: &&[u8]| header.message(message) == Some(stride);
            let messages = batch.bytes(slot)[at..len].chunks(stride);
            let count = messages.take(MAX_SEGMENTS).take_while(alike).count();
            let end = at + count * stride;
            let (payloads, size) = header.strip(batch.bytes(slot), at..end, stride);
            let segment = if count == 1 { 0 } else { size };
            batch.aim(slot, *peer, payloads, Envelope { segment, ..Envelope::default() });
            at = end;
        }
        stream.keep(&batch.bytes(slot)[at..len]);
        if at > 0 {
            self.read.push(place);
        }
    }

    /// Whether there may be more.
    fn serve_peer(&mut self, place: usize) -> bool {
        let Client { socket, header, outgoing, .. } = &mut self.clients[place];
        let received = self.to_client.receive(socket.as_fd(), 0, self.shape.take);
        if received > 0 && outgoing.is_empty() {
            self.written.push(place);
        }
        for slot in 0..received {
            let payloads = HEADROOM..HEADROOM + self.to_client.len(slot);
            let segment = self.to_client.envelope(slot).segment;
            let bytes = self.to_client.bytes(slot);
            let (messages, _) = header.add(bytes, payloads, segment);
            outgoing.extend_from_slice(&bytes[messages]);
        }
        received == self.shape.take
    }

    fn send_readings(&mut self) {
        for (slot, place) in self.read.drain(..).enumerate() {
            self.to_peers.send(self.clients[place].socket.as_fd(), slot..slot + 1);
        }
    }
}

impl Relay for Streams {
    fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        for (place, client) in self.clients.iter().enumerate() {
            epoll.add(&client.stream, 2 * place, false)?;
            epoll.add(&client.socket, 2 * place + 1, self.shape.edge)?;
        }
        Ok(())
    }

    fn ready(&mut self, number: usize) -> bool {
        let (place, is_relay) = (number / 2, number % 2 == 1);
        if !is_relay {
            self.serve_client(place);
            return false;
        }
        let mut more = self.serve_peer(place);
        while more && self.shape.edge {
            more = self.serve_peer(place);
        }
        more
    }

    fn flush(&mut self) {
        self.send_readings();
        for place in self.written.drain(..) {
            let Client { stream, outgoing, .. } = &mut self.clients[place];
            // What finds no room is lost, and shows as that.
            let _ = stream.send(outgoing);
            outgoing.clear();
        }
    }
}

fn question(stream: &mut Stream) -> io::Result<Ask> {
    let mut bytes = vec![0; READ];
    loop {
        let len = stream.read(&mut bytes)?;
        if let Some(ask) = Ask::read(&bytes[..len]) {
            return Ok(ask);
        }
        stream.keep(&bytes[..len]);
    }
}
