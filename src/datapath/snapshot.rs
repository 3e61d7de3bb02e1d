//! What workers serve by, as one immutable value that is replaced as a whole.

use std::net::IpAddr;
use std::sync::Arc;

use super::stream::StreamLimits;
use crate::tls::Identity;
use crate::turn::{self, ExemptSources};

/// What every worker and the stages of its connections serve by.
#[derive(Clone)]
pub struct DatapathSnapshot {
    /// What the core serves by.
    pub turn: Arc<turn::Snapshot>,
    /// The addresses that relayed transport addresses are made of.
    pub relay: Vec<IpAddr>,
    /// Allocations and reservations per user (486).
    pub user_allocations: usize,
    /// Allocations and reservations in total (508).
    pub allocations: usize,
    /// Limits and deadlines of connections.
    pub connections: StreamLimits,
    /// Sources whose limits on connections are larger.
    pub exempt: ExemptSources,
    /// Who this server is to TLS clients; needed where there is a TLS listener.
    pub identity: Option<Identity>,
}
