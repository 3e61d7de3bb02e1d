//! LiveKit's health, over and over: whether it answers `GET /`, and whether it takes the sidecar's API key.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::check::livekit::STALE;
use super::check::{Verdict, clock};
use super::health::{Health, Part};
use super::server::{Liveness, Server};

/// Asks every `interval`, until it is dropped. Each change is one line of the log.
pub async fn watch(server: Arc<Server>, health: Arc<Health>, interval: Duration) {
    let mut skew = None;
    loop {
        let started = Instant::now();
        let outcome = ask(&server).await;
        let was = health.works(Part::LiveKit);
        if health.report(Part::LiveKit, outcome.clone()) {
            match outcome {
                // That it works is no news at the start.
                Ok(()) if was.is_none() => {}
                Ok(()) => info!("LiveKit answers again, and takes the API key"),
                Err(problem) => warn!("{problem}"),
            }
        }
        if let Some(ahead) = server.clock_offset() {
            let now = match clock::judge("LiveKit", ahead) {
                Verdict::Wrong(problem) => Some(problem),
                Verdict::Good(_) | Verdict::Hint(_) => None,
            };
            // The seconds of a clock that drifts are no news.
            match &now {
                Some(problem) if skew.is_none() => warn!("{problem}"),
                None if skew.is_some() => info!("the clock of LiveKit agrees with this machine's again"),
                _ => {}
            }
            skew = now;
        }
        sleep_until(started + interval).await;
    }
}

async fn ask(server: &Server) -> Result<(), String> {
    match server.live().await {
        Ok(Liveness::Ready) => {}
        Ok(Liveness::Stale) => return Err(STALE.into()),
        Err(error) => return Err(error.to_string()),
    }
    server.rooms().await.map(drop).map_err(|error| error.to_string())
}
