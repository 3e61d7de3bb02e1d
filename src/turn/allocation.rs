//! Allocations with their permissions and channels (RFC 8656 sections 6, 9 and 12).
//!
//! An allocation owns its data and holds no references, so that it can move. It starts and stops its own deadlines:
//! where a table and the queue of deadlines must agree, one method changes both.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::address::IpKey;
use super::allocation_name::AllocationName;
use super::bucket;
use super::channels::{Channel, Channels};
use super::own_ports::OwnPorts;
use super::pending::RequestOrigin;
use super::snapshot::Verdict;
use super::stats::{Dropped, PROBE_TRAFFIC};
use super::timers::{Deadline, Timers};
use super::{
    AllocationId, FiveTuple, PeerAddr, PerFamily, RelayId, RelaySocketId, RelayedAddr, SECOND, Token, Totals,
};
use crate::auth::{Authenticated, Credential};
use crate::keyed::KeyedState;
use crate::wire::{Family, TransactionId};

/// RFC 8656 section 6: the state of an allocation, with its permissions, channels, deadlines, counts and credential. It is
/// plain data that can move from one server to another.
#[derive(Debug)]
pub struct Allocation {
    pub(super) name: AllocationName,
    pub(super) tuple: FiveTuple,
    /// The credential that made it; later requests are verified with its key.
    pub(super) credential: Arc<Credential>,
    /// The transaction that made it, to recognise its retransmissions (section 7.2).
    pub(super) transaction: TransactionId,
    /// The latest other transactions and when they came, in seconds, to recognise their retransmissions (RFC 8489 section
    /// 6.3.1).
    recent: [(TransactionId, u32); RECENT],
    /// Where the next one goes.
    next_recent: u8,
    /// The reservation made with it.
    pub(super) token: Option<Token>,
    /// A family that was requested but not granted, and the error code for it.
    pub(super) missing: Option<(Family, u16)>,
    pub(super) opened_at: u64,
    pub(super) totals: Totals,
    /// Where the traffic of all allocations is counted for this one; see [`Stats::to_peer`](super::stats::Stats).
    pub(super) traffic_row: usize,
    relays: PerFamily<Option<RelayLease>>,
    /// Permissions and channels by the peer's address: each packet from a peer looks here.
    peers: HashMap<IpKey, Peer, KeyedState>,
    channels: Channels,
    permissions: usize,
    /// Where on this machine its packets got to.
    pub(super) own_ports: OwnPorts,
    /// The token bucket of new peers: when it will be full again.
    new_peers_full_at: u64,
    /// The token bucket of ICMP messages to the client.
    icmp_full_at: u64,
    /// The token buckets of bandwidth, by [`Direction`].
    bandwidth_full_at: [u64; 2],
}

/// A relayed transport address and when it expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelayLease {
    pub(super) addr: RelayedAddr,
    pub(super) socket: RelaySocketId,
    pub(super) expires: u64,
}

/// The permission of a peer's address, and the channels bound to its ports.
#[derive(Debug)]
pub(super) struct Peer {
    /// When the permission ends; `None` if only channels are left.
    permitted_until: Option<u64>,
    pub(super) verdict: Verdict,
    /// Ports with a channel and its number, sorted by port: how a packet from a peer finds its channel.
    channels: Vec<(u16, u16)>,
    /// Ports that were sent to without a channel, sorted; forgotten when there are more than [`PORTS`].
    ports: Vec<u16>,
}

/// The direction of data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    ToPeer,
    ToClient,
}

/// ICMP messages per second that a client is told about, with bursts of four times as many.
const ICMP_RATE: u32 = 16;

/// How many transactions are remembered: clients ask for several permissions at once.
const RECENT: usize = 8;

/// How long a client retransmits, in seconds: 39.5 with the default timers (RFC 8489 section 6.2.1).
const RETRANSMITS: u32 = 40;

/// What it costs to close the sockets of an allocation: see [`Allocation::cost_to_close`].
const CLOSE: usize = 8;

/// How many ports of a peer's address are remembered.
const PORTS: usize = 256;

impl Peer {
    pub(super) fn is_permitted(&self) -> bool {
        self.permitted_until.is_some()
    }

    /// When the permission ends, if there is one.
    pub(super) fn permitted_until(&self) -> Option<u64> {
        self.permitted_until
    }

    /// Whether a channel is bound to such a port, or data was sent to one.
    pub(super) fn any_port(&self, is_meant: impl Fn(u16) -> bool) -> bool {
        self.channels.iter().any(|&(port, _)| is_meant(port)) || self.ports.iter().any(|&port| is_meant(port))
    }

    /// The channel bound to this port.
    pub(super) fn channel(&self, port: u16) -> Option<u16> {
        let at = self.channels.binary_search_by_key(&port, |&(port, _)| port).ok()?;
        Some(self.channels[at].1)
    }
}

impl Allocation {
    /// An allocation without relayed addresses; `hash` keys the hash of its peers.
    pub(super) fn new(
        name: AllocationName,
        origin: &RequestOrigin,
        authenticated: &Authenticated,
        now: u64,
        hash: KeyedState,
    ) -> Allocation {
        Allocation {
            name,
            tuple: origin.tuple,
            credential: authenticated.credential().clone(),
            transaction: origin.id,
            recent: [(TransactionId([0; 12]), 0); RECENT],
            next_recent: 0,
            token: None,
            missing: None,
            opened_at: now,
            totals: Totals::default(),
            traffic_row: match authenticated.credential().account().is_probe() {
                true => PROBE_TRAFFIC,
                false => origin.tuple.transport.index(),
            },
            relays: PerFamily::default(),
            peers: HashMap::with_hasher(hash),
            channels: Channels::default(),
            permissions: 0,
            own_ports: OwnPorts::default(),
            new_peers_full_at: 0,
            icmp_full_at: 0,
            bandwidth_full_at: [0; 2],
        }
    }

    /// Whether it is a probe's: it is no load, and counts in no gauge.
    pub(super) fn is_probe(&self) -> bool {
        self.traffic_row == PROBE_TRAFFIC
    }

    /// How much it counts in gauges.
    pub(super) fn weight(&self) -> u64 {
        (!self.is_probe()).into()
    }

    /// The 5-tuple of the client.
    pub fn tuple(&self) -> FiveTuple {
        self.tuple
    }

    /// The relay sockets.
    pub fn sockets(&self) -> PerFamily<Option<RelaySocketId>> {
        self.relays.map(|relay| relay.map(|relay| relay.socket))
    }

    /// Renames a relay socket, for an owner of sockets that gave it another name.
    pub fn set_socket(&mut self, family: Family, socket: RelaySocketId) {
        if let Some(relay) = &mut self.relays[family] {
            relay.socket = socket;
        }
    }

    /// Remembers a transaction of a request that has authenticated.
    pub(super) fn remember(&mut self, now: u64, transaction: TransactionId) {
        self.recent[usize::from(self.next_recent) % RECENT] = (transaction, seconds(now));
        self.next_recent = self.next_recent.wrapping_add(1);
    }

    /// Whether a request with this transaction came so recently that this may be a retransmission.
    pub(super) fn remembers(&self, now: u64, transaction: TransactionId) -> bool {
        self.recent
            .iter()
            .any(|&(recent, at)| recent == transaction && seconds(now).saturating_sub(at) <= RETRANSMITS)
    }

    pub(super) fn relay(&self, family: Family) -> Option<&RelayLease> {
        self.relays[family].as_ref()
    }

    /// The relayed addresses, IPv4 first.
    pub(super) fn relays(&self) -> impl Iterator<Item = (Family, &RelayLease)> {
        self.relays.present()
    }

    /// Sets a relayed address or its new expiry.
    pub(super) fn set_relay(
        &mut self,
        id: AllocationId,
        family: Family,
        relay: RelayLease,
        timers: &mut Timers,
    ) {
        let old = self.relays[family].replace(relay);
        timers.renew(
            old.map(|old| old.expires),
            relay.expires,
            Deadline::Relay(RelayId { allocation: id, family }),
        );
    }

    /// Removes a relayed address with its permissions and channels; those of the other family stay (RFC 8656 section
    /// 8.1). Returns the relayed address, and how many permissions and which channels were removed.
    pub(super) fn remove_relay(
        &mut self,
        id: AllocationId,
        family: Family,
        timers: &mut Timers,
    ) -> Option<(RelayLease, usize, Vec<u16>)> {
        let relay = self.relays[family].take()?;
        timers.stop(relay.expires, Deadline::Relay(RelayId { allocation: id, family }));
        let channels: Vec<u16> = self
            .channels
            .iter()
            .filter(|(_, c)| Family::of(c.peer.0.ip()) == family)
            .map(|(number, _)| number)
            .collect();
        for number in &channels {
            self.unbind(id, *number, timers);
        }
        let permitted: Vec<IpAddr> =
            self.peers.keys().map(|key| key.0).filter(|ip| Family::of(*ip) == family).collect();
        let permissions = self.permissions;
        for ip in &permitted {
            self.forbid(id, *ip, timers);
        }
        Some((relay, permissions - self.permissions, channels))
    }

    pub(super) fn peer(&self, ip: IpAddr) -> Option<&Peer> {
        self.peers.get(&IpKey(ip))
    }

    /// The addresses of all peers with a permission or a channel.
    pub(super) fn peer_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.peers.keys().map(|key| key.0)
    }

    /// All peers with a permission or a channel, by address.
    pub(super) fn contacts(&self) -> impl Iterator<Item = (IpAddr, &Peer)> {
        self.peers.iter().map(|(key, peer)| (key.0, peer))
    }

    /// All channels, sorted: number, peer and expiry.
    pub(super) fn bindings(&self) -> impl Iterator<Item = (u16, SocketAddr, u64)> {
        self.channels.iter().map(|(number, channel)| (number, channel.peer.0, channel.expires))
    }

    /// The channels to the ports of an address: port and channel number.
    pub(super) fn channels_to(&self, ip: IpAddr) -> &[(u16, u16)] {
        self.peers.get(&IpKey(ip)).map_or(&[], |peer| &peer.channels)
    }

    /// Replaces the verdict on a peer's address.
    pub(super) fn set_verdict(&mut self, ip: IpAddr, verdict: &Verdict) {
        let Some(peer) = self.peers.get_mut(&IpKey(ip)) else { return };
        peer.verdict = verdict.clone();
        for (_, number) in &peer.channels {
            if let Some(channel) = self.channels.get_mut(*number) {
                channel.verdict = verdict.clone();
            }
        }
    }

    /// Every peer has to be judged before the next packet.
    pub(super) fn forget_verdicts(&mut self) {
        let peers = self.peers.values_mut().map(|peer| &mut peer.verdict);
        let channels = self.channels.iter_mut().map(|channel| &mut channel.verdict);
        peers.chain(channels).for_each(|verdict| verdict.generation = Verdict::OUTDATED);
    }

    /// All deadlines that the allocation has in the queue of its server, where it is `id`.
    pub(super) fn deadlines(&self, id: AllocationId) -> impl Iterator<Item = (u64, Deadline)> {
        let relays = self
            .relays()
            .map(move |(family, relay)| (relay.expires, Deadline::Relay(RelayId { allocation: id, family })));
        let permitted = |(ip, peer): (&IpKey, &Peer)| Some((peer.permitted_until?, ip.0));
        let permissions = self
            .peers
            .iter()
            .filter_map(permitted)
            .map(move |(until, ip)| (until, Deadline::Permission(id, ip)));
        let channels = self
            .channels
            .iter()
            .map(move |(number, channel)| (channel.expires, Deadline::Channel(id, number)));
        relays.chain(permissions).chain(channels)
    }

    /// The bound channels, and the family of the relayed address that each uses.
    pub(super) fn channel_families(&self) -> impl Iterator<Item = (u16, Family)> {
        self.channels.iter().map(|(number, channel)| (number, Family::of(channel.peer.0.ip())))
    }

    /// Panics unless permissions, peers and channels agree.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.permissions, self.peers.values().filter(|peer| peer.is_permitted()).count());
        for (IpKey(ip), peer) in &self.peers {
            assert!(peer.is_permitted() || !peer.channels.is_empty(), "nothing is known of {ip}");
            assert!(peer.channels.is_sorted() && peer.ports.is_sorted());
            assert!(self.relay(Family::of(*ip)).is_some(), "{ip} has no relayed address");
            for (port, number) in &peer.channels {
                let channel = self.channels.get(*number).expect("the channel of a port");
                assert_eq!(channel.peer.0, SocketAddr::new(*ip, *port));
            }
        }
        for (number, channel) in self.channels.iter() {
            let known = self.peer(channel.peer.0.ip()).and_then(|peer| peer.channel(channel.peer.0.port()));
            assert_eq!(known, Some(number));
        }
    }

    /// Whether a Send indication may go to this peer (RFC 8656 section 11.2), and the verdict on its address. `limit` is the
    /// number of new peers per second.
    pub(super) fn reach(&mut self, now: u64, peer: SocketAddr, limit: u32) -> Result<&Verdict, Dropped> {
        let known = self
            .peers
            .get_mut(&IpKey(peer.ip()))
            .filter(|peer| peer.is_permitted())
            .ok_or(Dropped::NoPermission)?;
        if let Err(at) = known.ports.binary_search(&peer.port())
            && known.channel(peer.port()).is_none()
        {
            self.new_peers_full_at =
                one_more(self.new_peers_full_at, now, limit).ok_or(Dropped::TooManyPeers)?;
            if known.ports.len() < PORTS {
                known.ports.insert(at, peer.port());
            } else {
                known.ports = vec![peer.port()];
            }
        }
        Ok(&known.verdict)
    }

    /// The name of a peer at `inside`, an address of this machine that the client may also call by its external addresses, given
    /// what is known of each of the names: the one that packets get there by; of several, the one that the client used last.
    ///
    /// # Errors
    /// By neither name may packets come from there.
    pub(super) fn name(
        &self,
        inside: SocketAddr,
        names: [Option<(SocketAddr, &Peer)>; 3],
        is_live: impl Fn(SocketAddr) -> bool,
    ) -> Result<SocketAddr, Dropped> {
        let permitted = || names.into_iter().flatten().filter(|(_, peer)| peer.is_permitted());
        let mut here =
            permitted().filter(|(name, peer)| peer.verdict.scope.send_to(*name, &is_live) == Ok(inside));
        let Some(first) = here.next() else {
            return Err(match permitted().next() {
                Some(_) => Dropped::ForbiddenPort,
                None => Dropped::NoPermission,
            });
        };
        let used = |(name, peer)| self.used_by(name, Some(peer));
        let last = here.fold(first, |last, one| if used(one) >= used(last) { one } else { last });
        Ok(last.0)
    }

    /// When the client used this name of a peer on this machine, for comparison: the last packet to it, or a channel.
    pub(super) fn used(&self, name: SocketAddr) -> (u64, bool) {
        self.used_by(name, self.peer(name.ip()))
    }

    fn used_by(&self, name: SocketAddr, peer: Option<&Peer>) -> (u64, bool) {
        (self.own_ports.last(name), peer.is_some_and(|peer| peer.channel(name.port()).is_some()))
    }

    /// Counts `peers` new peers against the limit per second. Returns false and counts nothing if that is too many.
    pub(super) fn count_new_peers(&mut self, now: u64, peers: usize, limit: u32) -> bool {
        let counted = (0..peers).try_fold(self.new_peers_full_at, |full_at, _| one_more(full_at, now, limit));
        self.new_peers_full_at = counted.unwrap_or(self.new_peers_full_at);
        counted.is_some()
    }

    /// Whether the client may be told about one more ICMP message now.
    pub(super) fn count_icmp(&mut self, now: u64) -> bool {
        let counted = one_more(self.icmp_full_at, now, ICMP_RATE);
        self.icmp_full_at = counted.unwrap_or(self.icmp_full_at);
        counted.is_some()
    }

    /// Whether `bytes` may be relayed now in this direction, at `limit` bytes per second.
    pub(super) fn count_bandwidth(&mut self, now: u64, direction: Direction, bytes: u64, limit: u64) -> bool {
        if limit == 0 {
            return true;
        }
        let full_at = &mut self.bandwidth_full_at[direction as usize];
        let cost = (u128::from(bytes) * u128::from(SECOND) / u128::from(limit)) as u64;
        let counted = bucket::take(*full_at, now, cost, SECOND);
        *full_at = counted.unwrap_or(*full_at);
        counted.is_some()
    }

    pub(super) fn channel(&self, number: u16) -> Option<&Channel> {
        self.channels.get(number)
    }

    /// What it costs to close it, where looking at a permission costs 1: mostly what its sockets cost.
    pub(super) fn cost_to_close(&self) -> usize {
        CLOSE + self.permissions + self.channels.len()
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn permissions(&self) -> usize {
        self.permissions
    }

    /// Installs or refreshes a permission (RFC 8656 section 9); true if it is new.
    pub(super) fn permit(
        &mut self,
        id: AllocationId,
        ip: IpAddr,
        verdict: Verdict,
        until: u64,
        timers: &mut Timers,
    ) -> bool {
        let peer = self.peers.entry(IpKey(ip)).or_insert(Peer {
            permitted_until: None,
            verdict: verdict.clone(),
            channels: Vec::new(),
            ports: Vec::new(),
        });
        peer.verdict = verdict;
        let old = peer.permitted_until.replace(until);
        timers.renew(old, until, Deadline::Permission(id, ip));
        self.permissions += usize::from(old.is_none());
        old.is_none()
    }

    /// Removes a permission; true if there was one. Channels to that address stay bound (section 12).
    pub(super) fn forbid(&mut self, id: AllocationId, ip: IpAddr, timers: &mut Timers) -> bool {
        let Entry::Occupied(mut entry) = self.peers.entry(IpKey(ip)) else { return false };
        let Some(until) = entry.get_mut().permitted_until.take() else { return false };
        timers.stop(until, Deadline::Permission(id, ip));
        if entry.get().channels.is_empty() {
            entry.remove();
        }
        self.permissions -= 1;
        true
    }

    /// Binds or refreshes a channel (RFC 8656 section 12.2); true if it is new. The caller has checked that neither the
    /// number nor the peer is bound to something else, and has installed the permission.
    pub(super) fn bind(
        &mut self,
        id: AllocationId,
        number: u16,
        peer: PeerAddr,
        verdict: Verdict,
        expires: u64,
        timers: &mut Timers,
    ) -> bool {
        let old = self.channels.insert(number, Channel { peer, verdict, expires }).map(|old| old.expires);
        timers.renew(old, expires, Deadline::Channel(id, number));
        if old.is_none()
            && let Some(entry) = self.peers.get_mut(&IpKey(peer.0.ip()))
            && let Err(at) = entry.channels.binary_search_by_key(&peer.0.port(), |&(port, _)| port)
        {
            entry.channels.insert(at, (peer.0.port(), number));
        }
        old.is_none()
    }

    /// Unbinds a channel. `None`: it was not bound.
    pub(super) fn unbind(&mut self, id: AllocationId, number: u16, timers: &mut Timers) -> Option<Channel> {
        let channel = self.channels.remove(number)?;
        timers.stop(channel.expires, Deadline::Channel(id, number));
        if let Entry::Occupied(mut entry) = self.peers.entry(IpKey(channel.peer.0.ip())) {
            entry.get_mut().channels.retain(|&(_, bound)| bound != number);
            if !entry.get().is_permitted() && entry.get().channels.is_empty() {
                entry.remove();
            }
        }
        Some(channel)
    }
}

/// Monotonic nanoseconds as seconds.
fn seconds(now: u64) -> u32 {
    (now / SECOND) as u32
}

fn one_more(full_at: u64, now: u64, limit: u32) -> Option<u64> {
    match SECOND.checked_div(limit.into()) {
        Some(cost) => bucket::take(full_at, now, cost, 4 * SECOND),
        None => Some(full_at),
    }
}
