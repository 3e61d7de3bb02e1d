//! Whether new allocations are admitted, and the siblings that a draining relay sends its clients to (RFC 8489 §10, §14.15,
//! §14.16; RFC 8656 §7.2, 11.).

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{External, FiveTuple, PerFamily, Transport};
use crate::keyed::KeyedState;
use crate::wire::Family;

/// Whether clients get new allocations. Running ones are not affected.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// They do.
    #[default]
    Open,
    /// They are sent to one of these relays (300), or refused if there is none for them (508).
    Draining(Arc<[Sibling]>),
}

/// Another relay that accepts the same credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sibling {
    /// Where it serves each transport, in the order of [`Transport::ALL`].
    pub servers: [PerFamily<Option<SocketAddr>>; Transport::ALL.len()],
    /// The name in its certificate.
    pub domain: Option<Box<str>>,
    /// Its certificate names its addresses too.
    pub certificate_names_address: bool,
}

/// Where a client is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternate {
    /// The address of the client's own family.
    pub(super) server: SocketAddr,
    /// The same relay in the other family.
    pub(super) other: Option<SocketAddr>,
    /// The name in its certificate, for TLS clients.
    pub(super) domain: Option<Box<str>>,
    /// The client gets a nonce with which it begins anew there.
    pub(super) nonce: bool,
}

impl Admission {
    /// The sibling that takes over a client: by its 5-tuple, so that a retransmission gets the same response and clients are
    /// spread over all siblings. `None`: there is none for its transport and family.
    pub(super) fn alternate(
        siblings: &[Sibling],
        tuple: &FiveTuple,
        external: &External,
        hash: KeyedState,
    ) -> Option<Alternate> {
        // A client that is sent back to where it asked would ask there again.
        let here = [tuple.server, external.outside(tuple.server)];
        let suitable = || {
            siblings.iter().filter_map(|one| one.alternate(tuple)).filter(|one| !here.contains(&one.server))
        };
        let count = suitable().count() as u64;
        let chosen = hash.hash_one(tuple).checked_rem(count)?;
        suitable().nth(chosen as usize)
    }
}

impl Sibling {
    fn alternate(&self, tuple: &FiveTuple) -> Option<Alternate> {
        let is_tls = match tuple.transport {
            Transport::Udp | Transport::Tcp => false,
            Transport::Tls => true,
        };
        // libwebrtc forgets the host name of its URL when it follows a 300, and expects the address in the certificate.
        if is_tls && !self.certificate_names_address {
            return None;
        }
        let servers = &self.servers[tuple.transport.index()];
        let (own, other) = match Family::of(tuple.client.0.ip()) {
            Family::V4 => (servers.v4, servers.v6),
            Family::V6 => (servers.v6, servers.v4),
        };
        // RFC 8489 §14.16: the name is for TLS.
        Some(Alternate { server: own?, other, domain: self.domain.clone().filter(|_| is_tls), nonce: false })
    }
}
