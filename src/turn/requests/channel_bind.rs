//! ChannelBind (RFC 8656 §12.2).

use super::permission::{family_fits, is_permitted, restored};
use super::{Message, Now, Reject, RequestOrigin, Server, Success, live};
use crate::turn::{PeerAddr, RefusalReason, SECOND};
use crate::wire::{ChannelRange, attribute};

impl Server {
    pub(super) fn channel_bind(
        &mut self,
        now: Now,
        origin: &RequestOrigin,
        message: &Message<'_>,
    ) -> Result<Success, Reject> {
        Reject::tunnelled(origin.tuple.client, &self.snapshot.config)?;
        let (id, allocation) = live(&mut self.allocations, &self.by_tuple, origin)?;
        let number = message.attribute(attribute::CHANNEL_NUMBER);
        let number = number.ok_or_else(|| Reject::new(RefusalReason::NoChannel))?.channel_number()?;
        let peer = message.attribute(attribute::XOR_PEER_ADDRESS);
        let peer = peer.ok_or_else(|| Reject::new(RefusalReason::NoPeer))?.xor_address()?;
        let refused = |reason| Err(Reject::new(reason).about(peer));
        let channels = self.snapshot.config.channels;
        if !channels.numbers().contains(&number) {
            return Err(
                Reject { channel: Some(number), ..Reject::new(out_of_range(channels, number)) }.about(peer)
            );
        }
        // RFC 8656 §12.2: neither the number nor the peer may be bound to another counterpart
        if allocation.channel(number).is_some_and(|bound| bound.peer.0 != peer) {
            return refused(RefusalReason::ChannelTaken);
        }
        let at_peer = allocation.peer(peer.ip()).and_then(|known| known.channel(peer.port()));
        if at_peer.is_some_and(|bound| bound != number) {
            return refused(RefusalReason::PeerTaken);
        }
        family_fits(allocation, peer.ip()).map_err(|reject| reject.about(peer))?;
        let judged = self.snapshot.judge(allocation, peer.ip()).and_then(|verdict| {
            verdict.scope.check(peer.port(), |relayed| self.shared.live.is_live(relayed))?;
            Ok(verdict)
        });
        let verdict =
            judged.map_err(|why| Reject::forbidden(why, peer, &origin.tuple, &self.snapshot.config))?;
        let limits = &self.snapshot.config.limits;
        let new_channel = at_peer.is_none();
        let new_permission = !is_permitted(allocation, peer.ip());
        if allocation.channels() + usize::from(new_channel) > limits.channels {
            return refused(RefusalReason::Channels(limits.channels as u64));
        }
        if allocation.permissions() + usize::from(new_permission) > limits.permissions {
            return refused(RefusalReason::Permissions(limits.permissions as u64));
        }
        if !allocation.count_new_peers(now.mono, usize::from(new_channel), limits.new_peers) {
            return refused(RefusalReason::NewPeers(limits.new_peers.into()));
        }
        let lifetimes = &self.snapshot.config.lifetimes;
        let until = now.mono + u64::from(lifetimes.permission_lifetime) * SECOND;
        let expires = now.mono + u64::from(lifetimes.channel_lifetime) * SECOND;
        if allocation.permit(id, peer.ip(), verdict.clone(), until, &mut self.timers) {
            self.stats.permissions += allocation.weight();
            self.outputs.extend(restored(allocation, id, peer.ip()));
        }
        if allocation.bind(id, number, PeerAddr(peer), verdict, expires, &mut self.timers) {
            self.stats.channels += allocation.weight();
        }
        self.announce_channel(id, number);
        Ok(Success::Empty)
    }
}

/// Tells the operator of clients that follow RFC 5766.
fn out_of_range(channels: ChannelRange, number: u16) -> RefusalReason {
    match channels {
        ChannelRange::Rfc8656 if ChannelRange::Rfc5766.numbers().contains(&number) => {
            RefusalReason::Rfc5766Channel
        }
        ChannelRange::Rfc8656 => RefusalReason::ChannelRange,
        ChannelRange::Rfc5766 => RefusalReason::ChannelRange5766,
    }
}
