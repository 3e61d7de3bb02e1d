//! The relays that the sidecar registers: orders to each over its admin API, and what is known of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::ice_url::{ClientTransport, IceUrl};
use super::settings::RelaySettings;
use crate::admin::client::{Client, Failure, Target, path};

/// How often a relay is asked for its status.
const INTERVAL: Duration = Duration::from_secs(1);

/// The owner of the sidecar's peer overlay.
pub const OWNER: &str = "livekit";

/// A relay.
pub struct Relay {
    /// What the sidecar was told.
    pub settings: RelaySettings,
    control: Client,
    state: watch::Sender<RelayState>,
    tags_read: AtomicBool,
}

/// What is known of a relay.
#[derive(Clone, Debug, Default)]
pub struct RelayState {
    /// What it has said last; `None` if it does not answer now.
    pub status: Option<Arc<RelayStatus>>,
    /// Why there is no status.
    pub problem: Option<String>,
    /// What the last probes have shown; `None` before the first ones.
    pub probes: Option<Arc<[Probe]>>,
}

/// What a probe of a listener has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How clients reach it.
    pub transport: ClientTransport,
    /// What was probed: the address of the listener, or the URL of a relay elsewhere.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// How long it took, or what is wrong and how it is mended.
    pub outcome: Result<Duration, String>,
}

/// What a relay says of itself, as far as the sidecar needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct RelayStatus {
    /// Random for each start.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// Whether it can serve clients.
    pub ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// Not null while it drains.
    pub draining: Value,
    /// The URLs for clients.
    pub ice_urls: Vec<String>,
    /// The listeners for clients.
    pub listeners: Vec<Listener>,
    /// The addresses that relay.
    pub relay_addresses: Vec<RelayAddress>,
    /// The ports of relayed addresses: `49152-65535`.
    pub relay_ports: Option<String>,
    /// The peer overlays of all owners.
    #[serde(default)]
    pub overlays: Vec<OverlayStatus>,
}

/// A peer overlay.
#[derive(Clone, Debug, Deserialize)]
pub struct OverlayStatus {
    /// Who has set it.
    pub owner: String,
    /// `only` or `add`.
    pub mode: String,
    /// Exact addresses.
    pub addresses: Vec<String>,
}

/// A listener for clients.
#[derive(Clone, Debug, Deserialize)]
pub struct Listener {
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// An address that relays.
#[derive(Clone, Debug, Deserialize)]
pub struct RelayAddress {
    /// The address of the relay's machine.
    pub address: IpAddr,
    /// The address that peers see, behind a NAT.
    pub external: Option<IpAddr>,
}

impl Probe {
    /// Whether it succeeded.
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }
}

/// Whether a URL works as far as probes tell. Those of its port decide, and if a NAT maps ports, those of its transport.
fn works(url: &str, probes: &[Probe]) -> bool {
    let Some(url) = IceUrl::parse(url) else { return true };
    let of_transport = |probe: &&Probe| probe.transport == url.transport;
    let of_port: Vec<_> = probes.iter().filter(of_transport).filter(|probe| probe.port == url.port).collect();
    let decisive = if of_port.is_empty() { probes.iter().filter(of_transport).collect() } else { of_port };
    decisive.is_empty() || decisive.iter().any(|probe| probe.is_ok())
}

impl Relay {
    /// The relay that these settings name.
    ///
    /// # Errors
    /// Its API cannot be reached in this way.
    pub fn new(settings: RelaySettings) -> Result<Relay, Failure> {
        let target = match settings.url.is_empty() {
            true => Target::socket(settings.socket.clone()),
            false => Target::url("relay.url", &settings.url, settings.ca_file.as_deref(), || {
                let token = settings.token.as_ref().and_then(|token| str::from_utf8(token.as_bytes()).ok());
                token.map(str::to_owned).ok_or_else(|| Failure::usage("relay.token_file is missing"))
            })?,
        };
        let state = watch::Sender::new(RelayState::default());
        Ok(Relay { settings, control: Client::new(target), state, tags_read: AtomicBool::new(false) })
    }

    /// What is known of it now.
    pub fn state(&self) -> RelayState {
        self.state.borrow().clone()
    }

    /// Follows what is known of it.
    pub fn follow(&self) -> watch::Receiver<RelayState> {
        self.state.subscribe()
    }

    /// Notes what probes have shown.
    pub fn probed(&self, probes: Vec<Probe>) {
        self.state.send_modify(|state| state.probes = Some(probes.into()));
    }

    /// Notes that the tags are known which are revoked there. A credential that is issued before might be refused.
    pub fn note_tags_read(&self) {
        self.tags_read.store(true, Ordering::Release);
    }

    /// Whether clients may be sent to it: it answers, is ready and does not drain, what is revoked there is known, and not every
    /// probe fails.
    pub fn is_usable(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Why clients cannot be sent to it; `None` if they can.
    pub fn obstacle(&self) -> Option<String> {
        let name = &self.settings.name;
        let state = self.state.borrow();
        Some(match (&state.status, &state.problem) {
            (None, None) => format!("relay {name} has not been asked for its status yet"),
            (None, Some(problem)) => format!("relay {name}: {problem}"),
            (Some(status), _) if !status.draining.is_null() => format!("relay {name} is draining"),
            (Some(status), _) if !status.ready => {
                let why = status.not_ready.as_deref().unwrap_or("it does not say why");
                format!("relay {name} is not ready: {why}")
            }
            (Some(_), _) if !self.tags_read.load(Ordering::Acquire) => {
                format!("relay {name} has not said yet who is revoked")
            }
            (Some(_), _) => {
                let probes = state.probes.as_deref().unwrap_or_default();
                let failures = probes.iter().filter_map(|probe| probe.outcome.as_ref().err());
                match failures.clone().count() == probes.len() {
                    true => {
                        format!("relay {name}: no probe of a listener succeeds: {}", failures.clone().next()?)
                    }
                    false => return None,
                }
            }
        })
    }

    /// The URLs for clients without those that probes have shown to fail.
    pub fn working_urls(&self) -> Vec<String> {
        let mut urls = self.ice_urls();
        if let Some(probes) = self.state.borrow().probes.as_deref() {
            urls.retain(|url| works(url, probes));
        }
        urls
    }

    /// The URLs for clients, whether they work now or not.
    pub fn ice_urls(&self) -> Vec<String> {
        match self.settings.urls.is_empty() {
            true => {
                self.state.borrow().status.as_ref().map(|status| status.ice_urls.clone()).unwrap_or_default()
            }
            false => self.settings.urls.clone(),
        }
    }

    /// Asks for its status, over and over.
    pub async fn watch(&self) {
        loop {
            let (status, problem) = match self.status().await {
                Ok(status) => (Some(Arc::new(status)), None),
                Err(failure) => (None, Some(failure.message)),
            };
            self.state.send_modify(|state| (state.status, state.problem) = (status, problem));
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Notes what it has said of itself.
    pub fn saw(&self, status: RelayStatus) {
        self.state.send_modify(|state| (state.status, state.problem) = (Some(Arc::new(status)), None));
    }

    /// Asks for its status once.
    ///
    /// # Errors
    /// It does not answer, or not as a relay does.
    pub async fn status(&self) -> Result<RelayStatus, Failure> {
        let status = self.control.get("/v1/status").await?;
        serde_json::from_value(status).map_err(|error| {
            Failure::new(format!(
                "the status of the relay is not that of version {}: {error}",
                crate::VERSION
            ))
        })
    }

    /// Revokes a user: credentials that expire up to this time are refused, and of its allocations end `all` or the `refused`
    /// ones. Returns the relay's answer.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn revoke(&self, user: &str, until: u64, end: &str) -> Result<Value, Failure> {
        self.control.post("/v1/revocations", &json!({ "user": user, "until": until, "end": end })).await
    }

    /// Sets the sidecar's peer overlay; returns the relay's warnings.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn set_peers(&self, mode: &str, addresses: &[String]) -> Result<Vec<String>, Failure> {
        let body = json!({ "mode": mode, "addresses": addresses });
        let set = self.control.put(&path(&["peers", OWNER]), &body).await?;
        let warnings = set["warnings"].as_array().into_iter().flatten();
        Ok(warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect())
    }

    /// Removes the sidecar's peer overlay.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn clear_peers(&self) -> Result<(), Failure> {
        self.control.delete(&path(&["peers", OWNER])).await.map(drop)
    }

    /// Its admin API, for what has no method here.
    pub fn control(&self) -> &Client {
        &self.control
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(transport: ClientTransport, port: u16, ok: bool) -> Probe {
        let outcome = if ok { Ok(Duration::ZERO) } else { Err("fails".into()) };
        Probe { transport, target: String::new(), port, outcome }
    }

    #[test]
    fn a_url_is_left_out_if_its_listener_fails() {
        use ClientTransport::{Tcp, Tls, Udp};
        let probes =
            [probe(Udp, 3478, false), probe(Tcp, 3478, true), probe(Tls, 5349, true), probe(Tls, 443, false)];
        assert!(!works("turn:192.0.2.1:3478?transport=udp", &probes));
        assert!(works("turn:192.0.2.1:3478?transport=tcp", &probes));
        assert!(works("turns:turn.example.org:5349?transport=tcp", &probes));
        assert!(!works("turns:turn.example.org:443?transport=tcp", &probes));
        // A NAT maps this port to one of the listeners
        assert!(works("turns:turn.example.org:8443?transport=tcp", &probes));
        assert!(!works("turn:192.0.2.1:80?transport=udp", &probes));
        // Two listeners of a port, of which one works
        let both = [probe(Udp, 3478, false), probe(Udp, 3478, true)];
        assert!(works("turn:192.0.2.1:3478?transport=udp", &both));
        assert!(works("stun:192.0.2.1:3478", &probes) && works("turn:192.0.2.1:3478?transport=udp", &[]));
    }
}
