//! Counts what the kernel dropped before a worker could read it, because the queue of a socket was full.
//!
//! Listeners are asked whenever counters are published. Relay sockets may be thousands: a number of them is asked each
//! time, in turn, until all have been asked since anything happened, and each once more when it is closed.

use std::net::SocketAddr;
use std::sync::Arc;

use super::log::Log;
use crate::datapath::drops::QueueLoss;
use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::relay::table::Relays;
use crate::datapath::stats::{SocketCounters, SocketQueue};
use crate::turn::Transport;

/// Relay sockets that are asked at a time: a thousandth of a worker's time, at 1 to 2 us per socket.
const RELAY_SOCKETS: usize = 64;

/// What a worker's sockets lose.
pub(super) struct LossMonitor {
    worker: usize,
    groups: Vec<Arc<ListenerGroup>>,
    /// Relay sockets that are still to be asked since anything happened.
    unasked: usize,
}

impl LossMonitor {
    /// Monitors the sockets of `worker`; no listener yet.
    pub(super) fn new(worker: usize) -> LossMonitor {
        LossMonitor { worker, groups: Vec::new(), unasked: 0 }
    }

    /// Monitors a listener's queues too.
    pub(super) fn add(&mut self, group: Arc<ListenerGroup>) {
        self.groups.push(group);
    }

    /// Forgets a listener.
    pub(super) fn remove(&mut self, transport: Transport, addr: SocketAddr) {
        self.groups.retain(|group| (group.transport(), group.local_addr()) != (transport, addr));
    }

    /// Counts and logs what was lost since the last call. `active`: something has happened since.
    pub(super) fn count(
        &mut self,
        now: u64,
        active: bool,
        relays: &mut Relays,
        counters: &mut SocketCounters,
        log: &mut Log,
    ) {
        let mut losses = [QueueLoss::default(); SocketQueue::ALL.len()];
        if active {
            for (queue, socket, drops) in self.groups.iter().flat_map(|group| group.queues(self.worker)) {
                losses[queue as usize].add(drops.take(socket));
            }
            self.unasked = relays.len();
        }
        losses[SocketQueue::Relay as usize] = relays.take_drops(self.unasked.min(RELAY_SOCKETS));
        self.unasked = self.unasked.saturating_sub(RELAY_SOCKETS);
        for (queue, loss) in SocketQueue::ALL.into_iter().zip(losses) {
            counters.dropped_by_kernel[queue] += loss.count;
            log.lost_packets(now, queue, loss);
        }
    }

    /// Whether there are sockets that have not been asked yet.
    pub(super) fn is_behind(&self) -> bool {
        self.unasked > 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use socket2::{Domain, SockRef, Socket, Type};

    use super::*;
    use crate::datapath::DatapathConfig;
    use crate::datapath::descriptors::{DescriptorRoom, Descriptors};
    use crate::datapath::drops::tests::{ATTEMPTS, overflow, pause};
    use crate::datapath::relay::ports::Ports;
    use crate::datapath::relay::quota::QuotaLedger;
    use crate::datapath::relay::reservations::Reservations;
    use crate::datapath::relay::table::Resources;

    /// What a worker counts that has nothing but a listener.
    fn counted(group: &Arc<ListenerGroup>) -> [u64; 4] {
        let resources = Arc::new(Resources {
            ports: Ports::new(1..=1, Descriptors::new(DescriptorRoom::UNBOUNDED)),
            ledger: QuotaLedger::new(1, 1),
            reservations: Reservations::default(),
            reservation_lifetime: 30.into(),
            gro: true,
        });
        let mut relays = Relays::new(resources, StdRng::seed_from_u64(4));
        let (mut losses, mut counters) = (LossMonitor::new(0), SocketCounters::default());
        losses.add(group.clone());
        losses.count(0, true, &mut relays, &mut counters, &mut Log::default());
        assert!(!losses.is_behind());
        SocketQueue::ALL.map(|queue| counters.dropped_by_kernel[queue])
    }

    /// Each queue is counted by itself, and a worker that restarts goes on from there.
    #[test]
    fn listeners_for_datagrams() {
        let config = DatapathConfig::for_workers(1);
        let group = Arc::new(ListenerGroup::open("127.0.0.1:0".parse().unwrap(), &config, 1).unwrap());
        let fill = |wanted, first| {
            let (_, socket, _) = group.queues(0).find(|&(queue, ..)| queue == wanted).unwrap();
            overflow(socket, group.local_addr(), first)
        };
        assert_eq!(counted(&group), [0; 4]);
        let (requests, data) = (fill(SocketQueue::Control, 0), fill(SocketQueue::Data, 0x40));
        assert_eq!(counted(&group), [requests, data, 0, 0]);
        assert_eq!(counted(&group), [0; 4]);
        let data = fill(SocketQueue::Data, 0x40);
        assert_eq!(counted(&group), [0, data, 0, 0]);
    }

    #[test]
    fn listeners_for_streams() {
        let config = DatapathConfig::for_workers(1);
        let open = ListenerGroup::open_stream(Transport::Tcp, "127.0.0.1:0".parse().unwrap(), &config);
        let group = Arc::new(open.unwrap());
        SockRef::from(group.listener(0).unwrap()).listen(1).unwrap();
        let addr = group.local_addr().into();
        let clients: Vec<TcpStream> = (0..10)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&addr);
                client.into()
            })
            .collect();
        // Two wait in the queue. The kernel drops the others' attempts, and they try again.
        let mut refused = 0;
        for _ in 0..ATTEMPTS {
            refused += counted(&group)[SocketQueue::Accept.index()];
            if refused >= 8 {
                break;
            }
            pause();
        }
        assert!((8..=16).contains(&refused), "{refused}");
        drop(clients);
    }
}
