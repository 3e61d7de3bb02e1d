//! The relays that the sidecar registers: orders to each over its admin API, and what is known of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ice_url::{ClientTransport, IceUrl};
use super::settings::RelaySettings;
use crate::admin::client::{Client, Failure, Target, connector_besides, path};

/// How often a relay is asked for its status.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for an answer. A relay that hangs must not be handed to clients for as long as somebody at `hairpin ctl` would wait.
pub const ANSWER: Duration = Duration::from_secs(5);

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

/// Waits for an answer of a relay, but not for long.
///
/// # Errors
/// There is none in time, or the relay refuses.
pub async fn in_time<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure {
        is_broken: true,
        ..Failure::new(format!("it has not answered within {} s", ANSWER.as_secs()))
    };
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

/// Whether a URL works as far as probes tell: that of the URL itself, else those of its port, and if a NAT maps ports, those of its
/// transport.
fn works(url: &str, probes: &[Probe]) -> bool {
    if let Some(own) = probes.iter().find(|probe| probe.target == url) {
        return own.is_ok();
    }
    let Some(url) = IceUrl::parse(url) else { return true };
    let of_transport = |probe: &&Probe| probe.transport == url.transport;
    let of_port: Vec<_> = probes.iter().filter(of_transport).filter(|probe| probe.port == url.port).collect();
    let decisive = if of_port.is_empty() { probes.iter().filter(of_transport).collect() } else { of_port };
    decisive.is_empty() || decisive.iter().any(|probe| probe.is_ok())
}

/// What is wrong if probes show that no client can use a relay: every one fails, or those of every URL for TURN.
fn unreachable(urls: &[String], probes: &[Probe]) -> Option<String> {
    let failure = probes.iter().find_map(|probe| probe.outcome.as_ref().err())?;
    if !probes.iter().any(Probe::is_ok) {
        return Some(format!("no probe of a listener succeeds: {failure}"));
    }
    let mut turn = urls.iter().filter(|url| IceUrl::parse(url).is_some()).peekable();
    let is_cut_off = turn.peek().is_some() && !turn.any(|url| works(url, probes));
    is_cut_off.then(|| format!("none of its URLs works: {failure}"))
}

impl Relay {
    /// The relay that these settings name.
    ///
    /// # Errors
    /// Its API cannot be reached in this way.
    pub fn new(settings: RelaySettings) -> Result<Relay, Failure> {
        let target = match settings.url.is_empty() {
            true => Target::socket(settings.socket.clone()),
            false => Target::url(
                "relay.url",
                &settings.url,
                || connector_besides(settings.ca_file.as_deref()),
                || {
                    let token =
                        settings.token.as_ref().and_then(|token| str::from_utf8(token.as_bytes()).ok());
                    token.map(str::to_owned).ok_or_else(|| Failure::usage("relay.token_file is missing"))
                },
            )?,
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

    /// Forgets what probes have shown: nobody probes it any more.
    pub fn forget_probes(&self) {
        self.state.send_modify(|state| state.probes = None);
    }

    /// Notes that the tags are known which are revoked there. A credential that is issued before might be refused.
    pub fn note_tags_read(&self) {
        self.tags_read.store(true, Ordering::Release);
    }

    /// Whether clients may be sent to it: it answers, is ready and does not drain, what is revoked there is known, and a URL works.
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
            (Some(status), _) => {
                let urls = if self.settings.urls.is_empty() { &status.ice_urls } else { &self.settings.urls };
                let why = unreachable(urls, state.probes.as_deref().unwrap_or_default())?;
                format!("relay {name}: {why}")
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
            self.look().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Asks for its status now, and notes it.
    pub async fn look(&self) {
        let (status, problem) = match self.status().await {
            Ok(status) => (Some(Arc::new(status)), None),
            Err(failure) => (None, Some(failure.message)),
        };
        self.state.send_modify(|state| (state.status, state.problem) = (status, problem));
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
        let status = in_time(self.control.get("/v1/status")).await?;
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
        let set = in_time(self.control.put(&path(&["peers", OWNER]), &body)).await?;
        let warnings = set["warnings"].as_array().into_iter().flatten();
        Ok(warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect())
    }

    /// Removes the sidecar's peer overlay.
    ///
    /// # Errors
    /// The relay cannot be reached, or refuses.
    pub async fn clear_peers(&self) -> Result<(), Failure> {
        in_time(self.control.delete(&path(&["peers", OWNER]))).await.map(drop)
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
        // A relay elsewhere is probed at its URLs
        let at = |url: &str, ok| Probe { target: url.into(), ..probe(Tls, 443, ok) };
        let (good, bad) = ("turns:turn.example.org:443", "turns:other.example.org:443");
        let probes = [at(good, true), at(bad, false)];
        assert!(works(good, &probes) && !works(bad, &probes));
    }

    /// A relay of which nothing works for a client is not handed out, also if another listener of it works.
    #[test]
    fn a_relay_without_a_url_that_works_is_unusable() {
        use ClientTransport::{Tcp, Tls, Udp};
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        let tls = urls(&["stun:192.0.2.1:3478", "turns:turn.example.org:443?transport=tcp"]);
        let probes = [probe(Udp, 3478, true), probe(Tls, 443, false)];
        assert_eq!(unreachable(&tls, &probes).as_deref(), Some("none of its URLs works: fails"));
        assert_eq!(unreachable(&urls(&["turn:192.0.2.1:3478"]), &probes), None);
        assert_eq!(unreachable(&tls, &[probe(Udp, 3478, true)]), None, "TLS is somebody else's there");
        let all = [probe(Udp, 3478, false), probe(Tcp, 3478, false)];
        assert_eq!(unreachable(&tls, &all).as_deref(), Some("no probe of a listener succeeds: fails"));
        assert_eq!((unreachable(&tls, &[]), unreachable(&[], &probes)), (None, None));
    }

    /// `kill -STOP`, a power cut: connections are accepted or lost, and nothing comes.
    #[tokio::test]
    async fn a_relay_that_hangs_is_unusable_within_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _silent = tokio::net::UnixListener::bind(&socket).unwrap();
        let settings = RelaySettings { name: "a".into(), socket: Some(socket), ..RelaySettings::default() };
        let relay = Relay::new(settings).unwrap();
        relay.note_tags_read();
        relay.saw(
            serde_json::from_value(json!({
                "instance": "1", "version": "1", "ready": true, "not_ready": null, "draining": null,
                "ice_urls": [], "listeners": [], "relay_addresses": [],
            }))
            .unwrap(),
        );
        assert!(relay.is_usable());
        tokio::time::pause();
        relay.look().await;
        assert_eq!(relay.obstacle().as_deref(), Some("relay a: it has not answered within 5 s"));
        let late = relay.clear_peers().await.unwrap_err();
        assert!(late.is_broken && relay.set_peers("only", &[]).await.is_err());
    }
}
