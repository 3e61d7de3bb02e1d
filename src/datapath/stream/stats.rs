//! What is counted of streams.

use std::io;

use crate::turn::Transport;

/// Why a connection was closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many connections as allowed.
    Connections,
    /// As many half-open ones as allowed.
    HalfOpen,
    /// As many half-open ones from one source as allowed.
    HalfOpenOfSource,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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
pub enum Failure {
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

impl Refusal {
    /// Every reason, in the order of [`Counters::refused`].
    pub const ALL: [Refusal; 3] = [Refusal::Connections, Refusal::HalfOpen, Refusal::HalfOpenOfSource];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::HalfOpen => "half_open",
            Refusal::HalfOpenOfSource => "half_open_of_source",
        }
    }
}

impl End {
    /// Every reason, in the order of [`Counters::closed`].
    pub const ALL: [End; 10] = [
        End::Client,
        End::Reset,
        End::Unframed,
        End::Tls,
        End::NoMessage,
        End::Unfinished,
        End::Idle,
        End::NotRead,
        End::System,
        End::Shutdown,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Reset => "reset",
            End::Unframed => "unframed",
            End::Tls => "tls",
            End::NoMessage => "no_message",
            End::Unfinished => "unfinished_message",
            End::Idle => "idle",
            End::NotRead => "answers_not_read",
            End::System => "system",
            End::Shutdown => "shutdown",
        }
    }
}

impl Failure {
    /// Every reason, in the order of [`Counters::handshakes_failed`].
    pub const ALL: [Failure; 6] = [
        Failure::TooSlow,
        Failure::Gone,
        Failure::NotTls,
        Failure::NothingInCommon,
        Failure::Refused,
        Failure::Other,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::TooSlow => "too_slow",
            Failure::Gone => "client_gone",
            Failure::NotTls => "not_tls",
            Failure::NothingInCommon => "nothing_in_common",
            Failure::Refused => "refused_by_client",
            Failure::Other => "other",
        }
    }

    /// What an error of a handshake means.
    pub(super) fn why(error: &io::Error) -> Failure {
        use rustls::{AlertDescription, Error};
        match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
            Some(Error::InvalidMessage(_)) => Failure::NotTls,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Failure::NothingInCommon,
            Some(Error::AlertReceived(AlertDescription::CloseNotify)) => Failure::Gone,
            Some(Error::AlertReceived(_)) => Failure::Refused,
            Some(_) => Failure::Other,
            None => Failure::Gone,
        }
    }
}

/// Counters of a worker's streams. Those by transport have TCP first, then TLS ([`Counters::place`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that are open now; TLS ones once their handshake is done.
    pub open: [u64; 2],
    /// Connections accepted.
    pub accepted: [u64; 2],
    /// Of those, closed at once for a bound, by reason ([`Refusal::ALL`]).
    pub refused: [[u64; Refusal::ALL.len()]; 2],
    /// Connections that were open and ended, by reason ([`End::ALL`]).
    pub closed: [[u64; End::ALL.len()]; 2],
    /// TLS handshakes that failed, by reason ([`Failure::ALL`]).
    pub handshakes_failed: [u64; Failure::ALL.len()],
    /// Whole data messages dropped, since their client reads too slowly.
    pub data_dropped: [u64; 2],
    /// How often accepting had to pause: no descriptors or no memory.
    pub accept_paused: u64,
}

impl Counters {
    /// Where the counters of a stream transport stand.
    pub fn place(transport: Transport) -> usize {
        usize::from(transport == Transport::Tls)
    }

    pub(in crate::datapath) fn add(&mut self, other: &Counters) {
        // All of them are named, so that none is forgotten here.
        let Counters { open, accepted, refused, closed, handshakes_failed, data_dropped, accept_paused } =
            other;
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
