//! Addresses that cannot be mistaken for one another, the 5-tuple that identifies an allocation (RFC 8656 section 6),
//! and the keys of the server's tables.

use std::fmt;
use std::net::SocketAddr;

use crate::counted::counted;
use crate::wire::Family;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address!(
    /// A client's transport address as this server sees it: its server-reflexive address.
    ClientAddr
);
address!(
    /// A peer's transport address as this server sees it.
    PeerAddr
);
address!(
    /// A relayed transport address: what peers send to.
    RelayedAddr
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

/// Client address, server address and transport: what identifies an allocation (RFC 8656 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The source of the client's packets. IPv6 flow labels are zero; link-local addresses keep their scope.
    pub client: ClientAddr,
    /// The destination of the client's packets, never a wildcard.
    pub server: SocketAddr,
    /// The transport of the client's packets.
    pub transport: Transport,
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
