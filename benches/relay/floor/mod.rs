//! The floor: a bare relay with hairpin's sockets and nothing else, so that its cost is what any relay of this shape
//! pays the kernel on this machine.
//!
//! One socket for all UDP clients or one for each that comes over TCP or TLS, and one for each allocation. Who talks to
//! whom is settled before the loop starts, by a set-up of its own; afterwards nothing is parsed and nothing is checked:
//! a header of known length, ChannelData's or that of an indication, comes off in one direction and one made beforehand
//! goes on in the other. Left out on purpose: any map (the client's port is an index), clocks, timers, counters, and the
//! splitting of batches that grow past what one send may carry, or whose messages have payloads of several lengths (no
//! case of the benchmark gets there; such a batch would show as loss).

mod datagrams;
mod header;
pub mod storm;
mod streams;
mod waiting;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use socket2::SockRef;

use crate::case::Client;
use crate::sys::{self, Epoll};
use crate::tls::Identity;

/// What a bare relay is told to do.
#[derive(Args, Clone)]
pub struct Order {
    /// Where clients come in.
    pub listen: SocketAddrV4,
    /// What kind of relay, as in `floor:plain+edge`.
    #[arg(default_value = "")]
    pub shape: Shape,
    /// How clients come.
    #[arg(long, default_value_t)]
    pub client: Client,
    /// Allocations come and go, and nothing is relayed.
    #[arg(long)]
    pub storm: bool,
    /// The directory with certificate and key, for TLS clients.
    #[arg(long)]
    pub identity: Option<PathBuf>,
}

/// What a relay of this kind does beyond `recvmmsg` and `sendmmsg` in a plain epoll loop.
#[derive(Clone, Copy)]
pub struct Shape {
    /// UDP_GRO in and UDP_SEGMENT out.
    pub offload: bool,
    /// The packet's own destination and its TOS byte are read, and set on what leaves.
    pub marks: bool,
    /// Relay sockets are watched edge-triggered.
    pub edge: bool,
    /// How many messages are asked of a relay socket at a time.
    pub take: usize,
    /// Rounds begin 150 us apart while packets keep coming; in the plain loop only.
    pub gather: bool,
    /// How the loop learns that there is work.
    pub waiting: Waiting,
}

/// How the loop learns that there is work.
#[derive(Clone, Copy, PartialEq)]
pub enum Waiting {
    /// A thread blocked in `epoll_wait`.
    Epoll,
    /// The same, with a timeout at each wait.
    Timeout,
    /// The same without timeout, and a timer's descriptor among the sockets.
    Timer,
    /// tokio, the epoll inside an `AsyncFd`, readiness cleared when the epoll had nothing.
    TokioNaive,
    /// tokio, readiness cleared as soon as the epoll gave less than was asked and every socket was emptied.
    Tokio,
    /// The same, with a timer of tokio's running beside it.
    TokioTimer,
}

/// A relay that the loop drives.
trait Relay {
    /// Has its sockets watched, each by a number of its own.
    fn watch(&self, epoll: &Epoll) -> io::Result<()>;
    /// Forwards what the socket of this number has; whether it may have more.
    fn ready(&mut self, number: usize) -> bool;
    /// Sends what waits; the loop calls it at the end of each round.
    fn flush(&mut self);
}

const SOCKET_BUFFER: usize = 4 << 20;

/// How often timers fire in the loops that have one.
const TIMER_MILLISECONDS: u32 = 100;

impl FromStr for Shape {
    type Err = String;

    fn from_str(options: &str) -> Result<Shape, String> {
        let mut shape = Shape {
            offload: true,
            marks: false,
            edge: false,
            take: 8,
            gather: false,
            waiting: Waiting::Epoll,
        };
        for option in options.split('+').filter(|option| !option.is_empty()) {
            match option {
                "plain" => shape.offload = false,
                "marks" => shape.marks = true,
                "edge" => shape.edge = true,
                "one" => shape.take = 1,
                "gather" => shape.gather = true,
                "timeout" => shape.waiting = Waiting::Timeout,
                "timer" => shape.waiting = Waiting::Timer,
                "tokio" => shape.waiting = Waiting::Tokio,
                "tokio-naive" => shape.waiting = Waiting::TokioNaive,
                "tokio-timer" => shape.waiting = Waiting::TokioTimer,
                _ => return Err(format!("a floor has no option {option}")),
            }
        }
        Ok(shape)
    }
}

impl Shape {
    /// A socket as this kind of relay has it.
    fn socket(&self, at: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(at)?;
        SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
        SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
        if self.offload {
            sys::receive_segments(&socket)?;
        }
        if self.marks {
            sys::receive_marks(&socket)?;
        }
        Ok(socket)
    }
}

/// Serves until it is killed.
pub fn serve(order: &Order) -> Result<()> {
    let &Order { listen, shape, client, storm, .. } = order;
    if storm {
        return Ok(storm::run(listen, shape)?);
    }
    if client == Client::Udp {
        return Ok(waiting::run(datagrams::Datagrams::set_up(listen, shape)?, shape)?);
    }
    let tls = order.identity.as_deref().map(|dir| Identity::of(dir).server()).transpose()?;
    Ok(waiting::run(streams::Streams::set_up(listen, tls.as_ref(), shape)?, shape)?)
}

/// The set-up's one question: an allocation for the sender. The answer is two bytes, the relayed port.
pub struct Ask {
    /// Whom it relays to.
    pub peer: SocketAddrV4,
    /// What goes before each payload that the peer sends; the client's messages have one of the same length.
    pub header: Vec<u8>,
    /// No other follows, so that the loop can start.
    pub last: bool,
}

impl Ask {
    /// As it goes over the wire.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.header.len() as u8, u8::from(self.last)];
        bytes.extend(self.peer.ip().octets());
        bytes.extend(self.peer.port().to_be_bytes());
        bytes.extend(&self.header);
        bytes
    }

    /// What it is, if it is one in whole.
    fn read(bytes: &[u8]) -> Option<Ask> {
        let &[len, last, a, b, c, d, p0, p1, ref header @ ..] = bytes else { return None };
        let peer = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1]));
        (header.len() == usize::from(len)).then(|| Ask { peer, header: header.to_vec(), last: last != 0 })
    }
}
