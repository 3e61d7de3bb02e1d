//! Addresses that cannot be mistaken for one another, and the 5-tuple that names an allocation (RFC 8656 section 6).

use std::fmt;
use std::net::SocketAddr;

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

/// What a client speaks to the relay over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream inside TLS.
    Tls,
}

impl Transport {
    /// Every transport, in the order of [`Transport::index`].
    pub const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

    /// Its place in tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it is a stream, which neither loses nor reorders, and ends.
    pub fn is_stream(self) -> bool {
        self != Transport::Udp
    }

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }
}

/// Client address, server address and transport: what identifies an allocation (RFC 8656 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Where the client's packets come from. IPv6 flow labels are zero; link-local addresses keep their scope.
    pub client: ClientAddr,
    /// Where they were sent to: the packet's own destination, never a wildcard.
    pub server: SocketAddr,
    /// What they came over.
    pub transport: Transport,
}

slotmap::new_key_type! {
    /// An allocation, or one that is being made, in its worker's table. Never reused.
    pub struct AllocationId;
}

/// One relayed address of an allocation: a dual allocation has one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId {
    /// Whose it is.
    pub allocation: AllocationId,
    /// Which of the two.
    pub family: Family,
}
