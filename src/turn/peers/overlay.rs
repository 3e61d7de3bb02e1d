//! Overlays: peers that programs name while the relay runs, such as the addresses of the SFU that they know.

use std::net::IpAddr;
use std::sync::Arc;

use super::PeerRule;
use super::scope::PortMap;

/// What an overlay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// Its peers may be reached in addition to what the operator's rules allow.
    Add,
    /// Clients reach only the peers that overlays name, and live relayed addresses of this relay.
    Only,
}

impl OverlayMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            OverlayMode::Add => "add",
            OverlayMode::Only => "only",
        }
    }

    /// The mode of a name.
    pub fn of(name: &str) -> Option<OverlayMode> {
        [OverlayMode::Add, OverlayMode::Only].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// All overlays together.
#[derive(Clone, Debug, Default)]
pub struct Overlays {
    /// Rules for single addresses, sorted by address. There may be thousands.
    named: Arc<[PeerRule]>,
    is_only: bool,
}

impl Overlays {
    /// `overlays` name single addresses; ranges are left out.
    pub fn new<'a>(overlays: impl IntoIterator<Item = (OverlayMode, &'a [PeerRule])>) -> Overlays {
        let (mut named, mut is_only) = (Vec::new(), false);
        for (mode, addresses) in overlays {
            is_only |= mode == OverlayMode::Only;
            named.extend(addresses.iter().filter(|rule| rule.range.is_one()));
        }
        named.sort_unstable_by_key(|rule: &PeerRule| rule.range.first());
        Overlays { named: named.into(), is_only }
    }

    /// Whether there is nothing to take into account.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && !self.is_only
    }

    /// Whether only named peers may be reached.
    pub(super) fn is_only(&self) -> bool {
        self.is_only
    }

    /// Which ports of an address are named. `is_here`: the address stands for this machine, of which only named ports are
    /// opened, never all of them.
    pub(super) fn names(&self, ip: IpAddr, is_here: bool) -> PortMap<bool> {
        let mut named = PortMap::new(false);
        let from = self.named.partition_point(|rule| rule.range.first() < ip);
        let about = self.named[from..].iter().take_while(|rule| rule.range.first() == ip);
        about
            .filter(|rule| rule.has_ports() || !is_here)
            .for_each(|rule| named.update(rule.ports(), |_| true));
        named
    }
}
