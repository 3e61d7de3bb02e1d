//! `[[listener]]`: listeners with settings of their own, beside those of `[listen]`. What a listener can have is added here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::checks::{self, Disagreement};
use super::own_addresses;
use super::report::{Finding, Note};
use super::section::{Refusal, Source};
use super::settings::{PeersSettings, Settings};
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
    /// Which peers its clients may reach.
    pub peers: ListenerPeers,
    /// Where the file has it.
    places: Places,
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
    /// Which peers its clients may reach.
    pub peers: ListenerPeers,
}

/// The bytes of some of its settings.
#[derive(Clone, Debug, Default)]
struct Places {
    address: Range<usize>,
    transports: Range<usize>,
    allow: Range<usize>,
    deny: Range<usize>,
}

/// A section that is being read.
pub struct ListenerDraft {
    /// The address and its bytes in the file.
    pub address: Placed<Option<IpAndPort>>,
    pub transports: Placed<Vec<Transport>>,
    pub mode: PeersMode,
    pub allow: Placed<Vec<PeerRule>>,
    pub deny: Placed<Vec<PeerRule>>,
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
            mode: PeersMode::Add,
            allow: Placed::default(),
            deny: Placed::default(),
        }
    }
}

/// The most sections: each opens several sockets per worker.
const MOST: usize = 256;

/// The port of a listener without one.
fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 3478,
        Transport::Tls => 5349,
    }
}

/// Adds a listener to the settings.
pub fn add(settings: &mut Settings, draft: ListenerDraft) -> Result<(), Refusal> {
    let ListenerDraft { address, transports, mode, allow, deny } = draft;
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
    let places = Places { address: address.at, transports: transports.at, allow: allow.at, deny: deny.at };
    let peers = ListenerPeers { mode, allow: allow.value, deny: deny.value };
    settings.listener.push(ListenerSettings { ip, port, transports: transports.value, peers, places });
    Ok(())
}

impl ListenerSettings {
    /// The listener of each transport.
    pub fn each(&self) -> impl Iterator<Item = Listener> {
        self.transports.iter().map(|&transport| Listener {
            transport,
            address: SocketAddr::new(self.ip, self.port.unwrap_or(default_port(transport))),
            peers: self.peers.clone(),
        })
    }
}

/// The place in the file does not count.
impl PartialEq for ListenerSettings {
    fn eq(&self, other: &ListenerSettings) -> bool {
        let ListenerSettings { ip, port, transports, peers, places: _ } = self;
        (ip, port, transports, peers) == (&other.ip, &other.port, &other.transports, &other.peers)
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

impl Settings {
    /// Every listener, of `[listen]` and of `[[listener]]`.
    pub fn listeners(&self) -> Vec<Listener> {
        let short = self.listen.all().into_iter();
        let short = short.map(|(transport, address)| Listener {
            transport,
            address,
            peers: ListenerPeers::default(),
        });
        short.chain(self.listener.iter().flat_map(ListenerSettings::each)).collect()
    }

    /// Listeners that these settings have or `earlier` ones had, as they are or were there.
    pub fn recall(&self, earlier: &[Listener], addresses: &[(Transport, SocketAddr)]) -> Vec<Listener> {
        let known = [self.listeners(), earlier.to_vec()].concat();
        let recall = |&(transport, address): &(Transport, SocketAddr)| {
            let found = known.iter().find(|one| (one.transport, one.address) == (transport, address));
            found.cloned().unwrap_or(Listener { transport, address, peers: ListenerPeers::default() })
        };
        addresses.iter().map(recall).collect()
    }

    /// The transport and the address of every listener.
    pub fn listener_addresses(&self) -> Vec<(Transport, SocketAddr)> {
        self.listeners().into_iter().map(|one| (one.transport, one.address)).collect()
    }

    /// Whether there are TLS clients.
    pub fn listens_for_tls(&self) -> bool {
        self.listeners().iter().any(|one| one.transport == Transport::Tls)
    }
}

/// How the `[[listener]]` sections of two configurations differ, a sentence per listener.
pub fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let each = |settings: &Settings| -> Vec<Listener> {
        settings.listener.iter().flat_map(ListenerSettings::each).collect()
    };
    let (old, new) = (each(old), each(new));
    let find = |list: &[Listener], one: &Listener| {
        list.iter().find(|other| (other.transport, other.address) == (one.transport, one.address)).cloned()
    };
    let added = new.iter().filter(|one| find(&old, one).is_none()).map(|one| format!("{one} added"));
    let removed = old.iter().filter(|one| find(&new, one).is_none()).map(|one| format!("{one} removed"));
    let changed = new.iter().filter_map(|one| {
        let before = find(&old, one).filter(|before| before.peers != one.peers)?;
        Some(format!("{one}: peers {} -> {}", before.peers, one.peers))
    });
    added.chain(removed).chain(changed).collect()
}

/// What is wrong with the `[[listener]]` sections beside other settings, and what is unusual.
pub fn agreement(settings: &Settings, source: Source<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (n, section) in settings.listener.iter().enumerate() {
        found.extend(overlap(settings, n, source));
        found.extend(relay_ports(settings, section, source));
        let Places { address, transports, .. } = &section.places;
        if section.transports.contains(&Transport::Tls)
            && !settings.tls.has_certificate()
            && !source.context.generates
        {
            let fix = "set tls.cert and tls.key, or remove \"tls\" here";
            let what = "TLS requires a certificate and its private key";
            found.push(at("transports", transports, what, fix, source));
        }
        if !section.ip.is_unspecified() && !(source.context.has_address)(section.ip) {
            let what = format!("{} is not an address of this machine now", section.ip);
            let fix = "clients are not served there until it has; if it is a mistake, `ip addr` lists those that it has";
            found.push(Finding { warning: true, ..at("address", address, what, fix, source) });
        }
        let disagreements = own_addresses::agreement(&alone(settings, section), source.context);
        found.extend(disagreements.into_iter().map(|one| about_peers(section, one, source)));
    }
    found
}

/// What the `peers.allow` of listeners does not open, although it seems to.
pub fn notes(settings: &Settings, source: Source<'_>) -> Vec<Note> {
    let notes = |section| {
        let notes = own_addresses::notes(&alone(settings, section), source.context).into_iter();
        notes.map(move |one| Note(Finding { warning: false, ..about_peers(section, one, source) }))
    };
    settings.listener.iter().flat_map(notes).collect()
}

/// Settings in which everybody has the peers of one listener, to look at these alone.
fn alone(settings: &Settings, section: &ListenerSettings) -> Settings {
    let ListenerPeers { allow, deny, .. } = section.peers.clone();
    Settings { peers: PeersSettings { allow, deny, ..settings.peers.clone() }, ..settings.clone() }
}

/// What is said about `peers` of a section.
fn about_peers(section: &ListenerSettings, one: Disagreement, source: Source<'_>) -> Finding {
    let Disagreement { keys, what, fix, warning } = one;
    let (key, place) = match keys.first() {
        Some(&"peers.deny") => ("peers.deny", &section.places.deny),
        _ => ("peers.allow", &section.places.allow),
    };
    Finding { warning, ..at(key, place, what, fix, source) }
}

fn at(
    key: &str,
    place: &Range<usize>,
    what: impl Into<String>,
    fix: impl Into<String>,
    source: Source<'_>,
) -> Finding {
    let shown = source.text.get(place.clone()).unwrap_or_default();
    source.finding(&format!("listener.{key}"), place.clone(), shown, what, fix)
}

/// A listener that cannot be opened beside another one: of the same section, of one before it, or of `[listen]` and `[http]`.
fn overlap(settings: &Settings, n: usize, source: Source<'_>) -> Option<Finding> {
    let section = &settings.listener[n];
    let own: Vec<Listener> = section.each().collect();
    let place = &section.places.address;
    let streams: Vec<&Listener> = own.iter().filter(|one| one.transport.is_stream()).collect();
    if let [one, other, ..] = streams[..]
        && one.address == other.address
    {
        let what = format!(
            "{} and {} cannot share {}, because both are TCP connections",
            one.transport.as_str(),
            other.transport.as_str(),
            one.address
        );
        return Some(at(
            "transports",
            &section.places.transports,
            what,
            "give each its own [[listener]]",
            source,
        ));
    }
    let mut others: Vec<(String, bool, SocketAddr)> = Vec::new();
    for (transport, address) in settings.listen.all() {
        others.push((format!("listen.{}", transport.as_str()), transport.is_stream(), address));
    }
    for (name, addresses) in
        [("http.listen", &settings.http.listen), ("admin.listen", &settings.admin.listen)]
    {
        others.extend(addresses.iter().map(|address| (name.to_owned(), true, *address)));
    }
    for before in &settings.listener[..n] {
        let name = format!("the [[listener]] of line {}", source.line(before.places.address.start));
        others.extend(before.each().map(|one| (name.clone(), one.transport.is_stream(), one.address)));
    }
    let clash = own.iter().find_map(|one| {
        let is_same_kind = |other: &&(String, bool, SocketAddr)| other.1 == one.transport.is_stream();
        let other =
            others.iter().filter(is_same_kind).find(|(.., addr)| checks::clash(&one.address, addr))?;
        Some((one, other))
    });
    let (one, (name, _, address)) = clash?;
    let this = format!("{} {}", one.transport.as_str(), one.address);
    let what = match one.address == *address {
        true => format!("{this} is listed twice, here and in {name}"),
        false if one.address.ip().is_unspecified() => format!("{this} includes {address} of {name}"),
        false => format!("{this} is included in {address} of {name}"),
    };
    Some(at("address", place, what, "remove or change one of them", source))
}

/// Relayed addresses and UDP listeners cannot have the same port.
fn relay_ports(settings: &Settings, section: &ListenerSettings, source: Source<'_>) -> Option<Finding> {
    let ports = &settings.relay.ports;
    let is_inside = |one: &Listener| {
        one.transport == Transport::Udp
            && ports.contains(&one.address.port())
            && checks::shares_an_address(&one.address, settings)
    };
    let inside = section.each().find(is_inside)?;
    let what =
        format!("the relay ports {}-{} include the port of {}", ports.start(), ports.end(), inside.address);
    Some(at("address", &section.places.address, what, "change relay.ports or this port", source))
}

#[cfg(test)]
mod tests;
