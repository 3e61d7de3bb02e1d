//! What differs between two configurations, key by key, for the log of a reload. Values are not shown: some are secret, and the file
//! has them.

use super::table::{RELAY, TABLES};
use crate::config::kind::{FieldValue, Setting};
use crate::livekit::settings::{RelaySettings, Settings};

/// The keys whose values differ, in the order of the reference page.
pub fn changes(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let (mut before, mut after) = (old.clone(), new.clone());
    let differs = |key: &&Setting<Settings>| key.kind.value(&mut before) != key.kind.value(&mut after);
    let mut keys: Vec<&'static str> =
        TABLES.settings.iter().filter(differs).map(|setting| setting.key).collect();
    let relays = old.relays.iter().zip(&new.relays);
    if old.relays.len() != new.relays.len() || relays.into_iter().any(|(old, new)| !old.is_like(new)) {
        keys.insert(0, "relay");
    }
    keys
}

impl RelaySettings {
    /// Whether nothing about a relay has changed but contents of certificates.
    pub fn is_like(&self, other: &RelaySettings) -> bool {
        let values = |relay: &RelaySettings| -> Vec<FieldValue> {
            let mut relay = relay.clone();
            RELAY.iter().map(|setting| setting.kind.value(&mut relay)).collect()
        };
        values(self) == values(other)
    }
}
