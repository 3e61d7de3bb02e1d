//! A running sidecar: the parts that work side by side, and what they share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::health::Health;
use super::http::server::HttpServer;
use super::lifecycle::{Lifecycle, Shared};
use super::metrics::Metrics;
use super::relays::Relay;
use super::server::Server;
use super::settings::Settings;
use super::tags::Tags;
use super::token::Keys;
use super::{reconcile, relayed};

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
    pub metrics: Metrics,
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
        let relays = settings.relays.iter().cloned().map(|one| Relay::new(one).map(Arc::new));
        let relays: Vec<_> =
            relays.collect::<Result<_, _>>().map_err(|failure| anyhow::anyhow!(failure.message))?;
        let secret = settings.credentials.secrets.first().context("there is no shared secret")?;
        let keys = Keys::new(&settings.livekit.keys);
        let (tags, health, metrics) =
            (Arc::new(Tags::new(secret)), Arc::new(Health::default()), Metrics::new());
        let livekit = Arc::new(Server::new(&settings.livekit)?);
        let shared = Shared {
            server: livekit.clone(),
            tags: tags.clone(),
            health: health.clone(),
            metrics: metrics.lifecycle.clone(),
        };
        let lifecycle = Arc::new(Lifecycle::new(&settings, &relays, shared));
        Ok(Sidecar { settings, relays, keys, tags, health, metrics, livekit, lifecycle })
    }

    /// Does its work, and serves HTTP, until it is dropped.
    pub async fn work(self: Arc<Self>, http: Arc<HttpServer>) {
        let mut parts = tokio::task::JoinSet::new();
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
        // No part ends by itself.
        parts.join_next().await;
    }
}
