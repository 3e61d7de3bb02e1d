//! The minimal relay in a storm. Of each client's four requests one opens a relay socket, one closes it and two do
//! nothing; each is echoed.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::epoll::EpollTimeout;

use super::protocol::StormRequest;
use super::sys::{Ancillary, Batch, HEADROOM};
use super::variant::Variant;
use crate::epoll::Epoll;

const BATCH: usize = 32;
const EVENTS: usize = 64;
/// The token of the clients' socket; the token of a relay socket is its client's port.
const LISTENER: usize = 0;

/// Runs until an error.
pub fn run(listen: SocketAddrV4, variant: Variant) -> io::Result<()> {
    let listener = variant.bind(listen)?;
    listener.set_nonblocking(true)?;
    let mut epoll = Epoll::new(EVENTS)?;
    epoll.add(&listener, LISTENER)?;
    let mut relays: Vec<Option<UdpSocket>> = Vec::new();
    relays.resize_with(1 << 16, || None);
    let mut batch = Batch::new(BATCH);
    loop {
        epoll.wait(EpollTimeout::NONE);
        let received = batch.receive(listener.as_fd(), 0, BATCH);
        for slot in 0..received {
            let (client, len) = (batch.source(slot), batch.len(slot));
            let port = usize::from(client.port());
            match StormRequest::read(&batch.bytes(slot)[HEADROOM..HEADROOM + len]) {
                Some(StormRequest::Open) if relays[port].is_none() => {
                    let relay = variant.bind(SocketAddrV4::new(*listen.ip(), 0))?;
                    epoll.add(&relay, port)?;
                    relays[port] = Some(relay);
                }
                Some(StormRequest::Close) => relays[port] = None,
                _ => {}
            }
            batch.prepare(slot, client, HEADROOM..HEADROOM + len, Ancillary::default());
        }
        batch.send(listener.as_fd(), 0..received);
    }
}
