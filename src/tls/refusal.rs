//! Why a client is refused before its handshake, and the alert that it gets. rustls would send other ones, and say less.

use super::alert::Alert;

/// Why a client with a valid ClientHello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HelloRefusal {
    /// It offers no version that is supported, at most this one.
    #[error("the client offers {}, and this relay speaks TLS 1.2 and 1.3", offer(.0))]
    OldVersion(u16),
    /// It asks for a name of no certificate, and the settings refuse such clients.
    #[error("the client asked for a name that no certificate is for")]
    UnknownName,
    /// It offers only `acme-tls/1` (RFC 8737), with which an authority validates a name: a handshake without it would be a wrong
    /// answer.
    #[error(
        "the client offers only acme-tls/1, with which an authority validates a name; this relay does not answer it"
    )]
    OnlyAcme,
}

impl HelloRefusal {
    /// The fatal alert that tells the client, as a record.
    pub fn alert(self) -> [u8; 7] {
        match self {
            // RFC 8446 section 4.2.1, RFC 5246 appendix E.1
            HelloRefusal::OldVersion(_) => Alert::ProtocolVersion,
            HelloRefusal::UnknownName => Alert::UnrecognizedName,
            HelloRefusal::OnlyAcme => Alert::NoApplicationProtocol,
        }
        .record()
    }
}

fn offer(version: &u16) -> &'static str {
    match version {
        0x0302 => "TLS 1.1 at most",
        0x0301 => "TLS 1.0 at most",
        0x0300 => "SSL 3.0 at most",
        _ => "no version of TLS that is known",
    }
}
