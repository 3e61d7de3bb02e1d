//! A new snapshot takes effect: permissions and channels that its rules refuse end, a few per step, so that a large table
//! does not delay packets. A packet that meets an older verdict judges that peer at once.

use std::net::IpAddr;
use std::sync::Arc;

use super::server::Server;
use super::snapshot::Snapshot;
use super::{AllocationId, Now};

/// How many permissions and channels one step judges. An address is judged together with all channels to its ports.
const STEP: usize = 256;

impl Server {
    /// Works by this snapshot from now on. Permissions and channels that it refuses end in steps of
    /// [`Server::handle_timeout`], and before the next packet to or from their peer.
    pub fn apply(&mut self, now: Now, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.sweep.start(now.mono, self.allocations.keys());
    }

    /// Judges the next few permissions and channels.
    pub(super) fn sweep_step(&mut self) {
        let mut budget = STEP;
        while let Some((id, ip)) = self.sweep.next(&self.allocations, &mut budget) {
            budget = budget.saturating_sub(self.rejudge(id, ip));
        }
    }

    /// Judges a peer of an allocation by the current snapshot. If it is refused, its permission and channels end. Returns
    /// how many were judged.
    pub(super) fn rejudge(&mut self, id: AllocationId, ip: IpAddr) -> usize {
        let Some(allocation) = self.allocations.get_mut(id) else { return 1 };
        let channels = allocation.channels_to(ip).to_vec();
        let judged = self.snapshot.judge(ip);
        if let Ok(verdict) = &judged {
            allocation.set_verdict(ip, verdict);
        }
        for &(port, number) in &channels {
            match &judged {
                Ok(verdict) if verdict.scope.admits(port) => self.announce_channel(id, number),
                _ => self.unbind(id, number),
            }
        }
        if judged.is_err() {
            self.forbid(id, ip);
        }
        1 + channels.len()
    }
}
