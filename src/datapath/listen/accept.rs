//! Where connections come from: listeners, one for each worker, that share an address.
//!
//! Unlike with datagrams it does not matter which worker a connection comes to: all that follows is on its socket.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::datapath::sys::{address, option};
use crate::turn::{ClientAddr, FiveTuple, Transport};

/// Connections that may wait for their worker.
pub(in crate::datapath) const BACKLOG: i32 = 4096;

/// How long accepting pauses when this machine has no descriptors or memory left.
const PAUSE: u64 = 100_000_000;

/// A connection on which nothing happens is asked after this whether it lives, and then every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE: Duration = Duration::from_secs(60);

/// See [`KEEPALIVE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long a client may acknowledge nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that the kernel may hold without being able to send them: what is old is to wait where it can be dropped.
const UNSENT: usize = 64 << 10;

/// A worker's listener for streams.
pub(in crate::datapath) struct Acceptor<'g> {
    listener: &'g TcpListener,
    transport: Transport,
    /// Until when it is not waited for.
    pub(in crate::datapath) paused: Option<u64>,
}

/// What a listener had.
pub(in crate::datapath) enum Accepted {
    /// A connection, and between whom.
    Connection(TcpStream, FiveTuple),
    /// One that was gone before it was accepted.
    Gone,
    /// Nothing more.
    Nothing,
    /// This machine has no descriptors or memory: nothing will be accepted for a while.
    Exhausted,
}

impl<'g> Acceptor<'g> {
    pub(in crate::datapath) fn new(listener: &'g TcpListener, transport: Transport) -> Acceptor<'g> {
        Acceptor { listener, transport, paused: None }
    }

    pub(in crate::datapath) fn socket(&self) -> BorrowedFd<'g> {
        self.listener.as_fd()
    }

    /// The next connection.
    pub(in crate::datapath) fn accept(&mut self, now: u64) -> Accepted {
        match self.listener.accept() {
            Ok((socket, client)) => match self.tuple(&socket, client) {
                Ok(tuple) => Accepted::Connection(socket, tuple),
                Err(_) => Accepted::Gone,
            },
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => Accepted::Nothing,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    self.paused = Some(now + PAUSE);
                    Accepted::Exhausted
                }
                // accept(2): errors of the network are those of the new connection.
                _ => Accepted::Gone,
            },
        }
    }

    /// RFC 8656 section 5: the server's side is the address that the client asked, never a wildcard.
    fn tuple(&self, socket: &TcpStream, client: SocketAddr) -> io::Result<FiveTuple> {
        socket.set_nonblocking(true)?;
        Ok(FiveTuple {
            client: ClientAddr(address::plain(client)),
            server: address::plain(socket.local_addr()?),
            transport: self.transport,
        })
    }
}

/// Opens one listener for each of `workers`.
pub(in crate::datapath) fn open(
    addr: SocketAddr,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // It listens before it shares its address, so nobody else can have the address from then on, nor had it before.
    let first = bind(addr, false)?;
    first.listen(BACKLOG)?;
    let first: TcpListener = first.into();
    let addr = address::plain(first.local_addr()?);
    option::share_address(first.as_fd())?;
    let mut listeners = vec![first];
    for _ in 1..workers.max(1) {
        let next = bind(addr, true)?;
        next.listen(BACKLOG)?;
        listeners.push(next.into());
    }
    listeners.iter().try_for_each(|listener| prepare(SockRef::from(listener)))?;
    Ok((addr, listeners))
}

fn bind(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier life may linger.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        option::share_address(socket.as_fd())?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Sets what connections have from the beginning: on Linux they inherit it.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    option::unsent_at_most(socket.as_fd(), UNSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(listener: &TcpListener) -> Option<TcpStream> {
        let mut acceptor = Acceptor::new(listener, Transport::Tcp);
        for _ in 0..100 {
            match acceptor.accept(0) {
                Accepted::Connection(socket, _) => return Some(socket),
                Accepted::Nothing => std::thread::sleep(Duration::from_millis(1)),
                Accepted::Gone | Accepted::Exhausted => return None,
            }
        }
        None
    }

    #[test]
    fn connections_inherit_what_their_listener_has() {
        for ip in ["127.0.0.1", "::1"] {
            let (addr, listeners) = open(SocketAddr::new(ip.parse().unwrap(), 0), 1).unwrap();
            let _client = TcpStream::connect(addr).unwrap();
            let socket = accepted(&listeners[0]).unwrap();
            let socket = SockRef::from(&socket);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert!(socket.nonblocking().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
            assert_eq!(option::tos(socket.as_fd(), ip.contains(':')).unwrap(), 0);
        }
    }

    /// RFC 8656 §15: the DSCP of the connection, in both families.
    #[test]
    fn marks_of_a_connection() {
        let (addr, listeners) = open("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        SockRef::from(&listeners[0]).set_tos_v4(0xB8).unwrap();
        let _client = TcpStream::connect(addr).unwrap();
        let socket = accepted(&listeners[0]).unwrap();
        assert_eq!(option::tos(socket.as_fd(), false).unwrap(), 0xB8);
    }

    #[test]
    fn all_workers_get_connections() {
        let (addr, listeners) = open("127.0.0.1:0".parse().unwrap(), 4).unwrap();
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut count = 0;
        for listener in &listeners {
            let mut own = 0;
            let mut acceptor = Acceptor::new(listener, Transport::Tcp);
            while let Accepted::Connection(_, tuple) = acceptor.accept(0) {
                assert_eq!(tuple.server, addr);
                own += 1;
            }
            assert!(own > 0);
            count += own;
        }
        assert_eq!(count, clients.len());
    }
}
