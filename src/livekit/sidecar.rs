//! A running sidecar: the parts that work side by side, and what they share.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::health::Health;
use super::http::server::HttpServer;
use super::metrics::Metrics;
use super::relays::Relay;
use super::settings::Settings;
use super::tags::Tags;
use super::token::Keys;

/// What the parts of a running sidecar share.
pub struct Sidecar {
    /// What it was told.
    pub settings: Settings,
    /// The relays.
    pub relays: Vec<Arc<Relay>>,
    /// The API keys of LiveKit.
    pub keys: Keys,
    /// The tags of participants.
    pub tags: Tags,
    /// What works and what does not.
    pub health: Health,
    /// What it counts.
    pub metrics: Metrics,
}

impl Sidecar {
    /// A sidecar that does nothing yet.
    ///
    /// # Errors
    /// A relay cannot be reached in the way that its settings say.
    pub fn new(settings: Settings) -> Result<Sidecar> {
        let relays = settings.relays.iter().cloned().map(|one| Relay::new(one).map(Arc::new));
        let relays = relays.collect::<Result<_, _>>().map_err(|failure| anyhow::anyhow!(failure.message))?;
        let secret = settings.credentials.secrets.first().context("there is no shared secret")?;
        let tags = Tags::new(secret);
        let keys = Keys::new(&settings.livekit.keys);
        Ok(Sidecar { settings, relays, keys, tags, health: Health::default(), metrics: Metrics::new() })
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
        // No part ends by itself.
        parts.join_next().await;
    }
}
