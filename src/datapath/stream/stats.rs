//! What is counted of streams.

use std::io;

use crate::counted::{Counters, counted};
use crate::turn::Transport;

counted! {
    /// Why a connection was closed at once.
    pub enum AdmissionRefusal {
        /// As many connections as allowed.
        Connections = "connections",
        /// As many half-open ones as allowed.
        HalfOpen = "half_open",
        /// As many half-open ones from one source as allowed.
        HalfOpenPerAddress = "half_open_per_address",
    }
}

counted! {
    /// Why a connection ended.
    pub enum ConnectionEnd {
        /// The client closed it.
        Client = "client",
        /// It was reset, or the client is not there any more.
        Reset = "reset",
        /// What came is no message, so the stream cannot be read any further.
        Unframed = "unframed",
        /// What came is no TLS.
        Tls = "tls",
        /// The first message did not come in time.
        NoMessage = "no_message",
        /// The rest of a message did not come in time.
        Unfinished = "unfinished_message",
        /// A client without an allocation said nothing for too long.
        Idle = "idle",
        /// The client asked, but did not read the answers.
        NotRead = "responses_not_read",
        /// This machine had no descriptors or memory for it.
        System = "system",
        /// The server stops.
        Shutdown = "shutdown",
    }
}

counted! {
    /// Why a TLS handshake failed.
    pub enum HandshakeFailure {
        /// It took too long.
        TooSlow = "too_slow",
        /// The client went away.
        Gone = "client_gone",
        /// What the client sent is no TLS.
        NotTls = "not_tls",
        /// No version, cipher suite, key exchange or application protocol in common.
        NothingInCommon = "nothing_in_common",
        /// The client refused: usually it does not trust the certificate.
        Refused = "refused_by_client",
        /// Anything else.
        Other = "other",
    }
}

impl HandshakeFailure {
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
    /// Of those, closed at once for a bound, by reason.
    pub refused: [Counters<AdmissionRefusal>; 2],
    /// Connections that were open and ended, by reason.
    pub closed: [Counters<ConnectionEnd>; 2],
    /// TLS handshakes that failed, by reason.
    pub handshakes_failed: Counters<HandshakeFailure>,
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
        self.refused.iter_mut().zip(refused).for_each(|(sum, part)| sum.add(part));
        self.closed.iter_mut().zip(closed).for_each(|(sum, part)| sum.add(part));
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
