//! Comparison with LiveKit's own lists: webhooks may be lost, and the sidecar may have been down.
//!
//! Each round lists the rooms and then the participants of every one of them, spread over the time of a round, so that many rooms
//! cause no bursts. A room that is known and not listed is asked about all the same, but not too many of these.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::health::Part;
use super::lifecycle::{LISTS, Lifecycle, Shared};
use super::server::ServerError;

/// The shortest time between two lists: 50 per second.
const SPACING: Duration = Duration::from_millis(20);

/// How many rooms are asked about in a round that LiveKit does not list.
const UNLISTED: usize = 100;

/// Compares for ever, a round every `interval`.
pub async fn run(lifecycle: Arc<Lifecycle>, interval: Duration) {
    loop {
        let started = Instant::now();
        note(&lifecycle, round(&lifecycle, interval).await);
        lifecycle.prune();
        sleep_until(started + interval).await;
    }
}

/// One round.
async fn round(lifecycle: &Arc<Lifecycle>, interval: Duration) -> Result<(), ServerError> {
    let listed = lifecycle.shared().server.rooms().await;
    let outcome = if listed.is_ok() { "ok" } else { "failed" };
    lifecycle.shared().metrics.reconciliations.with_label_values(&[outcome]).inc();
    let mut names: Vec<Box<str>> = listed?.into_iter().map(|room| room.name.into()).collect();
    if !lifecycle.is_on() {
        return Ok(());
    }
    let known: HashSet<&str> = names.iter().map(|name| &**name).collect();
    let mut others = lifecycle.with_rooms(|rooms| rooms.names());
    others.retain(|name| !known.contains(&**name));
    // In any order: each gets its turn.
    names.extend(others.into_iter().take(UNLISTED));
    let spacing = (interval / (names.len() as u32).max(1)).max(SPACING);
    let mut lists = JoinSet::new();
    let mut result = Ok(());
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 {
            sleep(spacing).await;
        }
        while let Some(done) =
            if lists.len() < LISTS { lists.try_join_next() } else { lists.join_next().await }
        {
            result = result.and(done.unwrap_or(Ok(())));
        }
        let now = lifecycle.moment().now;
        if lifecycle.with_rooms(|rooms| rooms.begin(now, &name)) {
            let lifecycle = lifecycle.clone();
            lists.spawn(async move { lifecycle.list(&name).await });
        }
    }
    while let Some(done) = lists.join_next().await {
        result = result.and(done.unwrap_or(Ok(())));
    }
    result
}

/// Reports whether LiveKit tells who is in which room.
fn note(lifecycle: &Lifecycle, result: Result<(), ServerError>) {
    let Shared { server, health, metrics, .. } = lifecycle.shared();
    metrics.up.set(i64::from(result.is_ok()));
    if let Some(offset) = server.clock_offset() {
        metrics.clock_offset.set(offset as f64 / 1000.0);
    }
    let was = health.works(Part::Rooms);
    let outcome = result.map_err(|error| format!("who is in which room is not known: {error}"));
    let problem = outcome.clone().err();
    if health.report(Part::Rooms, outcome) {
        match problem {
            Some(problem) => warn!("{problem}"),
            None if was.is_some() => info!("LiveKit at {} lists its rooms again", server.base()),
            None => {}
        }
    }
}
