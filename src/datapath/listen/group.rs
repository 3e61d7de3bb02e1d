//! Listener groups: the sockets through which all workers share one listen address.
//!
//! The kernel keeps a client with its worker only while the group is unchanged, so a group is opened as a whole and its
//! sockets live until the group is closed, also while a worker restarts. No second process can join: the first socket
//! binds *without* SO_REUSEPORT, which fails if anyone has the address.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::accept;
use super::steering::{self, QueueKind};
use crate::datapath::DatapathConfig;
use crate::datapath::drops::DropCounter;
use crate::datapath::stats::SocketQueue;
use crate::datapath::sys::{address, option};
use crate::turn::Transport;

/// The buffer size that a listener socket asks for, to hold a burst while its worker is busy.
pub(in crate::datapath) const BUFFER: usize = 8 << 20;

/// Datagrams that are discarded per socket at most while opening: more than a queue holds.
const DISCARD: usize = 100_000;

/// The sockets of one listen address.
#[derive(Debug)]
pub struct ListenerGroup {
    transport: Transport,
    addr: SocketAddr,
    sockets: ListenerSockets,
    /// Per socket, how many of its drops are counted: a worker that restarts goes on from there.
    drops: Vec<DropCounter>,
    /// Per worker, the allocations of clients of this listener, if it is for datagrams.
    allocations: Vec<AtomicUsize>,
    /// Notified when there is no allocation any more, while the listener is being removed.
    emptied: Mutex<Option<Arc<Notify>>>,
}

#[derive(Debug)]
enum ListenerSockets {
    /// Per worker one for control and one for data.
    Datagrams(Vec<Arc<UdpSocket>>),
    /// One per worker.
    Streams(Vec<TcpListener>),
}

/// Why a listen address cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// EADDRINUSE
    #[error("{0} {1}: already in use (another hairpin?); stop the other program or listen on another port{hint}", hint = sharing(.0, .1))]
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

/// Web servers have ports below 1024.
fn sharing(transport: &str, address: &SocketAddr) -> &'static str {
    match transport != Transport::Udp.as_str() && address.port() < 1024 {
        true => "; a web server may have it: hairpin can share the port, see docs/port-443.md",
        false => "",
    }
}

impl ListenerGroup {
    /// Opens the sockets of all `config.workers` for UDP clients. `key` is a random constant of the process for the hash
    /// that assigns each client to a worker.
    ///
    /// # Errors
    /// The address cannot be bound: it is in use, not this machine's, or this process may not.
    pub fn open(addr: SocketAddr, config: &DatapathConfig, key: u32) -> Result<ListenerGroup, OpenError> {
        ListenerGroup::datagrams(addr, config, key)
            .map_err(|error| OpenError::new(Transport::Udp, addr, error))
    }

    /// Opens the listeners of all `config.workers` for a stream transport.
    ///
    /// # Errors
    /// The address cannot be bound: it is in use, not this machine's, or this process may not.
    pub fn open_stream(
        transport: Transport,
        addr: SocketAddr,
        config: &DatapathConfig,
    ) -> Result<ListenerGroup, OpenError> {
        ListenerGroup::streams(transport, addr, config, false)
    }

    /// The same at an address that a listener for streams of this process has, or a part of it, and which is about to be closed.
    /// That one gets all connections until workers serve this group.
    ///
    /// # Errors
    /// The address cannot be bound: it is in use, not this machine's, or this process may not.
    pub fn open_stream_beside(
        transport: Transport,
        addr: SocketAddr,
        config: &DatapathConfig,
    ) -> Result<ListenerGroup, OpenError> {
        ListenerGroup::streams(transport, addr, config, true)
    }

    fn streams(
        transport: Transport,
        addr: SocketAddr,
        config: &DatapathConfig,
        beside: bool,
    ) -> Result<ListenerGroup, OpenError> {
        let mss = config.mss.get(&addr).copied().unwrap_or_default();
        let (addr, listeners) = accept::open(addr, config.workers, mss, beside)
            .map_err(|error| OpenError::new(transport, addr, error))?;
        info!(%addr, transport = transport.as_str(), sockets = listeners.len(), "stream listeners are open");
        Ok(ListenerGroup::new(transport, addr, ListenerSockets::Streams(listeners)))
    }

    /// Makes the kernel accept connections, if this group is for streams.
    pub(in crate::datapath) fn accept(&self) -> Result<(), OpenError> {
        match &self.sockets {
            ListenerSockets::Datagrams(_) => Ok(()),
            ListenerSockets::Streams(listeners) => {
                accept::listen(listeners).map_err(|error| OpenError::new(self.transport, self.addr, error))
            }
        }
    }

    /// Sets the largest TCP segment of new connections, if this group is for streams. 0: the kernel's choice.
    ///
    /// # Errors
    /// The kernel refuses the size.
    pub fn set_mss(&self, mss: u16) -> io::Result<()> {
        match &self.sockets {
            ListenerSockets::Datagrams(_) => Ok(()),
            ListenerSockets::Streams(listeners) => {
                listeners.iter().try_for_each(|listener| accept::set_mss(listener, mss))
            }
        }
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
            ListenerSockets::Datagrams(sockets) => sockets.len() / QueueKind::COUNT,
            ListenerSockets::Streams(listeners) => listeners.len(),
        }
    }

    /// The allocations of clients of this listener on all workers. Always 0 for streams: these outlive their listener.
    pub fn allocations(&self) -> usize {
        self.allocations.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Notifies when it has no allocation any more, at once if there is none. It is to get no new ones.
    pub fn notify_when_empty(&self, notify: &Arc<Notify>) {
        *self.emptied() = Some(notify.clone());
        self.notify_if_empty();
    }

    /// It gets new allocations again.
    pub fn keep(&self) {
        *self.emptied() = None;
    }

    /// A client of this worker has got an allocation, or has lost it.
    pub(in crate::datapath) fn count_allocation(&self, worker: usize, begins: bool) {
        let Some(count) = self.allocations.get(worker) else { return };
        if begins {
            count.fetch_add(1, Ordering::SeqCst);
            return;
        }
        // The allocation may have been counted by other sockets that this address had before.
        let less = |count: usize| count.checked_sub(1);
        if count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) == Ok(1) {
            self.notify_if_empty();
        }
    }

    /// A worker starts without allocations.
    pub(in crate::datapath) fn reset(&self, worker: usize) {
        if self.allocations.get(worker).is_some_and(|count| count.swap(0, Ordering::SeqCst) > 0) {
            self.notify_if_empty();
        }
    }

    fn notify_if_empty(&self) {
        if let Some(notify) = &*self.emptied()
            && self.allocations() == 0
        {
            notify.notify_one();
        }
    }

    fn emptied(&self) -> MutexGuard<'_, Option<Arc<Notify>>> {
        // Every change is a single assignment.
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's UDP socket of a kind.
    pub(in crate::datapath) fn socket(&self, worker: usize, kind: QueueKind) -> Option<&Arc<UdpSocket>> {
        match &self.sockets {
            ListenerSockets::Datagrams(sockets) => sockets.get(kind.index(worker)),
            ListenerSockets::Streams(_) => None,
        }
    }

    /// A worker's listener for streams.
    pub(in crate::datapath) fn listener(&self, worker: usize) -> Option<&TcpListener> {
        match &self.sockets {
            ListenerSockets::Datagrams(_) => None,
            ListenerSockets::Streams(listeners) => listeners.get(worker),
        }
    }

    /// A worker's sockets with the queue that each is, and its drop counter.
    pub(in crate::datapath) fn queues(
        &self,
        worker: usize,
    ) -> impl Iterator<Item = (SocketQueue, BorrowedFd<'_>, &DropCounter)> {
        let datagrams = [(QueueKind::Control, SocketQueue::Control), (QueueKind::Data, SocketQueue::Data)];
        let datagrams = datagrams.into_iter().filter_map(move |(kind, queue)| {
            Some((queue, self.socket(worker, kind)?.as_fd(), &self.drops[kind.index(worker)]))
        });
        let stream = self.listener(worker);
        let stream = stream.map(|socket| (SocketQueue::Accept, socket.as_fd(), &self.drops[worker]));
        datagrams.chain(stream)
    }

    fn datagrams(addr: SocketAddr, config: &DatapathConfig, key: u32) -> io::Result<ListenerGroup> {
        let first = bind(addr, false)?;
        let addr = address::normalize(first.local_addr()?);
        option::share_address(first.as_fd())?;
        let mut sockets = vec![first];
        for _ in 1..config.workers.max(1) * QueueKind::COUNT {
            sockets.push(bind(addr, true)?);
        }
        let mut steered = config.steering;
        if steered
            && let Err(error) =
                option::steer(sockets[0].as_fd(), &steering::program(config.workers, key, config.channels))
        {
            warn!(%addr, %error, "datagrams are not steered: requests and data share queues");
            steered = false;
        }
        // A control socket receives without GRO: a GRO batch of requests would count as one against a budget.
        let gro = |index| config.gro && !(steered && QueueKind::of(index) == QueueKind::Control);
        prepare(&sockets, addr, gro)?;
        // What arrived before the group was complete may be in the wrong queue and lacks the options set since.
        sockets.iter().for_each(discard);
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Ok(ListenerGroup::new(Transport::Udp, addr, ListenerSockets::Datagrams(sockets)))
    }

    fn new(transport: Transport, addr: SocketAddr, sockets: ListenerSockets) -> ListenerGroup {
        let count = match &sockets {
            ListenerSockets::Datagrams(sockets) => sockets.len(),
            ListenerSockets::Streams(listeners) => listeners.len(),
        };
        let drops = std::iter::repeat_with(DropCounter::default).take(count).collect();
        let workers = if transport.is_stream() { 0 } else { count / QueueKind::COUNT };
        let allocations = std::iter::repeat_with(AtomicUsize::default).take(workers).collect();
        ListenerGroup { transport, addr, sockets, drops, allocations, emptied: Mutex::default() }
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
    option::allow_missing_address(&socket, addr);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Sets the options of each socket; what the kernel lacks is logged once per group.
fn prepare(sockets: &[UdpSocket], addr: SocketAddr, gro: impl Fn(usize) -> bool) -> io::Result<()> {
    let (mut sizes, mut tos, mut joined) = ((usize::MAX, usize::MAX), Ok(()), Ok(()));
    for (index, socket) in sockets.iter().map(AsFd::as_fd).enumerate() {
        // RFC 8656 §7.2: a response leaves from the address that the request was sent to, so it must be known.
        if addr.ip().is_unspecified() {
            option::receive_destination(socket, addr.is_ipv6())?;
        }
        // RFC 8656 §14: responses and Data indications may be fragmented.
        option::may_fragment(socket, addr.is_ipv6())?;
        tos = tos.and(option::receive_tos(socket, addr.is_ipv6()));
        if gro(index) {
            joined = joined.and(option::enable_gro(socket));
        }
        let granted = option::buffers(socket, BUFFER)?;
        sizes = (sizes.0.min(granted.0), sizes.1.min(granted.1));
    }
    if let Err(error) = tos {
        warn!(%addr, %error, "the kernel does not report DSCP and ECN: relayed packets lose them");
    }
    if let Err(error) = joined {
        warn!(%addr, %error, "no UDP_GRO: every datagram is received by itself");
    }
    let (receive, send) = sizes;
    info!(%addr, sockets = sockets.len(), receive, send, "udp listeners are open; buffers in bytes");
    Ok(())
}

/// Warns, once for all groups, if the kernel granted smaller buffers than asked for.
pub(in crate::datapath) fn warn_of_small_buffers(groups: &[Arc<ListenerGroup>]) {
    let sizes = groups
        .iter()
        .filter_map(|group| option::buffer_sizes(group.socket(0, QueueKind::Data)?.as_fd()).ok())
        .reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
    let Some((receive, send)) = sizes else { return };
    if receive < BUFFER || send < BUFFER {
        warn!(
            receive,
            send,
            "bursts may be lost: sockets have smaller buffers than they asked for; run \
             `sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}` and restart"
        );
    }
}

fn discard(socket: &UdpSocket) {
    let mut byte = [0];
    for _ in 0..DISCARD {
        match socket.recv(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // A datagram, or a pending error that is cleared by this.
            Ok(_) | Err(_) => {}
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

    /// Whoever finds port 443 in use mostly has a web server there.
    #[test]
    fn a_port_of_web_servers_can_be_shared() {
        let said = |transport, text: &str| OpenError::InUse(transport, text.parse().unwrap()).to_string();
        let page = "a web server may have it: hairpin can share the port, see docs/port-443.md";
        assert_eq!(
            said("tls", "0.0.0.0:443"),
            format!(
                "tls 0.0.0.0:443: already in use (another hairpin?); stop the other program or listen on another port; {page}"
            )
        );
        assert!(said("tcp", "[::]:80").ends_with(page));
        for (transport, address) in [("udp", "0.0.0.0:443"), ("tcp", "0.0.0.0:3478"), ("tls", "[::]:5349")] {
            assert!(said(transport, address).ends_with("listen on another port"), "{transport} {address}");
        }
    }

    /// An allocation that other sockets of the address have counted may end here.
    #[test]
    fn a_count_of_allocations_never_falls_below_zero() {
        let addr = "127.0.0.1:0".parse().unwrap();
        let group = ListenerGroup::open(addr, &DatapathConfig::for_workers(2), 1).unwrap();
        group.count_allocation(0, false);
        assert_eq!(group.allocations(), 0);
        group.count_allocation(1, true);
        group.count_allocation(0, false);
        assert_eq!(group.allocations(), 1);
    }

    /// Sockets beside those of a listener that is to be closed take none of its connections before they are served.
    #[test]
    fn a_group_beside_another_takes_no_connections_until_it_is_served() {
        let config = DatapathConfig::for_workers(2);
        let any = ListenerGroup::open_stream(Transport::Tcp, "0.0.0.0:0".parse().unwrap(), &config).unwrap();
        let addr = SocketAddr::new("127.1.16.9".parse().unwrap(), any.local_addr().port());
        let accepted = |group: &ListenerGroup| {
            let _client = std::net::TcpStream::connect(addr).unwrap();
            (0..group.workers()).any(|worker| group.listener(worker).unwrap().accept().is_ok())
        };
        let group = ListenerGroup::open_stream_beside(Transport::Tcp, addr, &config).unwrap();
        assert!(accepted(&any), "the listener that is there");
        group.accept().unwrap();
        assert!(accepted(&group), "the new one");
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

    /// A service may start before the network: a listener waits for its address.
    #[test]
    fn an_address_that_is_not_here_yet_can_be_opened() {
        for addr in ["192.0.2.77:3478", "[2001:db8::77]:3478"] {
            let (addr, config) = (addr.parse().unwrap(), DatapathConfig::for_workers(2));
            let group = ListenerGroup::open(addr, &config, 1).unwrap();
            assert_eq!(group.local_addr(), addr);
            let again = ListenerGroup::open(addr, &config, 1).unwrap_err();
            assert!(matches!(again, OpenError::InUse(..)), "{again}");
            assert!(ListenerGroup::open_stream(Transport::Tcp, addr, &config).is_ok());
        }
    }
}
