//! Counters of connections.

use std::io;
use std::time::Duration;

use super::StreamLimits;
use super::reassembly::StreamError;
use crate::counted::{Counters, counted};
use crate::histogram::{self, Histogram};
use crate::turn::{Limit, Transport};

counted! {
    /// Why a connection was closed right after it was accepted.
    pub enum AdmissionRefusal {
        /// No more connections are possible, and none without an allocation can make room.
        Connections = "connections",
        /// The limit on connections without an allocation per source was reached.
        ConnectionsPerSource = "connections_per_source",
    }
}

counted! {
    /// Why a connection ended.
    pub enum ConnectionEnd {
        /// The client closed it in an orderly way.
        Client = "client",
        /// It was reset, or the client is unreachable.
        Reset = "reset",
        /// The bytes were not a message, so the rest of the stream cannot be framed.
        Unframed = "unframed",
        /// It was closed or reset before a byte had arrived.
        NoBytes = "no_bytes",
        /// The client spoke a protocol that its listener does not serve.
        NotServed = "not_served",
        /// A PROXY header came from a source that is not trusted.
        UntrustedProxyHeader = "untrusted_proxy_header",
        /// A trusted proxy sent no PROXY header, and it is required.
        MissingProxyHeader = "missing_proxy_header",
        /// The PROXY header of a trusted proxy was not valid.
        InvalidProxyHeader = "invalid_proxy_header",
        /// The ClientHello was longer than is put together.
        ClientHelloTooLarge = "client_hello_too_large",
        /// ChannelData on a connection that never had an allocation.
        ChannelTooEarly = "channel_data_without_allocation",
        /// The bytes were not valid TLS.
        Tls = "tls",
        /// The first message was not complete in time.
        NoMessage = "no_message",
        /// The client was silent after its TLS handshake, for a name with a web server: browsers connect ahead of their requests.
        NoRequest = "no_request",
        /// A message that had started was not complete in time.
        Unfinished = "unfinished_message",
        /// A client without an allocation was silent for too long.
        Idle = "idle",
        /// The client sent requests, but did not read the responses.
        NotRead = "responses_not_read",
        /// It had no allocation and made room for a new connection.
        Displaced = "displaced",
        /// This machine had no file descriptors or memory for it.
        System = "system",
        /// An operator has ended its allocation.
        Operator = "ended_by_operator",
        /// The server shut down.
        Shutdown = "shutdown",
    }
}

counted! {
    /// Why a TLS handshake failed.
    pub enum HandshakeFailure {
        /// It took too long.
        TooSlow = "too_slow",
        /// The client closed or reset the connection.
        Gone = "client_gone",
        /// What the client sent looked like TLS, and was not valid.
        NotTls = "not_tls",
        /// The client asked for a name that no certificate is for, and such clients are refused.
        UnknownName = "unknown_name",
        /// No version, cipher suite or key exchange in common.
        NothingInCommon = "nothing_in_common",
        /// An authority wanted to validate a name by TLS-ALPN-01, which nobody answers here.
        OnlyAcme = "only_acme",
        /// The client sent an alert, usually because it does not trust the certificate.
        Refused = "refused_by_client",
        /// Anything else.
        Other = "other",
    }
}

impl ConnectionEnd {
    /// Why a stream that has begun as TURN cannot go on.
    pub(in crate::datapath) fn not_turn(error: StreamError) -> (ConnectionEnd, String) {
        let why = match error {
            StreamError::TooEarly => ConnectionEnd::ChannelTooEarly,
            StreamError::Framing(_) => ConnectionEnd::Unframed,
        };
        (why, error.to_string())
    }
}

impl ConnectionEnd {
    /// Whether its end needs no line of its own: clients do this every day, or another line says so.
    pub(in crate::datapath) fn is_ordinary(self) -> bool {
        match self {
            ConnectionEnd::Client
            | ConnectionEnd::Reset
            | ConnectionEnd::Idle
            | ConnectionEnd::Operator
            | ConnectionEnd::Shutdown
            | ConnectionEnd::Displaced
            | ConnectionEnd::Unframed
            | ConnectionEnd::NoBytes
            | ConnectionEnd::NoRequest
            | ConnectionEnd::NotServed
            | ConnectionEnd::UntrustedProxyHeader
            | ConnectionEnd::MissingProxyHeader
            | ConnectionEnd::InvalidProxyHeader
            | ConnectionEnd::ChannelTooEarly => true,
            ConnectionEnd::Tls
            | ConnectionEnd::ClientHelloTooLarge
            | ConnectionEnd::NoMessage
            | ConnectionEnd::Unfinished
            | ConnectionEnd::NotRead
            | ConnectionEnd::System => false,
        }
    }

    /// What can be done about it.
    pub(in crate::datapath) fn fix(self) -> &'static str {
        match self {
            ConnectionEnd::Client => "nothing: the client has closed it",
            ConnectionEnd::Reset => {
                "the client, or something on its way, has cut it: look at its network and at firewalls"
            }
            ConnectionEnd::Unframed => {
                "only TURN clients may use this port; if it was one, its TURN library is at fault: update it"
            }
            ConnectionEnd::NoBytes => {
                "nothing: the client has only tested whether the port is open, as balancers do"
            }
            ConnectionEnd::NotServed => {
                "give clients the URL that is right for this port, or let its [[listener]] serve what they speak"
            }
            ConnectionEnd::UntrustedProxyHeader => {
                "list the proxy in proxy_from of the [[listener]], or turn the PROXY protocol off in the proxy"
            }
            ConnectionEnd::MissingProxyHeader => {
                "turn the PROXY protocol on in the proxy, or set proxy = \"optional\" in the [[listener]]"
            }
            ConnectionEnd::InvalidProxyHeader => {
                "the proxy must send a header of the PROXY protocol, version 1 or 2"
            }
            ConnectionEnd::ClientHelloTooLarge => {
                "the client is not a usual TLS client: those of browsers have about 2 KiB; usually an attack"
            }
            ConnectionEnd::ChannelTooEarly => "the client's TURN library is at fault: update it",
            ConnectionEnd::Tls => {
                "something on the client's way changes its bytes, such as a proxy that inspects TLS"
            }
            ConnectionEnd::NoMessage => {
                "the client has sent nothing, as port scanners do, or only a part of a message; for slow clients, raise \
                 limits.first_message_timeout"
            }
            ConnectionEnd::NoRequest => "nothing: browsers connect ahead of requests that may never come",
            ConnectionEnd::Unfinished => {
                "the client's network has failed in the middle of a message; for slow clients, raise limits.unfinished_message_timeout"
            }
            ConnectionEnd::Idle => "nothing: a client without an allocation was silent",
            ConnectionEnd::NotRead => {
                "the client sends requests and does not read: its program hangs, or its network has failed"
            }
            ConnectionEnd::Displaced => "raise limits.connections",
            ConnectionEnd::System => {
                "this process has too few file descriptors or too little memory: raise LimitNOFILE (systemd)"
            }
            ConnectionEnd::Operator => "nothing: an operator has ended its allocation",
            ConnectionEnd::Shutdown => "nothing: the relay stops",
        }
    }

    /// The limit by which it ended, in seconds.
    pub(in crate::datapath) fn limit(self, limits: &StreamLimits) -> Option<Limit> {
        let (setting, timeout) = match self {
            ConnectionEnd::NoMessage | ConnectionEnd::NoRequest => {
                ("limits.first_message_timeout", limits.first_message_timeout)
            }
            ConnectionEnd::Unfinished => {
                ("limits.unfinished_message_timeout", limits.unfinished_message_timeout)
            }
            ConnectionEnd::Idle | ConnectionEnd::NotRead => ("limits.idle_timeout", limits.idle_timeout),
            _ => return None,
        };
        Some(Limit { setting, value: timeout.as_secs() })
    }
}

impl HandshakeFailure {
    /// What can be done about it.
    pub(in crate::datapath) fn fix(self) -> &'static str {
        match self {
            HandshakeFailure::TooSlow => {
                "see the error: the client's network is slow or loses packets, or the relay has more handshakes than it can do; for slow \
                 clients, raise limits.handshake_timeout"
            }
            HandshakeFailure::Gone => {
                "nothing: the client has closed the connection, as programs do that test whether the port is open"
            }
            HandshakeFailure::NotTls => {
                "something on the client's way changes its bytes, or it does not speak TLS: give clients the URL that is right for this port"
            }
            HandshakeFailure::UnknownName => {
                "clients must use a name of a certificate in their turns: URL; list another certificate as [[tls.certificate]], or set \
                 tls.unknown_name; if it is the name of another server, give it a route in [listener.routes] of the [[listener]] with this port, \
                 or set its default_backend"
            }
            HandshakeFailure::NothingInCommon => "the client is too old: this relay speaks TLS 1.2 and 1.3",
            HandshakeFailure::OnlyAcme => {
                "validate the name by HTTP-01 or DNS-01, or pass the name on with a route to a server that answers"
            }
            HandshakeFailure::Refused => {
                "the client does not trust the certificate: it must be valid and for the name in the client's URL, and tls.cert must have the \
                 whole chain; browsers refuse self-signed certificates"
            }
            HandshakeFailure::Other => "see the error; if there is no certificate, set tls.cert and tls.key",
        }
    }

    /// Whether clients that only test whether the port is open cause it.
    pub(in crate::datapath) fn is_ordinary(self) -> bool {
        self == HandshakeFailure::Gone
    }

    /// Classifies an error of a handshake.
    pub(in crate::datapath) fn from_error(error: &io::Error) -> HandshakeFailure {
        use rustls::{AlertDescription, Error};
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
            Some(Error::PeerIncompatible(_)) => HandshakeFailure::NothingInCommon,
            Some(Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled)) => {
                HandshakeFailure::Gone
            }
            Some(Error::AlertReceived(_)) => HandshakeFailure::Refused,
            Some(_) => HandshakeFailure::Other,
            None => HandshakeFailure::Gone,
        }
    }
}

/// The bounds of [`StreamCounters::handshakes`]. The computation takes about a millisecond, round trips to the client the rest.
pub const HANDSHAKES: [Duration; 11] = histogram::microseconds([
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
]);

/// Counters of a worker's connections. Arrays by transport have TCP first, then TLS ([`StreamCounters::index`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Open connections; with TLS, only those whose handshake is complete.
    pub open: [u64; 2],
    /// Connections accepted.
    pub accepted: [u64; 2],
    /// Connections closed right after they were accepted, by reason.
    pub refused: [Counters<AdmissionRefusal>; 2],
    /// Connections that have ended, other than by a failed handshake, by reason.
    pub closed: [Counters<ConnectionEnd>; 2],
    /// How long TLS handshakes took, from the acceptance of the connection on, that were successful.
    pub handshakes: Histogram<{ HANDSHAKES.len() }>,
    /// TLS handshakes that failed, by reason.
    pub handshakes_failed: Counters<HandshakeFailure>,
    /// Data messages dropped because the client reads too slowly.
    pub data_dropped: [u64; 2],
    /// How often accepting paused because there were no file descriptors or no memory.
    pub accept_paused: u64,
}

impl StreamCounters {
    /// The index of a stream transport in arrays by transport.
    pub fn index(transport: Transport) -> usize {
        usize::from(transport == Transport::Tls)
    }

    pub(in crate::datapath) fn add(&mut self, other: &StreamCounters) {
        // Destructured without `..`, so that the compiler reports a missing counter.
        let StreamCounters {
            open,
            accepted,
            refused,
            closed,
            handshakes,
            handshakes_failed,
            data_dropped,
            accept_paused,
        } = other;
        add_all(&mut self.open, open);
        add_all(&mut self.accepted, accepted);
        self.refused.iter_mut().zip(refused).for_each(|(sum, part)| sum.add(part));
        self.closed.iter_mut().zip(closed).for_each(|(sum, part)| sum.add(part));
        self.handshakes.add(handshakes);
        self.handshakes_failed.add(handshakes_failed);
        add_all(&mut self.data_dropped, data_dropped);
        self.accept_paused += accept_paused;
    }
}

fn add_all(sum: &mut [u64], part: &[u64]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
