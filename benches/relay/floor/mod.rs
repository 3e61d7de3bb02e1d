//! The floor: a bare relay with hairpin's sockets and nothing else, so that its cost is what any relay of this shape
//! pays the kernel on this machine.
//!
//! One socket for the clients, one for each allocation. Who talks to whom is settled before the loop starts, by a
//! set-up of its own; afterwards nothing is parsed and nothing is checked: the channel header comes off in one
//! direction and goes on in the other. Left out on purpose: any map (the client's port is an index), clocks, timers,
//! counters, and the splitting of batches that grow past what one send may carry (no case of the benchmark gets
//! there; such a batch would show as loss).

mod relay;
mod waiting;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::str::FromStr;

use relay::Relay;

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

/// How often timers fire in the loops that have one.
const TIMER_MILLISECONDS: u32 = 100;

impl FromStr for Shape {
    type Err = String;

    fn from_str(options: &str) -> Result<Shape, String> {
        let mut shape = Shape { offload: true, marks: false, edge: false, take: 8, waiting: Waiting::Epoll };
        for option in options.split('+').filter(|option| !option.is_empty()) {
            match option {
                "plain" => shape.offload = false,
                "marks" => shape.marks = true,
                "edge" => shape.edge = true,
                "one" => shape.take = 1,
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

/// Serves until it is killed.
pub fn serve(listen: SocketAddrV4, shape: Shape) -> io::Result<()> {
    let listener = UdpSocket::bind(listen)?;
    let mut relay = Relay::new(listener, shape)?;
    set_up(&mut relay, *listen.ip())?;
    waiting::run(relay, shape)
}

/// Opens an allocation for each client that asks, until one says that all are there.
fn set_up(relay: &mut Relay, ip: Ipv4Addr) -> io::Result<()> {
    let mut bytes = [0; 64];
    loop {
        let (len, from) = relay.listener().recv_from(&mut bytes)?;
        let std::net::SocketAddr::V4(client) = from else { continue };
        match Ask::read(&bytes[..len]) {
            Some(Ask::Flow { channel, peer }) => {
                let relayed = relay.allocate(client, peer, channel, ip)?;
                relay.listener().send_to(&relayed.port().to_be_bytes(), client)?;
            }
            Some(Ask::Go) => {
                relay.listener().send_to(&[0, 0], client)?;
                return Ok(());
            }
            None => {}
        }
    }
}

/// The set-up's two questions, each answered by two bytes: the relayed port, or zero for "go".
pub enum Ask {
    /// An allocation for the sender, to this peer.
    Flow { channel: u16, peer: SocketAddrV4 },
    /// Start the loop.
    Go,
}

impl Ask {
    /// As it goes over the wire; the first byte is no ChannelData.
    pub fn write(&self) -> Vec<u8> {
        match self {
            Ask::Flow { channel, peer } => {
                let mut bytes = vec![1];
                bytes.extend(channel.to_be_bytes());
                bytes.extend(peer.ip().octets());
                bytes.extend(peer.port().to_be_bytes());
                bytes
            }
            Ask::Go => vec![2],
        }
    }

    fn read(bytes: &[u8]) -> Option<Ask> {
        match *bytes {
            [1, c0, c1, a, b, c, d, p0, p1] => Some(Ask::Flow {
                channel: u16::from_be_bytes([c0, c1]),
                peer: SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1])),
            }),
            [2] => Some(Ask::Go),
            _ => None,
        }
    }
}
