//! What is counted of streams.

use std::io;

use crate::turn::Transport;

/// Why a connection was closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionRefusal {
    /// As many connections as allowed.
    Connections,
    /// As many half-open ones as allowed.
    HalfOpen,
    /// As many half-open ones from one source as allowed.
    HalfOpenPerAddress,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client closed it.
    Client,
    /// It was reset, or the client is not there any more.
    Reset,
    /// What came is no message, so the stream cannot be read any further.
    Unframed,
    /// What came is no TLS.
    Tls,
    /// The first message did not come in time.
    NoMessage,
    /// The rest of a message did not come in time.
    Unfinished,
    /// A client without an allocation said nothing for too long.
    Idle,
    /// The client asked, but did not read the answers.
    NotRead,
    /// This machine had no descriptors or memory for it.
    System,
    /// The server stops.
    Shutdown,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    TooSlow,
    /// The client went away.
    Gone,
    /// What the client sent is no TLS.
    NotTls,
    /// No version, cipher suite, key exchange or application protocol in common.
    NothingInCommon,
    /// The client refused: usually it does not trust the certificate.
    Refused,
    /// Anything else.
    Other,
}

impl AdmissionRefusal {
    /// Every reason, in the order of [`StreamCounters::refused`].
    pub const ALL: [AdmissionRefusal; 3] =
        [AdmissionRefusal::Connections, AdmissionRefusal::HalfOpen, AdmissionRefusal::HalfOpenPerAddress];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AdmissionRefusal::Connections => "connections",
            AdmissionRefusal::HalfOpen => "half_open",
            AdmissionRefusal::HalfOpenPerAddress => "half_open_per_address",
        }
    }
}

impl ConnectionEnd {
    /// Every reason, in the order of [`StreamCounters::closed`].
    pub const ALL: [ConnectionEnd; 10] = [
        ConnectionEnd::Client,
        ConnectionEnd::Reset,
        ConnectionEnd::Unframed,
        ConnectionEnd::Tls,
        ConnectionEnd::NoMessage,
        ConnectionEnd::Unfinished,
        ConnectionEnd::Idle,
        ConnectionEnd::NotRead,
        ConnectionEnd::System,
        ConnectionEnd::Shutdown,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionEnd::Client => "client",
            ConnectionEnd::Reset => "reset",
            ConnectionEnd::Unframed => "unframed",
            ConnectionEnd::Tls => "tls",
            ConnectionEnd::NoMessage => "no_message",
            ConnectionEnd::Unfinished => "unfinished_message",
            ConnectionEnd::Idle => "idle",
            ConnectionEnd::NotRead => "answers_not_read",
            ConnectionEnd::System => "system",
            ConnectionEnd::Shutdown => "shutdown",
        }
    }
}

impl HandshakeFailure {
    /// Every reason, in the order of [`StreamCounters::handshakes_failed`].
    pub const ALL: [HandshakeFailure; 6] = [
        HandshakeFailure::TooSlow,
        HandshakeFailure::Gone,
        HandshakeFailure::NotTls,
        HandshakeFailure::NothingInCommon,
        HandshakeFailure::Refused,
        HandshakeFailure::Other,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::TooSlow => "too_slow",
            HandshakeFailure::Gone => "client_gone",
            HandshakeFailure::NotTls => "not_tls",
            HandshakeFailure::NothingInCommon => "nothing_in_common",
            HandshakeFailure::Refused => "refused_by_client",
            HandshakeFailure::Other => "other",
        }
    }

    /// What an error of a handshake means.
    pub(in crate::datapath) fn why(error: &io::Error) -> HandshakeFailure {
        use rustls::{AlertDescription, Error};
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => {
                HandshakeFailure::NothingInCommon
            }
            Some(Error::AlertReceived(AlertDescription::CloseNotify)) => HandshakeFailure::Gone,
            Some(Error::AlertReceived(_)) => HandshakeFailure::Refused,
            Some(_) => HandshakeFailure::Other,
            None => HandshakeFailure::Gone,
        }
    }
}

/// StreamCounters of a worker's streams. Those by transport have TCP first, then TLS ([`StreamCounters::place`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Connections that are open now; TLS ones once their handshake is done.
    pub open: [u64; 2],
    /// Connections accepted.
    pub accepted: [u64; 2],
    /// Of those, closed at once for a bound, by reason ([`AdmissionRefusal::ALL`]).
    pub refused: [[u64; AdmissionRefusal::ALL.len()]; 2],
    /// Connections that were open and ended, by reason ([`ConnectionEnd::ALL`]).
    pub closed: [[u64; ConnectionEnd::ALL.len()]; 2],
    /// TLS handshakes that failed, by reason ([`HandshakeFailure::ALL`]).
    pub handshakes_failed: [u64; HandshakeFailure::ALL.len()],
    /// Whole data messages dropped, since their client reads too slowly.
    pub data_dropped: [u64; 2],
    /// How often accepting had to pause: no descriptors or no memory.
    pub accept_paused: u64,
}

impl StreamCounters {
    /// Where the counters of a stream transport stand.
    pub fn place(transport: Transport) -> usize {
        usize::from(transport == Transport::Tls)
    }

    pub(in crate::datapath) fn add(&mut self, other: &StreamCounters) {
        // All of them are named, so that none is forgotten here.
        let StreamCounters {
            open,
            accepted,
            refused,
            closed,
            handshakes_failed,
            data_dropped,
            accept_paused,
        } = other;
        add_all(&mut self.open, open);
        add_all(&mut self.accepted, accepted);
        add_all(self.refused.as_flattened_mut(), refused.as_flattened());
        add_all(self.closed.as_flattened_mut(), closed.as_flattened());
        add_all(&mut self.handshakes_failed, handshakes_failed);
        add_all(&mut self.data_dropped, data_dropped);
        self.accept_paused += accept_paused;
    }
}

fn add_all(sum: &mut [u64], part: &[u64]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
