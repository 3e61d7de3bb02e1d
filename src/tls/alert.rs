//! Alerts to clients whose handshake ends before rustls has a configuration for it.

/// A fatal alert (RFC 8446 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    UnexpectedMessage = 10,
    IllegalParameter = 47,
    DecodeError = 50,
    ProtocolVersion = 70,
    /// RFC 6066 section 3.
    UnrecognizedName = 112,
    /// RFC 7301 section 3.2.
    NoApplicationProtocol = 120,
}

impl Alert {
    /// It as a record (RFC 8446 section 5.1).
    pub(super) fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self as u8]
    }
}
