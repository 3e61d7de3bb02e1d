//! Listeners, and the settings of `[[listener]]`, beside those of `[listen]`. What a listener can have is added here.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use super::service::ServiceSettings;
use crate::tls::CertificateName;
use crate::turn::peers::{ListenerRules, PeerRule, PeerRules};
use crate::turn::{ListenerPolicy, Transport};

/// A `[[listener]]` section: one listener per transport.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The address, perhaps a wildcard.
    pub ip: IpAddr,
    /// The port; `None`: the default of each transport.
    pub port: Option<u16>,
    /// The transports, each once.
    pub transports: Vec<Transport>,
    /// What clients connect to, if that is something else.
    pub public: Option<PublicAddress>,
    /// Which peers its clients may reach.
    pub peers: ListenerPeers,
    /// What its TCP connections may be.
    pub service: Arc<ServiceSettings>,
    /// Where the file has it.
    pub(super) places: Places,
}

/// What clients connect to instead of a listener: a balancer, or a router that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; `None`: that of the listener.
    pub port: Option<u16>,
}

/// `peers` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerPeers {
    /// Whether they add to `[peers]`.
    pub mode: PeersMode,
    /// Peers that may be reached.
    pub allow: Vec<PeerRule>,
    /// Peers that are refused.
    pub deny: Vec<PeerRule>,
}

/// What the peers of a listener are to `[peers]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeersMode {
    /// Both count.
    #[default]
    Add,
    /// Only they count, and what they do not allow is refused.
    Alone,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The transport of its clients.
    pub transport: Transport,
    /// What it is bound to.
    pub address: SocketAddr,
    /// What clients connect to, if that is something else.
    pub public: Option<PublicAddress>,
    /// Which peers its clients may reach.
    pub peers: ListenerPeers,
    /// What its TCP connections may be.
    pub service: Arc<ServiceSettings>,
}

/// The bytes of some of its settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) address: Range<usize>,
    pub(super) transports: Range<usize>,
    pub(super) allow: Range<usize>,
    pub(super) deny: Range<usize>,
    pub(super) protocols: Range<usize>,
    pub(super) http: Range<usize>,
    pub(super) routes: HashMap<CertificateName, Range<usize>>,
    pub(super) default_backend: Range<usize>,
    pub(super) proxy_from: Range<usize>,
    pub(super) proxy: Range<usize>,
    pub(super) mss: Range<usize>,
    pub(super) public: Range<usize>,
}

/// The port of a listener without one.
fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 3478,
        Transport::Tls => 5349,
    }
}

impl ListenerSettings {
    /// The address of each transport.
    pub fn addresses(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        self.transports.iter().map(|&transport| {
            (transport, SocketAddr::new(self.ip, self.port.unwrap_or(default_port(transport))))
        })
    }

    /// The listener of each transport.
    pub fn each(&self) -> impl Iterator<Item = Listener> {
        self.addresses().map(|(transport, address)| Listener {
            transport,
            address,
            public: self.public.clone(),
            peers: self.peers.clone(),
            service: self.service.clone(),
        })
    }
}

/// The place in the file does not count.
impl PartialEq for ListenerSettings {
    fn eq(&self, other: &ListenerSettings) -> bool {
        let ListenerSettings { ip, port, transports, public, peers, service, places: _ } = self;
        (ip, port, transports) == (&other.ip, &other.port, &other.transports)
            && (public, peers, service) == (&other.public, &other.peers, &other.service)
    }
}

impl PublicAddress {
    /// The host as URLs have it.
    pub fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url_host())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl ListenerPeers {
    /// The same for `turn`; `None`: there are no rules of its own.
    pub fn rules(&self) -> Option<ListenerRules> {
        let (allow, deny) = (self.allow.clone(), self.deny.clone());
        match self.mode {
            PeersMode::Add if allow.is_empty() && deny.is_empty() => None,
            PeersMode::Add => Some(ListenerRules::Add { allow, deny }),
            PeersMode::Alone => Some(ListenerRules::Alone { allow, deny }),
        }
    }
}

impl PeersMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            PeersMode::Add => "add",
            PeersMode::Alone => "alone",
        }
    }
}

impl fmt::Display for ListenerPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |rules: &[PeerRule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let ListenerPeers { mode, allow, deny } = self;
        write!(f, "({}, allow [{}], deny [{}])", mode.as_str(), list(allow), list(deny))
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport.as_str(), self.address)
    }
}

impl Listener {
    /// How `turn` serves its clients. `closing`: it is being removed.
    pub fn policy(&self, common: &PeerRules, closing: bool) -> ListenerPolicy {
        let peers = self.peers.rules().map(|rules| common.for_listener(&rules).into());
        ListenerPolicy { transport: self.transport, address: self.address, peers, closing }
    }
}
