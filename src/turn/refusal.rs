//! Why requests are refused: for each reason the error code, what the log says, the section of the RFC that asks for it, the limit
//! that was reached, and what can be done.

use super::peers::Forbidden;
use crate::auth::AuthReason;

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The setting that sets it, or what does so outside of the configuration.
    pub setting: &'static str,
    /// Its value.
    pub value: u64,
}

/// The ports of relayed addresses, when none was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The first and the last port.
    pub range: (u16, u16),
    /// How many there are, of all addresses of the families that were asked for.
    pub ports: u64,
    /// How many of these are in use.
    pub in_use: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// It is not authenticated.
    Auth(AuthReason),
    /// An attribute cannot be parsed.
    MalformedAttribute,
    /// Comprehension-required attributes are unknown.
    UnknownAttribute,
    /// There is no allocation on the 5-tuple.
    NoAllocation,
    /// The 5-tuple has an allocation already.
    HasAllocation,
    /// The client is behind a tunnel of this kind.
    Tunnelled(&'static str),
    /// A proxy names a client whose address is loopback or unspecified.
    ProxiedClient,
    /// The peer may not be reached.
    Peer(Forbidden),
    /// Allocate without REQUESTED-TRANSPORT.
    NoTransport,
    /// REQUESTED-TRANSPORT is not UDP.
    TransportNotUdp,
    /// RESERVATION-TOKEN with attributes that it excludes.
    TokenWithOthers,
    /// Both attributes for address families.
    BothFamilies,
    /// EVEN-PORT with the R bit and two families.
    ReserveForBoth,
    /// ADDITIONAL-ADDRESS-FAMILY is not IPv6.
    AdditionalNotV6,
    /// No relayed addresses of the family.
    FamilyUnsupported,
    /// The relay drains, and no sibling fits.
    Draining {
        /// Whether any sibling is configured.
        has_siblings: bool,
    },
    /// The relay drains and names a sibling.
    SentToSibling,
    /// The listener is being removed.
    ListenerRemoved,
    /// As many allocations as allowed in total.
    Allocations(u64),
    /// The worker has as many pending requests as it may have.
    Pending(u64),
    /// The user makes new allocations too fast.
    AllocationRate(u64),
    /// The user has as many allocations as allowed.
    UserQuota(UserQuota),
    /// No port of a relayed address is free.
    NoPort(PortUse),
    /// The limit on open files leaves no room for another relay socket.
    OpenFiles(u64),
    /// The system refused a relay socket.
    SocketFailed,
    /// There is no relayed address at this time.
    NoAddress,
    /// The user has as many unclaimed reservations as allowed.
    UserReservations(u64),
    /// All users together have as many unclaimed reservations as allowed.
    Reservations(u64),
    /// The reservation does not exist.
    UnknownToken,
    /// No relay socket was opened in time.
    TooSlow,
    /// No XOR-PEER-ADDRESS.
    NoPeer,
    /// The allocation has no address of the peer's family.
    PeerFamily,
    /// The allocation has no address of the family to refresh.
    OtherFamily,
    /// As many permissions as allowed.
    Permissions(u64),
    /// As many channels as allowed.
    Channels(u64),
    /// New peers too fast.
    NewPeers(u64),
    /// No CHANNEL-NUMBER.
    NoChannel,
    /// A channel number outside of the range of RFC 8656, which RFC 5766 allows.
    Rfc5766Channel,
    /// A channel number outside of the range of RFC 8656.
    ChannelRange,
    /// A channel number outside of the range of RFC 5766.
    ChannelRange5766,
    /// The channel is bound to another peer.
    ChannelTaken,
    /// The peer is bound to another channel.
    PeerTaken,
}

/// Whose quota was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserQuota {
    /// That of a user in the configuration.
    Static(u64),
    /// That of everybody else.
    Person(u64),
    /// That of probes.
    Probes(u64),
}

/// What is known about a reason whoever is refused.
struct Row {
    code: u16,
    text: &'static str,
    rfc: &'static str,
    fix: &'static str,
    limit: Option<Limit>,
}

/// The place of a limit that cannot be changed.
const CONSTANT: &str = "a constant of this program";

const ALLOCATE: &str = "RFC 8656 section 7.2";
const LIBRARY: &str = "the client's TURN library is at fault: update it";

impl RefusalReason {
    /// The error code of the response.
    pub fn code(self) -> u16 {
        self.row().code
    }

    /// The text in logs.
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// The section of the RFC that asks for this response.
    pub fn rfc(self) -> &'static str {
        self.row().rfc
    }

    /// What can be done, unless more is known.
    pub fn fix(self) -> &'static str {
        self.row().fix
    }

    /// The limit that was reached.
    pub fn limit(self) -> Option<Limit> {
        self.row().limit
    }

    /// Whether the peer that it is about is this relay itself.
    pub fn is_about_own_address(self) -> bool {
        matches!(self, RefusalReason::Peer(Forbidden::Own | Forbidden::NoAllocation | Forbidden::Endpoint))
    }

    fn row(self) -> Row {
        let row = |code, text, rfc, fix| Row { code, text, rfc, fix, limit: None };
        let limit = |setting, value, row| Row { limit: Some(Limit { setting, value }), ..row };
        match self {
            RefusalReason::Auth(reason) => {
                let rfc = match reason {
                    AuthReason::OtherUser => "RFC 8656 section 5",
                    AuthReason::PasswordAlgorithms
                    | AuthReason::NoCredentials
                    | AuthReason::MissingAttribute
                    | AuthReason::WrongRealm
                    | AuthReason::UnknownUser
                    | AuthReason::NoKey
                    | AuthReason::WrongPassword
                    | AuthReason::Expired
                    | AuthReason::ExpiryTooFar
                    | AuthReason::Revoked
                    | AuthReason::StaleNonce
                    | AuthReason::ForeignNonce => "RFC 8489 section 9.2.4",
                };
                row(reason.code(), reason.as_str(), rfc, reason.default_fix())
            }
            RefusalReason::MalformedAttribute => {
                row(400, "malformed attribute", "RFC 8489 section 6.3.1", LIBRARY)
            }
            RefusalReason::UnknownAttribute => row(
                420,
                "unknown attribute",
                "RFC 8489 section 6.3.1",
                "the client needs an extension that this relay does not have: turn it off in the client",
            ),
            RefusalReason::NoAllocation => row(
                437,
                "no allocation on this 5-tuple",
                "RFC 8656 section 5",
                "its allocation has ended, or its NAT gave it another port: the client must make a new one; look for the line \
                 \"allocation closed\" of this client",
            ),
            RefusalReason::HasAllocation => row(
                437,
                "the 5-tuple has an allocation",
                ALLOCATE,
                "the client uses a port again whose allocation it has not deleted: it must use another port, or delete it with \
                 Refresh",
            ),
            RefusalReason::Tunnelled(name) => row(
                403,
                name,
                "RFC 8656 section 21.4",
                "RFC 8656 section 21.4 forbids it; the client must use its IPv4 address or native IPv6",
            ),
            RefusalReason::ProxiedClient => row(
                400,
                "a proxy sent an address that no client has",
                "RFC 8489 section 5",
                "a proxy in front of that proxy must pass the client's address on, with a PROXY header of its own (HAProxy: send-proxy and \
                 accept-proxy, nginx: proxy_protocol)",
            ),
            RefusalReason::Peer(why) => {
                let (rfc, fix) = match why {
                    Forbidden::PortZero => ("RFC 8656 section 12.2", LIBRARY),
                    Forbidden::Never(_) => (
                        "RFC 8656 section 21.4",
                        "no setting opens such an address: the peer must offer a native one",
                    ),
                    Forbidden::NotForProbes => {
                        ("RFC 8656 section 21.1", "use credentials of a user to reach other peers")
                    }
                    Forbidden::Endpoint
                    | Forbidden::Special(_)
                    | Forbidden::Denied
                    | Forbidden::Unlisted
                    | Forbidden::NotInOverlay
                    | Forbidden::Own
                    | Forbidden::NoAllocation => (
                        "RFC 8656 section 21.1",
                        "no rule opens it; a server on this machine, such as an SFU, needs another port",
                    ),
                };
                row(403, why.as_str(), rfc, fix)
            }
            RefusalReason::NoTransport => row(400, "no REQUESTED-TRANSPORT", ALLOCATE, LIBRARY),
            RefusalReason::TransportNotUdp => row(
                442,
                "REQUESTED-TRANSPORT is not UDP",
                ALLOCATE,
                "this relay has no TCP relaying (RFC 6062): the client must ask for UDP, which it may do over TCP or TLS as well",
            ),
            RefusalReason::TokenWithOthers => {
                row(400, "RESERVATION-TOKEN beside EVEN-PORT or an address family", ALLOCATE, LIBRARY)
            }
            RefusalReason::BothFamilies => {
                row(400, "REQUESTED- and ADDITIONAL-ADDRESS-FAMILY in one request", ALLOCATE, LIBRARY)
            }
            RefusalReason::ReserveForBoth => {
                row(400, "a port to reserve beside ADDITIONAL-ADDRESS-FAMILY", ALLOCATE, LIBRARY)
            }
            RefusalReason::AdditionalNotV6 => {
                row(400, "ADDITIONAL-ADDRESS-FAMILY is not IPv6", ALLOCATE, LIBRARY)
            }
            RefusalReason::FamilyUnsupported => row(
                440,
                "no relayed addresses of this family",
                ALLOCATE,
                "list an address of this family in relay.addresses",
            ),
            RefusalReason::Draining { has_siblings } => row(
                508,
                "the relay drains and makes no new allocations",
                ALLOCATE,
                if has_siblings {
                    "no [[sibling]] has an address of the client's family and a port for its transport; over TLS its certificate \
                     must name its address, too (certificate_names_address)"
                } else {
                    "list other relays that accept the same credentials in [[sibling]], or give clients their URLs"
                },
            ),
            RefusalReason::SentToSibling => row(
                300,
                "the relay drains and sends new clients to a sibling",
                "RFC 8489 section 10",
                "nothing: clients go on at the sibling; `hairpin ctl undrain` ends the drain",
            ),
            RefusalReason::ListenerRemoved => row(
                508,
                "its listener is being removed",
                ALLOCATE,
                "the configuration does not have this listener any more: clients must use another one, or list it again",
            ),
            RefusalReason::Allocations(value) => limit(
                "limits.allocations",
                value,
                row(508, "too many allocations", ALLOCATE, "raise limits.allocations"),
            ),
            RefusalReason::Pending(value) => limit(
                CONSTANT,
                value,
                row(
                    508,
                    "too many pending requests",
                    ALLOCATE,
                    "requests come faster than relay sockets are opened: give the relay more CPUs and raise `workers`",
                ),
            ),
            // RFC 8656 §7.2, 12.: 486 is for quotas that depend on the user. 508 would say that the relay is full.
            RefusalReason::AllocationRate(value) => limit(
                "limits.new_allocations_rate",
                value,
                row(
                    486,
                    "the user makes new allocations too fast",
                    ALLOCATE,
                    "raise limits.new_allocations_rate",
                ),
            ),
            RefusalReason::UserQuota(quota) => {
                let (setting, value, fix) = match quota {
                    UserQuota::Static(value) => (
                        "auth.user.allocations",
                        value,
                        "raise allocations in the [[auth.user]] of this name",
                    ),
                    UserQuota::Person(value) => {
                        ("limits.user_allocations", value, "raise limits.user_allocations")
                    }
                    UserQuota::Probes(value) => {
                        (CONSTANT, value, "let fewer programs probe the relay at a time")
                    }
                };
                let text = "the user has as many allocations as allowed";
                limit(setting, value, row(486, text, ALLOCATE, fix))
            }
            RefusalReason::NoPort(value) => limit(
                "relay.ports",
                value.ports,
                row(
                    508,
                    "no relayed address is free",
                    ALLOCATE,
                    "widen relay.ports, or add an address to relay.addresses",
                ),
            ),
            RefusalReason::OpenFiles(value) => limit(
                "LimitNOFILE",
                value,
                row(
                    508,
                    "no file descriptor is left for a relay socket",
                    ALLOCATE,
                    "raise LimitNOFILE (systemd) or `ulimit -Hn`",
                ),
            ),
            RefusalReason::SocketFailed => row(
                508,
                "no relay socket could be opened",
                ALLOCATE,
                "the warning \"a relay socket could not be opened\" says why",
            ),
            RefusalReason::NoAddress => row(
                508,
                "this machine has no address to relay with yet",
                ALLOCATE,
                "see /readyz, or correct relay.addresses",
            ),
            RefusalReason::UserReservations(value) => limit(
                CONSTANT,
                value,
                row(
                    508,
                    "16 reserved ports of this user are not claimed yet",
                    ALLOCATE,
                    "if its clients do not claim them, lower limits.reservation_lifetime",
                ),
            ),
            RefusalReason::Reservations(value) => limit(
                CONSTANT,
                value,
                row(
                    508,
                    "too many reserved ports are not claimed yet",
                    ALLOCATE,
                    "if clients do not claim them, lower limits.reservation_lifetime",
                ),
            ),
            RefusalReason::UnknownToken => row(
                508,
                "the reservation does not exist or has expired",
                ALLOCATE,
                "if clients come too late, raise limits.reservation_lifetime",
            ),
            RefusalReason::TooSlow => row(
                508,
                "no relay socket was opened in time",
                ALLOCATE,
                "the machine is overloaded, or the relay stops: see the lines before",
            ),
            RefusalReason::NoPeer => row(400, "no XOR-PEER-ADDRESS", "RFC 8656 section 10.2", LIBRARY),
            RefusalReason::PeerFamily => row(
                443,
                "the peer's address family is not the allocation's",
                "RFC 8656 section 10.2",
                "the client must ask for an allocation of that family, or of both; the relay needs an address of it in \
                 relay.addresses",
            ),
            RefusalReason::OtherFamily => {
                row(443, "the allocation has no address of this family", "RFC 8656 section 8.2", LIBRARY)
            }
            RefusalReason::Permissions(value) => limit(
                "limits.permissions",
                value,
                row(508, "too many permissions", "RFC 8656 section 10.2", "raise limits.permissions"),
            ),
            RefusalReason::Channels(value) => limit(
                "limits.channels",
                value,
                row(508, "too many channels", "RFC 8656 section 12.2", "raise limits.channels"),
            ),
            RefusalReason::NewPeers(value) => limit(
                "limits.new_peers",
                value,
                row(508, "too many new peers per second", "RFC 8656 section 10.2", "raise limits.new_peers"),
            ),
            RefusalReason::NoChannel => row(400, "no CHANNEL-NUMBER", "RFC 8656 section 12.2", LIBRARY),
            RefusalReason::Rfc5766Channel => row(
                400,
                "channel number out of range: RFC 8656 allows 0x4000-0x4FFF",
                "RFC 8656 section 12.2",
                "clients of RFC 5766, such as older versions of coturn's tools, use 0x4000-0x7FFE: to accept these, set \
                 listen.rfc5766_channels = true",
            ),
            RefusalReason::ChannelRange => row(
                400,
                "channel number out of range: RFC 8656 allows 0x4000-0x4FFF",
                "RFC 8656 section 12.2",
                LIBRARY,
            ),
            RefusalReason::ChannelRange5766 => row(
                400,
                "channel number out of range: RFC 5766 allows 0x4000-0x7FFE",
                "RFC 5766 section 11.2",
                LIBRARY,
            ),
            RefusalReason::ChannelTaken => {
                row(400, "the channel is bound to another peer", "RFC 8656 section 12.2", LIBRARY)
            }
            RefusalReason::PeerTaken => {
                row(400, "the peer is bound to another channel", "RFC 8656 section 12.2", LIBRARY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counted::Counted;

    /// The reason declared after this one, so that no reason is left out.
    fn after(reason: RefusalReason) -> Option<RefusalReason> {
        use RefusalReason::*;
        let ports = PortUse { range: (49152, 65535), ports: 16384, in_use: 16384 };
        Some(match reason {
            Auth(_) => MalformedAttribute,
            MalformedAttribute => UnknownAttribute,
            UnknownAttribute => NoAllocation,
            NoAllocation => HasAllocation,
            HasAllocation => Tunnelled("6to4"),
            Tunnelled(_) => ProxiedClient,
            ProxiedClient => Peer(Forbidden::PortZero),
            Peer(_) => NoTransport,
            NoTransport => TransportNotUdp,
            TransportNotUdp => TokenWithOthers,
            TokenWithOthers => BothFamilies,
            BothFamilies => ReserveForBoth,
            ReserveForBoth => AdditionalNotV6,
            AdditionalNotV6 => FamilyUnsupported,
            FamilyUnsupported => Draining { has_siblings: true },
            Draining { has_siblings: true } => Draining { has_siblings: false },
            Draining { has_siblings: false } => SentToSibling,
            SentToSibling => ListenerRemoved,
            ListenerRemoved => Allocations(7),
            Allocations(_) => Pending(7),
            Pending(_) => AllocationRate(7),
            AllocationRate(_) => UserQuota(super::UserQuota::Static(7)),
            UserQuota(super::UserQuota::Static(_)) => UserQuota(super::UserQuota::Person(7)),
            UserQuota(super::UserQuota::Person(_)) => UserQuota(super::UserQuota::Probes(7)),
            UserQuota(super::UserQuota::Probes(_)) => NoPort(ports),
            NoPort(_) => OpenFiles(7),
            OpenFiles(_) => SocketFailed,
            SocketFailed => NoAddress,
            NoAddress => UserReservations(7),
            UserReservations(_) => Reservations(7),
            Reservations(_) => UnknownToken,
            UnknownToken => TooSlow,
            TooSlow => NoPeer,
            NoPeer => PeerFamily,
            PeerFamily => OtherFamily,
            OtherFamily => Permissions(7),
            Permissions(_) => Channels(7),
            Channels(_) => NewPeers(7),
            NewPeers(_) => NoChannel,
            NoChannel => Rfc5766Channel,
            Rfc5766Channel => ChannelRange,
            ChannelRange => ChannelRange5766,
            ChannelRange5766 => ChannelTaken,
            ChannelTaken => PeerTaken,
            PeerTaken => return None,
        })
    }

    fn every() -> Vec<RefusalReason> {
        let forbidden = [
            Forbidden::PortZero,
            Forbidden::Never("Teredo"),
            Forbidden::Special("private"),
            Forbidden::Denied,
            Forbidden::Unlisted,
            Forbidden::NotInOverlay,
            Forbidden::Endpoint,
            Forbidden::Own,
            Forbidden::NoAllocation,
            Forbidden::NotForProbes,
        ];
        let auth = AuthReason::VALUES.iter().copied().map(RefusalReason::Auth);
        let first = RefusalReason::Auth(AuthReason::NoCredentials);
        let others = std::iter::successors(Some(first), |reason| after(*reason));
        auth.chain(forbidden.map(RefusalReason::Peer)).chain(others).collect()
    }

    /// Every refusal says by its code's name and by the RFC why it was refused, and what can be done.
    #[test]
    fn every_refusal_has_a_code_a_section_and_a_fix() {
        for reason in every() {
            assert_ne!(crate::wire::reason_phrase(reason.code()), "", "{reason:?}");
            assert!(reason.rfc().starts_with("RFC ") && reason.rfc().contains(" section "), "{reason:?}");
            assert!(!reason.text().is_empty() && reason.fix().len() > 20, "{reason:?}");
        }
    }

    /// Whoever is refused because something is used up is told what, how much there is, and where that is set.
    #[test]
    fn every_refusal_by_a_limit_names_it() {
        for reason in every().into_iter().filter(|reason| matches!(reason.code(), 486 | 508)) {
            let is_no_limit = matches!(
                reason,
                RefusalReason::Draining { .. }
                    | RefusalReason::ListenerRemoved
                    | RefusalReason::NoAddress
                    | RefusalReason::SocketFailed
                    | RefusalReason::UnknownToken
                    | RefusalReason::TooSlow
            );
            assert_eq!(reason.limit().is_none(), is_no_limit, "{reason:?}");
            let Some(Limit { setting, value }) = reason.limit() else { continue };
            assert!(value > 0);
            let is_setting = setting.starts_with("limits.") || setting == "relay.ports";
            assert!(!is_setting || reason.fix().contains(setting), "{reason:?}");
        }
    }
}
