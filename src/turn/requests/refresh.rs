//! Refresh (RFC 8656 §8).

use super::{Message, Now, Reject, RequestOrigin, Server, Success, live, requested_family};
use crate::turn::allocation::RelayLease;
use crate::turn::{CloseReason, RefusalReason, RelayId, SECOND};
use crate::wire::{Family, attribute};

impl Server {
    pub(super) fn refresh(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
    ) -> Result<Success, Reject> {
        let (id, allocation) = live(&mut self.allocations, &self.by_tuple, origin)?;
        let wanted = message.attribute(attribute::LIFETIME).map(|lifetime| lifetime.u32()).transpose()?;
        let families: Vec<Family> = match message.attribute(attribute::REQUESTED_ADDRESS_FAMILY) {
            None => allocation.relays().map(|(family, _)| family).collect(),
            // RFC 8656 §8.2: it must be one of the allocation's
            Some(family) => {
                let family = requested_family(family)?.filter(|family| allocation.relay(*family).is_some());
                vec![family.ok_or_else(|| Reject::new(RefusalReason::OtherFamily))?]
            }
        };
        if wanted == Some(0) {
            for family in families {
                self.close_relay(now, RelayId { allocation: id, family }, CloseReason::Deleted);
            }
            return Ok(Success::Lifetime(0));
        }
        let lifetime = self.snapshot.config.lifetimes.grant(allocation.credential.account(), wanted);
        let expires = now.mono + u64::from(lifetime) * SECOND;
        for family in families {
            let Some(relay) = allocation.relay(family).copied() else { continue };
            allocation.set_relay(id, family, RelayLease { expires, ..relay }, &mut self.timers);
        }
        Ok(Success::Lifetime(lifetime))
    }
}
