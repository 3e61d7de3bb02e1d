//! What protocol a connection speaks, by its first bytes: RFC 7983 section 7 for TLS, STUN and ChannelData, and beyond it HTTP
//! and the PROXY protocol.
//!
//! A verdict never changes when more bytes arrive, and each byte after which it is certain is enough. Whether the bytes are valid
//! is for the parser of the protocol to say; whether the protocol is served, for the listener.

use super::channel::ChannelRange;

/// A connection is recognised by this many bytes at most: the preface of HTTP/2.
pub const SNIFF_MAX: usize = HTTP2_PREFACE.len();

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sniffed {
    /// TLS: a handshake record (RFC 8446 section 5.1).
    Tls,
    /// STUN or ChannelData. The latter is never the first message of a TURN client.
    Turn,
    /// HTTP/1.0 or HTTP/1.1: a method and the begin of a target.
    Http,
    /// HTTP/2 with prior knowledge: its preface (RFC 9113 section 3.4).
    Http2,
    /// A header of the PROXY protocol, version 1 or 2.
    Proxy,
    /// Nothing of these.
    Other,
}

/// RFC 9113 section 3.4. The method PRI is reserved for it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_METHOD: &[u8] = b"PRI ";

/// Version 1 of the PROXY protocol is text.
const PROXY_V1: &[u8] = b"PROXY ";

/// The signature of version 2.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest method that leaves room for a space and the first byte of a target. The longest registered one has 17 letters
/// (UPDATEREDIRECTREF).
const METHOD_MAX: usize = SNIFF_MAX - 2;

/// Recognises a protocol by the first bytes of a connection; `None` if more are needed, which is never the case for
/// [`SNIFF_MAX`]. `channels` is what ChannelData begins with.
///
/// Letters begin ChannelData, too (RFC 7983 section 7). HTTP comes first, because no client has a channel before an allocation.
pub fn sniff(bytes: &[u8], channels: ChannelRange) -> Option<Sniffed> {
    let not_http = if channels.is_channel_data(bytes) { Sniffed::Turn } else { Sniffed::Other };
    match bytes {
        [] => None,
        [0x16, ..] => Some(Sniffed::Tls),
        [0..=3, ..] => Some(Sniffed::Turn),
        [b'\r', ..] => begins(bytes, PROXY_V2, Sniffed::Proxy, Sniffed::Other),
        [b'A'..=b'Z', ..] => request(bytes, not_http),
        _ => Some(not_http),
    }
}

/// Text that may be a request.
fn request(bytes: &[u8], otherwise: Sniffed) -> Option<Sniffed> {
    if bytes.starts_with(PROXY_V1) {
        return Some(Sniffed::Proxy);
    }
    if bytes.starts_with(HTTP2_METHOD) {
        return begins(bytes, HTTP2_PREFACE, Sniffed::Http2, otherwise);
    }
    // RFC 9110 section 9.1: a method is a case-sensitive token, and those that are registered are of these characters.
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let method = bytes.iter().position(|byte| !is_method(byte));
    match &bytes[method.unwrap_or(bytes.len())..] {
        _ if method.unwrap_or(bytes.len()) > METHOD_MAX => Some(otherwise),
        [] | [b' '] => None,
        // RFC 9112 section 3.2: a path, an asterisk, a URL or a host.
        [b' ', b'/' | b'*' | b'[' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z', ..] => Some(Sniffed::Http),
        _ => Some(otherwise),
    }
}

/// Whether `bytes` begin with `text`; `None` if they are a part of it.
fn begins(bytes: &[u8], text: &[u8], if_so: Sniffed, otherwise: Sniffed) -> Option<Sniffed> {
    match bytes.starts_with(text) {
        true => Some(if_so),
        false if text.starts_with(bytes) => None,
        false => Some(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sniffed(bytes: &[u8]) -> Option<Sniffed> {
        sniff(bytes, ChannelRange::Rfc8656)
    }

    #[test]
    fn protocols_are_recognised_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Sniffed::Tls),
            (b"\x00\x03\x00\x08\x21\x12\xA4\x42", Sniffed::Turn),
            (b"\x00\x01\x00\x00", Sniffed::Turn),
            (b"\x40\x01\x00\x04", Sniffed::Turn),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http),
            (b"OPTIONS * HTTP/1.0\r\n", Sniffed::Http),
            (b"GET http://www.example.org/ HTTP/1.1\r\n", Sniffed::Http),
            (b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n", Sniffed::Http),
            (b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n", Sniffed::Http),
            (b"PROPFIND /dav/ HTTP/1.1\r\n", Sniffed::Http),
            (b"M-SEARCH * HTTP/1.1\r\n", Sniffed::Http),
            (b"UPDATEREDIRECTREF / HTTP/1.1\r\n", Sniffed::Http),
            (b"BASELINE-CONTROL / HTTP/1.1\r\n", Sniffed::Http),
            (b"BREW /pot HTTP/1.1\r\n", Sniffed::Http),
            (b"PROXYING / HTTP/1.1\r\n", Sniffed::Http),
            (b"PRINT / HTTP/1.1\r\n", Sniffed::Http),
            (HTTP2_PREFACE, Sniffed::Http2),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Sniffed::Proxy),
            (b"PROXY UNKNOWN\r\n", Sniffed::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C", Sniffed::Proxy),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Sniffed::Other),
            (b"PRI / HTTP/1.1\r\n", Sniffed::Other),
            (b"PRI * HTTP/1.1\r\n", Sniffed::Other),
            (b"\r\nGET / HTTP/1.1\r\n", Sniffed::Other),
            (b"get / HTTP/1.1\r\n", Sniffed::Other),
            (b"QUIT\r\n", Sniffed::Other),
            (b"USER x\r\n", Sniffed::Http),
            (b"\x15\x03\x03\x00\x02\x02\x28", Sniffed::Other),
            (b"\x80\x2E\x01\x03\x01", Sniffed::Other),
            (b"<policy-file-request/>\0", Sniffed::Other),
        ] {
            assert_eq!(sniffed(bytes), Some(expected), "{}", bytes.escape_ascii());
        }
    }

    /// Each verdict is given with the byte that makes it certain, and not before.
    #[test]
    fn a_verdict_is_given_as_early_as_it_is_certain() {
        for (bytes, needed) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], 1),
            (b"\x00\x03\x00\x08", 1),
            (b"\x40\x01\x00\x04", 1),
            (b"GET / HTTP/1.1\r\n", 5),
            (b"DELETE / HTTP/1.1\r\n", 8),
            (b"PROXY TCP4", 6),
            (PROXY_V2, 12),
            (HTTP2_PREFACE, 24),
            (b"\r\n\r\n\0\r\nQUIX", 11),
            (b"\r\n\r\n\x01", 5),
            (b"SSH-2.0-OpenSSH", 5),
            (b"GET\r\n", 4),
            (b"GET \r\n", 5),
            (b"PRI * HTTP/2.0\r\n\r\nXX", 19),
            (b"ABCDEFGHIJKLMNOPQRSTUV /", 24),
            (b"ABCDEFGHIJKLMNOPQRSTUVW /", 23),
            (b"\xFF", 1),
        ] {
            let first = (0..=bytes.len()).find(|len| sniffed(&bytes[..*len]).is_some());
            assert_eq!(first, Some(needed), "{}", bytes.escape_ascii());
        }
    }

    /// RFC 7983 §7, RFC 8656 §12: the letters A to O begin ChannelData unless they begin a request.
    #[test]
    fn channel_data_is_what_is_no_request() {
        for first in 0x40..=0x4F {
            assert_eq!(sniffed(&[first, 0x00, 0x00, 0x04]), Some(Sniffed::Turn), "{first:#x}");
        }
        for bytes in [&b"GET\0 /"[..], b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"O\x01\0\0"] {
            assert_eq!(sniffed(bytes), Some(Sniffed::Turn), "{}", bytes.escape_ascii());
        }
        assert_eq!(sniffed(b"P\0\0\x04"), Some(Sniffed::Other));
        // RFC 5766 §11: more letters do.
        assert_eq!(sniff(b"P\0\0\x04", ChannelRange::Rfc5766), Some(Sniffed::Turn));
        assert_eq!(sniff(b"p\0\0\x04", ChannelRange::Rfc5766), Some(Sniffed::Turn));
        assert_eq!(sniff(b"POST / HTTP/1.1", ChannelRange::Rfc5766), Some(Sniffed::Http));
    }

    proptest! {
        /// More bytes never change a verdict, and 24 are always enough.
        #[test]
        fn a_verdict_is_final(
            start in prop::sample::select(vec![
                &b""[..], b"PRI * HTTP/2.0\r\n\r\nSM", b"PROX", b"\r\n\r\n\0\r\nQUI", b"LONGMETHOD-OF-LETTERS", b"GET ",
            ]),
            rest in prop::collection::vec(prop_oneof![any::<u8>(), b'A'..=b'Z', Just(b' '), Just(b'/')], 0..40),
            old_range: bool,
        ) {
            let channels = if old_range { ChannelRange::Rfc5766 } else { ChannelRange::Rfc8656 };
            let bytes = [start, &rest[..]].concat();
            let verdicts: Vec<_> = (0..=bytes.len()).map(|len| sniff(&bytes[..len], channels)).collect();
            prop_assert!(verdicts.windows(2).all(|pair| pair[0].is_none() || pair[0] == pair[1]));
            prop_assert!(verdicts.iter().skip(SNIFF_MAX).all(Option::is_some));
            prop_assert_eq!(verdicts[0], None);
        }
    }
}
