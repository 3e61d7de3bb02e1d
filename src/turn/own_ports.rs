//! Which ports of this machine the packets of an allocation have reached. Two things depend on it: a packet from a port that
//! has two names, behind a NAT, is named as the client addressed it last; and the first packet that is dropped at a port
//! which none has ever reached is logged, because a server may be there that the operator forgot to allow.

use std::net::SocketAddr;

/// How many ports are remembered.
const PORTS: usize = 256;

/// The ports of this machine that packets of an allocation have reached.
#[derive(Debug, Default)]
pub(super) struct OwnPorts {
    /// Each with the number of the last packet to it, sorted; forgotten when there are more than [`PORTS`].
    reached: Vec<(SocketAddr, u64)>,
    packets: u64,
    /// Whether a drop was logged.
    pub(super) has_warned: bool,
}

impl OwnPorts {
    /// A packet to `peer`, as the client names it, has passed.
    pub(super) fn pass(&mut self, peer: SocketAddr) {
        self.packets += 1;
        match self.find(peer) {
            Ok(at) => self.reached[at].1 = self.packets,
            Err(at) if self.reached.len() < PORTS => self.reached.insert(at, (peer, self.packets)),
            Err(_) => self.reached = vec![(peer, self.packets)],
        }
    }

    /// The number of the last packet to `peer`; 0 if there was none.
    pub(super) fn last(&self, peer: SocketAddr) -> u64 {
        self.find(peer).map_or(0, |at| self.reached[at].1)
    }

    /// Whether a dropped packet to `peer` is to be logged: once, and never for a port that was reached before.
    pub(super) fn warns(&self, peer: SocketAddr) -> bool {
        !self.has_warned && self.find(peer).is_err()
    }

    fn find(&self, peer: SocketAddr) -> Result<usize, usize> {
        self.reached.binary_search_by_key(&peer, |&(peer, _)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded() {
        let mut ports = OwnPorts::default();
        let peer = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 1..=1000 {
            ports.pass(peer(port));
            assert!(ports.reached.len() <= PORTS && ports.reached.is_sorted());
            assert_eq!(ports.last(peer(port)), u64::from(port));
        }
    }

    #[test]
    fn one_drop_is_logged() {
        let mut ports = OwnPorts::default();
        let peer = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        ports.pass(peer(1));
        assert!(!ports.warns(peer(1)), "it was reached before");
        assert!(ports.warns(peer(2)));
        ports.has_warned = true;
        assert!(!ports.warns(peer(2)) && !ports.warns(peer(3)));
    }
}
