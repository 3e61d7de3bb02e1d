//! What the server hands out: forwarding decisions by value, everything slower as an [`Output`].

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::bucket::UnsignedResponse;
use super::peers::{Remedy, Scope};
use super::{
    AllocationId, AllocationName, Families, FiveTuple, Limit, PeerAddr, PerFamily, PortUse, RefusalReason,
    RelayId, RelaySocketId, RelayedAddr, Ticket, Tos,
};
use crate::auth::{Account, AuthScheme};
use crate::counted::counted;
use crate::wire::{self, Family, Method, TransactionId};

/// The 8 bytes of RESERVATION-TOKEN (RFC 8656 section 18.10).
pub type Token = [u8; 8];

/// Send the payload of each segment of the run from a relayed address to a peer (RFC 8656 sections 11.2 and 12.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToPeer {
    /// The relay socket to send from.
    pub socket: RelaySocketId,
    /// The destination.
    pub peer: PeerAddr,
    /// The offset of the payload in each segment.
    pub offset: usize,
    /// The length of the payload in each segment; may be 0.
    pub len: usize,
    /// Set the DF bit (section 14).
    pub dont_fragment: bool,
    /// DSCP and ECN of the datagrams.
    pub tos: Tos,
}

/// Send each segment of the run to a client behind a header (RFC 8656 sections 11.3 and 12.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToClient {
    /// The destination, and the address to send from.
    pub tuple: FiveTuple,
    /// What goes before each payload.
    pub header: Header,
    /// DSCP and ECN of the datagrams.
    pub tos: Tos,
}

/// What an ICMP or ICMPv6 message said about a packet to a peer (RFC 8656 section 11.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type, numbered as in the peer's address family.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The next hop's MTU in bytes, if the message states one.
    pub mtu: u32,
}

/// What goes before a peer's payload on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header of a ChannelData message on this channel.
    Channel(u16),
    /// A Data indication up to the value of its DATA attribute.
    Data {
        /// The transaction id of the first segment.
        id: TransactionId,
        /// XOR-PEER-ADDRESS.
        peer: SocketAddr,
    },
}

impl Header {
    /// The length of the longest header.
    pub const MAX: usize = wire::DATA_INDICATION_HEADER_MAX;

    /// The length of the header.
    pub fn len(&self) -> usize {
        match self {
            Header::Channel(_) => wire::CHANNEL_HEADER,
            Header::Data { peer, .. } => wire::data_indication_header_len(Family::of(peer.ip())),
        }
    }

    /// Always false: a header is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many zero bytes follow a payload of this length in a datagram. ChannelData has none there (RFC 8656 section
    /// 12.5); in a stream [`wire::padding`] holds for both.
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

/// The transaction id of the `n`th indication of a run. Each has its own (RFC 8489 section 5), and all are as hard to
/// guess as the first, which is random.
fn nth(mut id: TransactionId, n: usize) -> TransactionId {
    for (byte, step) in id.0[8..].iter_mut().zip((n as u32).to_be_bytes()) {
        *byte ^= step;
    }
    id
}

/// Something to be done outside of the server.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a client.
    Reply {
        /// The destination, and the address to send from.
        to: FiveTuple,
        /// The whole message.
        message: Vec<u8>,
    },
    /// A question. The answer goes to [`Server::answered`](super::Server::answered), now or later.
    Ask {
        /// The request that waits for the answer.
        ticket: Ticket,
        /// The question.
        ask: Ask,
    },
    /// Close this relay socket. Closing the last one of an allocation releases its quota as well.
    CloseRelay(RelaySocketId),
    /// An allocation began.
    Opened(Opened),
    /// An allocation ended; its relay sockets were closed before.
    Closed(Closed),
    /// A client was refused, for the log.
    Refused(Refused),
    /// A response was withheld, because its receiver gets too many that are not signed; for the log.
    Withheld {
        /// The source of the request, which may be forged.
        from: FiveTuple,
        /// What was withheld.
        response: UnsignedResponse,
        /// How many of these per second the source may get.
        limit: Limit,
    },
    /// A request from a relayed address of this relay was dropped; for the log.
    NestedDropped {
        /// The relayed address, as the source of the request, and the listener.
        from: FiveTuple,
    },
    /// A packet to a closed port was dropped, for the log; at most once per allocation.
    ClosedPortDropped(ClosedPortDropped),
    /// A channel was bound or refreshed, or what holds for it has changed.
    ChannelBound(ChannelBound),
    /// A channel is no longer bound.
    ChannelUnbound {
        /// The relayed address that the channel used.
        relay: RelayId,
        /// The channel number.
        channel: u16,
    },
    /// A permission ended, but channels to ports of its address are still bound: data from the address is dropped, data
    /// to it is relayed (RFC 8656 section 12).
    PermissionLapsed {
        /// The relayed address that the channels use.
        relay: RelayId,
        /// The address of the peer.
        peer: IpAddr,
    },
    /// A permission for an address with bound channels was installed again.
    PermissionRestored {
        /// The relayed address that the channels use.
        relay: RelayId,
        /// The address of the peer.
        peer: IpAddr,
    },
}

/// Questions to the owner of sockets, quotas and reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reserve quota, then ports, then bind a relay socket of each family wanted.
    OpenRelay(RelayRequest),
    /// Take over a reserved relay socket (RFC 8656 section 7.2).
    ClaimReservation {
        /// The user whose quota is charged from now on.
        user: Account,
        /// The token of the reservation.
        token: Token,
    },
}

/// The relayed addresses that an Allocate request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRequest {
    /// The user whose quota is charged.
    pub user: Account,
    /// The address of the client.
    pub client: IpAddr,
    /// The families wanted, at least one.
    pub families: Families,
    /// The port wanted.
    pub port: PortRequest,
    /// The address that the client's request was sent to, and what it is called inside and outside of a NAT. A relayed
    /// address among them is preferred to others of its family.
    pub near: [IpAddr; 3],
}

/// Which ports an Allocate request accepts (RFC 8656 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRequest {
    /// Any port.
    Any,
    /// An even port: EVEN-PORT with R = 0.
    Even,
    /// An even port, and the next one is reserved for a later allocation: EVEN-PORT with R = 1.
    Pair,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one relay socket is open.
    Opened {
        /// The relay socket of each family that was wanted, or the failure to open it.
        relays: PerFamily<Option<Result<OpenedRelay, Shortage>>>,
        /// The reservation made for [`PortRequest::Pair`].
        token: Option<Token>,
    },
    /// Nothing was opened and nothing is held.
    Refused(Denial),
}

/// A relay socket that was opened for an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedRelay {
    /// The address it is bound to.
    pub addr: RelayedAddr,
    /// The name that its owner gave it.
    pub socket: RelaySocketId,
}

/// No relayed address of this family was free: 508 in ADDRESS-ERROR-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage;

/// Why no relay socket was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The user has as many allocations as allowed, which is so many: 486.
    Quota(usize),
    /// There are as many allocations as allowed in total, which is so many: 508.
    Total(usize),
    /// No port is free: 508.
    NoPort(PortUse),
    /// The limit on open files leaves room for so many relay sockets and connections, and there are as many: 508.
    OpenFiles(usize),
    /// The system refused a socket: 508.
    SocketFailed,
    /// There is no relay address of a family that was asked for: 508.
    NoAddress,
    /// The user has as many reserved ports as allowed, which is so many: 508.
    UserReservations(usize),
    /// All users together have as many reserved ports as allowed, which is so many: 508.
    Reservations(usize),
    /// The token of a reservation is unknown or has expired: 508.
    Token,
}

/// An allocation began.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The allocation.
    pub id: AllocationId,
    /// Its name for operators.
    pub session: AllocationName,
    /// The client's side.
    pub tuple: FiveTuple,
    /// The user: the name that quotas are counted by.
    pub user: Arc<str>,
    /// The relay sockets that belong to it from now on.
    pub relays: PerFamily<Option<OpenedRelay>>,
    /// Seconds granted.
    pub lifetime: u32,
    /// It is a probe's.
    pub is_probe: bool,
}

/// A bound channel: everything that a forwarding table outside of the server needs to relay its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBound {
    /// The client's side.
    pub tuple: FiveTuple,
    /// The relayed address that the channel uses.
    pub relay: RelayId,
    /// The relay socket of that address.
    pub socket: RelaySocketId,
    /// The address that the socket is bound to.
    pub relayed: RelayedAddr,
    /// The peer, as the client calls it.
    pub peer: PeerAddr,
    /// The address that packets to the peer are really sent to, and that packets from it really come from.
    pub sent_to: PeerAddr,
    /// The channel number.
    pub channel: u16,
    /// When the binding ends, in monotonic nanoseconds.
    pub expires: u64,
    /// Whether the peer's address has a permission. Without one, data from the peer is dropped.
    pub is_permitted: bool,
    /// Judges the peer's port: of a relayed address with each packet, as allocations come and go.
    pub scope: Scope,
    /// Bytes per second that the allocation may relay in each direction; 0 for no bound.
    pub bandwidth: u64,
}

/// An allocation ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The allocation.
    pub id: AllocationId,
    /// Its name for operators.
    pub session: AllocationName,
    /// The client's side.
    pub tuple: FiveTuple,
    /// The user: the name that quotas are counted by.
    pub user: Arc<str>,
    /// Why it ended.
    pub reason: CloseReason,
    /// How many seconds it lived.
    pub lived: u64,
    /// What it relayed.
    pub totals: Totals,
    /// It was a probe's.
    pub is_probe: bool,
}

counted! {
    /// Why an allocation ended.
    pub enum CloseReason {
        /// A Refresh with lifetime 0.
        Deleted = "deleted",
        /// It was not refreshed in time.
        Expired = "expired",
        /// The client's stream ended.
        ClientGone = "client_gone",
        /// An operator ended it.
        Ended = "ended",
        /// Its user was revoked.
        Revoked = "revoked",
        /// Its credential was removed from the configuration.
        Removed = "credential_removed",
        /// The server is shutting down.
        Shutdown = "shutdown",
    }
}

impl CloseReason {
    /// The text in logs.
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::Deleted => "deleted by the client",
            CloseReason::Expired => "expired",
            CloseReason::ClientGone => "the client's connection ended",
            CloseReason::Ended => "ended by an operator",
            CloseReason::Revoked => "its user was revoked",
            CloseReason::Removed => "its credential is no longer accepted",
            CloseReason::Shutdown => "server stops",
        }
    }

    /// Whether an operator wanted it: the client is to notice at once.
    pub fn is_by_operator(self) -> bool {
        match self {
            CloseReason::Ended | CloseReason::Revoked | CloseReason::Removed => true,
            CloseReason::Deleted | CloseReason::Expired | CloseReason::ClientGone | CloseReason::Shutdown => {
                false
            }
        }
    }
}

/// How much application data an allocation relayed, without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets from the client to peers.
    pub to_peer_packets: u64,
    /// The bytes of those packets.
    pub to_peer_bytes: u64,
    /// Packets from peers to the client.
    pub to_client_packets: u64,
    /// The bytes of those packets.
    pub to_client_bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        self.to_peer_packets += other.to_peer_packets;
        self.to_peer_bytes += other.to_peer_bytes;
        self.to_client_packets += other.to_client_packets;
        self.to_client_bytes += other.to_client_bytes;
    }

    /// Removes what has not left after all.
    pub(crate) fn subtract(&mut self, other: &Totals) {
        self.to_peer_packets = self.to_peer_packets.saturating_sub(other.to_peer_packets);
        self.to_peer_bytes = self.to_peer_bytes.saturating_sub(other.to_peer_bytes);
        self.to_client_packets = self.to_client_packets.saturating_sub(other.to_client_packets);
        self.to_client_bytes = self.to_client_bytes.saturating_sub(other.to_client_bytes);
    }
}

/// A packet from a client to a closed port of a permitted address was dropped: of this machine, or of one that the operator
/// allows with other ports. None has ever reached that port.
#[derive(Clone, Debug)]
pub struct ClosedPortDropped {
    /// The client.
    pub tuple: FiveTuple,
    /// The name of its allocation.
    pub session: AllocationName,
    /// The user: the name that quotas are counted by.
    pub user: Arc<str>,
    /// The peer, as the client named it.
    pub peer: PeerAddr,
    /// Why it was dropped.
    pub reason: RefusalReason,
    /// What the operator can change.
    pub remedy: Remedy,
}

/// What can be done so that a client is not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A sentence.
    Text(Cow<'static, str>),
    /// An entry for `peers.allow`.
    Peer(Remedy),
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fix::Text(text) => f.write_str(text),
            Fix::Peer(remedy) => remedy.fmt(f),
        }
    }
}

/// A client was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The client.
    pub tuple: FiveTuple,
    /// The user name it sent, if that is text.
    pub user: Option<Box<str>>,
    /// The method of the request.
    pub method: Method,
    /// The reason for the operator, which the response does not tell.
    pub reason: RefusalReason,
    /// What can be done.
    pub fix: Fix,
    /// The limit that was reached.
    pub limit: Option<Limit>,
    /// The name of the allocation on the 5-tuple.
    pub session: Option<AllocationName>,
    /// By which scheme the user would be accepted, if it was not.
    pub scheme: Option<AuthScheme>,
    /// When its credentials expire, in seconds from now, if that is why.
    pub expires_in: Option<i64>,
    /// The peer that the request was about.
    pub peer: Option<PeerAddr>,
    /// The channel number that is out of range.
    pub channel: Option<u16>,
    /// The sibling that the client was sent to.
    pub alternate: Option<SocketAddr>,
    /// The comprehension-required attributes that are unknown here.
    pub unknown: Vec<u16>,
}
