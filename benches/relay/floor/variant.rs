//! Variants of the minimal relay, each of which changes one property (`floor:edge+marks`).

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::str::FromStr;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use crate::epoll::Epoll;

/// How a relay differs from plain `recvmmsg` and `sendmmsg` in an epoll loop.
#[derive(Clone, Copy)]
pub struct Variant {
    /// UDP_GRO in and UDP_SEGMENT out.
    pub offload: bool,
    /// Destination address and TOS are received and sent as control messages.
    pub marks: bool,
    /// Relay sockets are watched edge-triggered.
    pub edge: bool,
    /// Messages per call and relay socket.
    pub take: usize,
    /// Passes begin 150 us apart while packets keep coming; not with tokio.
    pub gather: bool,
    pub wait_mode: WaitMode,
}

/// How the loop waits for packets.
#[derive(Clone, Copy, PartialEq)]
pub enum WaitMode {
    /// A thread blocks in `epoll_wait`.
    Epoll,
    /// The same, with a timeout.
    EpollTimeout,
    /// The same without timeout, with a timerfd in the epoll set.
    TimerFd,
    /// tokio waits for the epoll; readiness is cleared when the epoll returned no events.
    TokioNaive,
    /// tokio waits for the epoll; readiness is cleared when the epoll returned few events and every socket is empty.
    Tokio,
    /// The same, with a tokio timer in another task.
    TokioTimer,
}

const SOCKET_BUFFER: usize = 4 << 20;

impl FromStr for Variant {
    type Err = String;

    fn from_str(options: &str) -> Result<Variant, String> {
        let mut variant = Variant {
            offload: true,
            marks: false,
            edge: false,
            take: 8,
            gather: false,
            wait_mode: WaitMode::Epoll,
        };
        for option in options.split('+').filter(|option| !option.is_empty()) {
            match option {
                "plain" => variant.offload = false,
                "marks" => variant.marks = true,
                "edge" => variant.edge = true,
                "one" => variant.take = 1,
                "gather" => variant.gather = true,
                "timeout" => variant.wait_mode = WaitMode::EpollTimeout,
                "timer" => variant.wait_mode = WaitMode::TimerFd,
                "tokio" => variant.wait_mode = WaitMode::Tokio,
                "tokio-naive" => variant.wait_mode = WaitMode::TokioNaive,
                "tokio-timer" => variant.wait_mode = WaitMode::TokioTimer,
                _ => return Err(format!("the floor has no option \"{option}\"")),
            }
        }
        Ok(variant)
    }
}

impl Variant {
    /// Binds a socket for clients or peers.
    pub fn bind(&self, address: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(address)?;
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BUFFER)?;
        options.set_send_buffer_size(SOCKET_BUFFER)?;
        if self.offload {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        if self.marks {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            options.set_recv_tos_v4(true)?;
        }
        Ok(socket)
    }

    /// Adds a relay socket to the epoll.
    pub fn watch(&self, epoll: &Epoll, socket: &UdpSocket, token: usize) -> io::Result<()> {
        if self.edge { epoll.add_edge_triggered(socket, token) } else { epoll.add(socket, token) }
    }
}
