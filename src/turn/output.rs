//! What the core hands out: forwarding decisions by value, everything slower as an [`Output`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::{AllocationId, FiveTuple, PeerAddr, RelayId, RelayedAddr, Tos};
use crate::wire::{self, Family, Method, TransactionId};

/// The 8 bytes of RESERVATION-TOKEN (RFC 8656 section 18.10).
pub type Token = [u8; 8];

/// Send the payload of each segment of the run from a relayed address to a peer (RFC 8656 sections 11.2 and 12.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToPeer {
    /// The relay socket to send from.
    pub relay: RelayId,
    /// Where to.
    pub peer: PeerAddr,
    /// Where the payload begins in each segment.
    pub offset: usize,
    /// Its length in each segment; may be 0.
    pub len: usize,
    /// Set the DF bit (section 14).
    pub dont_fragment: bool,
    /// DSCP and ECN of the datagrams.
    pub tos: Tos,
}

/// Send each segment of the run to a client behind a header (RFC 8656 sections 11.3 and 12.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToClient {
    /// Whom to, and the address to send from.
    pub tuple: FiveTuple,
    /// What goes before each payload.
    pub header: Header,
    /// DSCP and ECN of the datagrams.
    pub tos: Tos,
}

/// What an ICMP or ICMPv6 message said of a packet to a peer (RFC 8656 section 11.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Its type, of the peer's family.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The next hop's MTU in bytes, where the message says one.
    pub mtu: u32,
}

/// What stands before a peer's payload on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header of a ChannelData message on this channel.
    Channel(u16),
    /// All of a Data indication up to the value of its DATA attribute. `id` is that of the first segment.
    Data {
        /// The transaction id of the first segment.
        id: TransactionId,
        /// XOR-PEER-ADDRESS.
        peer: SocketAddr,
    },
}

impl Header {
    /// The longest header.
    pub const MAX: usize = wire::DATA_HEADER_MAX;

    /// Bytes before the payload.
    pub fn len(&self) -> usize {
        match self {
            Header::Channel(_) => wire::CHANNEL_HEADER,
            Header::Data { peer, .. } => wire::data_header_len(Family::of(peer.ip())),
        }
    }

    /// A header is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Zero bytes after a payload of this length in a datagram, where ChannelData has none (RFC 8656 section 12.5). In a
    /// stream it is [`wire::padding`] for both.
    pub fn padding(&self, payload: usize) -> usize {
        match self {
            Header::Channel(_) => 0,
            Header::Data { .. } => wire::padding(payload),
        }
    }

    /// Writes the header of the run's `n`th segment, whose payload has `payload` bytes, into the first
    /// [`Header::len`] bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than that.
    pub fn write(&self, n: usize, payload: usize, out: &mut [u8]) {
        match *self {
            Header::Channel(number) => {
                let header = out.first_chunk_mut().expect("room for the header");
                wire::ChannelHeader { number, len: payload as u16 }.write(header);
            }
            Header::Data { id, peer } => {
                let written = wire::data_indication_header(out, nth(id, n), peer, payload);
                assert!(written.is_some(), "room for the header");
            }
        }
    }
}

/// The transaction id of the `n`th indication of a run: each has its own (RFC 8489 section 5), all as hard to guess as
/// the first, which is random.
fn nth(mut id: TransactionId, n: usize) -> TransactionId {
    for (byte, step) in id.0[8..].iter_mut().zip((n as u32).to_be_bytes()) {
        *byte ^= step;
    }
    id
}

/// What the core wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a client.
    Reply {
        /// Whom to, and the address to send from.
        to: FiveTuple,
        /// The whole message.
        message: Vec<u8>,
    },
    /// A question; the answer goes to [`Server::answered`](super::Server::answered) with its ticket.
    Ask {
        /// What will be the allocation's id.
        ticket: AllocationId,
        /// The question.
        ask: Ask,
    },
    /// Close this relay socket. The last of an allocation gives its quota back too.
    CloseRelay(RelayId),
    /// An allocation began.
    Opened(Opened),
    /// An allocation ended; its relay sockets were closed before.
    Closed(Closed),
    /// A client was refused, for the log.
    Refused(Refused),
    /// A channel was bound or refreshed; all that a forwarding table elsewhere needs.
    ChannelBound {
        /// The client's side.
        tuple: FiveTuple,
        /// The relay socket.
        relay: RelayId,
        /// Its address.
        relayed: RelayedAddr,
        /// The peer's side.
        peer: PeerAddr,
        /// The channel number.
        channel: u16,
        /// When the binding ends, in monotonic nanoseconds.
        expires: u64,
    },
    /// A channel is no longer bound.
    ChannelUnbound {
        /// The relay socket.
        relay: RelayId,
        /// The channel number.
        channel: u16,
    },
}

/// Questions to the owner of sockets, quotas and reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reserve quota, then ports, then bind a relay socket of each family wanted.
    OpenRelay {
        /// Whose quota.
        user: Arc<str>,
        /// An IPv4 relayed address is wanted.
        v4: bool,
        /// An IPv6 relayed address is wanted.
        v6: bool,
        /// Which ports will do.
        port: PortRequest,
    },
    /// Take over a reserved relay socket (RFC 8656 section 7.2).
    ClaimReservation {
        /// Whose quota it counts on from now.
        user: Arc<str>,
        /// What was handed out for it.
        token: Token,
    },
}

/// Which ports will do (RFC 8656 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRequest {
    /// Any.
    Any,
    /// An even one: EVEN-PORT with R = 0.
    Even,
    /// An even one, and the next one is kept for a later allocation: EVEN-PORT with R = 1.
    Pair,
}

/// What an [`Ask`] is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one relay socket is open.
    Opened {
        /// The IPv4 one, or why not; `None` if not asked for.
        v4: Option<Result<RelayedAddr, Shortage>>,
        /// The IPv6 one, or why not; `None` if not asked for.
        v6: Option<Result<RelayedAddr, Shortage>>,
        /// The reservation made for [`PortRequest::Pair`].
        token: Option<Token>,
    },
    /// Nothing was opened, nothing is held.
    Refused(Denial),
}

/// No relayed address of this family was free: 508 in ADDRESS-ERROR-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage;

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The user has as many as allowed: 486.
    Quota,
    /// Nothing is free, or the token is not valid: 508.
    Capacity,
}

/// An allocation began.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Which.
    pub id: AllocationId,
    /// The client's side.
    pub tuple: FiveTuple,
    /// Whose it is: the name that quotas count by.
    pub user: Arc<str>,
    /// The IPv4 relayed address.
    pub v4: Option<RelayedAddr>,
    /// The IPv6 relayed address.
    pub v6: Option<RelayedAddr>,
    /// Seconds granted.
    pub lifetime: u32,
}

/// An allocation ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Which.
    pub id: AllocationId,
    /// The client's side.
    pub tuple: FiveTuple,
    /// Whose it was.
    pub user: Arc<str>,
    /// Why.
    pub reason: CloseReason,
    /// Seconds it lived.
    pub lived: u64,
    /// What it relayed.
    pub totals: Totals,
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A Refresh with lifetime 0.
    Deleted,
    /// Nobody refreshed it.
    Expired,
    /// The client's stream ended.
    ClientGone,
    /// The server stops.
    Shutdown,
}

impl CloseReason {
    /// Its name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Deleted => "deleted by the client",
            CloseReason::Expired => "expired",
            CloseReason::ClientGone => "the client's connection ended",
            CloseReason::Shutdown => "server stops",
        }
    }
}

/// What an allocation relayed: application data, without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets from the client to peers.
    pub to_peer_packets: u64,
    /// Their bytes.
    pub to_peer_bytes: u64,
    /// Packets from peers to the client.
    pub to_client_packets: u64,
    /// Their bytes.
    pub to_client_bytes: u64,
}

/// A client was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Who.
    pub tuple: FiveTuple,
    /// The user name it gave, as far as it is text.
    pub user: Option<Box<str>>,
    /// What it asked for.
    pub method: Method,
    /// The error code it got.
    pub code: u16,
    /// Why, for the operator: the wire does not tell.
    pub reason: &'static str,
    /// The peer it was about.
    pub peer: Option<SocketAddr>,
}
