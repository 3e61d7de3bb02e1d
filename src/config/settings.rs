//! The settings: plain data, one struct per section. Their keys, defaults and documentation are in the
//! [table](super::table).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use super::external::ExternalEntry;
use super::listener::{Listener, ListenerPeers, ListenerSettings, PublicAddress};
use super::service::ServiceSettings;
use super::tls::TlsSettings;
use super::tokens::Tokens;
use crate::auth::{LiveKitKey, OnRemoval, Secret, StaticUser, UserList};
use crate::turn::Transport;
use crate::turn::peers::{Cidr, PeerRule};

/// Every setting. [`Settings::default`] is what runs without a configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[listen]`: the addresses that clients connect to.
    pub listen: ListenSettings,
    /// `[[listener]]`: more of them, with settings of their own.
    pub listener: Vec<ListenerSettings>,
    /// `[relay]`: the relayed transport addresses.
    pub relay: RelaySettings,
    /// `[tls]`: the certificate for TLS clients.
    pub tls: TlsSettings,
    /// `[auth]`: who may use the relay.
    pub auth: AuthSettings,
    /// `[limits]`: how much may be used.
    pub limits: LimitsSettings,
    /// `[peers]`: which peers may be reached.
    pub peers: PeersSettings,
    /// `[http]`: metrics and health.
    pub http: HttpSettings,
    /// `[admin]`: the control socket and the API.
    pub admin: AdminSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[[sibling]]`: relays that take over new clients while this one drains.
    pub siblings: Vec<SiblingSettings>,
    /// Seconds that a stop may take.
    pub stop_deadline: u32,
    /// Seconds until a drain ends although there are allocations; 0 is no deadline.
    pub drain_deadline: u64,
    /// The user that a process of root becomes; empty if it stays what it is.
    pub user: String,
    /// Worker threads; 0 is one per CPU that this process may use.
    pub workers: u64,
    /// The value of SOFTWARE in responses; empty sends none.
    pub software: String,
}

/// `[listen]`. The `Default` of each section is empty; the values that run by default are in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenSettings {
    /// Listeners for UDP clients.
    pub udp: Vec<SocketAddr>,
    /// Listeners for TCP clients.
    pub tcp: Vec<SocketAddr>,
    /// Listeners for TLS clients.
    pub tls: Vec<SocketAddr>,
    /// Let the kernel join received datagrams (UDP_GRO).
    pub gro: bool,
    /// Let the kernel split sent datagrams (UDP_SEGMENT).
    pub gso: bool,
    /// Select the worker of a client with a program in the kernel.
    pub steering: bool,
    /// Accept the channel numbers of RFC 5766.
    pub rfc5766_channels: bool,
    /// Microseconds for which a worker lets packets gather; 0 is off.
    pub gather: u64,
    /// The largest TCP segment of its connections; 0 is the kernel's choice.
    pub mss: u16,
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    /// Addresses for relayed transport addresses; discovered if empty.
    pub addresses: Vec<IpAddr>,
    /// Their external addresses behind a NAT.
    pub external_ip: Vec<ExternalEntry>,
    /// Seconds until an external address is asked for again.
    pub external_ip_interval: u32,
    /// The STUN server that tells external addresses, `host:port`; empty if there is none.
    pub stun_server: String,
    /// Ports for relayed transport addresses.
    pub ports: RangeInclusive<u16>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        RelaySettings {
            addresses: Vec::new(),
            external_ip: Vec::new(),
            external_ip_interval: 0,
            stun_server: String::new(),
            ports: 0..=0,
        }
    }
}

/// `[auth]`.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// The realm.
    pub realm: String,
    /// Shared secrets for time-limited credentials: those of the file, of its secret files and of the environment, in this order.
    /// The first one makes new credentials.
    pub secrets: Vec<Secret>,
    /// Those of them that come from secret files.
    pub(super) file_secrets: Vec<Secret>,
    /// The secret files; relative ones start at the working directory.
    pub secret_paths: Vec<PathBuf>,
    /// LiveKit's API keys.
    pub livekit_keys: Vec<LiveKitKey>,
    /// Whether credentials of LiveKit that never expire are accepted.
    pub livekit_two_part: bool,
    /// Static users.
    pub users: Vec<StaticUser>,
    /// Their names, to find one that is listed twice, with the byte of the file where each is.
    pub(super) names: HashMap<String, usize>,
    /// The static users of files. A copy of the settings shares them.
    pub listed: Arc<UserList>,
    /// Whether `user:expiry` is accepted in addition to `expiry:user`.
    pub user_before_expiry: bool,
    /// The longest time in seconds until a credential with an expiry expires.
    pub max_lifetime: u64,
    /// What happens to allocations whose credential was removed.
    pub on_removal: OnRemoval,
    /// Lifetime of a nonce in seconds.
    pub nonce_lifetime: u32,
}

/// `[limits]`. Timeouts and lifetimes are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsSettings {
    /// Allocations per user in time-limited names; 0 is no limit.
    pub user_allocations: u64,
    /// Allocations in total; 0 is no limit.
    pub allocations: u64,
    /// New allocations of a user at once; 0 is no limit.
    pub new_allocations_burst: u64,
    /// New allocations of a user per second after that; 0 is no limit.
    pub new_allocations_rate: u64,
    /// Permissions per allocation.
    pub permissions: u64,
    /// Channel bindings per allocation.
    pub channels: u64,
    /// New peers per second and allocation; 0 is no limit.
    pub new_peers: u64,
    /// Bytes of application data per second, allocation and direction; 0 is no limit.
    pub bandwidth: u64,
    /// Unauthenticated responses that an address may receive at once; 0 is no limit.
    pub unauthenticated_burst: u64,
    /// Unauthenticated responses per second after that; 0 is no limit.
    pub unauthenticated_rate: u64,
    /// Binding responses that an address may receive at once; 0 is no limit.
    pub binding_burst: u64,
    /// Binding responses per second after that; 0 is no limit.
    pub binding_rate: u64,
    /// Balancers, NAT gateways and proxies, whose limits per source are larger.
    pub exempt_sources: Vec<Cidr>,
    /// TCP and TLS connections.
    pub connections: u64,
    /// Connections without an allocation per IPv4 address or IPv6 /64.
    pub connections_per_source: u64,
    /// Bytes that may wait for a TCP or TLS client.
    pub client_queue: u64,
    /// Time for a TLS handshake.
    pub handshake_timeout: u32,
    /// Time for the first message of a connection.
    pub first_message_timeout: u32,
    /// Time for the rest of a message.
    pub unfinished_message_timeout: u32,
    /// How long a connection without an allocation may be silent.
    pub idle_timeout: u32,
    /// Connections that are passed on to a backend.
    pub spliced_connections: u64,
    /// Those of them per IPv4 address or IPv6 /64.
    pub spliced_connections_per_source: u64,
    /// How long neither side of such a connection may send anything.
    pub spliced_idle_timeout: u32,
    /// Time to connect to a backend.
    pub backend_connect_timeout: u32,
    /// Lifetime of an allocation whose client asks for none or for less.
    pub allocation_lifetime: u32,
    /// The longest lifetime of an allocation.
    pub max_allocation_lifetime: u32,
    /// Lifetime of a permission.
    pub permission_lifetime: u32,
    /// Lifetime of a channel binding.
    pub channel_lifetime: u32,
    /// How long a reserved port is kept for its token.
    pub reservation_lifetime: u32,
}

/// `[[sibling]]`: another relay that accepts the same credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiblingSettings {
    /// Its IPv4 address.
    pub v4: Option<IpAddr>,
    /// Its IPv6 address.
    pub v6: Option<IpAddr>,
    /// Its port for UDP clients; 0 is none.
    pub udp: u64,
    /// Its port for TCP clients; 0 is none.
    pub tcp: u64,
    /// Its port for TLS clients; 0 is none.
    pub tls: u64,
    /// The name in its certificate; empty if it is not told.
    pub domain: String,
    /// Whether its certificate names its addresses too.
    pub certificate_names_address: bool,
}

/// `[peers]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeersSettings {
    /// Peers that may be reached although they are refused by default.
    pub allow: Vec<PeerRule>,
    /// Peers that are refused in addition.
    pub deny: Vec<PeerRule>,
    /// NAT64 prefixes of this network.
    pub nat64: Vec<Cidr>,
}

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpSettings {
    /// Listeners for metrics and health.
    pub listen: Vec<SocketAddr>,
    /// Whether they speak TLS, with the certificate of `[tls]`.
    pub tls: bool,
    /// Who may read metrics; everybody if there is none.
    pub tokens: Tokens,
}

/// `[admin]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdminSettings {
    /// The control socket.
    pub socket: ControlSocket,
    /// The group that may use it; empty for that of the process.
    pub group: String,
    /// TCP listeners of the API.
    pub listen: Vec<SocketAddr>,
    /// Whether they speak TLS, with the certificate of `[tls]`.
    pub tls: bool,
    /// Names of this machine in requests over TCP.
    pub hosts: Vec<String>,
    /// Who may use the API over TCP.
    pub tokens: Tokens,
}

/// Where the control socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ControlSocket {
    /// At the default path, if that is possible.
    #[default]
    Default,
    /// There is none.
    Off,
    /// At this path.
    At(PathBuf),
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogSettings {
    /// The least severe level that is logged.
    pub level: Level,
    /// The format of a line.
    pub format: Format,
    /// Addresses of clients and peers are masked.
    pub mask_addresses: bool,
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something needs attention.
    Warn,
    /// The beginning and end of allocations, and clients that were refused.
    #[default]
    Info,
    /// Details that explain the lines above.
    Debug,
    /// Everything.
    Trace,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Readable text.
    #[default]
    Human,
    /// A JSON object.
    Json,
}

impl AuthSettings {
    /// Whether anybody could use the relay.
    pub fn has_credentials(&self) -> bool {
        !self.secrets.is_empty() || !self.livekit_keys.is_empty() || self.static_users() > 0
    }

    /// How many static users there are, in the file and in others.
    pub fn static_users(&self) -> usize {
        self.users.len() + self.listed.len()
    }
}

impl HttpSettings {
    /// Whether a certificate is needed.
    pub fn uses_tls(&self) -> bool {
        self.tls && !self.listen.is_empty()
    }
}

impl ListenSettings {
    /// Every listener of this section with its transport.
    pub fn all(&self) -> Vec<(Transport, SocketAddr)> {
        let lists = [(Transport::Udp, &self.udp), (Transport::Tcp, &self.tcp), (Transport::Tls, &self.tls)];
        lists.iter().flat_map(|(transport, list)| list.iter().map(|addr| (*transport, *addr))).collect()
    }
}

impl Settings {
    /// Whether a listener, the admin API or the pages for monitoring speak TLS.
    pub fn uses_tls(&self) -> bool {
        self.listens_for_tls() || self.admin.tls && !self.admin.listen.is_empty() || self.http.uses_tls()
    }

    /// Every listener, of `[listen]` and of `[[listener]]`.
    pub fn listeners(&self) -> Vec<Listener> {
        let service = Arc::new(ServiceSettings { mss: self.listen.mss, ..ServiceSettings::default() });
        let short = self.listen.all().into_iter();
        let short = short.map(|(transport, address)| Listener {
            transport,
            address,
            public: None,
            peers: ListenerPeers::default(),
            service: service.clone(),
        });
        short.chain(self.listener.iter().flat_map(ListenerSettings::each)).collect()
    }

    /// Listeners that these settings have or `earlier` ones had, as they are or were there.
    pub fn recall(&self, earlier: &[Listener], addresses: &[(Transport, SocketAddr)]) -> Vec<Listener> {
        let known = [self.listeners(), earlier.to_vec()].concat();
        let recall = |&(transport, address): &(Transport, SocketAddr)| {
            let found = known.iter().find(|one| (one.transport, one.address) == (transport, address));
            found.cloned().unwrap_or_else(|| Listener {
                transport,
                address,
                public: None,
                peers: ListenerPeers::default(),
                service: Arc::default(),
            })
        };
        addresses.iter().map(recall).collect()
    }

    /// Whether a listener passes TLS connections for this name on to a backend.
    pub fn passes_on(&self, address: SocketAddr, name: &str) -> bool {
        let at = self.listener.iter().filter(|section| section.addresses().any(|one| one.1 == address));
        at.into_iter().any(|section| section.service.passes_on(name))
            || self.is_for_default_backend(address, name)
    }

    /// What clients connect to instead of this listener, if it says so.
    pub fn public(&self, transport: Transport, address: SocketAddr) -> Option<&PublicAddress> {
        let is_it = |one: (Transport, SocketAddr)| one == (transport, address);
        self.listener.iter().find(|section| section.addresses().any(is_it))?.public.as_ref()
    }

    /// The transport and the address of every listener.
    pub fn listener_addresses(&self) -> Vec<(Transport, SocketAddr)> {
        self.listeners().into_iter().map(|one| (one.transport, one.address)).collect()
    }

    /// Whether TLS connections for this name go to the `default_backend` of a listener, because it has no certificate. A client that
    /// connects to an address asks for no name, and gets the default certificate.
    fn is_for_default_backend(&self, address: SocketAddr, name: &str) -> bool {
        let mut at = self.listener.iter().filter(|section| section.each().any(|one| one.address == address));
        at.any(|section| section.service.takes_by_default(name))
            && name.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
            && self.tls.is_known_without(name)
    }

    /// Whether there are TLS clients.
    pub fn listens_for_tls(&self) -> bool {
        self.listeners().iter().any(|one| one.transport == Transport::Tls)
    }

    /// Settings that have yet to be filled in from the table.
    pub(super) fn blank() -> Settings {
        Settings {
            listen: ListenSettings::default(),
            listener: Vec::new(),
            relay: RelaySettings::default(),
            tls: TlsSettings::default(),
            auth: AuthSettings::default(),
            limits: LimitsSettings::default(),
            peers: PeersSettings::default(),
            http: HttpSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            siblings: Vec::new(),
            stop_deadline: 0,
            user: String::new(),
            drain_deadline: 0,
            workers: 0,
            software: String::new(),
        }
    }
}
