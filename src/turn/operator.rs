//! What operators ask of a server: to list allocations, and to end some. Both work in bounded steps, each of which tells where
//! the next one goes on, so that a large table delays no packet.
//!
//! Allocations are walked in the order of their names, which is the order of their creation over all workers. So a walk
//! neither misses nor repeats an allocation that lives all the time, whatever begins and ends meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use super::allocation::Allocation;
use super::allocation_name::AllocationName;
use super::peers::PeerRule;
use super::server::Server;
use super::{AllocationId, CloseReason, Now, SECOND, Totals, Transport};
use crate::auth::Credential;
use crate::wire::Family;

/// What one step may cost: each allocation is one, and so is each of its permissions and channels that is looked at.
const STEP: usize = 256;

/// Which allocations are meant: those that meet every criterion. Without any, all of them are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The one with this name.
    pub name: Option<AllocationName>,
    /// Those of this user: a static one, or the user in a time-limited user name.
    pub user: Option<String>,
    /// Those whose credential expires up to this time, in Unix seconds, or has no expiry.
    pub expires_by: Option<u64>,
    /// Those of clients at these addresses and ports.
    pub client: Option<PeerRule>,
    /// Those with a permission for one of these addresses; with ports, those with a channel to one of them, or that have sent
    /// to one of them.
    pub peer: Option<PeerRule>,
    /// Those of clients with this transport.
    pub transport: Option<Transport>,
    /// Those that have lived for at least as many seconds.
    pub min_age: Option<u64>,
    /// Those that have lived for at most as many seconds.
    pub max_age: Option<u64>,
}

/// A step of a list.
#[derive(Clone, Debug)]
pub struct ListStep {
    /// Which allocations are listed.
    pub selector: Arc<Selector>,
    /// The step goes on behind this name.
    pub after: Option<AllocationName>,
    /// The most allocations to list.
    pub limit: usize,
    /// Whether permissions and channels are listed, too.
    pub peers: bool,
}

/// What a step of a list has found.
#[derive(Clone, Debug, Default)]
pub struct ListedStep {
    /// The allocations, in the order of their names.
    pub rows: Vec<AllocationRow>,
    /// Where the next step goes on; `None` at the end.
    pub next: Option<AllocationName>,
}

/// A step of ending allocations.
#[derive(Clone, Debug)]
pub struct EndStep {
    /// Which allocations end.
    pub selector: Arc<Selector>,
    /// The step goes on behind this name.
    pub after: Option<AllocationName>,
    /// Why they end.
    pub reason: CloseReason,
}

/// What a step has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedStep {
    /// How many allocations.
    pub ended: u64,
    /// Where the next step goes on; `None` at the end.
    pub next: Option<AllocationName>,
}

/// An allocation as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRow {
    /// Its name.
    pub name: AllocationName,
    /// The user: the name that quotas are counted by.
    pub user: Arc<str>,
    /// The client's address.
    pub client: SocketAddr,
    /// The transport between the client and the relay.
    pub transport: Transport,
    /// The address that the client uses.
    pub server: SocketAddr,
    /// Its relayed addresses, IPv4 first.
    pub relayed: Vec<RelayedRow>,
    /// Since when it lives, in Unix seconds.
    pub created: u64,
    /// For how many seconds it has lived.
    pub age: u64,
    /// In how many seconds it ends unless it is refreshed.
    pub expires_in: u64,
    /// How many permissions it has.
    pub permissions: usize,
    /// How many channels it has.
    pub channels: usize,
    /// What it has relayed until now.
    pub totals: Totals,
    /// When these totals were read, in monotonic nanoseconds.
    pub read_at: u64,
    /// Its permissions and channels, if they were asked for.
    pub peers: Option<PeerRows>,
}

/// A relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedRow {
    /// The address on this machine.
    pub address: SocketAddr,
    /// The address that clients and peers are told. It is another one behind a NAT.
    pub external: SocketAddr,
}

/// The permissions and channels of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRows {
    /// Permissions: the address, and in how many seconds they end. Sorted.
    pub permissions: Vec<(IpAddr, u64)>,
    /// Channels: the number, the peer, and in how many seconds they end. Sorted.
    pub channels: Vec<(u16, SocketAddr, u64)>,
}

impl Selector {
    /// Whether an allocation is meant, and what it cost to find that out.
    fn selects(&self, now: Now, allocation: &Allocation) -> (bool, usize) {
        let age = age(now, allocation);
        let is_client = |rule: &PeerRule| {
            let client = allocation.tuple.client.0;
            rule.range.contains(client.ip()) && rule.ports().contains(&client.port())
        };
        // Probes are no load; they are listed for who asks for them
        let is_hidden = allocation.is_probe() && self.name.is_none() && self.user.is_none();
        let cheap = !is_hidden
            && self.name.is_none_or(|name| name == allocation.name)
            && self.is_credential_meant(&allocation.credential)
            && self.client.as_ref().is_none_or(is_client)
            && self.transport.is_none_or(|transport| transport == allocation.tuple.transport)
            && self.min_age.is_none_or(|least| age >= least)
            && self.max_age.is_none_or(|most| age <= most);
        match &self.peer {
            Some(rule) if cheap => {
                (allocation.reaches(rule), 1 + allocation.permissions() + allocation.channels())
            }
            _ => (cheap, 1),
        }
    }

    /// Whether allocations with this credential are meant, as far as that decides.
    pub(super) fn is_credential_meant(&self, credential: &Credential) -> bool {
        self.user.as_deref().is_none_or(|user| user == &**credential.user())
            && self.expires_by.is_none_or(|time| credential.expires_by(time))
    }
}

impl Server {
    /// Lists some of the allocations that are meant.
    pub fn list(&mut self, now: Now, step: &ListStep) -> ListedStep {
        self.expire(now);
        let mut listed = ListedStep::default();
        let mut walk = Walk::new(self, &step.selector, step.after);
        while let Some((name, id)) = walk.next(self) {
            let Some(allocation) = self.allocations.get(id) else { continue };
            let (selected, cost) = step.selector.selects(now, allocation);
            walk.spend(cost);
            if selected {
                if step.peers {
                    walk.spend(allocation.permissions() + allocation.channels());
                }
                listed.rows.push(self.row(now, allocation, step.peers));
            }
            if listed.rows.len() >= step.limit {
                walk.stop(self, name);
            }
        }
        listed.next = walk.left_at;
        listed
    }

    /// What these allocations have relayed until now; those that have ended are left out.
    pub fn totals(&self, names: &[AllocationName]) -> Vec<(AllocationName, Totals)> {
        let totals = |name: &AllocationName| {
            let id = *self.by_name.get(name)?;
            Some((*name, self.allocations.get(id)?.totals))
        };
        names.iter().filter_map(totals).collect()
    }

    /// Ends some of the allocations that are meant. Those of a revoked user include the ones that are about to open: their
    /// requests were authenticated before the user was revoked, and whoever opens sockets may take its time.
    pub fn end(&mut self, now: Now, step: &EndStep) -> EndedStep {
        self.expire(now);
        let mut ended = EndedStep::default();
        if step.after.is_none()
            && step.reason == CloseReason::Revoked
            && let Some(user) = &step.selector.user
        {
            self.refuse_pending(now, user, &step.selector);
        }
        let mut walk = Walk::new(self, &step.selector, step.after);
        while let Some((_, id)) = walk.next(self) {
            let Some(allocation) = self.allocations.get(id) else { continue };
            let (selected, cost) = step.selector.selects(now, allocation);
            walk.spend(cost);
            if selected {
                walk.spend(allocation.cost_to_close());
                self.close(now, id, step.reason);
                ended.ended += 1;
            }
        }
        ended.next = walk.left_at;
        ended
    }

    fn row(&self, now: Now, allocation: &Allocation, peers: bool) -> AllocationRow {
        let external = &self.snapshot.config.external;
        let relayed = allocation
            .relays()
            .map(|(_, relay)| RelayedRow { address: relay.addr.0, external: external.outside(relay.addr.0) });
        let expires = allocation.relays().map(|(_, relay)| relay.expires).max().unwrap_or(0);
        let age = age(now, allocation);
        AllocationRow {
            name: allocation.name,
            user: allocation.credential.user().clone(),
            client: allocation.tuple.client.0,
            transport: allocation.tuple.transport,
            server: allocation.tuple.server,
            relayed: relayed.collect(),
            created: now.unix.saturating_sub(age),
            age,
            expires_in: seconds_until(now, expires),
            permissions: allocation.permissions(),
            channels: allocation.channels(),
            totals: allocation.totals,
            read_at: now.mono,
            peers: peers.then(|| allocation.peer_rows(|expires| seconds_until(now, expires))),
        }
    }
}

/// A walk over the names of a server's allocations, as far as one step may go.
struct Walk {
    /// The only allocation to visit, or where to go on.
    from: Result<Option<AllocationName>, Bound<AllocationName>>,
    budget: usize,
    visited: Option<AllocationName>,
    /// Where it was left before its end.
    left_at: Option<AllocationName>,
}

impl Walk {
    fn new(server: &Server, selector: &Selector, after: Option<AllocationName>) -> Walk {
        let from = match (selector.name, after) {
            (Some(one), None) => Ok(Some(one).filter(|name| server.by_name.contains_key(name))),
            (Some(_), Some(_)) => Ok(None),
            (None, None) => Err(Bound::Unbounded),
            (None, Some(after)) => Err(Bound::Excluded(after)),
        };
        Walk { from, budget: STEP, visited: None, left_at: None }
    }

    fn next(&mut self, server: &Server) -> Option<(AllocationName, AllocationId)> {
        if self.left_at.is_some() {
            return None;
        }
        let (name, id) = match &mut self.from {
            Ok(one) => one.take().and_then(|name| Some((name, *server.by_name.get(&name)?)))?,
            Err(from) => {
                let (name, id) = server.by_name.range((*from, Bound::Unbounded)).next()?;
                (*name, *id)
            }
        };
        if self.budget == 0 {
            self.left_at = self.visited;
            return None;
        }
        if let Err(from) = &mut self.from {
            *from = Bound::Excluded(name);
        }
        self.visited = Some(name);
        Some((name, id))
    }

    fn spend(&mut self, cost: usize) {
        self.budget = self.budget.saturating_sub(cost);
    }

    /// Leaves behind an allocation, whatever the step may still cost.
    fn stop(&mut self, server: &Server, name: AllocationName) {
        let mut rest = server.by_name.range((Bound::Excluded(name), Bound::Unbounded));
        self.left_at = rest.next().map(|_| name).filter(|_| self.from.is_err());
        self.from = Ok(None);
    }
}

impl Allocation {
    /// Whether it has a permission for an address of a rule; with ports, a channel to one of them, or data sent there.
    fn reaches(&self, rule: &PeerRule) -> bool {
        self.contacts().any(|(ip, peer)| {
            rule.range.contains(ip)
                && (!rule.has_ports() || peer.any_port(|port| rule.ports().contains(&port)))
        })
    }

    fn peer_rows(&self, left: impl Fn(u64) -> u64) -> PeerRows {
        let permissions = self.contacts().filter_map(|(ip, peer)| Some((ip, left(peer.permitted_until()?))));
        let mut rows = PeerRows {
            permissions: permissions.collect(),
            channels: self.bindings().map(|(number, peer, expires)| (number, peer, left(expires))).collect(),
        };
        rows.permissions.sort_unstable_by_key(|(ip, _)| (Family::of(*ip) == Family::V6, *ip));
        rows
    }
}

fn age(now: Now, allocation: &Allocation) -> u64 {
    now.mono.saturating_sub(allocation.opened_at) / SECOND
}

fn seconds_until(now: Now, at: u64) -> u64 {
    at.saturating_sub(now.mono).div_ceil(SECOND)
}
