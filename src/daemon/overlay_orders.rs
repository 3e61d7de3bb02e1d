//! Orders about peer overlays: how they are given, and how the main loop carries them out.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::control::{Control, Order};
use super::overlays::{OWNERS, Overlay, OverlayError, OverlayOrder, OverlaySet, OverlayStore, rules};
use super::relay::RunningRelay;
use super::store::Unconfirmed;
use super::unix_now;
use crate::shown;
use crate::turn::peers::OverlayMode;

impl Control {
    /// Sets the overlay of `owner`; one that it had before is replaced. `addresses` are written as in `peers.allow`, but each names
    /// a single address.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn set_overlay(
        &self,
        owner: &str,
        mode: OverlayMode,
        addresses: &[String],
    ) -> Result<OverlaySet, OverlayError> {
        let overlay = Overlay::new(owner, mode, addresses, unix_now())?;
        let set = |reply| Order::Overlay(OverlayOrder::Set(overlay, reply));
        self.order(set).await.map_err(OverlayError::Stopping)?
    }

    /// Removes the overlay of `owner`, and returns it.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn clear_overlay(&self, owner: &str) -> Result<Overlay, OverlayError> {
        let clear = |reply| Order::Overlay(OverlayOrder::Clear(owner.to_owned(), reply));
        self.order(clear).await.map_err(OverlayError::Stopping)?
    }

    /// Every overlay, by owner.
    ///
    /// # Errors
    /// The relay is stopping.
    pub async fn overlays(&self) -> Result<Vec<Overlay>, OverlayError> {
        self.order(|reply| Order::Overlay(OverlayOrder::List(reply))).await.map_err(OverlayError::Stopping)
    }
}

impl OverlayStore {
    /// Carries out an order. Whoever gave it may have stopped waiting.
    pub(super) async fn carry_out(&mut self, order: OverlayOrder, relay: &mut RunningRelay) {
        match order {
            OverlayOrder::Set(overlay, reply) => {
                let _ = reply.send(self.set(overlay, relay).await);
            }
            OverlayOrder::Clear(owner, reply) => {
                let _ = reply.send(self.clear(&owner, relay).await);
            }
            OverlayOrder::List(reply) => {
                let _ = reply.send(self.overlays.values().cloned().collect());
            }
        }
    }

    pub(super) async fn set(
        &mut self,
        overlay: Overlay,
        relay: &mut RunningRelay,
    ) -> Result<OverlaySet, OverlayError> {
        overlay.check_own(relay.site())?;
        let replaced = self.overlays.contains_key(&overlay.owner);
        if !replaced && self.overlays.len() >= OWNERS {
            let what = format!("there are {OWNERS} overlays already; clear one that is not needed");
            return Err(OverlayError::Full(what));
        }
        let mut new = self.overlays.clone();
        new.insert(overlay.owner.clone(), overlay.clone());
        self.change(new, relay).await?;
        let warnings = overlay.warnings(relay.settings(), relay.site());
        info!("peers: {overlay}");
        warnings.iter().for_each(|warning| warn!("{}", shown::text(warning)));
        Ok(OverlaySet { overlay, replaced, warnings })
    }

    pub(super) async fn clear(
        &mut self,
        owner: &str,
        relay: &mut RunningRelay,
    ) -> Result<Overlay, OverlayError> {
        let mut new = self.overlays.clone();
        let overlay = new.remove(owner).ok_or_else(|| OverlayError::Unknown(owner.to_owned()))?;
        self.change(new, relay).await?;
        info!("peers: the overlay of {owner} is cleared");
        Ok(overlay)
    }

    /// Keeps the overlays, then serves by them: after a success they hold even if the process is killed.
    async fn change(
        &mut self,
        new: BTreeMap<String, Overlay>,
        relay: &mut RunningRelay,
    ) -> Result<(), OverlayError> {
        let failed = |error: anyhow::Error| OverlayError::Failed(format!("{error:#}"));
        if let Err(error) = self.keep(&new).await {
            if error.is::<Unconfirmed>()
                && let Err(kept) = self.keep(&self.overlays).await
            {
                warn!("overlays that do not hold now may hold after a restart: {kept:#}");
            }
            return Err(failed(error));
        }
        if let Err(error) = relay.set_overlays(rules(&new)).await {
            // What holds now is what holds after a restart, too.
            if let Err(kept) = self.keep(&self.overlays).await {
                warn!("overlays that do not hold now will hold after a restart: {kept:#}");
            }
            return Err(failed(error));
        }
        self.overlays = new;
        Ok(())
    }
}
