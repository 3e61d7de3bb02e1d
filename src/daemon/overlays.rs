//! Peer overlays: what programs that know an SFU say about peers while the relay runs. Each owner has one: a set of exact addresses
//! with a mode. They are kept in the state directory, and hold from the start of the workers on.
//!
//! What the operator denies and the relay's own listeners stay closed whatever an overlay says; see
//! [`peers`](crate::turn::peers).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::store::Store;
use crate::config::{Settings, Site};
use crate::plural::counted;
use crate::shown;
use crate::turn::peers::{Cidr, OverlayMode, Overlays, PeerRule, PeerRuleError, PeerRules, Rules};

/// The most owners.
pub const OWNERS: usize = 64;

/// The most addresses of an owner.
pub const ADDRESSES: usize = 1024;

/// The most characters of an owner's name.
const NAME: usize = 64;

/// The file in the state directory.
const FILE: &str = "overlays.json";

/// The format of the file.
const VERSION: u64 = 1;

/// The overlay of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Who has set it.
    pub owner: String,
    /// What it does.
    pub mode: OverlayMode,
    /// Single addresses, each with or without ports; sorted as text, each once.
    pub addresses: Vec<PeerRule>,
    /// When it was set, in Unix seconds.
    pub since: u64,
}

/// An overlay that was set.
#[derive(Clone, Debug)]
pub struct OverlaySet {
    /// The overlay.
    pub overlay: Overlay,
    /// Whether its owner had one before, which it replaces.
    pub replaced: bool,
    /// Which addresses have no effect now, and why, in whole sentences.
    pub warnings: Vec<String>,
}

/// Why an overlay has not been set or cleared. The text is for people; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// The owner or an address cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// There are too many.
    #[error("{0}")]
    Full(String),
    /// The owner has none.
    #[error("{0} has no overlay")]
    Unknown(String),
    /// The relay cannot keep it or cannot apply it.
    #[error("{0}")]
    Failed(String),
    /// The relay is stopping.
    #[error("{0}")]
    Stopping(String),
}

/// An order about overlays. `overlay_orders` carries it out.
pub(super) enum OverlayOrder {
    /// Replace the overlay of an owner.
    Set(Overlay, oneshot::Sender<Result<OverlaySet, OverlayError>>),
    /// Remove the overlay of an owner.
    Clear(String, oneshot::Sender<Result<Overlay, OverlayError>>),
    /// List them by owner.
    List(oneshot::Sender<Vec<Overlay>>),
}

/// The overlays of a relay, in memory and in its state directory.
pub struct OverlayStore {
    pub(super) overlays: BTreeMap<String, Overlay>,
    store: Arc<Store>,
}

impl OverlayStore {
    /// Those that are kept.
    ///
    /// # Errors
    /// The file cannot be read or is damaged. Without what it says clients could reach more than they may, so the relay must not
    /// start.
    pub fn load(store: Arc<Store>) -> Result<OverlayStore> {
        let bytes = store.read(FILE)?;
        let overlays = bytes.map_or(Ok(BTreeMap::new()), |bytes| parse(&bytes)).map_err(|what| {
            anyhow::anyhow!(
                "{}: {what}; clients might reach more than its overlays allow, so the relay does not start: restore the file, or \
                 move it away to start without overlays",
                store.shown(FILE)
            )
        })?;
        Ok(OverlayStore { overlays, store })
    }

    /// The same for `turn`.
    pub fn rules(&self) -> Overlays {
        rules(&self.overlays)
    }

    /// All of them, by owner.
    pub fn all(&self) -> impl Iterator<Item = &Overlay> {
        self.overlays.values()
    }

    /// Logs what was kept, and what of it has no effect now.
    pub fn announce(&self, settings: &Settings, site: &Site) {
        for overlay in self.overlays.values() {
            info!("peers: {overlay}, as before the start");
            overlay.warnings(settings, site).iter().for_each(|warning| warn!("{}", shown::text(warning)));
        }
    }

    /// Writes them to the state directory.
    pub(super) async fn keep(&self, overlays: &BTreeMap<String, Overlay>) -> Result<()> {
        let (store, bytes) = (self.store.clone(), text(overlays));
        let kept = tokio::task::spawn_blocking(move || store.replace(FILE, bytes.as_bytes())).await;
        kept.context("the overlays cannot be kept")?
    }
}

impl Overlay {
    /// Checks the owner and the addresses.
    pub(super) fn new(
        owner: &str,
        mode: OverlayMode,
        addresses: &[String],
        since: u64,
    ) -> Result<Overlay, OverlayError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins = owner.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || owner.len() > NAME || !owner.chars().all(is_plain) {
            return Err(OverlayError::Invalid(format!(
                "not the name of an owner: write 1 to {NAME} letters, digits, \".\", \"_\" and \"-\", a letter or a digit first"
            )));
        }
        if addresses.len() > ADDRESSES {
            let n = addresses.len();
            return Err(OverlayError::Invalid(format!(
                "{n} addresses are more than {ADDRESSES}, the most of an overlay"
            )));
        }
        let mut exact = BTreeMap::new();
        for address in addresses {
            let rule = exactly(address)?;
            exact.insert(rule.to_string(), rule);
        }
        Ok(Overlay { owner: owner.to_owned(), mode, addresses: exact.into_values().collect(), since })
    }

    /// Refuses this machine's own addresses without ports: every UDP service of the machine would be open.
    pub(super) fn check_own(&self, site: &Site) -> Result<(), OverlayError> {
        let outside: Vec<IpAddr> = site.relay.iter().map(|ip| site.outside(*ip)).collect();
        let is_own = |ip: IpAddr| {
            site.own.iter().any(|range| range.contains(ip))
                || site.relay.contains(&ip)
                || outside.contains(&ip)
        };
        let own = self.addresses.iter().find(|rule| !rule.has_ports() && is_own(rule.range.first()));
        own.map_or(Ok(()), |rule| {
            let example = SocketAddr::new(rule.range.first(), 7882);
            Err(OverlayError::Invalid(format!(
                "{rule} is an address of the relay's own machine: name the ports of the server there, like \"{example}\""
            )))
        })
    }

    /// The addresses that have no effect now.
    pub(super) fn warnings(&self, settings: &Settings, site: &Site) -> Vec<String> {
        let alone = Overlays::new([(OverlayMode::Add, &self.addresses[..])]);
        let turn = settings.turn(&Site { overlays: alone, ..site.clone() });
        let why = |rule: &PeerRule| {
            let ports = rule.ports();
            let check =
                |port: u16| turn.peers.judge(rule.range.first(), &turn.external)?.check(port, |_| false);
            let closed = [*ports.start().max(&1), *ports.end()].map(check);
            match closed {
                [Err(why), Err(_)] => {
                    Some(format!("the overlay of {} does not open {rule}: {}", self.owner, why.as_str()))
                }
                _ => None,
            }
        };
        self.addresses.iter().filter_map(why).collect()
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = counted(self.addresses.len(), "address");
        match self.mode {
            OverlayMode::Add => write!(f, "the overlay of {} opens {count}", self.owner),
            OverlayMode::Only => {
                write!(f, "the overlay of {} limits clients to overlays; it names {count}", self.owner)
            }
        }
    }
}

/// Overlays for `turn`.
pub(super) fn rules(overlays: &BTreeMap<String, Overlay>) -> Overlays {
    Overlays::new(overlays.values().map(|overlay| (overlay.mode, &overlay.addresses[..])))
}

/// A rule for a single address that a server may have.
///
/// # Errors
/// What is wrong with it. One such address makes a whole overlay invalid.
pub fn exactly(address: &str) -> Result<PeerRule, OverlayError> {
    /// Addresses that are never another host's, with their names.
    const NEVER: [(&str, &str); 8] = [
        ("127.0.0.0/8", "a loopback address"),
        ("::1/128", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("0.0.0.0/8", "not an address of a host"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved or broadcast address"),
        ("ff00::/8", "a multicast address"),
    ];
    let shown: String = address.chars().filter(|c| !c.is_control()).take(60).collect();
    let invalid = |what: &dyn fmt::Display| OverlayError::Invalid(format!("\"{shown}\": {what}"));
    let rule: PeerRule =
        address.parse().map_err(|error: PeerRuleError| invalid(&format_args!("{error}; {}", error.fix())))?;
    let ip = rule.range.first();
    if !rule.range.is_one() {
        return Err(invalid(&"a range of addresses; an overlay names single addresses"));
    }
    if ip.is_unspecified() {
        return Err(invalid(&"the unspecified address"));
    }
    let is_in = |(range, _): &&(&str, &str)| range.parse::<Cidr>().is_ok_and(|range| range.contains(ip));
    if let Some((_, name)) = NEVER.iter().find(is_in) {
        return Err(invalid(&format_args!("{name}; an overlay never opens those")));
    }
    let built_in = PeerRules::new(Rules::default());
    if let Some(name) = built_in.tunnel(ip) {
        return Err(invalid(&format_args!("{name} addresses are always refused; write the IPv4 address")));
    }
    if built_in.is_nat64(&rule.range) {
        return Err(invalid(&"NAT64 addresses are judged by the IPv4 address inside; write that"));
    }
    Ok(rule)
}

/// The contents of the file.
fn text(overlays: &BTreeMap<String, Overlay>) -> String {
    let overlay = |overlay: &Overlay| {
        let Overlay { owner, mode, addresses, since } = overlay;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        json!({ "owner": owner, "mode": mode.as_str(), "addresses": addresses, "since": since })
    };
    let overlays: Vec<Value> = overlays.values().map(overlay).collect();
    format!("{:#}\n", json!({ "version": VERSION, "overlays": overlays }))
}

/// The overlays of the file; whatever it has that this process would not have written is damage.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Overlay>, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| format!("is damaged: {error}"))?;
    if file["version"] != VERSION {
        return Err("is not of this version of hairpin, or damaged".into());
    }
    let damaged = || "is damaged".to_owned();
    let mut overlays = BTreeMap::new();
    for one in file["overlays"].as_array().ok_or_else(damaged)? {
        let owner = one["owner"].as_str().ok_or_else(damaged)?;
        let mode = one["mode"].as_str().and_then(OverlayMode::of).ok_or_else(damaged)?;
        let texts = one["addresses"].as_array().ok_or_else(damaged)?;
        let addresses: Vec<String> = texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(damaged)?;
        let since = one["since"].as_u64().ok_or_else(damaged)?;
        let overlay =
            Overlay::new(owner, mode, &addresses, since).map_err(|error| format!("is damaged: {error}"))?;
        overlays.insert(owner.to_owned(), overlay);
    }
    if overlays.len() > OWNERS {
        return Err(format!("has more than {OWNERS} overlays"));
    }
    Ok(overlays)
}

#[cfg(test)]
mod tests;
