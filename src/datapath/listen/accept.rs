//! Listening sockets for TCP and TLS clients, one per worker, that share an address.
//!
//! Unlike with datagrams it does not matter which worker accepts a connection: all that follows is on its socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::datapath::keepalive;
use crate::datapath::stream::{SEND_BUFFER_WITHOUT_ALLOCATION, UNSENT_WITHOUT_ALLOCATION};
use crate::datapath::sys::{address, option};

/// Connections that may wait for their worker in the kernel.
pub(in crate::datapath) const BACKLOG: i32 = 4096;

/// How long a client may leave sent bytes unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens one listener per worker. Returns the address they are bound to. `mss` is the largest segment of their connections; 0 is
/// the kernel's choice. `beside`: a listener of this process that is about to be closed has the address, or a part of it. Then they
/// do not [`listen`] yet, so that they take no connections from it before it is certain that they will be served.
pub(super) fn open(
    addr: SocketAddr,
    workers: usize,
    mss: u16,
    beside: bool,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // The first one listens before it shares its address, so no other process can have the address. With `beside`, the listener
    // that is there has seen to that.
    let first = bind(addr, mss, beside)?;
    if !beside {
        first.listen(BACKLOG)?;
    }
    let first: TcpListener = first.into();
    let addr = address::normalize(first.local_addr()?);
    option::share_address(first.as_fd())?;
    let mut listeners = vec![first];
    for _ in 1..workers.max(1) {
        listeners.push(bind(addr, mss, true)?.into());
    }
    listeners.iter().try_for_each(|listener| prepare(SockRef::from(listener)))?;
    if !beside {
        listen(&listeners)?;
    }
    Ok((addr, listeners))
}

/// Makes the kernel accept connections, if it does not yet.
pub(super) fn listen(listeners: &[TcpListener]) -> io::Result<()> {
    listeners.iter().try_for_each(|listener| SockRef::from(listener).listen(BACKLOG))
}

/// tcp(7), TCP_MAXSEG: connections inherit it from their listener, and announce it in their SYN-ACK.
pub(super) fn set_mss(listener: &impl AsFd, mss: u16) -> io::Result<()> {
    SockRef::from(listener).set_tcp_mss(mss.into())
}

fn bind(addr: SocketAddr, mss: u16, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier process may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        option::share_address(socket.as_fd())?;
    }
    option::allow_missing_address(&socket, addr);
    set_mss(&socket, mss)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Sets the options of connections: on Linux a connection inherits them from its listener.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keepalive::enable(&socket)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER_WITHOUT_ALLOCATION)?;
    socket.set_tcp_notsent_lowat(UNSENT_WITHOUT_ALLOCATION)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn accepted(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap().0
    }

    #[test]
    fn connections_inherit_the_options_of_their_listener() {
        for ip in ["127.0.0.1", "::1"] {
            let (addr, listeners) = open(SocketAddr::new(ip.parse().unwrap(), 0), 1, 0, false).unwrap();
            let _client = TcpStream::connect(addr).unwrap();
            let socket = accepted(&listeners[0]);
            let socket = SockRef::from(&socket);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive::AFTER);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_WITHOUT_ALLOCATION);
            // The kernel doubles it for its bookkeeping.
            assert_eq!(socket.send_buffer_size().unwrap(), 2 * SEND_BUFFER_WITHOUT_ALLOCATION);
            assert_eq!(option::tos(socket.as_fd(), ip.contains(':')).unwrap(), 0);
        }
    }

    /// A connection whose client reads fast gets a larger send buffer again.
    #[test]
    fn the_send_buffer_grows_after_it_is_unlocked() {
        let (addr, listeners) = open("127.0.0.1:0".parse().unwrap(), 1, 0, false).unwrap();
        let mut client = TcpStream::connect(addr).unwrap();
        let mut socket = accepted(&listeners[0]);
        let size = |socket: &TcpStream| SockRef::from(socket).send_buffer_size().unwrap();
        let transfer = |from: &mut TcpStream, to: &mut TcpStream| {
            let mut bytes = vec![0; 1 << 20];
            std::thread::scope(|scope| {
                scope.spawn(|| from.write_all(&[7; 1 << 20]).unwrap());
                to.read_exact(&mut bytes).unwrap();
            });
        };
        transfer(&mut socket, &mut client);
        assert_eq!(size(&socket), 2 * SEND_BUFFER_WITHOUT_ALLOCATION);
        option::unlock_send_buffer(socket.as_fd()).unwrap();
        SockRef::from(&socket).set_tcp_notsent_lowat(u32::MAX).unwrap();
        transfer(&mut socket, &mut client);
        assert!(size(&socket) > 4 * SEND_BUFFER_WITHOUT_ALLOCATION, "{}", size(&socket));
    }

    /// RFC 8656 §15: the DSCP of the connection.
    #[test]
    fn tos_of_a_connection() {
        let (addr, listeners) = open("127.0.0.1:0".parse().unwrap(), 1, 0, false).unwrap();
        SockRef::from(&listeners[0]).set_tos_v4(0xB8).unwrap();
        let _client = TcpStream::connect(addr).unwrap();
        assert_eq!(option::tos(accepted(&listeners[0]).as_fd(), false).unwrap(), 0xB8);
    }

    #[test]
    fn every_worker_gets_connections() {
        let (addr, listeners) = open("127.0.0.1:0".parse().unwrap(), 4, 0, false).unwrap();
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut count = 0;
        for listener in &listeners {
            let own = std::iter::from_fn(|| listener.accept().ok()).count();
            assert!(own > 0);
            count += own;
        }
        assert_eq!(count, clients.len());
    }
}
