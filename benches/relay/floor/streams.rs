//! What the floor does for clients that come over TCP or TLS: messages are found by their lengths alone, payloads of one
//! reading leave together, and what a peer sent in one round is one write, with TLS one record.

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

/// For clients with a connection each.
pub struct Streams {
    shape: Shape,
    /// A client's number is twice its place, its relay socket's one more.
    clients: Vec<Client>,
    to_peer: Batch,
    to_client: Batch,
    outgoing: Vec<u8>,
}

struct Client {
    stream: Stream,
    socket: UdpSocket,
    peer: SocketAddrV4,
    header: Header,
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
            last = ask.last;
            clients.push(Client { stream, socket, peer: ask.peer, header: Header::new(ask.header, true) });
        }
        let (to_peer, to_client) = (Batch::new(1), Batch::new(shape.take));
        Ok(Streams { shape, clients, to_peer, to_client, outgoing: Vec::new() })
    }

    fn serve_client(&mut self, place: usize) {
        let Client { stream, socket, peer, header } = &mut self.clients[place];
        let batch = &mut self.to_peer;
        // A client that is gone has no more to measure.
        let Ok(len) = stream.read(&mut batch.bytes(0)[..READ]) else { return };
        let mut at = 0;
        while let Some(stride) = header.message(&batch.bytes(0)[at..len]) {
            let alike = |message: &&[u8]| header.message(message) == Some(stride);
            let messages = batch.bytes(0)[at..len].chunks(stride);
            let count = messages.take(MAX_SEGMENTS).take_while(alike).count();
            let end = at + count * stride;
            let (payloads, size) = header.strip(batch.bytes(0), at..end, stride);
            let segment = if count == 1 { 0 } else { size };
            batch.aim(0, *peer, payloads, Envelope { segment, ..Envelope::default() });
            batch.send(socket.as_fd(), 0..1);
            at = end;
        }
        stream.keep(&batch.bytes(0)[at..len]);
    }

    /// Whether there may be more.
    fn serve_peer(&mut self, place: usize) -> bool {
        let Client { stream, socket, header, .. } = &mut self.clients[place];
        let received = self.to_client.receive(socket.as_fd(), 0, self.shape.take);
        self.outgoing.clear();
        for slot in 0..received {
            let payloads = HEADROOM..HEADROOM + self.to_client.len(slot);
            let segment = self.to_client.envelope(slot).segment;
            let bytes = self.to_client.bytes(slot);
            let (messages, _) = header.add(bytes, payloads, segment);
            self.outgoing.extend_from_slice(&bytes[messages]);
        }
        if received > 0 {
            // What finds no room is lost, and shows as that.
            let _ = stream.send(&self.outgoing);
        }
        received == self.shape.take
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

    /// Each client has been written to already.
    fn flush(&mut self) {}
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
