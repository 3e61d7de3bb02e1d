//! Counters of connections.

use std::io;

use crate::counted::{Counters, counted};
use crate::turn::Transport;

counted! {
    /// Why a connection was closed right after it was accepted.
    pub enum AdmissionRefusal {
        /// The limit on connections was reached.
        Connections = "connections",
        /// The limit on half-open connections was reached.
        HalfOpen = "half_open",
        /// The limit on half-open connections per source address was reached.
        HalfOpenPerAddress = "half_open_per_address",
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
        /// The bytes were not valid TLS.
        Tls = "tls",
        /// The first message was not complete in time.
        NoMessage = "no_message",
        /// A message that had started was not complete in time.
        Unfinished = "unfinished_message",
        /// A client without an allocation was silent for too long.
        Idle = "idle",
        /// The client sent requests, but did not read the responses.
        NotRead = "responses_not_read",
        /// This machine had no file descriptors or memory for it.
        System = "system",
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
        /// The client did not send TLS.
        NotTls = "not_tls",
        /// No version, cipher suite, key exchange or application protocol in common.
        NothingInCommon = "nothing_in_common",
        /// The client sent an alert, usually because it does not trust the certificate.
        Refused = "refused_by_client",
        /// Anything else.
        Other = "other",
    }
}

impl HandshakeFailure {
    /// Classifies an error of a handshake.
    pub(in crate::datapath) fn from_error(error: &io::Error) -> HandshakeFailure {
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

/// Counters of a worker's connections. Arrays by transport have TCP first, then TLS ([`StreamCounters::index`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Open connections; with TLS, only those whose handshake is complete.
    pub open: [u64; 2],
    /// Connections accepted.
    pub accepted: [u64; 2],
    /// Connections closed right after they were accepted, by reason.
    pub refused: [Counters<AdmissionRefusal>; 2],
    /// Open connections that have ended, by reason.
    pub closed: [Counters<ConnectionEnd>; 2],
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
