//! Which application protocol is negotiated (ALPN, RFC 7301): by what a name serves, in the order of the server.

/// `acme-tls/1` (RFC 8737) is for servers that prove who they are with it, and nothing else may be negotiated in its place.
const ACME: &[u8] = b"acme-tls/1";

/// What a name serves beside TURN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protocols {
    /// HTTP/1.1.
    pub http: bool,
    /// HTTP/2.
    pub h2: bool,
}

impl Protocols {
    /// Every combination, in the order of [`Protocols::index`].
    pub(super) const ALL: [Protocols; 4] = [
        Protocols { http: false, h2: false },
        Protocols { http: true, h2: false },
        Protocols { http: false, h2: true },
        Protocols { http: true, h2: true },
    ];

    pub(super) fn index(self) -> usize {
        usize::from(self.http) | usize::from(self.h2) << 1
    }

    /// Their names, the preferred one first. TURN's (RFC 7443 section 3) come before those of HTTP: a client that offers both can
    /// do TURN.
    pub(super) fn names(self) -> impl Iterator<Item = &'static [u8]> {
        let turn = [&b"stun.turn"[..], b"stun.nat-discovery"].into_iter();
        turn.chain(self.h2.then_some(&b"h2"[..])).chain(self.http.then_some(&b"http/1.1"[..]))
    }
}

/// Whether a client that offers these wants `acme-tls/1` alone.
pub(super) fn is_acme<'a>(mut offered: impl Iterator<Item = &'a [u8]>) -> bool {
    // RFC 8737 section 3: it is the only one in the list.
    offered.next() == Some(ACME) && offered.all(|name| name == ACME)
}
