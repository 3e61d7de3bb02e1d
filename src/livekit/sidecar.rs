//! What the parts of a running sidecar share. `service` has the parts, and starts them.

use std::sync::Arc;

use anyhow::{Result, anyhow};

use super::health::{Health, Part, Readiness};
use super::lifecycle::{Lifecycle, Shared};
use super::metrics::Metrics;
use super::relays::Relay;
use super::server::Server;
use super::settings::{PeersMode, RelaySettings, Settings};
use super::tags::Tags;
use super::token::Keys;
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
    /// A reload has removed the shared secret, so that nothing is issued any more.
    has_lost_secret: bool,
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
        let sidecar = Sidecar::build(settings, Some(running))?;
        for gone in &running.relays {
            let name = &gone.settings.name;
            if !sidecar.relays.iter().any(|relay| relay.settings.name == *name) {
                sidecar.metrics.probes.forget(name);
                sidecar.metrics.lifecycle.forget_relay(name);
            }
        }
        Ok(sidecar)
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
        let had_secret = |one: &Sidecar| one.has_lost_secret || !one.settings.credentials.secrets.is_empty();
        let has_lost_secret = settings.credentials.secrets.is_empty() && running.is_some_and(had_secret);
        Ok(Sidecar { settings, relays, keys, tags, health, metrics, livekit, lifecycle, has_lost_secret })
    }

    /// What `/readyz` says. Without a secret from the start on, nobody expects ICE servers of it.
    pub fn readiness(&self) -> Readiness {
        let mut readiness = self.health.readiness(&self.relays);
        if self.settings.peers.mode != PeersMode::Off && self.health.works(Part::Peers).is_none() {
            readiness.obstacles.push("the relays have not been told which peers clients reach yet".into());
        }
        if self.has_lost_secret {
            let problem = "ICE servers are not handed out: the configuration has no shared secret any more; set \
                           credentials.secret_file, or restart the sidecar if nobody asks for them";
            readiness.problems.push(problem.into());
        }
        readiness
    }

    /// What `/metrics` says.
    pub fn metrics_page(&self) -> String {
        self.metrics.page(self.readiness().obstacles.is_empty())
    }

    /// The relay with exactly these settings, files included.
    fn relay_like(&self, settings: &RelaySettings) -> Option<Arc<Relay>> {
        self.relays.iter().find(|relay| relay.settings.is_like(settings)).cloned()
    }
}
