//! Forwarding between clients and peers: Send indications (RFC 8656 section 11.2), Data indications (11.3) and
//! ChannelData messages (12.6, 12.7). Nothing here allocates, unless a peer has to be judged by a new snapshot.

use std::net::{IpAddr, SocketAddr};

use rand::RngExt;

use super::allocation::{Allocation, Direction, Peer};
use super::peers::{Forbidden, Remedy};
use super::server::Server;
use super::stats::{Dropped, Stats};
use super::{
    AllocationId, ClosedPortDropped, FiveTuple, Header, Now, Output, PeerAddr, RefusalReason, RelayId,
    ToClient, ToPeer, Tos, Transport,
};
use crate::wire::{self, ChannelHeader, Family, Message, Method, TransactionId, attribute};

/// The longest UDP payload over IPv4. A run of several segments is bound to it too.
const MAX_DATAGRAM: usize = 65_507;

impl Server {
    /// A run of datagrams of `segment_size` bytes each, the last perhaps shorter, from one peer to a relayed address (RFC
    /// 8656 sections 11.3 and 12.7).
    pub fn from_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        tos: Tos,
        segment_size: usize,
        bytes: &[u8],
    ) -> Option<ToClient> {
        self.expire(now);
        let packets = bytes.len().div_ceil(segment_size.max(1)).max(1);
        let external = &self.snapshot.config.external;
        let outside = [external.outside_of(peer.0.ip()), external.former_of(peer.0.ip())];
        let named = match outside {
            [None, None] => peer.0,
            outside => match self.name(relay.allocation, peer.0, outside) {
                Ok(named) => named,
                Err(why) => return self.drop(why, packets),
            },
        };
        let Some(allocation) = self.allocations.get_mut(relay.allocation) else {
            return self.drop(Dropped::NoRelay, packets);
        };
        // RFC 8656 §9: only addresses are compared, not ports
        let Some(known) = allocation.peer(named.ip()).filter(|peer| peer.is_permitted()) else {
            return self.drop(Dropped::NoPermission, packets);
        };
        if known.verdict.generation != self.snapshot.generation {
            self.rejudge(relay.allocation, named.ip());
            return self.from_peer(now, relay, peer, tos, segment_size, bytes);
        }
        let is_live = |relayed| self.shared.live.is_live(relayed);
        if known.verdict.scope.check(named.port(), is_live).is_err() {
            return self.drop(Dropped::ForbiddenPort, packets);
        }
        let header = match known.channel(named.port()) {
            // RFC 8656 §12.5: the server must use the channel if there is one
            Some(number) => Header::Channel(number),
            None => Header::Data { id: TransactionId(self.rng.random()), peer: named },
        };
        if !fits(allocation.tuple.transport, &header, segment_size) {
            return self.drop(Dropped::TooLong, packets);
        }
        let limit = self.snapshot.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToClient, bytes.len() as u64, limit) {
            return self.drop(Dropped::Bandwidth, packets);
        }
        let (packets, bytes) = (packets as u64, bytes.len() as u64);
        allocation.totals.to_client_packets += packets;
        allocation.totals.to_client_bytes += bytes;
        self.stats.to_client[allocation.traffic_row].add(packets, bytes);
        Some(ToClient { tuple: allocation.tuple, header, tos })
    }

    /// A run of ChannelData messages (RFC 8656 section 12.6).
    pub(super) fn channel_data(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        segment_size: usize,
        bytes: &[u8],
    ) -> Option<ToPeer> {
        let packets = bytes.len().div_ceil(segment_size.max(1));
        let Some(&id) = self.by_tuple.get(tuple) else { return self.drop(Dropped::NoAllocation, packets) };
        let Some(allocation) = self.allocations.get_mut(id) else {
            return self.drop(Dropped::NoAllocation, packets);
        };
        let header = ChannelHeader::parse(bytes)
            .filter(|header| wire::CHANNEL_HEADER + usize::from(header.len) <= segment_size);
        let found = header.and_then(|header| {
            let channel = allocation.channel(header.number)?;
            let relay = allocation.relay(Family::of(channel.peer.0.ip()))?;
            Some((header, channel, relay.socket))
        });
        let Some((header, channel, socket)) = found else { return self.drop(Dropped::NoChannel, packets) };
        let (peer, scope) = (channel.peer.0, &channel.verdict.scope);
        if channel.verdict.generation != self.snapshot.generation {
            self.rejudge(id, peer.ip());
            return self.channel_data(now, tuple, tos, segment_size, bytes);
        }
        let sent_to = match scope.send_to(peer, |relayed| self.shared.live.is_live(relayed)) {
            Ok(sent_to) => sent_to,
            Err(why) => {
                self.closed_port_dropped(id, peer, why);
                return self.drop(Dropped::ForbiddenPort, packets);
            }
        };
        let is_own = scope.is_own();
        let len = usize::from(header.len);
        let limit = self.snapshot.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToPeer, (packets * len) as u64, limit) {
            return self.drop(Dropped::Bandwidth, packets);
        }
        if is_own {
            allocation.own_ports.pass(peer);
        }
        count_to_peer(allocation, &mut self.stats, packets, packets * len);
        Some(ToPeer {
            socket,
            peer: PeerAddr(sent_to),
            offset: wire::CHANNEL_HEADER,
            len,
            dont_fragment: false,
            tos: tos_to_peer(tuple.transport, tos),
        })
    }

    /// An indication from a client.
    pub(super) fn indication(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        bytes: &[u8],
        message: &Message<'_>,
    ) -> Option<ToPeer> {
        match message.method() {
            Method::Send => match self.send(now, tuple, tos, bytes, message) {
                Ok(forward) => Some(forward),
                Err(why) => self.drop(why, 1),
            },
            // RFC 8489 §6.3.2: a keepalive, which has refreshed the NAT bindings on its path by arriving
            Method::Binding => None,
            _ => self.drop(Dropped::Unexpected, 1),
        }
    }

    /// A Send indication (RFC 8656 section 11.2).
    fn send(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        bytes: &[u8],
        message: &Message<'_>,
    ) -> Result<ToPeer, Dropped> {
        let &id = self.by_tuple.get(tuple).ok_or(Dropped::NoAllocation)?;
        let allocation = self.allocations.get_mut(id).ok_or(Dropped::NoAllocation)?;
        let (mut peer, mut data, mut dont_fragment) = (None, None, false);
        for attribute in message.attributes() {
            match attribute.kind {
                attribute::XOR_PEER_ADDRESS if peer.is_none() => {
                    peer = Some(attribute.xor_address().map_err(|_| Dropped::BadSend)?);
                }
                attribute::DATA if data.is_none() => data = Some(attribute.value),
                attribute::DONT_FRAGMENT => dont_fragment = true,
                // RFC 8489 §6.3.2
                kind if attribute.is_comprehension_required() && !attribute::is_known(kind) => {
                    return Err(Dropped::BadSend);
                }
                _ => {}
            }
        }
        let (peer, data) = peer.zip(data).ok_or(Dropped::BadSend)?;
        let verdict = allocation.reach(now.mono, peer, self.snapshot.config.limits.new_peers)?;
        if verdict.generation != self.snapshot.generation {
            self.rejudge(id, peer.ip());
            return self.send(now, tuple, tos, bytes, message);
        }
        // RFC 8656 §11.2: the permission was judged without a port
        let is_own = verdict.scope.is_own();
        let sent_to = match verdict.scope.send_to(peer, |relayed| self.shared.live.is_live(relayed)) {
            Ok(sent_to) => sent_to,
            Err(why) => {
                self.closed_port_dropped(id, peer, why);
                return Err(Dropped::ForbiddenPort);
            }
        };
        let socket = allocation.relay(Family::of(peer.ip())).ok_or(Dropped::NoPermission)?.socket;
        let limit = self.snapshot.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToPeer, data.len() as u64, limit) {
            return Err(Dropped::Bandwidth);
        }
        if is_own {
            allocation.own_ports.pass(peer);
        }
        count_to_peer(allocation, &mut self.stats, 1, data.len());
        Ok(ToPeer {
            socket,
            peer: PeerAddr(sent_to),
            offset: data.as_ptr().addr() - bytes.as_ptr().addr(),
            len: data.len(),
            dont_fragment: dont_fragment && heeds_dont_fragment(tuple, peer),
            tos: tos_to_peer(tuple.transport, tos),
        })
    }

    /// The name of a peer on this machine behind a NAT: `source`, or the same port of one of the external addresses `outside`.
    fn name(
        &mut self,
        id: AllocationId,
        source: SocketAddr,
        outside: [Option<IpAddr>; 2],
    ) -> Result<SocketAddr, Dropped> {
        let [outside, former] = outside.map(|ip| Some(SocketAddr::new(ip?, source.port())));
        let names = [Some(source), former, outside];
        loop {
            let allocation = self.allocations.get(id).ok_or(Dropped::NoRelay)?;
            let named = names.map(|name| name.and_then(|name| Some((name, allocation.peer(name.ip())?))));
            let is_outdated =
                |(_, peer): &&(SocketAddr, &Peer)| peer.verdict.generation != self.snapshot.generation;
            // Judged anew, a peer is up to date or gone
            match named.iter().flatten().find(is_outdated) {
                Some((name, _)) => self.rejudge(id, name.ip()),
                None => return allocation.name(source, named, |relayed| self.shared.live.is_live(relayed)),
            };
        }
    }

    /// A packet to `peer` was dropped. The operator is told once per allocation where a server may be that nobody has
    /// allowed: the client's permission for the address was granted, so nothing else says it.
    #[cold]
    fn closed_port_dropped(&mut self, id: AllocationId, peer: SocketAddr, why: Forbidden) {
        let config = &self.snapshot.config;
        let Some(allocation) = self.allocations.get_mut(id).filter(|one| one.own_ports.warns(peer)) else {
            return;
        };
        let remedy = match why {
            Forbidden::NoAllocation
            | Forbidden::Special(_)
            | Forbidden::Unlisted
            | Forbidden::NotInOverlay => {
                config.peers_of(&allocation.tuple).remedy(peer, why, &config.external)
            }
            Forbidden::Endpoint => Some(Remedy::Endpoint),
            _ => None,
        };
        let Some(remedy) = remedy else { return };
        allocation.own_ports.has_warned = true;
        self.outputs.push_back(Output::ClosedPortDropped(ClosedPortDropped {
            tuple: allocation.tuple,
            session: allocation.name,
            user: allocation.credential.user().clone(),
            peer: PeerAddr(peer),
            reason: RefusalReason::Peer(why),
            remedy,
        }));
    }
}

/// Whether a payload with its header fits into a datagram, or into a message with a 16-bit length on a stream.
fn fits(transport: Transport, header: &Header, payload: usize) -> bool {
    match (transport.is_stream(), header) {
        (false, _) => header.len() + payload + header.padding(payload) <= MAX_DATAGRAM,
        (true, Header::Channel(_)) => payload <= usize::from(u16::MAX),
        (true, Header::Data { .. }) => header.len() + payload + header.padding(payload) <= wire::FRAME_MAX,
    }
}

/// RFC 8656 §13, §14, §15: DONT-FRAGMENT is ignored when datagrams are translated from or to IPv6. What comes over a stream
/// is never translated, so neither the client's nor the peer's family matters.
fn heeds_dont_fragment(tuple: &FiveTuple, peer: SocketAddr) -> bool {
    tuple.transport.is_stream() || tuple.client.0.is_ipv4() && peer.is_ipv4()
}

/// RFC 8656 §15: data from a stream keeps its DSCP and is Not-ECT.
fn tos_to_peer(transport: Transport, tos: Tos) -> Tos {
    if transport.is_stream() { Tos(tos.0 & !0b11) } else { tos }
}

fn count_to_peer(allocation: &mut Allocation, stats: &mut Stats, packets: usize, bytes: usize) {
    let (packets, bytes) = (packets as u64, bytes as u64);
    allocation.totals.to_peer_packets += packets;
    allocation.totals.to_peer_bytes += bytes;
    stats.to_peer[allocation.traffic_row].add(packets, bytes);
}
