//! A running sidecar: the parts that work side by side, and what they share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;

use super::health::Health;
use super::http::server::HttpServer;
use super::lifecycle::{Lifecycle, Shared};
use super::metrics::Metrics;
use super::probe::rounds;
use super::relays::Relay;
use super::server::Server;
use super::settings::{RelaySettings, Settings};
use super::tags::Tags;
use super::token::Keys;
use super::{peers, reconcile, relayed, sfu_health};
use crate::auth::Secret;
use crate::daemon::random;

/// What the parts of a running sidecar share.
pub struct Sidecar {
    /// What it was told.
    pub settings: Settings,
    /// The relays.
    pub relays: Vec<Arc<Relay>>,
    /// The API keys of LiveKit.
    pub keys: Keys,
    /// The tags of participants.
    pub tags: Arc<Tags>,
    /// What works and what does not.
    pub health: Arc<Health>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// The API of LiveKit.
    pub livekit: Arc<Server>,
    /// What happens when participants leave.
    pub lifecycle: Arc<Lifecycle>,
}

impl Sidecar {
    /// A sidecar that does nothing yet.
    ///
    /// # Errors
    /// A relay or LiveKit cannot be reached in the way that its settings say.
    pub fn new(settings: Settings) -> Result<Sidecar> {
        Sidecar::build(settings, None)
    }

    /// The same with other settings. Counts, revocations, and what is known of relays that stay are kept.
    ///
    /// # Errors
    /// A relay or LiveKit cannot be reached in the way that its settings say.
    pub fn renewed(running: &Sidecar, settings: Settings) -> Result<Sidecar> {
        Sidecar::build(settings, Some(running))
    }

    fn build(settings: Settings, running: Option<&Sidecar>) -> Result<Sidecar> {
        let relay = |one: &RelaySettings| match running.and_then(|running| running.relay_like(one)) {
            Some(relay) => Ok(relay),
            None => Relay::new(one.clone()).map(Arc::new).map_err(|failure| anyhow!(failure.message)),
        };
        let relays = settings.relays.iter().map(relay).collect::<Result<Vec<_>>>()?;
        // Nothing is issued without a secret, so nobody sees the tags of this one.
        let fresh = || Ok::<_, anyhow::Error>(Tags::new(&Secret::new(random::bytes::<32>()?)));
        let secrets = &settings.credentials.secrets;
        let tags = match running.map(|running| &running.tags) {
            Some(tags) if secrets.is_empty() => tags.clone(),
            Some(tags) => Arc::new(tags.with_secrets(secrets)),
            None if secrets.is_empty() => Arc::new(fresh()?),
            None => Arc::new(fresh()?.with_secrets(secrets)),
        };
        let (health, metrics) = match running {
            Some(running) => (running.health.clone(), running.metrics.clone()),
            None => (Arc::new(Health::default()), Arc::new(Metrics::new())),
        };
        let keys = Keys::new(&settings.livekit.keys);
        let livekit = Arc::new(Server::new(&settings.livekit)?);
        let shared = Shared {
            server: livekit.clone(),
            tags: tags.clone(),
            health: health.clone(),
            metrics: metrics.lifecycle.clone(),
        };
        let lifecycle = Arc::new(match running {
            Some(running) => running.lifecycle.renewed(&settings, &relays, shared),
            None => Lifecycle::new(&settings, &relays, shared),
        });
        Ok(Sidecar { settings, relays, keys, tags, health, metrics, livekit, lifecycle })
    }

    /// Does its work, and serves HTTP, until it is dropped, or a part ends, which is a bug. The log has what the part has died of.
    pub async fn work(self: Arc<Self>, http: Arc<HttpServer>) -> anyhow::Error {
        let mut parts = JoinSet::new();
        for relay in &self.relays {
            let relay = relay.clone();
            parts.spawn(async move { relay.watch().await });
        }
        let sidecar = self.clone();
        parts.spawn(async move { http.serve(sidecar).await });
        let interval = Duration::from_secs(self.settings.lifecycle.reconcile.max(1).into());
        parts.spawn(self.lifecycle.clone().work());
        parts.spawn(reconcile::run(self.lifecycle.clone(), interval));
        parts.spawn(relayed::run(self.lifecycle.clone(), self.relays.clone()));
        let health = &self.settings.health;
        let interval = Duration::from_secs(health.interval.max(1).into());
        parts.spawn(sfu_health::watch(self.livekit.clone(), self.health.clone(), interval));
        for relay in &self.relays {
            let interval = health.probe.then_some(interval);
            parts.spawn(rounds::watch(relay.clone(), interval, self.metrics.probes.clone()));
        }
        parts.spawn(peers::run(self.clone()));
        let ended = match parts.join_next().await {
            Some(Err(error)) if error.is_panic() => "has panicked, as the line above says",
            _ => "has ended",
        };
        anyhow!("a part of the sidecar {ended}; a supervisor like systemd starts it again")
    }

    /// The relay with exactly these settings, files included.
    fn relay_like(&self, settings: &RelaySettings) -> Option<Arc<Relay>> {
        self.relays.iter().find(|relay| relay.settings.is_like(settings)).cloned()
    }
}
