//! What is counted of each backend's connections.

use crate::counted::{Counters, counted};

counted! {
    /// Why a connection did not reach its backend.
    pub enum SpliceFailure {
        /// The backend's name could not be resolved.
        Unresolved = "unresolved",
        /// The backend's host refuses connections to the port.
        Refused = "refused",
        /// No address of the backend answered in time.
        Timeout = "timeout",
        /// There is no route to the backend, or something on the way rejects the connection.
        Unreachable = "unreachable",
        /// So many connections wait for the backend, or for its addresses, that it did not get its turn.
        Waiting = "waiting",
        /// `limits.spliced_connections` or `limits.spliced_connections_per_source` was reached.
        Limit = "limit",
        /// It made room for another connection while it waited for the backend.
        Displaced = "displaced",
        /// It came from this relay itself: the backend's name leads to one of its own listeners.
        Loop = "loop",
        /// This machine had no file descriptor, port or memory for it.
        System = "system",
    }
}

counted! {
    /// Why a connection to a backend ended.
    pub enum SpliceEnd {
        /// Both sides have closed it.
        Finished = "finished",
        /// The client has reset it, or cannot be reached.
        ClientReset = "client_reset",
        /// The backend has reset it, or cannot be reached.
        BackendReset = "backend_reset",
        /// The TLS client has closed it without close_notify.
        Truncated = "truncated",
        /// The client's bytes were not valid TLS.
        Tls = "tls",
        /// Both directions were silent for too long.
        Idle = "idle",
        /// One side had closed its direction, and the other one was silent for too long.
        HalfClosed = "half_closed",
        /// It made room for a new connection.
        Displaced = "displaced",
    }
}

impl SpliceFailure {
    /// Whether the backend is at fault, not a limit of this relay.
    pub(super) fn is_of_backend(self) -> bool {
        match self {
            SpliceFailure::Unresolved
            | SpliceFailure::Refused
            | SpliceFailure::Timeout
            | SpliceFailure::Unreachable => true,
            SpliceFailure::Waiting
            | SpliceFailure::Limit
            | SpliceFailure::Displaced
            | SpliceFailure::Loop
            | SpliceFailure::System => false,
        }
    }

    /// What can be done about it.
    pub(super) fn fix(self) -> &'static str {
        match self {
            SpliceFailure::Unresolved => {
                "correct the backend's name in the configuration, or look at this machine's DNS (getent ahosts)"
            }
            SpliceFailure::Refused => {
                "start the backend, or correct its address and port in the configuration"
            }
            SpliceFailure::Timeout => {
                "look whether the backend runs and accepts connections, and whether a firewall drops them; \
                 limits.backend_connect_timeout is how long it may take"
            }
            SpliceFailure::Unreachable => {
                "look at this machine's routes to the backend, and at firewalls on the way"
            }
            SpliceFailure::Waiting => {
                "look why the backend does not accept connections, or this machine's DNS does not answer; until then, a quarter of \
                 limits.spliced_connections may wait for it"
            }
            SpliceFailure::Limit => {
                "raise the limit; if the source is your own proxy, balancer or NAT, list it in limits.exempt_sources"
            }
            SpliceFailure::Displaced => "raise limits.spliced_connections",
            SpliceFailure::Loop => {
                "let the backend's name lead to the server itself, not to a listener of this relay: correct the route, or this machine's \
                 DNS or /etc/hosts"
            }
            SpliceFailure::System => {
                "raise LimitNOFILE (systemd) or ulimit -n; look at this machine's memory and local ports"
            }
        }
    }
}

/// What is counted of connections to backends.
#[derive(Clone, Debug, Default)]
pub struct SpliceStats {
    /// Open connections, those that wait for their backend among them.
    pub connections: usize,
    /// Each backend of the configuration, and those removed from it that still have connections, by name.
    pub backends: Vec<BackendStats>,
}

/// What is counted of one backend.
#[derive(Clone, Debug)]
pub struct BackendStats {
    /// As the configuration has it.
    pub name: String,
    /// Connections to it now.
    pub open: u64,
    /// Connections to it since it is in the configuration.
    pub total: u64,
    /// Bytes of clients.
    pub to_backend: u64,
    /// Bytes of the backend.
    pub to_client: u64,
    /// Connections that did not reach it.
    pub failed: Counters<SpliceFailure>,
    /// Connections that have ended.
    pub closed: Counters<SpliceEnd>,
    /// Whether it can be reached.
    pub health: BackendHealth,
}

/// Whether a backend could be reached when it was tried last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendHealth {
    /// Nobody has asked for it yet.
    #[default]
    Unknown,
    /// It could.
    Up,
    /// It could not.
    Failing {
        /// Since when, in Unix seconds.
        since: u64,
        /// Which error the latest connection met, at which address.
        error: String,
    },
}

impl BackendStats {
    /// How it fails, if it does.
    pub fn failure(&self) -> Option<(u64, &str)> {
        match &self.health {
            BackendHealth::Failing { since, error } => Some((*since, error)),
            BackendHealth::Unknown | BackendHealth::Up => None,
        }
    }
}

impl SpliceStats {
    /// The backends that cannot be reached.
    pub fn failing(&self) -> impl Iterator<Item = &BackendStats> {
        self.backends.iter().filter(|backend| backend.failure().is_some())
    }
}
