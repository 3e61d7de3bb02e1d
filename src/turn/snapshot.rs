//! Everything that an operator can change while the server runs, as one immutable value.

use std::net::IpAddr;
use std::sync::Arc;

use super::peers::{Forbidden, Scope};
use super::{Allocation, TurnConfig};
use crate::auth::Auth;

/// What a server works by until [`Server::apply`](super::Server::apply) replaces it.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots of a process: at least 1, and never the same twice.
    pub generation: u64,
    /// Credentials. Allocations keep the one that made them.
    pub auth: Arc<Auth>,
    /// Everything else.
    pub config: TurnConfig,
}

/// The judgement of a peer's address. It is cached with each permission and channel, so that packets do not walk lists of
/// ranges.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) scope: Scope,
    /// The snapshot that it was judged with.
    pub(super) generation: u64,
}

impl Verdict {
    /// The generation of a verdict that no snapshot of this process gave.
    pub(super) const OUTDATED: u64 = 0;
}

impl Snapshot {
    /// Judges the address of a peer of an allocation (RFC 8656 section 21). Probes meet on this relay and reach nothing else, so
    /// they prove that it relays, and are no way around the rules.
    pub(super) fn judge(&self, allocation: &Allocation, ip: IpAddr) -> Result<Verdict, Forbidden> {
        let (peers, external) = (self.config.peers_of(&allocation.tuple), &self.config.external);
        let scope = match allocation.is_probe() {
            false => peers.judge(ip, external)?,
            true => peers.judge_for_probe(ip, external)?,
        };
        Ok(Verdict { scope, generation: self.generation })
    }
}
