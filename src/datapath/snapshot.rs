//! What workers serve by, as one immutable value that is replaced as a whole.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::descriptors::DescriptorRoom;
use super::listen::service::StreamService;
use super::splice::backend::Backend;
use super::splice::limits::SpliceLimits;
use super::stream::StreamLimits;
use crate::tls::Identities;
use crate::turn::{self, ExemptSources};

/// What every worker and the stages of its connections serve by.
#[derive(Clone)]
pub struct DatapathSnapshot {
    /// What the core serves by.
    pub turn: Arc<turn::Snapshot>,
    /// The addresses that relayed transport addresses are made of.
    pub relay: Vec<IpAddr>,
    /// Their ports.
    pub ports: RangeInclusive<u16>,
    /// Allocations and reservations per user (486).
    pub user_allocations: usize,
    /// Allocations and reservations in total (508).
    pub allocations: usize,
    /// How long a reserved port waits for its token, in seconds (RFC 8656 section 7.2: at least 30).
    pub reservation_lifetime: u64,
    /// Limits and deadlines of connections.
    pub connections: StreamLimits,
    /// Limits and deadlines of connections that go to backends.
    pub splices: SpliceLimits,
    /// Sources whose limits on connections are larger.
    pub exempt: ExemptSources,
    /// What the limit on open files leaves room for.
    pub descriptors: DescriptorRoom,
    /// How far apart passes of a worker start while packets keep coming that the kernel does not join; zero for no
    /// gathering.
    pub gather: Duration,
    /// The certificates for TLS clients; needed where there is a TLS listener.
    pub identities: Option<Identities>,
    /// What listeners for streams serve, by the address that each is bound to.
    pub services: HashMap<SocketAddr, Arc<StreamService>>,
}

impl DatapathSnapshot {
    /// Every server that connections are passed on to; one that several listeners name is there several times.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.services.values().flat_map(|service| service.backends())
    }
}
