//! A new snapshot takes effect: permissions and channels that its rules refuse end, a few per step, so that a large table
//! does not delay packets. A packet that meets an older verdict judges that peer at once.

use std::net::IpAddr;
use std::sync::Arc;

use super::server::Server;
use super::snapshot::Snapshot;
use super::{AllocationId, Now};

/// How many permissions and channels one step judges. A peer's address is judged together with all channels to its ports.
const STEP: usize = 256;

/// The allocations that a new snapshot has not been applied to yet.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Allocations of which no peer was judged. Ids may have become invalid.
    allocations: Vec<AllocationId>,
    /// An allocation of which some peers were judged.
    current: AllocationId,
    /// Its peers that were not. They may have become unknown.
    peers: Vec<IpAddr>,
    /// When there was work last, in monotonic nanoseconds: the next step is due at once.
    since: u64,
}

impl Sweep {
    /// When the next step is due.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.allocations.is_empty() || !self.peers.is_empty()).then_some(self.since)
    }
}

impl Server {
    /// Works by this snapshot from now on. Permissions and channels that it refuses end in steps of
    /// [`Server::handle_timeout`], and before the next packet to or from their peer.
    pub fn apply(&mut self, now: Now, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        let allocations = self.allocations.keys().collect();
        self.sweep = Sweep { allocations, since: now.mono, ..Sweep::default() };
    }

    /// Judges the next few permissions and channels.
    pub(super) fn sweep_step(&mut self) {
        let mut budget = STEP;
        while budget > 0 {
            let cost = if let Some(ip) = self.sweep.peers.pop() {
                self.rejudge(self.sweep.current, ip)
            } else if let Some(id) = self.sweep.allocations.pop() {
                self.sweep.current = id;
                self.sweep
                    .peers
                    .extend(self.allocations.get(id).into_iter().flat_map(|one| one.peer_addresses()));
                1
            } else {
                return;
            };
            budget = budget.saturating_sub(cost);
        }
    }

    /// Judges a peer of an allocation by the current snapshot. If it is refused, its permission and channels end. Returns
    /// how many were judged.
    pub(super) fn rejudge(&mut self, id: AllocationId, ip: IpAddr) -> usize {
        let Some(allocation) = self.allocations.get_mut(id) else { return 1 };
        let judged = self.snapshot.judge(ip);
        let channels = allocation.channels_to(ip).len();
        let ended: Vec<u16> = match &judged {
            Ok(verdict) => allocation.set_verdict(ip, verdict),
            Err(_) => allocation.channels_to(ip).iter().map(|&(_, number)| number).collect(),
        };
        for number in ended {
            self.unbind(id, number);
        }
        if judged.is_err() {
            self.forbid(id, ip);
        }
        1 + channels
    }
}
