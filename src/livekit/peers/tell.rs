//! Keeps the overlay of one relay as it should be. Each relay has a task of its own, so that one that hangs holds up no other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::overlay::{Step, Told};
use crate::livekit::relays::{Relay, RelayStatus};
use crate::livekit::settings::PeersMode;
use crate::shown;

/// How often a relay is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// The pause after the first failure; it doubles with each further one. A relay logs everything that it is told.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The addresses that relays should have; `None` leaves what they have.
pub type Wanted = Option<Arc<[String]>>;

/// What a relay was told, or why it could not be told.
pub type Has = Result<Wanted, String>;

/// What one relay is told.
pub struct Teller {
    relay: Arc<Relay>,
    mode: PeersMode,
    told: Told,
    retry: Retry,
    /// What it has warned of.
    warned: BTreeSet<String>,
    /// What it has, or why it was not told.
    has: watch::Sender<Has>,
}

/// When something that has failed is tried again.
#[derive(Default)]
struct Retry {
    /// At which instance of the relay, and with which addresses.
    of: Option<(String, Vec<String>)>,
    pause: Duration,
    at: Option<Instant>,
}

impl Teller {
    /// Nothing is told yet.
    pub fn new(relay: Arc<Relay>, mode: PeersMode) -> Teller {
        let (told, retry, has) = (Told::default(), Retry::default(), watch::Sender::new(Ok(None)));
        Teller { relay, mode, told, retry, warned: BTreeSet::new(), has }
    }

    /// What the relay has, or why it does not have what it should have.
    pub fn has(&self) -> watch::Receiver<Has> {
        self.has.subscribe()
    }

    /// Tells it, again and again.
    pub async fn work(mut self, wanted: watch::Receiver<Wanted>) {
        loop {
            let addresses = wanted.borrow().clone();
            self.step(addresses).await;
            sleep(INTERVAL).await;
        }
    }

    async fn step(&mut self, wanted: Wanted) {
        // Whether it answers is said elsewhere.
        let Some(status) = self.relay.state().status else {
            self.retry = Retry::default();
            let _ = self.has.send_replace(Ok(None));
            return;
        };
        let addresses = wanted.as_deref().unwrap_or_default();
        if !self.retry.is_due(Instant::now(), &status.instance, addresses) {
            return;
        }
        match self.tell(&status, wanted.as_deref()).await {
            Ok(()) => {
                self.retry = Retry::default();
                let _ = self.has.send_replace(Ok(wanted));
            }
            Err(message) => {
                let name = &self.relay.settings.name;
                self.retry.failed(Instant::now(), &status.instance, addresses);
                let _ =
                    self.has.send_replace(Err(format!("relay {name}: its peers cannot be set: {message}")));
            }
        }
    }

    /// Sets or clears the overlay, if it is not as it should be.
    async fn tell(&mut self, status: &Arc<RelayStatus>, wanted: Option<&[String]>) -> Result<(), String> {
        let name = &self.relay.settings.name;
        match self.told.judge(status, self.mode, wanted) {
            Step::Nothing => {}
            Step::Clear => {
                self.relay.clear_peers().await.map_err(|failure| failure.message)?;
                self.told.told(status, self.mode, &[]);
                info!("relay {name}: peers are as its own configuration has them");
            }
            Step::Set => {
                let addresses = wanted.unwrap_or_default();
                let mode = if self.mode == PeersMode::Add { "add" } else { "only" };
                let set = self.relay.set_peers(mode, addresses).await;
                let warnings = set.map_err(|failure| failure.message)?;
                self.told.told(status, self.mode, addresses);
                let listed = shortened(addresses);
                let shown = shown::text(&listed);
                match self.mode {
                    PeersMode::Add => info!("relay {name}: clients also reach the SFU at {shown}"),
                    _ => info!("relay {name}: clients reach the SFU at {shown}, and nothing else"),
                }
                log_new(&mut self.warned, &warnings, &format!("relay {name}"));
            }
        }
        Ok(())
    }
}

impl Retry {
    /// Whether it can be tried. Other addresses, or another instance of the relay, can be tried at once.
    fn is_due(&self, now: Instant, instance: &str, addresses: &[String]) -> bool {
        !self.is_of(instance, addresses) || self.at.is_none_or(|at| now >= at)
    }

    fn failed(&mut self, now: Instant, instance: &str, addresses: &[String]) {
        let pause = if self.is_of(instance, addresses) { self.pause * 2 } else { FIRST_PAUSE };
        self.pause = pause.min(LONGEST_PAUSE);
        self.at = Some(now + self.pause);
        self.of = Some((instance.to_owned(), addresses.to_vec()));
    }

    fn is_of(&self, instance: &str, addresses: &[String]) -> bool {
        self.of.as_ref().is_some_and(|(of, list)| of == instance && list == addresses)
    }
}

/// The first addresses of a list.
fn shortened(addresses: &[String]) -> String {
    /// How many are shown.
    const SHOWN: usize = 8;
    match addresses.len().checked_sub(SHOWN) {
        None | Some(0) => addresses.join(", "),
        Some(more) => format!("{} and {} more", addresses[..SHOWN].join(", "), more),
    }
}

/// Logs sentences that were not there the last time.
pub(super) fn log_new(logged: &mut BTreeSet<String>, now: &[String], of: &str) {
    let now: BTreeSet<String> = now.iter().cloned().collect();
    now.difference(logged).for_each(|sentence| warn!("{of}: {}", shown::text(sentence)));
    *logged = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that refuses is asked less and less often, but at once when something has changed.
    #[test]
    fn what_was_refused_is_tried_again_after_growing_pauses() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let (old, new) = (["8.8.4.4:7882".to_owned()], ["8.8.8.8:7882".to_owned()]);
        let mut now = start;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(retry.is_due(now, "a", &old));
            retry.failed(now, "a", &old);
            assert!(!retry.is_due(now + Duration::from_millis(pause * 1000 - 1), "a", &old), "{pause}");
            now += Duration::from_secs(pause);
        }
        retry.failed(now, "a", &old);
        assert!(
            retry.is_due(now, "a", &new) && retry.is_due(now, "b", &old) && !retry.is_due(now, "a", &old)
        );
        retry.failed(now, "a", &new);
        assert!(retry.is_due(now + FIRST_PAUSE, "a", &new));
    }
}
