//! `[[listener]]`: how a section becomes a listener. Its keys are in the table.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::listener::{ListenerPeers, ListenerSettings, PeersMode, Places, PublicAddress};
use super::report::Finding;
use super::section::{Refusal, Source};
use super::service::{Protocol, ProxyMode, ServiceSettings};
use super::settings::Settings;
use crate::datapath::{Backend, Route};
use crate::tls::CertificateName;
use crate::turn::Transport;
use crate::turn::peers::{Cidr, PeerRule};

/// A section that is being read.
pub struct ListenerDraft {
    /// The address and its bytes in the file.
    pub address: Placed<Option<IpAndPort>>,
    pub transports: Placed<Vec<Transport>>,
    pub public: Placed<Option<PublicAddress>>,
    pub mode: PeersMode,
    pub allow: Placed<Vec<PeerRule>>,
    pub deny: Placed<Vec<PeerRule>>,
    pub protocols: Placed<Option<Vec<Protocol>>>,
    pub http: Placed<Option<Backend>>,
    pub routes: Vec<PlacedRoute>,
    pub default_backend: Placed<Option<Backend>>,
    pub proxy_from: Placed<Vec<Cidr>>,
    pub proxy: Placed<Option<ProxyMode>>,
    pub mss: Placed<u16>,
}

/// A route and its bytes in the file.
#[derive(Clone)]
pub struct PlacedRoute {
    pub name: CertificateName,
    pub route: Route,
    pub at: Range<usize>,
}

/// An address, and the port if one is written.
pub type IpAndPort = (IpAddr, Option<u16>);

/// A value and its bytes in the file.
#[derive(Clone, Default)]
pub struct Placed<X> {
    pub value: X,
    pub at: Range<usize>,
}

impl Default for ListenerDraft {
    fn default() -> Self {
        ListenerDraft {
            address: Placed::default(),
            transports: Placed { value: vec![Transport::Udp, Transport::Tcp], at: 0..0 },
            public: Placed::default(),
            mode: PeersMode::Add,
            allow: Placed::default(),
            deny: Placed::default(),
            protocols: Placed::default(),
            http: Placed::default(),
            routes: Vec::new(),
            default_backend: Placed::default(),
            proxy_from: Placed::default(),
            proxy: Placed::default(),
            mss: Placed { value: DEFAULT_MSS, at: 0..0 },
        }
    }
}

/// The largest TCP segment if the section has none.
pub(super) const DEFAULT_MSS: u16 = 1360;

/// The most sections: each opens several sockets per worker.
const MOST: usize = 256;

/// Adds a listener to the settings.
pub fn add(settings: &mut Settings, draft: ListenerDraft) -> Result<(), Refusal> {
    let ListenerDraft { address, transports, allow, deny, protocols, proxy, .. } = &draft;
    let refusal = |key, what, fix| Err(Refusal { key, what, fix });
    let Some((ip, port)) = address.value else {
        return refusal("address", "the listener has no address", "write one like \"192.0.2.1:3478\"");
    };
    if transports.value.is_empty() {
        let fix = "list \"udp\", \"tcp\" or \"tls\", or remove the section";
        return refusal("transports", "the listener has no transport", fix);
    }
    if settings.listener.len() >= MOST {
        return refusal("address", "there are more than 256 [[listener]] sections", "remove some");
    }
    if protocols.value.as_ref().is_some_and(Vec::is_empty) {
        let fix = "list \"turn\", \"tls\" or both, or remove the line";
        return refusal("protocols", "TCP connections could speak nothing", fix);
    }
    let places = Places {
        address: address.at.clone(),
        transports: transports.at.clone(),
        allow: allow.at.clone(),
        deny: deny.at.clone(),
        protocols: protocols.at.clone(),
        http: draft.http.at.clone(),
        routes: draft.routes.iter().map(|one| (one.name.clone(), one.at.clone())).collect(),
        default_backend: draft.default_backend.at.clone(),
        proxy_from: draft.proxy_from.at.clone(),
        proxy: proxy.at.clone(),
        mss: draft.mss.at.clone(),
        public: draft.public.at.clone(),
    };
    let service = ServiceSettings {
        protocols: draft.protocols.value,
        http: draft.http.value,
        routes: draft.routes.into_iter().map(|one| (one.name, one.route)).collect(),
        default_backend: draft.default_backend.value,
        proxy_from: draft.proxy_from.value,
        proxy: draft.proxy.value.unwrap_or_default(),
        mss: draft.mss.value,
    };
    settings.listener.push(ListenerSettings {
        ip,
        port,
        transports: draft.transports.value,
        public: draft.public.value,
        peers: ListenerPeers { mode: draft.mode, allow: draft.allow.value, deny: draft.deny.value },
        service: Arc::new(service),
        places,
    });
    Ok(())
}

/// What is said about a key of a section, at its place in the file.
pub(super) fn at(
    key: &str,
    place: &Range<usize>,
    what: impl Into<String>,
    fix: impl Into<String>,
    source: Source<'_>,
) -> Finding {
    let shown = source.text.get(place.clone()).unwrap_or_default();
    source.finding(&format!("listener.{key}"), place.clone(), shown, what, fix)
}
