//! A worker's socket of a listener group.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::datapath::listen::group::ListenerGroup;
use crate::datapath::listen::steering::QueueKind;
use crate::turn::FiveTuple;

/// A worker's socket of a listener group.
pub(super) struct Listener {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) addr: SocketAddr,
    pub(super) kind: QueueKind,
    group: Arc<ListenerGroup>,
    worker: usize,
}

impl Listener {
    /// A worker's sockets of a group: none if the group is for streams.
    pub(super) fn of(group: &Arc<ListenerGroup>, worker: usize) -> impl Iterator<Item = Listener> {
        [QueueKind::Control, QueueKind::Data].into_iter().filter_map(move |kind| {
            let socket = group.socket(worker, kind)?.clone();
            Some(Listener { socket, addr: group.local_addr(), kind, group: group.clone(), worker })
        })
    }

    /// An allocation of a client of this listener has begun, or has ended.
    pub(super) fn count_allocation(&self, begins: bool) {
        self.group.count_allocation(self.worker, begins);
    }

    /// Whether packets to a client must leave from here: a response leaves from the address that the request was sent
    /// to (RFC 8656 section 7.2).
    pub(super) fn serves(&self, tuple: &FiveTuple, kind: QueueKind) -> bool {
        self.kind == kind
            && self.addr.port() == tuple.server.port()
            && self.addr.is_ipv4() == tuple.server.is_ipv4()
            && (self.is_wildcard() || self.addr == tuple.server)
    }

    /// Whether clients may have sent to any address of the machine, so that packets tell which.
    pub(super) fn is_wildcard(&self) -> bool {
        self.addr.ip().is_unspecified()
    }
}
