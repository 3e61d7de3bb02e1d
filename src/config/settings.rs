//! What the settings are once read: plain data, one struct a section. Which key goes where, its default and its
//! documentation stand in the [table](super::table).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::external::ExternalIp;
use super::field::{Field, ReadContext};
use super::table::{SETTINGS, Setting};
use super::tls::TlsSettings;
use crate::auth::{Secret, StaticUser};
use crate::turn::Transport;
use crate::turn::peers::Cidr;

/// Every setting. [`Settings::default`] is what runs without a configuration file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[listen]`: where clients come in.
    pub listen: ListenSettings,
    /// `[relay]`: what peers see.
    pub relay: RelaySettings,
    /// `[tls]`: who this server is to TLS clients.
    pub tls: TlsSettings,
    /// `[auth]`: who may use the relay.
    pub auth: AuthSettings,
    /// `[limits]`: how much of it.
    pub limits: LimitsSettings,
    /// `[peers]`: whom it may be used to reach.
    pub peers: PeersSettings,
    /// `[http]`: metrics and health.
    pub http: HttpSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// Worker threads; 0 is one for each CPU this process may use.
    pub workers: u64,
    /// The value of SOFTWARE in answers; empty sends none.
    pub software: String,
}

/// `[listen]`. Its `Default` is empty; the table holds what a person means by default. So for every section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenSettings {
    /// Where UDP clients come in.
    pub udp: Vec<SocketAddr>,
    /// Where TCP clients come in.
    pub tcp: Vec<SocketAddr>,
    /// Where TLS clients come in.
    pub tls: Vec<SocketAddr>,
    /// Receive batches of datagrams in one piece (UDP_GRO).
    pub gro: bool,
    /// Send batches of datagrams in one piece (UDP_SEGMENT).
    pub gso: bool,
    /// Let a program in the kernel pick a client's worker.
    pub steering: bool,
    /// Microseconds for which a worker lets packets gather; 0 is off.
    pub gather: u64,
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    /// Relayed addresses; none listed means discovered.
    pub addresses: Vec<IpAddr>,
    /// What they are called outside.
    pub external_ip: Vec<ExternalIp>,
    /// Relayed ports.
    pub ports: RangeInclusive<u16>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        RelaySettings { addresses: Vec::new(), external_ip: Vec::new(), ports: 0..=0 }
    }
}

/// `[auth]`.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// The realm.
    pub realm: String,
    /// Shared secrets of time-limited credentials, from the file, from files of their own and from the environment, in
    /// this order. The first one makes new credentials.
    pub secrets: Vec<Secret>,
    /// Static users.
    pub users: Vec<StaticUser>,
    /// Whether `user:expiry` is understood beside `expiry:user`.
    pub user_before_expiry: bool,
    /// Seconds.
    pub nonce_lifetime: u32,
}

/// `[limits]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsSettings {
    /// Allocations a user.
    pub user_allocations: u64,
    /// Allocations in total.
    pub allocations: u64,
    /// Permissions an allocation.
    pub permissions: u64,
    /// Channels an allocation.
    pub channels: u64,
    /// New peers an allocation may turn to in a second; 0 is no limit.
    pub new_peers: u64,
    /// Bytes of application data a second, an allocation and direction; 0 is no limit.
    pub bandwidth: u64,
    /// Unauthenticated answers an address may have at once.
    pub unauthenticated_burst: u64,
    /// And from then on in a second; 0 is no limit.
    pub unauthenticated_rate: u64,
    /// TCP and TLS connections.
    pub connections: u64,
    /// Those that have not brought a whole message yet.
    pub half_open: u64,
    /// The same from one IPv4 address or IPv6 /64.
    pub half_open_per_address: u64,
    /// Bytes that may wait for one TCP or TLS client to read.
    pub client_queue: u64,
    /// Seconds a TLS handshake may take.
    pub handshake_timeout: u32,
    /// Seconds until the first message of a connection has to be there.
    pub first_message_timeout: u32,
    /// Seconds until the rest of a message has to be there.
    pub unfinished_message_timeout: u32,
    /// Seconds a connection without an allocation may say nothing.
    pub idle_timeout: u32,
    /// Seconds an allocation lives if its client wishes nothing or less.
    pub allocation_lifetime: u32,
    /// Seconds an allocation lives at most without being refreshed.
    pub max_allocation_lifetime: u32,
    /// Seconds a permission lives.
    pub permission_lifetime: u32,
    /// Seconds a channel binding lives.
    pub channel_lifetime: u32,
    /// Seconds a reserved port waits for its token.
    pub reservation_lifetime: u32,
}

/// `[peers]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeersSettings {
    /// Ranges that may be reached although they are refused otherwise.
    pub allow: Vec<Cidr>,
    /// Ranges that may not be reached.
    pub deny: Vec<Cidr>,
    /// Prefixes of this network's NAT64.
    pub nat64: Vec<Cidr>,
}

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpSettings {
    /// Where metrics and health are served.
    pub listen: Vec<SocketAddr>,
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogSettings {
    /// The least important level that is written.
    pub level: Level,
    /// What a line looks like.
    pub format: Format,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something needs attention.
    Warn,
    /// Allocations as they come and go, and clients that were refused.
    #[default]
    Info,
    /// What explains the lines above.
    Debug,
    /// Everything.
    Trace,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl ListenSettings {
    /// Every way in.
    pub fn all(&self) -> Vec<(Transport, SocketAddr)> {
        let lists = [(Transport::Udp, &self.udp), (Transport::Tcp, &self.tcp), (Transport::Tls, &self.tls)];
        lists.iter().flat_map(|(transport, list)| list.iter().map(|addr| (*transport, *addr))).collect()
    }
}

impl Settings {
    /// Whether everything but `[auth]` is the same.
    pub fn differ_in_auth_alone(&self, other: &Settings) -> bool {
        let rest = |settings: &Settings| {
            let Settings { listen, relay, tls, auth: _, limits, peers, http, log, workers, software } =
                settings.clone();
            (listen, relay, tls, limits, peers, http, log, workers, software)
        };
        rest(self) == rest(other)
    }

    /// Every number of `[limits]` by its key there.
    pub fn limits_by_name(&self) -> Vec<(&'static str, u64)> {
        // The table knows the way to a place that can be written to, which a copy has.
        let mut copy = self.clone();
        let limit = |setting: &Setting<Settings>| match &setting.field {
            Field::Number { at, .. } => Some((setting.key.strip_prefix("limits.")?, *at(&mut copy))),
            _ => None,
        };
        SETTINGS.iter().filter_map(limit).collect()
    }

    /// Settings that are still to be filled in from the table.
    fn blank() -> Settings {
        Settings {
            listen: ListenSettings::default(),
            relay: RelaySettings::default(),
            tls: TlsSettings::default(),
            auth: AuthSettings::default(),
            limits: LimitsSettings::default(),
            peers: PeersSettings::default(),
            http: HttpSettings::default(),
            log: LogSettings::default(),
            workers: 0,
            software: String::new(),
        }
    }
}

impl Default for Settings {
    /// The table's defaults, read as if they stood in a file.
    fn default() -> Self {
        let mut settings = Settings::blank();
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            let value = setting.default.parse().expect("a default of the table is TOML");
            let wrong = setting.field.apply(&mut settings, &value, &ReadContext::NONE);
            assert!(wrong.is_empty(), "the default of {} is refused: {wrong:?}", setting.key);
        }
        settings
    }
}
