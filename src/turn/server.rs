//! The server of one worker: what arrives is told apart here, data is forwarded, requests go to `requests`.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use slotmap::SlotMap;

use super::allocation::{Allocation, Direction, Slot};
use super::bucket::AnswerBucket;
use super::peers::{Forbidden, Scope};
use super::stats::{Dropped, Stats};
use super::timers::{Deadline, Timers};
use super::{
    AllocationId, CloseReason, Closed, FiveTuple, Header, Icmp, Now, Output, PeerAddr, RelayId, SECOND,
    ToClient, ToPeer, Tos, Transport, TurnConfig,
};
use crate::auth::Auth;
use crate::wire::{self, ChannelHeader, Class, Encoder, Family, Message, Method, TransactionId, attribute};

/// The longest UDP payload over IPv4; a run of several segments is bound to it too.
const MAX_DATAGRAM: usize = 65_507;

/// What all servers of a process share: atomics, no locks.
pub struct Shared {
    /// The bound on answers to strangers.
    pub answers: AnswerBucket,
    /// Who knows which relayed addresses live.
    pub live: Box<dyn LiveRelays>,
}

/// Says whether a relayed transport address holds an allocation, of any worker, right now. Must not block.
pub trait LiveRelays: Send + Sync {
    /// Whether it does.
    fn is_live(&self, relayed: SocketAddr) -> bool;
}

/// A TURN server: allocations of the clients that one worker serves.
pub struct Server {
    pub(super) config: Arc<TurnConfig>,
    pub(super) auth: Arc<Auth>,
    pub(super) shared: Arc<Shared>,
    pub(super) rng: StdRng,
    pub(super) slots: SlotMap<AllocationId, Slot>,
    pub(super) by_tuple: HashMap<FiveTuple, AllocationId, FixedState>,
    pub(super) waiting: usize,
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
    pub(super) stats: Stats,
}

/// What an operator can order.
pub enum OperatorCommand {
    /// End every allocation: the server stops.
    End,
    /// Judge credentials by these from now on. Allocations keep the key that made them.
    NewAuth(Arc<Auth>),
}

impl Server {
    /// A server without allocations. `rng` is seeded from the operating system, once.
    pub fn new(config: Arc<TurnConfig>, auth: Arc<Auth>, shared: Arc<Shared>, mut rng: StdRng) -> Server {
        let seed = rng.next_u64();
        Server {
            config,
            auth,
            shared,
            rng,
            slots: SlotMap::with_key(),
            by_tuple: HashMap::with_hasher(FixedState::with_seed(seed)),
            waiting: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Bytes from a client: one STUN message (`segment_size` is its length), or a run of ChannelData messages of `segment_size` bytes
    /// each that all begin with the same four bytes. What is to be relayed is returned; all else is an [`Output`].
    pub fn from_client(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        segment_size: usize,
        bytes: &[u8],
    ) -> Option<ToPeer> {
        self.expire(now);
        // RFC 8656 §12, Table 3; RFC 7983 §7
        match bytes.first() {
            Some(0x40..=0x4F) => self.channel_data(now, tuple, tos, segment_size, bytes),
            Some(0..=3) => match Message::parse(bytes) {
                Ok(message) if message.class() == Class::Request => {
                    self.request(now, tuple, &message);
                    None
                }
                Ok(message) if message.class() == Class::Indication => {
                    self.indication(now, tuple, tos, bytes, &message)
                }
                // RFC 8489 §6.3: a response must match a transaction, and a server has none
                Ok(_) => self.drop(Dropped::Unexpected, 1),
                Err(_) => self.drop(Dropped::Malformed, 1),
            },
            _ => self.drop(Dropped::NotTurn, 1),
        }
    }

    /// A run of datagrams of `segment_size` bytes each, the last perhaps shorter, from one peer to a relayed address.
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
        let Some(Slot::Live(allocation)) = self.slots.get_mut(relay.allocation) else {
            return self.drop(Dropped::NoRelay, packets);
        };
        let peer = PeerAddr(self.config.external.outside(peer.0));
        // RFC 8656 §9: addresses are compared, ports are not
        let Some(known) = allocation.peer(peer.0.ip()).filter(|peer| peer.is_permitted()) else {
            return self.drop(Dropped::NoPermission, packets);
        };
        if known.scope == Scope::EachPacket && !is_open(&self.config, &self.shared, peer.0) {
            return self.drop(Dropped::ForbiddenPort, packets);
        }
        let header = match known.channel(peer.0.port()) {
            // RFC 8656 §12.5: the server must use the channel if there is one
            Some(number) => Header::Channel(number),
            None => Header::Data { id: TransactionId(self.rng.random()), peer: peer.0 },
        };
        if !fits(allocation.tuple.transport, &header, segment_size) {
            return self.drop(Dropped::TooLong, packets);
        }
        let limit = self.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToClient, bytes.len() as u64, limit) {
            return self.drop(Dropped::Bandwidth, packets);
        }
        let (packets, bytes) = (packets as u64, bytes.len() as u64);
        allocation.totals.to_client_packets += packets;
        allocation.totals.to_client_bytes += bytes;
        self.stats.to_client[allocation.tuple.transport.index()].add(packets, bytes);
        Some(ToClient { tuple: allocation.tuple, header, tos })
    }

    /// An ICMP message about a packet that a relayed address sent to `peer` (RFC 8656 section 11.5). The client is told in
    /// a Data indication, within a bound.
    pub fn peer_error(&mut self, now: Now, relay: RelayId, peer: PeerAddr, icmp: Icmp) {
        self.expire(now);
        let is_told = match relay.family {
            Family::V4 => matches!(icmp.kind, 3 | 11),
            Family::V6 => matches!(icmp.kind, 1..=3),
        };
        let peer = self.config.external.outside(peer.0);
        let allocation = match self.slots.get_mut(relay.allocation) {
            Some(Slot::Live(allocation)) if is_told => allocation,
            _ => return self.stats.drop(Dropped::Icmp, 1),
        };
        // The packet's destination needs the permission, not the router that complains
        let is_permitted = allocation.peer(peer.ip()).is_some_and(|peer| peer.is_permitted());
        if !is_permitted || !allocation.count_icmp(now.mono) {
            return self.stats.drop(Dropped::Icmp, 1);
        }
        // RFC 8656 §18.13: no other message says an MTU
        let says_mtu =
            matches!((relay.family, icmp.kind, icmp.code), (Family::V4, 3, 4) | (Family::V6, 2, _));
        let id = TransactionId(self.rng.random());
        let mut indication = Encoder::new(Class::Indication, Method::Data, id);
        indication.xor_address(attribute::XOR_PEER_ADDRESS, peer);
        indication.icmp(icmp.kind, icmp.code, if says_mtu { icmp.mtu } else { 0 });
        self.outputs.push_back(Output::Reply { to: allocation.tuple, message: indication.finish() });
    }

    /// A client's stream has ended, and its allocation with it (RFC 8656 section 5 needs the 5-tuple to be in use).
    pub fn client_gone(&mut self, now: Now, tuple: &FiveTuple) {
        if let Some(&id) = self.by_tuple.get(tuple) {
            self.close(now, id, CloseReason::ClientGone);
        }
    }

    /// An order from the operator.
    pub fn command(&mut self, now: Now, command: OperatorCommand) {
        match command {
            OperatorCommand::End => {
                for id in self.slots.keys().collect::<Vec<_>>() {
                    self.close(now, id, CloseReason::Shutdown);
                }
            }
            OperatorCommand::NewAuth(auth) => self.auth = auth,
        }
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, deadline)) = self.timers.due(now.mono) {
            match deadline {
                // RFC 8656 §6, §8: nobody refreshed it
                Deadline::Relay(relay) => self.close_relay(now, relay, CloseReason::Expired),
                // RFC 8656 §9
                Deadline::Permission(id, ip) => {
                    if let Some(Slot::Live(allocation)) = self.slots.get_mut(id)
                        && allocation.forbid(id, ip, &mut self.timers)
                    {
                        self.stats.permissions -= 1;
                    }
                }
                // RFC 8656 §12
                Deadline::Channel(id, number) => self.unbind(id, number),
                Deadline::Waiting(id) => self.stop_waiting(now, id),
            }
            // Each arm has taken its deadline out; were that ever not so, this loop must still end.
            self.timers.discard(at, deadline);
        }
    }

    /// When [`Server::handle_timeout`] is due, in monotonic nanoseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next()
    }

    /// The next thing to be done outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// No input meets anything that has expired, so nothing below compares times.
    fn expire(&mut self, now: Now) {
        if self.timers.next().is_some_and(|at| at <= now.mono) {
            self.handle_timeout(now);
        }
    }

    pub(super) fn drop<T>(&mut self, why: Dropped, packets: usize) -> Option<T> {
        self.stats.drop(why, packets);
        None
    }

    /// RFC 8656 section 12.6.
    fn channel_data(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        segment_size: usize,
        bytes: &[u8],
    ) -> Option<ToPeer> {
        let packets = bytes.len().div_ceil(segment_size.max(1));
        let Some(&id) = self.by_tuple.get(tuple) else { return self.drop(Dropped::NoAllocation, packets) };
        let Some(Slot::Live(allocation)) = self.slots.get_mut(id) else {
            return self.drop(Dropped::NoAllocation, packets);
        };
        let header = ChannelHeader::parse(bytes)
            .filter(|header| wire::CHANNEL_HEADER + usize::from(header.len) <= segment_size);
        let Some((header, channel)) =
            header.and_then(|header| Some((header, *allocation.channel(header.number)?)))
        else {
            return self.drop(Dropped::NoChannel, packets);
        };
        if channel.scope == Scope::EachPacket && !is_open(&self.config, &self.shared, channel.peer.0) {
            return self.drop(Dropped::ForbiddenPort, packets);
        }
        let len = usize::from(header.len);
        let limit = self.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToPeer, (packets * len) as u64, limit) {
            return self.drop(Dropped::Bandwidth, packets);
        }
        let relay = RelayId { allocation: id, family: Family::of(channel.peer.0.ip()) };
        count_to_peer(allocation, &mut self.stats, packets, packets * len);
        Some(ToPeer {
            relay,
            peer: to_peer(&self.config, channel.peer.0, channel.scope),
            offset: wire::CHANNEL_HEADER,
            len,
            dont_fragment: false,
            tos: onward(tuple.transport, tos),
        })
    }

    fn indication(
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
            // RFC 8489 §6.3.2: its mere receipt has refreshed the bindings of NATs on the way
            Method::Binding => None,
            _ => self.drop(Dropped::Unexpected, 1),
        }
    }

    /// RFC 8656 section 11.2.
    fn send(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        tos: Tos,
        bytes: &[u8],
        message: &Message<'_>,
    ) -> Result<ToPeer, Dropped> {
        let &id = self.by_tuple.get(tuple).ok_or(Dropped::NoAllocation)?;
        let Some(Slot::Live(allocation)) = self.slots.get_mut(id) else { return Err(Dropped::NoAllocation) };
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
        let scope = allocation.reach(now.mono, peer, self.config.limits.new_peers)?;
        // The port was not known when the permission was judged (RFC 8656 §11.2)
        if peer.port() == 0 || scope == Scope::EachPacket && !is_open(&self.config, &self.shared, peer) {
            return Err(Dropped::ForbiddenPort);
        }
        let limit = self.config.limits.bandwidth;
        if !allocation.count_bandwidth(now.mono, Direction::ToPeer, data.len() as u64, limit) {
            return Err(Dropped::Bandwidth);
        }
        count_to_peer(allocation, &mut self.stats, 1, data.len());
        Ok(ToPeer {
            relay: RelayId { allocation: id, family: Family::of(peer.ip()) },
            peer: to_peer(&self.config, peer, scope),
            offset: data.as_ptr().addr() - bytes.as_ptr().addr(),
            len: data.len(),
            // RFC 8656 §14: of an IPv4-to-IPv4 relay alone
            dont_fragment: dont_fragment && tuple.client.0.is_ipv4() && peer.is_ipv4(),
            tos: onward(tuple.transport, tos),
        })
    }

    /// Ends an allocation with all that it has.
    pub(super) fn close(&mut self, now: Now, id: AllocationId, reason: CloseReason) {
        self.stop_waiting(now, id);
        for family in [Family::V4, Family::V6] {
            self.close_relay(now, RelayId { allocation: id, family }, reason);
        }
    }

    /// Ends one relayed address of an allocation (RFC 8656 section 8.1), and the allocation with its last one.
    pub(super) fn close_relay(&mut self, now: Now, relay: RelayId, reason: CloseReason) {
        let RelayId { allocation: id, family } = relay;
        let Some(Slot::Live(allocation)) = self.slots.get_mut(id) else { return };
        let Some((permissions, channels)) = allocation.remove_relay(id, family, &mut self.timers) else {
            return;
        };
        self.stats.permissions -= permissions as u64;
        self.stats.channels -= channels.len() as u64;
        *self.stats.relay_gauge(allocation.tuple.transport, family) -= 1;
        self.outputs.extend(channels.into_iter().map(|channel| Output::ChannelUnbound { relay, channel }));
        self.outputs.push_back(Output::CloseRelay(relay));
        if allocation.relays().next().is_none() {
            self.stats.allocations -= 1;
            self.outputs.push_back(Output::Closed(Closed {
                id,
                tuple: allocation.tuple,
                user: allocation.credential.user().clone(),
                reason,
                lived: (now.mono - allocation.opened_at) / SECOND,
                totals: allocation.totals,
            }));
            self.by_tuple.remove(&allocation.tuple);
            self.slots.remove(id);
        }
    }

    fn unbind(&mut self, id: AllocationId, channel: u16) {
        let Some(Slot::Live(allocation)) = self.slots.get_mut(id) else { return };
        let Some(bound) = allocation.unbind(id, channel, &mut self.timers) else { return };
        self.stats.channels -= 1;
        let relay = RelayId { allocation: id, family: Family::of(bound.peer.0.ip()) };
        self.outputs.push_back(Output::ChannelUnbound { relay, channel });
    }
}

/// Whether a payload and its header make a datagram, or a message with a 16-bit length.
fn fits(transport: Transport, header: &Header, payload: usize) -> bool {
    match (transport.is_stream(), header) {
        (false, _) => header.len() + payload + header.padding(payload) <= MAX_DATAGRAM,
        (true, Header::Channel(_)) => payload <= usize::from(u16::MAX),
        (true, Header::Data { .. }) => header.len() + payload + header.padding(payload) <= wire::FRAME_MAX,
    }
}

/// RFC 8656 §15: what comes from a stream has its DSCP and is Not-ECT.
fn onward(transport: Transport, tos: Tos) -> Tos {
    if transport.is_stream() { Tos(tos.0 & !0b11) } else { tos }
}

/// Whether a port of this machine's own address may be sent to, or heard, right now.
fn is_open(config: &TurnConfig, shared: &Shared, peer: SocketAddr) -> bool {
    judge(config, shared, peer.ip(), Some(peer.port())).is_ok()
}

/// Judges a peer as it is called outside. A relayed address lives under its local name.
pub(super) fn judge(
    config: &TurnConfig,
    shared: &Shared,
    ip: IpAddr,
    port: Option<u16>,
) -> Result<Scope, Forbidden> {
    config.peers.judge(ip, port, |relayed| shared.live.is_live(config.external.inside(relayed)))
}

/// Where to send what goes to a peer: to this machine's own address by its local name.
fn to_peer(config: &TurnConfig, peer: SocketAddr, scope: Scope) -> PeerAddr {
    PeerAddr(if scope == Scope::EachPacket { config.external.inside(peer) } else { peer })
}

fn count_to_peer(allocation: &mut Allocation, stats: &mut Stats, packets: usize, bytes: usize) {
    let (packets, bytes) = (packets as u64, bytes as u64);
    allocation.totals.to_peer_packets += packets;
    allocation.totals.to_peer_bytes += bytes;
    stats.to_peer[allocation.tuple.transport.index()].add(packets, bytes);
}
