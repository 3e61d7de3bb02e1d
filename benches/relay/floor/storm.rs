//! The floor under a storm: of each client's four datagrams one opens a relay socket, one closes it and two do nothing;
//! each is sent back. Nothing else is done.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use super::Shape;
use crate::sys::{Batch, Envelope, Epoll, HEADROOM};

const BATCH: usize = 32;
const EVENTS: usize = 64;
/// The clients' socket; a relay socket has the number of its client's port.
const LISTENER: usize = 0;

/// Serves until it is killed.
pub fn run(listen: SocketAddrV4, shape: Shape) -> io::Result<()> {
    let listener = shape.socket(listen)?;
    listener.set_nonblocking(true)?;
    let mut epoll = Epoll::new(EVENTS)?;
    epoll.add(&listener, LISTENER, false)?;
    let mut relays: Vec<Option<UdpSocket>> = Vec::new();
    relays.resize_with(1 << 16, || None);
    let mut batch = Batch::new(BATCH);
    loop {
        epoll.wait(-1);
        let received = batch.receive(listener.as_fd(), 0, BATCH);
        for slot in 0..received {
            let (client, len) = (batch.from(slot), batch.len(slot));
            let number = usize::from(client.port());
            match Ask::read(&batch.bytes(slot)[HEADROOM..HEADROOM + len]) {
                Some(Ask::Open) if relays[number].is_none() => {
                    let relay = shape.socket(SocketAddrV4::new(*listen.ip(), 0))?;
                    epoll.add(&relay, number, false)?;
                    relays[number] = Some(relay);
                }
                Some(Ask::Close) => relays[number] = None,
                _ => {}
            }
            batch.aim(slot, client, HEADROOM..HEADROOM + len, Envelope::default());
        }
        batch.send(listener.as_fd(), 0..received);
    }
}

/// What a client asks for.
#[derive(Clone, Copy)]
pub enum Ask {
    Open = 3,
    Nothing,
    Close,
}

/// About as long as a TURN client's requests, which have credentials.
const LENGTH: usize = 150;

impl Ask {
    /// As it goes over the wire, with a number of its own.
    pub fn write(self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        bytes[0] = self as u8;
        bytes[1..9].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    /// Whether it is one of these.
    pub fn read(bytes: &[u8]) -> Option<Ask> {
        [Ask::Open, Ask::Nothing, Ask::Close].into_iter().find(|ask| bytes.first() == Some(&(*ask as u8)))
    }
}
