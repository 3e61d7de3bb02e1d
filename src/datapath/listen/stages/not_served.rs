//! What an operator is told about a connection that nobody serves: what came, and which setting would serve it.

use super::pending::{Closed, PendingConnection};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::wire::Sniffed;

/// The end of a connection that speaks a protocol which its listener does not serve; `inside` TLS or not.
pub(super) fn not_served(sniffed: Sniffed, pending: &PendingConnection, inside: bool) -> Closed {
    let server = pending.tuple.server;
    let (what, fix) = match inside {
        false => without_tls(sniffed, pending),
        true => within_tls(sniffed),
    };
    let fix = fix.replace("SERVER", &server.to_string());
    Closed::Because(ConnectionEnd::NotServed, what.to_owned(), fix)
}

fn without_tls(sniffed: Sniffed, pending: &PendingConnection) -> (&'static str, &'static str) {
    let has_certificate = pending.config.identities.is_some();
    match sniffed {
        Sniffed::Turn => (
            "the client speaks TURN without TLS, which is not served here",
            "give clients a turns: URL for this port, or add \"turn\" to protocols of the [[listener]] at SERVER",
        ),
        Sniffed::Tls if !has_certificate => (
            "the client speaks TLS, and there is no certificate",
            "set tls.cert and tls.key, or give clients a turn: URL for this port",
        ),
        Sniffed::Tls => (
            "the client speaks TLS, which is not served here",
            "give clients a turn: URL for this port, or add \"tls\" to protocols of the [[listener]] at SERVER",
        ),
        Sniffed::Http | Sniffed::Http2 => (
            "the client speaks HTTP without TLS, which is not served here",
            "usually a scanner; for a web server on this port, set http of a [[listener]] at SERVER to its address",
        ),
        Sniffed::Proxy => (
            "a second PROXY header followed the first one",
            "only one proxy on the way may send a header that hairpin reads: turn it off in the others",
        ),
        Sniffed::Other => (
            "the client speaks neither STUN or ChannelData nor TLS nor HTTP",
            "usually a scanner; only clients of TURN, and what routes are set for, may use this port",
        ),
    }
}

fn within_tls(sniffed: Sniffed) -> (&'static str, &'static str) {
    match sniffed {
        Sniffed::Http => (
            "the client speaks HTTP/1.1 inside TLS, for which the name that it asked for has no route",
            "usually a scanner; for a web server behind this name, give it a route with http in [listener.routes] of the [[listener]] \
             at SERVER",
        ),
        Sniffed::Http2 => (
            "the client speaks HTTP/2 inside TLS, for which the name that it asked for has no route",
            "usually a scanner; for a web server behind this name, give it a route with h2c in [listener.routes] of the [[listener]] at \
             SERVER",
        ),
        Sniffed::Tls => (
            "the client speaks TLS inside TLS",
            "a proxy in front of this port must not encrypt again what is encrypted already",
        ),
        Sniffed::Proxy => (
            "a PROXY header came inside TLS",
            "the proxy must send it before TLS begins (HAProxy: send-proxy on a server without ssl)",
        ),
        Sniffed::Turn | Sniffed::Other => (
            "the client speaks neither STUN or ChannelData nor HTTP inside TLS",
            "usually a scanner; only clients of TURN, and what routes are set for, may use this port",
        ),
    }
}
