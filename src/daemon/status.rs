//! What a running relay is and does, for operators.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::certificates::CertificateStatus;
use super::overlays::Overlay;
use super::reload::{ReloadError, ReloadReport};
use super::{random, state, unix_now};
use crate::config::settings::AuthSettings;
use crate::config::{Listener, Protocol, ServiceSettings, Settings};
use crate::datapath::{SpliceStats, WorkerStats};
use crate::turn::peers::{PeerRule, refused_by_default};
use crate::turn::{PerFamily, Transport};

/// What tells this process from every other relay, and from itself before a restart.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Random, in hex.
    pub id: String,
    /// When it started, in Unix seconds.
    pub started: u64,
    at: Instant,
}

/// What a relay is and does at a moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The process.
    pub instance: Instance,
    /// How long it has run.
    pub uptime: Duration,
    /// The listeners for clients.
    pub listeners: Vec<ListenerStatus>,
    /// The listeners for metrics and health.
    pub http: Vec<SocketAddr>,
    /// The control socket, if there is one.
    pub control_socket: Option<PathBuf>,
    /// The TCP listeners of the admin API.
    pub admin: Vec<SocketAddr>,
    /// The addresses that relay, each with its external address if it has one.
    pub relay: Vec<(IpAddr, Option<IpAddr>)>,
    /// Its domain name, if the arguments have one.
    pub domain: Option<String>,
    /// Who may use it.
    pub auth: AuthStatus,
    /// The ports of relayed addresses.
    pub relay_ports: RangeInclusive<u16>,
    /// Why the relay cannot serve clients, if it cannot.
    pub not_ready: Option<String>,
    /// The URLs for ICE servers of clients.
    pub ice_urls: Vec<String>,
    /// Every number of `[limits]` by its name.
    pub limits: Vec<(&'static str, u64)>,
    /// What there is now.
    pub counts: Counts,
    /// Connections that go to backends.
    pub splices: SpliceStats,
    /// Which peers may be reached or not.
    pub peers: Vec<PeerEntry>,
    /// What programs have set over them.
    pub overlays: Vec<Overlay>,
    /// The certificates for TLS clients.
    pub certificates: Vec<CertificateStatus>,
    /// How many users are revoked.
    pub revoked: u64,
    /// The last reload.
    pub last_reload: Option<LastReload>,
}

/// A listener for clients, and what it serves.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// What its clients are offered.
    pub transport: Transport,
    /// What it is bound to.
    pub address: SocketAddr,
    /// What its TCP connections speak; nothing for UDP.
    pub protocols: Vec<Protocol>,
    /// What its TCP connections may be.
    pub service: Arc<ServiceSettings>,
}

/// Who may use a relay: what a program needs that issues credentials, and no secret.
#[derive(Clone, Debug)]
pub struct AuthStatus {
    /// The realm.
    pub realm: String,
    /// How many shared secrets there are.
    pub shared_secrets: usize,
    /// The files that hold shared secrets.
    pub secret_files: Vec<PathBuf>,
    /// How many API keys of LiveKit there are.
    pub livekit_keys: usize,
    /// Whether credentials of LiveKit that never expire are accepted.
    pub livekit_two_part: bool,
    /// How many static users there are.
    pub users: usize,
    /// The longest time in seconds until a credential with an expiry expires.
    pub max_lifetime: u64,
}

/// How many of everything there are.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Allocations.
    pub allocations: u64,
    /// Relayed addresses by transport and family; an allocation may have two.
    pub relayed: [PerFamily<u64>; Transport::ALL.len()],
    /// Permissions.
    pub permissions: u64,
    /// Bound channels.
    pub channels: u64,
}

/// A rule about peers and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The addresses and ports.
    pub peer: String,
    /// Whether they may be reached.
    pub allowed: bool,
    /// `default`, `file`, or who else has set it.
    pub origin: String,
    /// What is there, of the defaults.
    pub what: Option<&'static str>,
}

/// How a reload went.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When, in Unix seconds.
    pub at: u64,
    /// Who asked for it.
    pub by: String,
    /// What has changed, in short, or why nothing has.
    pub outcome: Result<String, String>,
}

impl Instance {
    /// That of this process.
    ///
    /// # Errors
    /// The operating system provides no random bytes.
    pub fn new() -> std::io::Result<Instance> {
        let id = random::bytes::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Instance { id, started: unix_now(), at: Instant::now() })
    }

    /// How long it has run.
    pub fn uptime(&self) -> Duration {
        self.at.elapsed()
    }
}

impl LastReload {
    /// A reload that has just ended.
    pub fn new(by: &str, outcome: &Result<ReloadReport, ReloadError>) -> LastReload {
        let outcome = match outcome {
            Ok(report) => Ok(report.summary()),
            Err(error) => Err(error.to_string()),
        };
        LastReload { at: unix_now(), by: by.into(), outcome }
    }
}

impl AuthStatus {
    /// That of settings. `generated` is the state directory, if it holds a shared secret.
    pub(super) fn of(settings: &AuthSettings, generated: Option<&Path>) -> AuthStatus {
        let generated = generated.map(state::secret_path);
        // Whoever asks may have another working directory.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        AuthStatus {
            realm: settings.realm.clone(),
            shared_secrets: settings.secrets.len(),
            secret_files: settings.secret_paths.iter().chain(&generated).map(absolute).collect(),
            livekit_keys: settings.livekit_keys.len(),
            livekit_two_part: settings.livekit_two_part,
            users: settings.static_users(),
            max_lifetime: settings.max_lifetime,
        }
    }
}

impl Counts {
    /// What these workers have, all together.
    pub(super) fn of(workers: &[WorkerStats]) -> Counts {
        let mut counts = Counts::default();
        for WorkerStats { turn, .. } in workers {
            counts.allocations += turn.allocations;
            counts.permissions += turn.permissions;
            counts.channels += turn.channels;
            for (sum, relays) in counts.relayed.iter_mut().zip(&turn.relays) {
                sum.v4 += relays.v4;
                sum.v6 += relays.v6;
            }
        }
        counts
    }
}

/// The listeners that this machine could open. `has_identity`: TLS can end here.
pub(super) fn listeners(
    settings: &Settings,
    open: &[(Transport, SocketAddr)],
    has_identity: bool,
) -> Vec<ListenerStatus> {
    let status = |one: Listener| ListenerStatus {
        transport: one.transport,
        address: one.address,
        protocols: if one.transport.is_stream() { one.service.spoken(has_identity) } else { Vec::new() },
        service: one.service,
    };
    settings.recall(&[], open).into_iter().map(status).collect()
}

/// Every rule about peers with its origin: those of programs, of the configuration, of its listeners, and the defaults.
pub(super) fn peers<'a>(settings: &Settings, overlays: impl Iterator<Item = &'a Overlay>) -> Vec<PeerEntry> {
    let mut entries = Vec::new();
    let mut add = |rules: &[PeerRule], allowed, origin: &str| {
        let entry = |rule: &PeerRule| PeerEntry {
            peer: rule.to_string(),
            allowed,
            origin: origin.to_owned(),
            what: None,
        };
        entries.extend(rules.iter().map(entry));
    };
    for overlay in overlays {
        add(&overlay.addresses, true, &format!("overlay {}", overlay.owner));
    }
    add(&settings.peers.allow, true, "file");
    add(&settings.peers.deny, false, "file");
    for listener in settings.listeners() {
        let origin = format!("listener {listener}");
        add(&listener.peers.allow, true, &origin);
        add(&listener.peers.deny, false, &origin);
    }
    entries.extend(refused_by_default().map(|(range, what)| PeerEntry {
        peer: range.to_owned(),
        allowed: false,
        origin: "default".to_owned(),
        what: Some(what),
    }));
    entries
}
