//! What the sidecar is told: its configuration, read and checked. Secrets never appear in `Debug` output.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::Secret;
use crate::config::settings::LogSettings;
use crate::config::tokens::Tokens;
use crate::turn::peers::{Cidr, PeerRule};

/// Everything that can be set. `config` has the table of its keys, and reads it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The LiveKit deployment.
    pub livekit: LiveKitSettings,
    /// The relays; the first one is that beside the sidecar.
    pub relays: Vec<RelaySettings>,
    /// How credentials for the relays are made.
    pub credentials: CredentialSettings,
    /// The sidecar's own HTTP server.
    pub http: HttpSettings,
    /// Which peers the relays may reach.
    pub peers: PeerSettings,
    /// What happens when participants leave.
    pub lifecycle: LifecycleSettings,
    /// How relays and LiveKit are probed.
    pub health: HealthSettings,
    /// The log.
    pub log: LogSettings,
}

impl Settings {
    /// Settings without the defaults of the table, which sets them.
    pub(super) fn blank() -> Settings {
        Settings {
            livekit: LiveKitSettings::default(),
            relays: Vec::new(),
            credentials: CredentialSettings::default(),
            http: HttpSettings::default(),
            peers: PeerSettings::default(),
            lifecycle: LifecycleSettings::default(),
            health: HealthSettings::default(),
            log: LogSettings::default(),
        }
    }

    /// Whether anything says which addresses the SFU has.
    pub fn knows_peers(&self) -> bool {
        !self.peers.addresses.is_empty() || !self.peers.redis.is_empty() || self.livekit.config_file.is_some()
    }
}

/// `[livekit]`
#[derive(Clone, Debug, Default)]
pub struct LiveKitSettings {
    /// The URL that clients connect to: `wss://livekit.example.org`, without a path.
    pub url: String,
    /// Where the sidecar reaches LiveKit's API, if not at `url`.
    pub api_url: String,
    /// The API keys. The first one signs what the sidecar asks; tokens of every one are accepted.
    pub keys: Vec<ApiKey>,
    /// The file they came from.
    pub keys_file: Option<PathBuf>,
    /// LiveKit's own configuration, if it is on this machine.
    pub config_file: Option<PathBuf>,
    /// Authorities that LiveKit's certificate may come from, besides those of this machine.
    pub ca_file: Option<PathBuf>,
}

/// A pair of LiveKit's API keys.
#[derive(Clone)]
pub struct ApiKey {
    /// The key, which names the pair in tokens.
    pub key: String,
    /// The secret.
    pub secret: Secret,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// `[[relay]]`
#[derive(Clone, Debug, Default)]
pub struct RelaySettings {
    /// What logs and metrics call it.
    pub name: String,
    /// Its control socket, if it is on this machine and not in the usual place.
    pub socket: Option<PathBuf>,
    /// Its admin API over TCP, if it is on another machine: `https://turn-2.example.org:9642`.
    pub url: String,
    /// The token for that API.
    pub token: Option<Secret>,
    /// Authorities that its certificates may come from, those of the API and for TURN over TLS, besides those of this machine.
    pub ca_file: Option<PathBuf>,
    /// The region that it serves; clients name theirs, in capital or small letters.
    pub region: String,
    /// The ICE URLs that clients get, if they are not those that the relay tells.
    pub urls: Vec<String>,
}

/// `[credentials]`
#[derive(Clone, Debug)]
pub struct CredentialSettings {
    /// The shared secrets of the relays. The first one makes credentials.
    pub secrets: Vec<Secret>,
    /// The file that they came from.
    pub secret_file: Option<PathBuf>,
    /// How long a credential can make allocations, in seconds. It is also the `ttl` of LiveKit's `turn_servers`.
    pub ttl: u64,
}

impl Default for CredentialSettings {
    fn default() -> CredentialSettings {
        CredentialSettings { secrets: Vec::new(), secret_file: None, ttl: 14_400 }
    }
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The addresses that it listens on, for the ICE-server API, LiveKit's webhooks, health and metrics.
    pub listen: Vec<SocketAddr>,
    /// The certificate chain as PEM, if it serves TLS itself.
    pub cert: Option<PathBuf>,
    /// The private key of it.
    pub key: Option<PathBuf>,
    /// The tokens of backends that ask for ICE servers of any participant.
    pub tokens: Tokens,
    /// Who may read metrics; everybody if there is none.
    pub metrics_tokens: Tokens,
    /// The origins of web pages that may ask: `https://meet.example.org`.
    pub origins: Vec<String>,
    /// How many answers a participant may get at once, and per minute afterwards; 0 is no limit.
    pub burst: u32,
    /// See `burst`.
    pub per_minute: u32,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9643))],
            cert: None,
            key: None,
            tokens: Tokens::default(),
            metrics_tokens: Tokens::default(),
            origins: Vec::new(),
            burst: 20,
            per_minute: 20,
        }
    }
}

/// `[peers]`
#[derive(Clone, Debug, Default)]
pub struct PeerSettings {
    /// What the overlay does.
    pub mode: PeersMode,
    /// The SFU's addresses with their ports, if LiveKit's configuration does not tell them.
    pub addresses: Vec<PeerRule>,
    /// Redis, where a distributed deployment lists its nodes: `redis://10.0.0.5:6379/0`.
    pub redis: String,
    /// Its password.
    pub redis_password: Option<Secret>,
    /// Which addresses that are not global the nodes may have.
    pub allow: Vec<Cidr>,
}

/// What the sidecar says about peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeersMode {
    /// The relay reaches the SFU and nothing else.
    #[default]
    Only,
    /// The relay reaches the SFU in addition to what its configuration allows.
    Add,
    /// Nothing.
    Off,
}

/// `[lifecycle]`
#[derive(Clone, Debug)]
pub struct LifecycleSettings {
    /// Whether participants that have left are revoked.
    pub revoke: bool,
    /// Seconds between two comparisons with LiveKit's own lists.
    pub reconcile: u32,
    /// Where the sidecar keeps who is in which room.
    pub state_dir: Option<PathBuf>,
}

impl Default for LifecycleSettings {
    fn default() -> LifecycleSettings {
        LifecycleSettings { revoke: true, reconcile: 3, state_dir: None }
    }
}

/// `[health]`
#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// Whether relays are probed by allocations.
    pub probe: bool,
    /// Seconds between two probes.
    pub interval: u32,
}

impl Default for HealthSettings {
    fn default() -> HealthSettings {
        HealthSettings { probe: true, interval: 15 }
    }
}
