//! CreatePermission (RFC 8656 §10).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{AllocationId, Message, Now, Output, Reject, RequestOrigin, Server, Success, live};
use crate::turn::allocation::Allocation;
use crate::turn::{RefusalReason, RelayId, SECOND};
use crate::wire::{Family, attribute};

impl Server {
    /// Every XOR-PEER-ADDRESS is judged. If one is refused, no permission is installed.
    pub(super) fn create_permission(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
    ) -> Result<Success, Reject> {
        let (id, allocation) = live(&mut self.allocations, &self.by_tuple, origin)?;
        let addresses =
            message.attributes().filter(|attribute| attribute.kind == attribute::XOR_PEER_ADDRESS);
        let addresses = addresses.map(|address| address.xor_address()).collect::<Result<Vec<_>, _>>()?;
        // RFC 8656 §10.2: at least one
        if addresses.is_empty() {
            return Err(Reject::new(RefusalReason::NoPeer));
        }
        let mut peers = BTreeMap::new();
        for peer in addresses {
            let ip = peer.ip();
            family_fits(allocation, ip).map_err(|reject| reject.about(peer))?;
            // RFC 8656 §10.2: the port is ignored
            let verdict = self.snapshot.judge(allocation, ip);
            let verdict =
                verdict.map_err(|why| Reject::forbidden(why, peer, &origin.tuple, &self.snapshot.config))?;
            peers.insert(ip, verdict);
        }
        let new = peers.keys().filter(|ip| !is_permitted(allocation, **ip)).count();
        let limits = &self.snapshot.config.limits;
        if allocation.permissions() + new > limits.permissions {
            return Err(Reject::new(RefusalReason::Permissions(limits.permissions as u64)));
        }
        if !allocation.count_new_peers(now.mono, new, limits.new_peers) {
            return Err(Reject::new(RefusalReason::NewPeers(limits.new_peers.into())));
        }
        let until = now.mono + u64::from(self.snapshot.config.lifetimes.permission_lifetime) * SECOND;
        for (ip, verdict) in peers {
            if allocation.permit(id, ip, verdict, until, &mut self.timers) {
                self.stats.permissions += allocation.weight();
                self.outputs.extend(restored(allocation, id, ip));
            }
        }
        Ok(Success::Empty)
    }
}

/// What to tell when a permission is installed again whose channels have outlived it.
pub(super) fn restored(allocation: &Allocation, id: AllocationId, ip: IpAddr) -> Option<Output> {
    let relay = RelayId { allocation: id, family: Family::of(ip) };
    let outlived = !allocation.channels_to(ip).is_empty();
    outlived.then_some(Output::PermissionRestored { relay, peer: ip })
}

pub(super) fn is_permitted(allocation: &Allocation, ip: IpAddr) -> bool {
    allocation.peer(ip).is_some_and(|peer| peer.is_permitted())
}

/// RFC 8656 §10.2 and §12.2: the allocation must have a relayed address of the peer's family.
pub(super) fn family_fits(allocation: &Allocation, ip: IpAddr) -> Result<(), Reject> {
    match allocation.relay(Family::of(ip)) {
        Some(_) => Ok(()),
        None => Err(Reject::new(RefusalReason::PeerFamily)),
    }
}
