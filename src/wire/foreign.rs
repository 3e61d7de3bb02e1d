//! Other protocols that are spoken to a port of a TURN server by mistake, recognised by their first bytes so that the log
//! can name them. Whether bytes are accepted is decided elsewhere ([`super::frame_len`]).

use super::channel::ChannelRange;
use super::framing::frame_len;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// STUN or TURN without TLS.
    Stun,
    /// TLS.
    Tls,
    /// HTTP.
    Http,
    /// The PROXY protocol, version 1 or 2.
    Proxy,
}

/// The signature of the PROXY protocol, version 2.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 1 is text.
const PROXY_V1: &[u8] = b"PROXY ";

/// Request methods of HTTP. PRI begins HTTP/2; the last ones are WebDAV's.
const HTTP_METHODS: [&[u8]; 16] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * ",
    b"PROPFIND ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
];

impl Foreign {
    /// Recognises a protocol by the first bytes of a connection, which may be few.
    pub fn recognise(bytes: &[u8]) -> Option<Foreign> {
        if begins(bytes, PROXY_V1, 5) || begins(bytes, PROXY_V2, 4) {
            return Some(Foreign::Proxy);
        }
        if HTTP_METHODS.iter().any(|method| begins(bytes, method, 3)) {
            return Some(Foreign::Http);
        }
        match bytes {
            // A handshake record; RFC 8446 §5.1 fixes the major version.
            [0x16] | [0x16, 0x03, ..] => Some(Foreign::Tls),
            [0..=3, ..] if frame_len(bytes, ChannelRange::Rfc8656).is_ok() => Some(Foreign::Stun),
            _ => None,
        }
    }
}

/// Whether `bytes` begin with `text`, or are its beginning and at least `least` long.
fn begins(bytes: &[u8], text: &[u8], least: usize) -> bool {
    bytes.starts_with(text) || bytes.len() >= least && text.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_recognised_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Foreign::Http)),
            (b"GET", Some(Foreign::Http)),
            (b"OPTIONS * HTTP/1.0\r\n", Some(Foreign::Http)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Foreign::Http)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Some(Foreign::Proxy)),
            (b"PROXY", Some(Foreign::Proxy)),
            (b"PROXY UNKNOWN\r\n", Some(Foreign::Proxy)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C", Some(Foreign::Proxy)),
            (b"\x16\x03\x01\x02\x00\x01", Some(Foreign::Tls)),
            (b"\x16", Some(Foreign::Tls)),
            (b"\x00\x03\x00\x08\x21\x12\xA4\x42", Some(Foreign::Stun)),
            (b"\x00\x01", Some(Foreign::Stun)),
            (b"\x00\x03\x00\x08\x00\x00\x00\x00", None),
            (b"SSH-2.0-OpenSSH\r\n", None),
            (b"G", None),
            (b"P", None),
            (b"\r\n", None),
            (b"\x40\x01\x00\x04", None),
            (b"", None),
        ] {
            assert_eq!(Foreign::recognise(bytes), expected, "{bytes:?}");
        }
    }
}
