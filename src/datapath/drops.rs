//! What the kernel dropped because a socket's queue was full, counted per socket.
//!
//! The kernel counts per socket, so packets cost nothing. SO_RXQ_OVFL is not used: it adds a control message to every
//! packet after the first loss. /proc is not used: it counts for all programs of the host.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys::option;

/// What a full queue dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueLoss {
    /// Datagrams (a GRO batch counts once), or attempts to connect.
    pub(super) count: u64,
    /// The size of the queue in bytes: the smallest one, if several sockets dropped something.
    pub(super) queue_size: usize,
}

/// How much of a socket's drops has been counted already. It lives as long as the socket.
#[derive(Debug, Default)]
pub(super) struct DropCounter(AtomicU32);

impl DropCounter {
    /// What was dropped since the last call.
    pub(super) fn take(&self, socket: BorrowedFd<'_>) -> QueueLoss {
        // Linux before 4.12 has no SO_MEMINFO.
        let Ok(queue) = option::queue_state(socket) else { return QueueLoss::default() };
        let before = self.0.swap(queue.dropped, Ordering::Relaxed);
        match queue.dropped.wrapping_sub(before) {
            0 => QueueLoss::default(),
            more => QueueLoss { count: more.into(), queue_size: queue.size },
        }
    }
}

impl Default for QueueLoss {
    /// Nothing was dropped.
    fn default() -> QueueLoss {
        QueueLoss { count: 0, queue_size: usize::MAX }
    }
}

impl QueueLoss {
    /// Adds what another socket dropped.
    pub(super) fn add(&mut self, other: QueueLoss) {
        self.count += other.count;
        self.queue_size = self.queue_size.min(other.queue_size);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    /// How often a test looks again for what the kernel does in its own time.
    pub(in crate::datapath) const ATTEMPTS: usize = 500;

    pub(in crate::datapath) fn pause() {
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Sends datagrams that start with `first` until a queue must be full, and reads what is in it. Returns how many
    /// were dropped.
    pub(in crate::datapath) fn overflow(socket: BorrowedFd<'_>, addr: SocketAddr, first: u8) -> u64 {
        const SENT: usize = 400;
        let before = option::queue_state(socket).unwrap().dropped;
        let sender = UdpSocket::bind((addr.ip(), 0)).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(50_000).unwrap();
        (0..SENT).for_each(|_| assert_eq!(sender.send_to(&[first; 500], addr).unwrap(), 500));
        let queue = UdpSocket::from(socket.try_clone_to_owned().unwrap());
        queue.set_nonblocking(true).unwrap();
        let mut read = 0;
        for _ in 0..ATTEMPTS {
            read += std::iter::from_fn(|| queue.recv(&mut [0; 500]).ok()).count();
            let dropped = option::queue_state(socket).unwrap().dropped.wrapping_sub(before) as usize;
            if read + dropped == SENT {
                assert!(read > 0 && dropped > 0, "{read} {dropped}");
                return dropped as u64;
            }
            pause();
        }
        panic!("of {SENT} datagrams {read} arrived, and the others were not dropped");
    }

    #[test]
    fn each_drop_is_counted_once() {
        for ip in ["127.0.0.1", "::1"] {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            let addr = socket.local_addr().unwrap();
            let (socket, drops) = (socket.as_fd(), DropCounter::default());
            assert_eq!(drops.take(socket), QueueLoss::default());
            for _ in 0..2 {
                let count = overflow(socket, addr, 0);
                assert_eq!(drops.take(socket), QueueLoss { count, queue_size: 50_000 });
                assert_eq!(drops.take(socket), QueueLoss::default());
            }
        }
    }

    #[test]
    fn the_kernels_count_may_wrap() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let drops = DropCounter(AtomicU32::new(u32::MAX - 4));
        assert_eq!(drops.take(socket.as_fd()).count, 5, "from 4,294,967,291 to 0");
    }
}
