//! How many participants of each room use a relay: the users of the relays' allocations are sessions and tags of rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::lifecycle::Lifecycle;
use super::relays::Relay;
use super::tags;
use crate::admin::client::Failure;
use crate::admin::percent::encoded;

/// How often the relays are asked.
const INTERVAL: Duration = Duration::from_secs(15);

/// Entries of a page, and the most pages of a relay that are read at once.
const PAGE: usize = 1000;
const PAGES: usize = 100;

/// Counts for ever.
pub async fn run(lifecycle: Arc<Lifecycle>, relays: Vec<Arc<Relay>>) {
    loop {
        let mut users = HashSet::new();
        for relay in &relays {
            if relay.state().status.is_some()
                && let Err(failure) = read(relay, &mut users).await
            {
                debug!("relay {}: its allocations cannot be read: {}", relay.settings.name, failure.message);
            }
        }
        let rooms: Vec<_> = lifecycle.with_rooms(|rooms| {
            rooms
                .seats()
                .map(|seats| {
                    seats.fold((0, 0), |(all, some), (seat, _)| {
                        let is_relayed =
                            users.contains(seat.sid) || tags::each(seat.tag).any(|tag| users.contains(tag));
                        (all + 1, some + usize::from(is_relayed))
                    })
                })
                .filter(|(all, _)| *all > 0)
                .collect()
        });
        lifecycle.shared().metrics.count_rooms(rooms.into_iter());
        sleep(INTERVAL).await;
    }
}

/// Adds the users who have an allocation on a relay.
async fn read(relay: &Relay, users: &mut HashSet<String>) -> Result<(), Failure> {
    let mut cursor = String::new();
    for _ in 0..PAGES {
        let path = format!("/v1/allocations?rates=false&limit={PAGE}{cursor}");
        let page = relay.control().get(&path).await?;
        let found = page["allocations"].as_array().into_iter().flatten();
        users.extend(found.filter_map(|allocation| allocation["user"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encoded(next)),
            None => break,
        }
    }
    Ok(())
}
