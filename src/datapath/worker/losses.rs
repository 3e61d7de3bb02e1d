//! What the kernel dropped before a worker could read it: the queue of a socket had no room.
//!
//! The kernel counts for each socket, so packets cost nothing. A listener's count is asked for whenever counters are
//! published. Relay sockets may be thousands: so many at a time, in turns, until all have been asked since anything
//! happened; and each once more when it is closed.
//!
//! Left out: whose packets they were. Not used: SO_RXQ_OVFL, which costs every packet after the first loss a control
//! message, and /proc, which counts for all programs of a host.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::relay::table::Relays;
use crate::datapath::stats::{SocketCounters, SocketQueue};
use crate::datapath::sys::option;
use crate::datapath::worker::log::Log;

/// Allocations whose relay sockets are asked at a time: a thousandth of a worker's time, at 1 to 2 us a socket.
const AT_A_TIME: usize = 64;

/// What a queue had no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct QueueLoss {
    /// How much: datagrams, of which the kernel may have joined several to one, or attempts to connect.
    pub(in crate::datapath) count: u64,
    /// The room that there was, in bytes; the least, if several sockets lost something.
    pub(in crate::datapath) room: usize,
}

/// What was counted already of what the kernel dropped at a socket. It lives as long as the socket.
#[derive(Debug, Default)]
pub(in crate::datapath) struct DropCounter(AtomicU32);

/// A worker's search for losses.
pub(in crate::datapath) struct LossMonitor<'g> {
    groups: &'g [ListenerGroup],
    worker: usize,
    /// Allocations that are still to be asked since anything happened.
    unasked: usize,
}

impl<'g> LossMonitor<'g> {
    /// What `worker` loses, at its listeners in `groups` too.
    pub(in crate::datapath) fn new(groups: &'g [ListenerGroup], worker: usize) -> LossMonitor<'g> {
        LossMonitor { groups, worker, unasked: 0 }
    }

    /// Counts what was lost since the last time, and says so. `active`: something has happened since.
    pub(in crate::datapath) fn count(
        &mut self,
        now: u64,
        active: bool,
        relays: &mut Relays,
        counters: &mut SocketCounters,
        log: &mut Log,
    ) {
        let mut lost = [QueueLoss::default(); SocketQueue::ALL.len()];
        if active {
            for group in self.groups {
                group.queues(self.worker, |queue, socket, counted| {
                    lost[queue as usize].add(counted.lost(socket));
                });
            }
            self.unasked = relays.len();
        }
        lost[SocketQueue::Relay as usize] = relays.lost(self.unasked.min(AT_A_TIME));
        self.unasked = self.unasked.saturating_sub(AT_A_TIME);
        for (queue, lost) in SocketQueue::ALL.into_iter().zip(lost) {
            counters.lost[queue as usize] += lost.count;
            log.lost(now, queue, lost);
        }
    }

    /// Whether there are sockets that have not been asked yet.
    pub(in crate::datapath) fn is_behind(&self) -> bool {
        self.unasked > 0
    }
}

impl DropCounter {
    /// What is new since the last time.
    pub(in crate::datapath) fn lost(&self, socket: BorrowedFd<'_>) -> QueueLoss {
        // Before Linux 4.12 it cannot be asked.
        let Ok(queue) = option::queue(socket) else { return QueueLoss::default() };
        let before = self.0.swap(queue.dropped, Ordering::Relaxed);
        match queue.dropped.wrapping_sub(before) {
            0 => QueueLoss::default(),
            more => QueueLoss { count: more.into(), room: queue.room },
        }
    }
}

impl Default for QueueLoss {
    /// Nothing.
    fn default() -> QueueLoss {
        QueueLoss { count: 0, room: usize::MAX }
    }
}

impl QueueLoss {
    /// And this.
    pub(in crate::datapath) fn add(&mut self, other: QueueLoss) {
        self.count += other.count;
        self.room = self.room.min(other.room);
    }
}

#[cfg(test)]
pub(in crate::datapath) mod tests {
    use std::net::{SocketAddr, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use socket2::{Domain, SockRef, Socket, Type};

    use super::*;
    use crate::datapath::DatapathConfig;
    use crate::datapath::relay::ports::Ports;
    use crate::datapath::relay::quota::QuotaLedger;
    use crate::datapath::relay::reservations::Reservations;
    use crate::datapath::relay::table::Resources;
    use crate::turn::Transport;

    /// How often something is looked at again that the kernel does in its own time.
    const PATIENCE: usize = 500;

    fn a_moment() {
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Sends datagrams with this first byte until a queue must be full, and takes out what is in it; returns how many
    /// found no room.
    pub(in crate::datapath) fn overflow(socket: BorrowedFd<'_>, addr: SocketAddr, first: u8) -> u64 {
        const SENT: usize = 400;
        let before = option::queue(socket).unwrap().dropped;
        let sender = UdpSocket::bind((addr.ip(), 0)).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(50_000).unwrap();
        (0..SENT).for_each(|_| assert_eq!(sender.send_to(&[first; 500], addr).unwrap(), 500));
        let queue = UdpSocket::from(socket.try_clone_to_owned().unwrap());
        queue.set_nonblocking(true).unwrap();
        let mut read = 0;
        for _ in 0..PATIENCE {
            read += std::iter::from_fn(|| queue.recv(&mut [0; 500]).ok()).count();
            let dropped = option::queue(socket).unwrap().dropped.wrapping_sub(before) as usize;
            if read + dropped == SENT {
                assert!(read > 0 && dropped > 0, "{read} {dropped}");
                return dropped as u64;
            }
            a_moment();
        }
        panic!("of {SENT} datagrams {read} came, and the others were not dropped");
    }

    /// What a worker finds that has nothing but listeners.
    fn counted(groups: &[ListenerGroup], worker: usize) -> [u64; 4] {
        let resources = Arc::new(Resources {
            ports: Ports::new(&[], 1..=1),
            ledger: QuotaLedger::new(1, 1),
            reservations: Reservations::default(),
            reservation_lifetime: 30,
            gro: true,
        });
        let mut relays = Relays::new(resources, StdRng::seed_from_u64(4));
        let (mut losses, mut counters) = (LossMonitor::new(groups, worker), SocketCounters::default());
        losses.count(0, true, &mut relays, &mut counters, &mut Log::default());
        assert!(!losses.is_behind());
        counters.lost
    }

    #[test]
    fn what_found_no_room_is_counted_once() {
        for ip in ["127.0.0.1", "::1"] {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            let addr = socket.local_addr().unwrap();
            let (socket, counted) = (socket.as_fd(), DropCounter::default());
            assert_eq!(counted.lost(socket), QueueLoss::default());
            for _ in 0..2 {
                let count = overflow(socket, addr, 0);
                assert_eq!(counted.lost(socket), QueueLoss { count, room: 50_000 });
                assert_eq!(counted.lost(socket), QueueLoss::default());
            }
        }
    }

    #[test]
    fn the_kernels_count_may_wrap() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let counted = DropCounter(AtomicU32::new(u32::MAX - 4));
        assert_eq!(counted.lost(socket.as_fd()).count, 5, "from 4,294,967,291 to 0");
    }

    /// Each queue by itself; a worker that begins again goes on from there.
    #[test]
    fn listeners_for_datagrams() {
        let groups =
            [ListenerGroup::open("127.0.0.1:0".parse().unwrap(), &DatapathConfig::for_workers(1), 1)
                .unwrap()];
        let addr = groups[0].local_addr();
        let fill = |wanted, first| {
            let mut lost = 0;
            groups[0].queues(0, |queue, socket, _| {
                if queue == wanted {
                    lost = overflow(socket, addr, first);
                }
            });
            lost
        };
        assert_eq!(counted(&groups, 0), [0; 4]);
        let (requests, data) = (fill(SocketQueue::Control, 0), fill(SocketQueue::Data, 0x40));
        assert_eq!(counted(&groups, 0), [requests, data, 0, 0]);
        assert_eq!(counted(&groups, 0), [0; 4]);
        let data = fill(SocketQueue::Data, 0x40);
        assert_eq!(counted(&groups, 0), [0, data, 0, 0]);
    }

    #[test]
    fn listeners_for_streams() {
        let open = ListenerGroup::open_stream(
            Transport::Tcp,
            "127.0.0.1:0".parse().unwrap(),
            &DatapathConfig::for_workers(1),
        );
        let groups = [open.unwrap()];
        groups[0].queues(0, |_, socket, _| SockRef::from(&socket).listen(1).unwrap());
        let addr = groups[0].local_addr().into();
        let clients: Vec<TcpStream> = (0..10)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&addr);
                client.into()
            })
            .collect();
        // Two wait; each of the others is told nothing, and will try again.
        let mut refused = 0;
        for _ in 0..PATIENCE {
            refused += counted(&groups, 0)[SocketQueue::Accept as usize];
            if refused >= 8 {
                break;
            }
            a_moment();
        }
        assert!((8..=16).contains(&refused), "{refused}");
        drop(clients);
    }
}
