//! What an operator is told about a connection that nobody serves: what came, and which setting would serve it.

use std::net::SocketAddr;

use super::pending::{Closed, PendingConnection};
use crate::datapath::stream::stats::ConnectionEnd;
use crate::wire::Sniffed;

/// The end of a connection that speaks a protocol without TLS which its listener does not serve.
pub(super) fn not_served(sniffed: Sniffed, pending: &PendingConnection) -> Closed {
    let has_certificate = pending.config.identities.is_some();
    let (what, fix) = without_tls(sniffed, has_certificate, pending.service.http.is_some());
    let fix = fix.replace("SERVER", &pending.tuple.server.to_string());
    Closed::Because(ConnectionEnd::NotServed, what.to_owned(), fix)
}

/// The same inside of TLS, for the name that the client asked for, if any. A ClientHello has no name that is not a valid host name,
/// so it can be printed.
pub(super) fn not_served_inside(
    sniffed: Sniffed,
    server: SocketAddr,
    name: Option<&str>,
    has_route: bool,
) -> Closed {
    let (what, fix) = match sniffed {
        Sniffed::Http => http_inside("HTTP/1.1", "http", name, has_route),
        Sniffed::Http2 => http_inside("HTTP/2", "h2c", name, has_route),
        _ => {
            let (what, fix) = within_tls(sniffed);
            let asked = name.map_or_else(|| "no name".to_owned(), str::to_owned);
            (format!("{what} (it asked for {asked})"), fix.to_owned())
        }
    };
    Closed::Because(ConnectionEnd::NotServed, what, fix.replace("SERVER", &server.to_string()))
}

/// `backend` is the key of a route that would serve `protocol`.
fn http_inside(protocol: &str, backend: &str, name: Option<&str>, has_route: bool) -> (String, String) {
    let why = match name {
        None => "and asked for no name, so it can have TURN alone".to_owned(),
        Some(name) if has_route => format!("and the route of {name}, for which it asked, has no {backend}"),
        Some(name) => format!("and {name}, for which it asked, has no route"),
    };
    let fix = match name {
        None => format!(
            "usually a scanner; clients of a web server must use its name, which needs a route with {backend} in [listener.routes] of \
             the [[listener]] at SERVER"
        ),
        Some(name) if has_route => format!(
            "usually a scanner; if a server of {name} speaks {protocol} without TLS, set {backend} in its route in [listener.routes] of \
             the [[listener]] at SERVER"
        ),
        Some(name) => format!(
            "usually a scanner; for a web server behind {name}, give it a route with {backend} in [listener.routes] of the \
             [[listener]] at SERVER"
        ),
    };
    (format!("the client speaks {protocol} inside TLS, {why}"), fix)
}

fn without_tls(sniffed: Sniffed, has_certificate: bool, serves_http: bool) -> (&'static str, &'static str) {
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
        Sniffed::Http2 if serves_http => (
            "the client speaks HTTP/2 without TLS, where only HTTP/1.1 is served",
            "usually a scanner; clients of HTTP/2 must use TLS, and a name whose route has h2c",
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
        Sniffed::Tls => (
            "the client speaks TLS inside TLS",
            "a proxy in front of this port must not encrypt again what is encrypted already",
        ),
        Sniffed::Proxy => (
            "a PROXY header came inside TLS",
            "the proxy must send it before TLS begins (HAProxy: send-proxy on a server without ssl)",
        ),
        Sniffed::Turn | Sniffed::Http | Sniffed::Http2 | Sniffed::Other => (
            "the client speaks neither STUN or ChannelData nor HTTP inside TLS",
            "usually a scanner; only clients of TURN, and what routes are set for, may use this port",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about a request inside of TLS names the name and what is missing, so that an operator can set it.
    #[test]
    fn requests_inside_tls_are_told_apart_by_what_is_missing() {
        let server = "203.0.113.7:443".parse().unwrap();
        for (sniffed, name, has_route, detail, fix) in [
            (Sniffed::Http, None, false, "no name", "must use its name"),
            (
                Sniffed::Http,
                Some("www.example.org"),
                false,
                "www.example.org, for which it asked, has no route",
                "route with http",
            ),
            (Sniffed::Http, Some("www.example.org"), true, "has no http", "set http in its route"),
            (Sniffed::Http2, Some("www.example.org"), true, "has no h2c", "set h2c in its route"),
            (Sniffed::Other, Some("www.example.org"), true, "www.example.org", "usually a scanner"),
        ] {
            let Closed::Because(why, what, to_do) = not_served_inside(sniffed, server, name, has_route)
            else {
                panic!("{sniffed:?}")
            };
            assert_eq!(why, ConnectionEnd::NotServed);
            assert!(what.contains(detail) && to_do.contains(fix), "{what}; {to_do}");
            assert!(!to_do.contains("SERVER"), "{to_do}");
        }
    }
}
