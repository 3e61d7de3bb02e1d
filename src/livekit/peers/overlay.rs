//! When the overlay of a relay has to be set: at the start, on change, and when the relay does not have it any more.

use std::sync::Arc;

use crate::livekit::relays::{OverlayStatus, RelayStatus};
use crate::livekit::settings::PeersMode;

/// What a relay was told.
#[derive(Default)]
pub struct Told {
    /// The status before it was told: until there is another, it says nothing about what the relay has.
    before: Option<Arc<RelayStatus>>,
    /// Whether the status after that one was seen. A request for it may have begun before, too.
    once: bool,
    last: Option<(String, Vec<String>)>,
}

/// What to do at a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has what it should have.
    Nothing,
    /// Set the overlay.
    Set,
    /// Remove the overlay.
    Clear,
}

impl Told {
    /// Judges by what a relay says of its overlays. `addresses` are sorted; `None` leaves what is there.
    pub fn judge(
        &mut self,
        status: &Arc<RelayStatus>,
        mode: PeersMode,
        addresses: Option<&[String]>,
    ) -> Step {
        let has = status.overlays.iter().find(|overlay| overlay.owner == crate::livekit::relays::OWNER);
        let mode = match mode {
            PeersMode::Off if has.is_some() && self.is_fresh(status) => return Step::Clear,
            PeersMode::Off => return Step::Nothing,
            PeersMode::Only => "only",
            PeersMode::Add => "add",
        };
        let Some(addresses) = addresses else { return Step::Nothing };
        let is_new = self.last.as_ref().is_none_or(|(told, list)| told != mode || list != addresses);
        match has.is_some_and(|has| is_like(has, mode, addresses)) {
            true => {
                self.last = Some((mode.to_owned(), addresses.to_vec()));
                Step::Nothing
            }
            false if is_new || self.is_fresh(status) => Step::Set,
            false => Step::Nothing,
        }
    }

    /// Notes that the relay was told something after it had said `status`.
    pub fn told(&mut self, status: &Arc<RelayStatus>, mode: PeersMode, addresses: &[String]) {
        let mode = if mode == PeersMode::Add { "add" } else { "only" };
        (self.before, self.once) = (Some(status.clone()), false);
        self.last = Some((mode.to_owned(), addresses.to_vec()));
    }

    /// Whether a status was asked for after the relay was told something.
    fn is_fresh(&mut self, status: &Arc<RelayStatus>) -> bool {
        match &self.before {
            None => true,
            Some(before) if Arc::ptr_eq(before, status) => false,
            Some(_) if !self.once => {
                (self.before, self.once) = (Some(status.clone()), true);
                false
            }
            Some(_) => true,
        }
    }
}

fn is_like(has: &OverlayStatus, mode: &str, addresses: &[String]) -> bool {
    let mut known = has.addresses.clone();
    known.sort_unstable();
    has.mode == mode && known == addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(overlays: serde_json::Value) -> Arc<RelayStatus> {
        let status = json!({
            "instance": "1", "version": "1", "ready": true, "not_ready": null, "draining": null, "ice_urls": [], "listeners": [],
            "relay_addresses": [], "overlays": overlays,
        });
        Arc::new(serde_json::from_value(status).unwrap())
    }

    fn with(mode: &str, addresses: &[&str]) -> Arc<RelayStatus> {
        status(json!([
            { "owner": "other", "mode": "add", "addresses": [], "since": "2026-12-01T08:00:00Z" },
            { "owner": "livekit", "mode": mode, "addresses": addresses, "since": "2026-12-01T08:00:00Z" },
        ]))
    }

    /// A relay that was restarted without its state, and one whose overlay somebody has cleared, get it again.
    #[test]
    fn an_overlay_is_set_when_it_is_not_there() {
        let wanted = ["8.8.4.4:7882".to_owned()];
        let mut told = Told::default();
        let (without, with) = (status(json!([])), with("only", &["8.8.4.4:7882"]));
        assert_eq!(told.judge(&without, PeersMode::Only, Some(&wanted)), Step::Set);
        told.told(&without, PeersMode::Only, &wanted);
        // Its status is older than the order
        assert_eq!(told.judge(&without, PeersMode::Only, Some(&wanted)), Step::Nothing);
        assert_eq!(told.judge(&with, PeersMode::Only, Some(&wanted)), Step::Nothing);
        let (first, second) = (status(json!([])), status(json!([])));
        let steps = [&first, &second].map(|now| told.judge(now, PeersMode::Only, Some(&wanted)));
        assert!(steps.contains(&Step::Set), "{steps:?}");
    }

    #[test]
    fn an_overlay_is_set_when_something_has_changed() {
        let (old, new) = (["8.8.4.4:7882".to_owned()], ["8.8.8.8:7882".to_owned()]);
        let mut told = Told::default();
        let has = with("only", &["8.8.4.4:7882"]);
        assert_eq!(told.judge(&has, PeersMode::Only, Some(&old)), Step::Nothing, "that of an earlier run");
        assert_eq!(told.judge(&has, PeersMode::Only, Some(&new)), Step::Set);
        assert_eq!(told.judge(&has, PeersMode::Add, Some(&old)), Step::Set);
        assert_eq!(told.judge(&has, PeersMode::Only, None), Step::Nothing, "nothing is known");
    }

    #[test]
    fn without_a_mode_an_overlay_of_ours_goes() {
        let mut told = Told::default();
        assert_eq!(told.judge(&with("only", &[]), PeersMode::Off, Some(&[])), Step::Clear);
        assert_eq!(told.judge(&status(json!([])), PeersMode::Off, Some(&[])), Step::Nothing);
    }
}
