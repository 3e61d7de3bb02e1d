//! Addresses that cannot be mistaken for one another, the 5-tuple that identifies an allocation (RFC 8656 section 6),
//! and the keys of the server's tables.

use std::convert::identity;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::counted::counted;
use crate::shown::Shown;
use crate::wire::Family;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident shows $shown:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&$shown(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

address!(
    /// A client's transport address as this server sees it: its server-reflexive address. It is formatted for the log.
    ClientAddr shows Shown
);
address!(
    /// A peer's transport address as this server sees it. It is formatted for the log.
    PeerAddr shows Shown
);
address!(
    /// A relayed transport address: what peers send to.
    RelayedAddr shows identity
);

counted! {
    /// The transport between a client and the relay.
    pub enum Transport {
        /// Datagrams.
        Udp = "udp",
        /// A stream.
        Tcp = "tcp",
        /// A stream inside TLS.
        Tls = "tls",
    }
}

impl Transport {
    /// Whether it is a stream: reliable, ordered, and with an end.
    pub fn is_stream(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp | Transport::Tls => true,
        }
    }
}

/// Who vouches for a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The kernel: its packets come from there.
    Direct,
    /// A proxy: the header of its connection says so. Two connections may say the same, so their numbers keep them apart; no
    /// other connection of the process has the number.
    Proxy(u64),
}

/// Client address, server address and transport: what identifies an allocation (RFC 8656 section 6). For a client behind a
/// proxy, the connection does so, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiveTuple {
    /// The source of the client's packets, or what a proxy says it is. IPv6 flow labels are zero; link-local addresses keep
    /// their scope.
    pub client: ClientAddr,
    /// The destination of the client's packets, never a wildcard.
    pub server: SocketAddr,
    /// The transport of the client's packets.
    pub transport: Transport,
    /// Who vouches for the client's address.
    pub via: Via,
}

impl Hash for FiveTuple {
    /// Writes as few words as possible, since each packet of a client is looked up.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (client, server) = (self.client.0, self.server);
        let ports = u64::from(client.port()) << 16 | u64::from(server.port());
        let rest = ports << 8 | self.transport as u64;
        match (client, server) {
            (SocketAddr::V4(client), SocketAddr::V4(server)) => {
                state.write_u64(u64::from(client.ip().to_bits()) << 32 | u64::from(server.ip().to_bits()));
                state.write_u64(rest);
            }
            _ => {
                let scope = if let SocketAddr::V6(client) = client { client.scope_id() } else { 0 };
                hash_ip(client.ip(), state);
                hash_ip(server.ip(), state);
                state.write_u64(u64::from(scope) << 40 | rest);
            }
        }
        // Nothing more for a datagram.
        if let Via::Proxy(connection) = self.via {
            state.write_u64(connection);
        }
    }
}

/// An IP address as the key of a table that each packet is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpKey(pub(super) IpAddr);

impl Hash for IpKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_ip(self.0, state);
    }
}

#[inline]
fn hash_ip<H: Hasher>(ip: IpAddr, state: &mut H) {
    match ip {
        IpAddr::V4(v4) => state.write_u64(v4.to_bits().into()),
        IpAddr::V6(v6) => state.write_u128(v6.to_bits()),
    }
}

slotmap::new_key_type! {
    /// An allocation in the table of its server. Ids are never reused.
    pub struct AllocationId;

    /// A pending request in the table of its server. Tickets are never reused.
    pub struct Ticket;
}

/// One relayed address of an allocation: a dual allocation has one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId {
    /// The allocation that has the address.
    pub allocation: AllocationId,
    /// The family of the address.
    pub family: Family,
}

/// A relay socket. Whoever owns the sockets chooses the number; the server stores it and never interprets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelaySocketId(pub u64);
