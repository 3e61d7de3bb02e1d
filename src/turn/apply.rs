//! Applies a new snapshot in bounded steps, so that a large table does not delay packets. Permissions and channels that the new
//! rules refuse end; so do allocations whose credential was removed, with `auth.on_removal = "end"`. A packet that meets an older
//! verdict judges that peer at once.

use std::net::IpAddr;
use std::sync::Arc;

use super::server::Server;
use super::snapshot::{Snapshot, Verdict};
use super::{AllocationId, CloseReason, Now};

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
    pub(super) fn sweep_step(&mut self, now: Now) {
        let mut budget = STEP;
        let auth = self.snapshot.auth.clone();
        while let Some((id, ip)) = self.sweep.next(&self.allocations, &auth, &mut budget) {
            budget = budget.saturating_sub(self.rejudge(id, ip));
        }
        for id in self.sweep.take_removed() {
            self.close(now, id, CloseReason::Removed);
        }
    }

    /// Judges a peer of an allocation by the current snapshot. If it is refused, its permission and channels end. Returns
    /// how many were judged.
    pub(super) fn rejudge(&mut self, id: AllocationId, ip: IpAddr) -> usize {
        let Some(allocation) = self.allocations.get_mut(id) else { return 1 };
        let channels = allocation.channels_to(ip).to_vec();
        let before = allocation.peer(ip).map(|peer| peer.verdict.scope.clone());
        let judged = self.snapshot.judge(allocation, ip);
        if let Ok(verdict) = &judged {
            allocation.set_verdict(ip, verdict);
        }
        for &(port, number) in &channels {
            let was_open = before.as_ref().is_some_and(|scope| scope.check(port, |_| false).is_ok());
            let stays = judged.as_ref().is_ok_and(|Verdict { scope, .. }| match was_open {
                // What was a server's is not kept for an allocation that may come to its port
                true => scope.check(port, |relayed| self.shared.live.is_live(relayed)).is_ok(),
                false => scope.admits(port),
            });
            match stays {
                true => self.announce_channel(id, number),
                false => self.unbind(id, number),
            }
        }
        if judged.is_err() {
            self.forbid(id, ip);
        }
        1 + channels.len()
    }
}
