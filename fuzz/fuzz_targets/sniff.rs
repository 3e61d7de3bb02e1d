//! The first bytes of a connection, in arbitrary pieces. A verdict comes within its bound, never changes, and is the same for any
//! pieces. TLS goes on with the ClientHello, STUN with the framing of messages; neither says later that more bytes are needed than
//! its own bound.

#![no_main]

use hairpin::tls::client_hello::{self, CLIENT_HELLO_MAX, HelloReader};
use hairpin::wire::{ChannelRange, FRAME_CHECKED, SNIFF_MAX, Sniffed, frame_len, sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, bytes)) = input.split_first() else { return };
    let channels = if mode & 1 == 0 { ChannelRange::Rfc8656 } else { ChannelRange::Rfc5766 };
    let verdict = sniff(bytes, channels);
    let first = (0..=bytes.len().min(SNIFF_MAX)).find(|len| sniff(&bytes[..*len], channels).is_some());
    assert!(first.is_some() || bytes.len() < SNIFF_MAX, "it waits for more than the bound");
    for len in first.unwrap_or(0)..bytes.len() {
        assert!(first.is_none() || sniff(&bytes[..len], channels) == verdict, "it changes its mind");
    }
    match verdict {
        Some(Sniffed::Tls) => {
            let mut reader = HelloReader::default();
            let step = 1 + usize::from(mode >> 1);
            let pieces = (1..=bytes.len()).step_by(step).chain([bytes.len()]);
            let found = pieces.map(|len| reader.read(&bytes[..len])).find(|read| *read != Ok(None));
            assert_eq!(found.unwrap_or(Ok(None)), client_hello::read(bytes));
            assert!(bytes.len() < CLIENT_HELLO_MAX || client_hello::read(bytes) != Ok(None));
        }
        Some(Sniffed::Turn) => {
            let framed = frame_len(bytes, channels);
            assert!(bytes.len() < FRAME_CHECKED || framed != Ok(None));
        }
        Some(Sniffed::Proxy) => {
            assert!(bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"))
        }
        Some(Sniffed::Http2) => assert!(bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Some(Sniffed::Http) => assert!(bytes[0].is_ascii_uppercase() && bytes.contains(&b' ')),
        Some(Sniffed::Other) => assert!(frame_len(bytes, channels).is_err()),
        None => {}
    }
});
