//! `[[listener]]`: how a section becomes a listener. Its keys are in the table.

use std::net::IpAddr;
use std::ops::Range;

use super::listener::{ListenerPeers, ListenerSettings, PeersMode, Places};
use super::section::Refusal;
use super::settings::Settings;
use crate::turn::Transport;
use crate::turn::peers::PeerRule;

/// A section that is being read.
pub struct ListenerDraft {
    /// The address and its bytes in the file.
    pub address: Placed<Option<IpAndPort>>,
    pub transports: Placed<Vec<Transport>>,
    pub mode: PeersMode,
    pub allow: Placed<Vec<PeerRule>>,
    pub deny: Placed<Vec<PeerRule>>,
}

/// An address, and the port if one is written.
pub type IpAndPort = (IpAddr, Option<u16>);

/// A value and its bytes in the file.
#[derive(Clone, Default)]
pub struct Placed<X> {
    pub value: X,
    pub at: Range<usize>,
}

impl Default for ListenerDraft {
    fn default() -> Self {
        ListenerDraft {
            address: Placed::default(),
            transports: Placed { value: vec![Transport::Udp, Transport::Tcp], at: 0..0 },
            mode: PeersMode::Add,
            allow: Placed::default(),
            deny: Placed::default(),
        }
    }
}

/// The most sections: each opens several sockets per worker.
const MOST: usize = 256;

/// Adds a listener to the settings.
pub fn add(settings: &mut Settings, draft: ListenerDraft) -> Result<(), Refusal> {
    let ListenerDraft { address, transports, mode, allow, deny } = draft;
    let refusal = |key, what, fix| Err(Refusal { key, what, fix });
    let Some((ip, port)) = address.value else {
        return refusal("address", "the listener has no address", "write one like \"192.0.2.1:3478\"");
    };
    if transports.value.is_empty() {
        let fix = "list \"udp\", \"tcp\" or \"tls\", or remove the section";
        return refusal("transports", "the listener has no transport", fix);
    }
    if settings.listener.len() >= MOST {
        return refusal("address", "there are more than 256 [[listener]] sections", "remove some");
    }
    let places = Places { address: address.at, transports: transports.at, allow: allow.at, deny: deny.at };
    let peers = ListenerPeers { mode, allow: allow.value, deny: deny.value };
    settings.listener.push(ListenerSettings { ip, port, transports: transports.value, peers, places });
    Ok(())
}
