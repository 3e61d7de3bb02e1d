//! Notices that addresses of this machine may have changed: by netlink, otherwise by the clock.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::netlink::Changes;

/// How long changes gather: an address comes with several messages.
const SETTLE: Duration = Duration::from_millis(100);

/// The least time between two notifications, so that addresses that change all the time do not occupy the daemon.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often addresses are read without netlink.
const POLL: Duration = Duration::from_secs(3);

/// How often they are read nevertheless with netlink: a change of a next-hop object changes a default route without a
/// message about it.
const RESYNC: Duration = Duration::from_secs(30);

/// Notifies of changes while it is polled.
pub async fn run(changed: &Notify) {
    let mut told = false;
    loop {
        match Changes::follow() {
            Ok(changes) => {
                // There may have been a change before.
                changed.notify_one();
                follow(&changes, changed).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    let seconds = POLL.as_secs();
                    info!(%error, "addresses cannot be followed by netlink; they are read every {seconds} s instead");
                }
                sleep(POLL).await;
                changed.notify_one();
            }
        }
    }
}

/// Returns if that is not possible any more.
async fn follow(changes: &Changes, changed: &Notify) {
    let mut earliest = Instant::now();
    loop {
        match timeout(RESYNC, changes.next()).await {
            Ok(Err(error)) => {
                debug!(%error, "netlink failed");
                return sleep(SETTLE).await;
            }
            Ok(Ok(())) => sleep_until(earliest.max(Instant::now() + SETTLE)).await,
            Err(_) => {}
        }
        changes.discard();
        changed.notify_one();
        earliest = Instant::now() + INTERVAL;
    }
}
