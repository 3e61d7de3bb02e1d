//! Listener groups: the sockets that all workers share one listen address with.
//!
//! The kernel pins a client to a worker only while its group is unchanged, so a group is opened once, belongs to the
//! daemon, and is lent to workers, also to those that replace a worker that failed. It is opened so that no second
//! process can join: the first socket binds *without* SO_REUSEPORT, which fails if anyone has the address.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use crate::datapath::DatapathConfig;
use crate::datapath::listen::accept::{self, Acceptor};
use crate::datapath::listen::steering::{self, Kind};
use crate::datapath::stats::SocketQueue;
use crate::datapath::sys::option;
use crate::datapath::worker::losses::DropCounter;
use crate::turn::Transport;

/// What a listener socket asks for to hold a burst while its worker is busy.
pub(in crate::datapath) const BUFFER: usize = 8 << 20;

/// Datagrams that are discarded a socket at most while opening: more than a queue holds.
const DISCARD: usize = 100_000;

/// The sockets of one listen address.
#[derive(Debug)]
pub struct ListenerGroup {
    transport: Transport,
    addr: SocketAddr,
    sockets: ListenerSockets,
    /// For each socket, what was counted of its losses: a worker that begins again goes on from there.
    counted: Vec<DropCounter>,
}

#[derive(Debug)]
enum ListenerSockets {
    /// For each worker one for control and one for data.
    Datagrams(Vec<UdpSocket>),
    /// One for each worker.
    Streams(Vec<TcpListener>),
}

/// Why a listen address cannot be had; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// EADDRINUSE
    #[error("{0} {1}: already in use (another hairpin?); stop the other program or listen on another port")]
    InUse(&'static str, SocketAddr),
    /// EACCES, EPERM
    #[error("{0} {1}: no permission; use a port from 1024 up, or give the program CAP_NET_BIND_SERVICE")]
    NoPermission(&'static str, SocketAddr),
    /// EADDRNOTAVAIL
    #[error("{0} {1}: this machine does not have that address; listen on one that it has")]
    NotHere(&'static str, SocketAddr),
    /// Anything else.
    #[error("{0} {1}: {2}")]
    Other(&'static str, SocketAddr, io::Error),
}

impl ListenerGroup {
    /// Opens the sockets of all `config.workers`. `key` is a random constant of the process for the hash that gives each
    /// client its worker.
    pub fn open(addr: SocketAddr, config: &DatapathConfig, key: u32) -> Result<ListenerGroup, OpenError> {
        ListenerGroup::datagrams(addr, config, key)
            .map_err(|error| OpenError::new(Transport::Udp, addr, error))
    }

    /// Opens the listeners of all `config.workers` for a stream transport.
    pub fn open_stream(
        transport: Transport,
        addr: SocketAddr,
        config: &DatapathConfig,
    ) -> Result<ListenerGroup, OpenError> {
        let (addr, listeners) =
            accept::open(addr, config.workers).map_err(|error| OpenError::new(transport, addr, error))?;
        info!(%addr, transport = transport.as_str(), sockets = listeners.len(), "stream listeners are open");
        Ok(ListenerGroup::new(transport, addr, ListenerSockets::Streams(listeners)))
    }

    /// The address that all its sockets are bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What its clients speak.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// How many workers it was opened for.
    pub fn workers(&self) -> usize {
        match &self.sockets {
            ListenerSockets::Datagrams(sockets) => sockets.len() / Kind::COUNT,
            ListenerSockets::Streams(listeners) => listeners.len(),
        }
    }

    /// A worker's socket of a kind, for datagrams.
    pub(in crate::datapath) fn socket(&self, worker: usize, kind: Kind) -> Option<BorrowedFd<'_>> {
        match &self.sockets {
            ListenerSockets::Datagrams(sockets) => Some(sockets[kind.place(worker)].as_fd()),
            ListenerSockets::Streams(_) => None,
        }
    }

    /// A worker's listener, for streams.
    pub(in crate::datapath) fn acceptor(&self, worker: usize) -> Option<Acceptor<'_>> {
        match &self.sockets {
            ListenerSockets::Datagrams(_) => None,
            ListenerSockets::Streams(listeners) => Some(Acceptor::new(&listeners[worker], self.transport)),
        }
    }

    /// Shows a worker's sockets, as queues that may lose something.
    pub(in crate::datapath) fn queues(
        &self,
        worker: usize,
        mut show: impl FnMut(SocketQueue, BorrowedFd<'_>, &DropCounter),
    ) {
        match &self.sockets {
            ListenerSockets::Datagrams(sockets) => {
                for (kind, queue) in [(Kind::Control, SocketQueue::Control), (Kind::Data, SocketQueue::Data)]
                {
                    let place = kind.place(worker);
                    show(queue, sockets[place].as_fd(), &self.counted[place]);
                }
            }
            ListenerSockets::Streams(listeners) => {
                show(SocketQueue::Accept, listeners[worker].as_fd(), &self.counted[worker]);
            }
        }
    }

    fn datagrams(addr: SocketAddr, config: &DatapathConfig, key: u32) -> io::Result<ListenerGroup> {
        let first = bind(addr, false)?;
        let addr = crate::datapath::sys::address::plain(first.local_addr()?);
        option::share_address(first.as_fd())?;
        let mut sockets = vec![first];
        for _ in 1..config.workers.max(1) * Kind::COUNT {
            sockets.push(bind(addr, true)?);
        }
        let mut steered = config.steering;
        if steered
            && let Err(error) = option::steer(sockets[0].as_fd(), &steering::program(config.workers, key))
        {
            warn!(%addr, %error, "no steering of datagrams: requests and data share queues");
            steered = false;
        }
        // Requests come one by one: a budget counts what was joined as one, and a request takes longer than a packet.
        let joined = |place| config.gro && !(steered && Kind::of(place) == Kind::Control);
        prepare(&sockets, addr, joined)?;
        // What came before the group was whole may be in the wrong queue, and lack what was asked for since.
        sockets.iter().for_each(discard);
        Ok(ListenerGroup::new(Transport::Udp, addr, ListenerSockets::Datagrams(sockets)))
    }

    fn new(transport: Transport, addr: SocketAddr, sockets: ListenerSockets) -> ListenerGroup {
        let count = match &sockets {
            ListenerSockets::Datagrams(sockets) => sockets.len(),
            ListenerSockets::Streams(listeners) => listeners.len(),
        };
        let counted = std::iter::repeat_with(DropCounter::default).take(count).collect();
        ListenerGroup { transport, addr, sockets, counted }
    }
}

impl OpenError {
    fn new(transport: Transport, addr: SocketAddr, error: io::Error) -> OpenError {
        let transport = transport.as_str();
        match error.kind() {
            io::ErrorKind::AddrInUse => OpenError::InUse(transport, addr),
            io::ErrorKind::PermissionDenied => OpenError::NoPermission(transport, addr),
            io::ErrorKind::AddrNotAvailable => OpenError::NotHere(transport, addr),
            _ => OpenError::Other(transport, addr, error),
        }
    }
}

fn bind(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        option::share_address(socket.as_fd())?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Sets what each socket is to tell and to hold; what the kernel lacks is said once a group.
fn prepare(sockets: &[UdpSocket], addr: SocketAddr, gro: impl Fn(usize) -> bool) -> io::Result<()> {
    let (mut room, mut tos, mut joined) = ((usize::MAX, usize::MAX), Ok(()), Ok(()));
    for (place, socket) in sockets.iter().map(AsFd::as_fd).enumerate() {
        // RFC 8656 §7.2: answers leave from the address that was asked, so it must be known.
        if is_wildcard(addr.ip()) {
            option::receive_destination(socket, addr.is_ipv6())?;
        }
        // RFC 8656 §14: answers and Data indications may be fragmented.
        option::may_fragment(socket, addr.is_ipv6())?;
        tos = tos.and(option::receive_marks(socket, addr.is_ipv6()));
        if gro(place) {
            joined = joined.and(option::receive_joined(socket));
        }
        let got = option::buffers(socket, BUFFER)?;
        room = (room.0.min(got.0), room.1.min(got.1));
    }
    if let Err(error) = tos {
        warn!(%addr, %error, "the kernel does not tell DSCP and ECN: relayed packets lose them");
    }
    if let Err(error) = joined {
        warn!(%addr, %error, "no UDP_GRO: every datagram is received by itself");
    }
    let (receive, send) = room;
    info!(%addr, sockets = sockets.len(), receive, send, "udp listeners are open, buffers in bytes");
    Ok(())
}

/// Says once for all groups if the kernel gave their sockets less room than they asked for.
pub(in crate::datapath) fn tell_of_little_room(groups: &[ListenerGroup]) {
    let rooms = groups.iter().filter_map(|group| option::room(group.socket(0, Kind::Data)?).ok());
    let Some((receive, send)) = rooms.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))) else { return };
    if receive < BUFFER || send < BUFFER {
        warn!(
            receive,
            send,
            "bursts may be lost, sockets have less room than they asked for; \
             `sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}` and a restart mend it"
        );
    }
}

/// Whether an address stands for all of a family.
pub(in crate::datapath) fn is_wildcard(ip: IpAddr) -> bool {
    ip.is_unspecified()
}

fn discard(socket: &UdpSocket) {
    let mut byte = [0];
    for _ in 0..DISCARD {
        match socket.recv(&mut byte) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // An error that was waiting to be told; it is gone now.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_join_a_group() {
        for ip in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
            let addr = SocketAddr::new(ip.parse().unwrap(), 0);
            let group = ListenerGroup::open(addr, &DatapathConfig::for_workers(2), 1).unwrap();
            assert_eq!(group.workers(), 2);
            let again =
                ListenerGroup::open(group.local_addr(), &DatapathConfig::for_workers(2), 1).unwrap_err();
            assert!(matches!(again, OpenError::InUse(..)), "{again}");
            assert!(again.to_string().contains("already in use (another hairpin?)"), "{again}");
            let addr = group.local_addr();
            drop(group);
            assert!(ListenerGroup::open(addr, &DatapathConfig::for_workers(2), 1).is_ok(), "free again");
        }
    }

    #[test]
    fn nobody_can_join_a_group_of_streams() {
        for ip in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
            let open =
                |addr| ListenerGroup::open_stream(Transport::Tls, addr, &DatapathConfig::for_workers(2));
            let group = open(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            assert_eq!((group.workers(), group.transport()), (2, Transport::Tls));
            let addr = group.local_addr();
            let again = open(addr).unwrap_err();
            assert!(
                again.to_string().starts_with(&format!("tls {addr}: already in use (another")),
                "{again}"
            );
            drop(group);
            assert!(open(addr).is_ok(), "free again");
        }
    }

    #[test]
    fn an_ipv6_wildcard_leaves_ipv4_alone() {
        let v6 = ListenerGroup::open("[::]:0".parse().unwrap(), &DatapathConfig::for_workers(2), 1).unwrap();
        let v4 = SocketAddr::new("0.0.0.0".parse().unwrap(), v6.local_addr().port());
        assert!(ListenerGroup::open(v4, &DatapathConfig::for_workers(2), 1).is_ok());
        let open =
            |addr| ListenerGroup::open_stream(Transport::Tcp, addr, &DatapathConfig::for_workers(2)).unwrap();
        let v6 = open("[::]:0".parse().unwrap());
        open(SocketAddr::new("0.0.0.0".parse().unwrap(), v6.local_addr().port()));
    }

    #[test]
    fn an_address_that_is_not_here_is_named() {
        let error =
            ListenerGroup::open("192.0.2.77:3478".parse().unwrap(), &DatapathConfig::for_workers(2), 1)
                .unwrap_err();
        assert!(matches!(error, OpenError::NotHere(..)), "{error}");
        assert!(error.to_string().starts_with("udp 192.0.2.77:3478: "), "{error}");
    }
}
