//! The header that a proxy sends at the beginning of a connection, with the addresses of the connection that it stands for:
//! HAProxy's proxy-protocol.txt, version 1 (section 2.1, text) and version 2 (section 2.2, binary).
//!
//! Version 2:
//!
//! ```text
//!      0               12       13       14             16
//!     +----------------+--------+--------+--------------+-----------------------------+------+
//!     | signature      | 2|cmd  | fam|pro| length       | addresses, then ports       | TLVs |
//!     +----------------+--------+--------+--------------+-----------------------------+------+
//! ```
//!
//! TLVs are skipped, PP2_TYPE_CRC32C too: TCP has a checksum. Who may send a header is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read: many TLVs, among them a client's certificate, have room.
pub const PROXY_HEADER_MAX: usize = V2_FIXED + 4096;

/// What version 1 begins with.
const V1_SIGNATURE: &[u8] = b"PROXY";

/// What version 2 begins with.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end.
const V1_MAX: usize = 107;

/// The part of version 2 before the addresses.
const V2_FIXED: usize = 16;

/// The family and protocol that version 2 calls TCP over IPv4.
const TCP_V4: u8 = 0x11;

/// TCP over IPv6.
const TCP_V6: u8 = 0x21;

/// A header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The addresses of the client and of the server that it connected to; IPv4-mapped ones are IPv4. `None` for LOCAL,
    /// UNKNOWN, UNSPEC and UNIX: the addresses of the connection itself count.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Why the beginning of a connection is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// The line of version 1 has not the form that the protocol asks for.
    #[error("the line of version 1 is not \"PROXY TCP4|TCP6 <client> <server> <port> <port>\"")]
    Line,
    /// The line of version 1 does not end within 107 bytes.
    #[error("the line of version 1 has no end within 107 bytes")]
    LineTooLong,
    /// The signature is that of version 2, but the version is another one.
    #[error("the version is unknown")]
    Version,
    /// The command is neither LOCAL nor PROXY.
    #[error("the command is neither LOCAL nor PROXY")]
    Command,
    /// The address family or the transport protocol is none of those that are defined.
    #[error("the address family or the transport protocol is unknown")]
    Family,
    /// The length has no room for the addresses.
    #[error("the addresses are cut off")]
    Addresses,
    /// The length is more than a receiver has to buffer.
    #[error("the header is longer than {PROXY_HEADER_MAX} bytes")]
    TooLong,
}

impl ProxyHeader {
    /// Reads the header at the start of `bytes`, and returns its length, too. `Ok(None)` means that more bytes are needed;
    /// that they are no header is an error as soon as they show it.
    ///
    /// # Errors
    ///
    /// Returns a [`ProxyError`] if `bytes` are not the start of a header.
    pub fn read(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
        if begins(bytes, V1_SIGNATURE) {
            read_v1(bytes)
        } else if begins(bytes, V2_SIGNATURE) {
            read_v2(bytes)
        } else {
            Err(ProxyError::Missing)
        }
    }

    /// Appends a header of version 2 for a TCP connection of `client` to `server`. If their families differ, both addresses
    /// are written as IPv6.
    pub fn write_v2(client: SocketAddr, server: SocketAddr, out: &mut Vec<u8>) {
        out.extend_from_slice(V2_SIGNATURE);
        // Version 2, PROXY.
        out.push(0x21);
        match (client.ip().to_canonical(), server.ip().to_canonical()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => {
                out.extend_from_slice(&[TCP_V4, 0, 12]);
                out.extend_from_slice(&client.octets());
                out.extend_from_slice(&server.octets());
            }
            (client, server) => {
                out.extend_from_slice(&[TCP_V6, 0, 36]);
                out.extend_from_slice(&v6_octets(client));
                out.extend_from_slice(&v6_octets(server));
            }
        }
        out.extend_from_slice(&client.port().to_be_bytes());
        out.extend_from_slice(&server.port().to_be_bytes());
    }
}

/// Whether `bytes` begin with a signature, or may do so when there are more of them.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let known = bytes.len().min(signature.len());
    bytes[..known] == signature[..known]
}

fn read_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let bytes = &bytes[..bytes.len().min(V1_MAX)];
    if let Some(end) = bytes.windows(2).position(|end| end == b"\r\n") {
        let addresses = parse_line(&bytes[..end]).ok_or(ProxyError::Line)?;
        return Ok(Some((ProxyHeader { addresses }, end + 2)));
    }
    // "The receiver must not tolerate a single CR or LF character to end the line".
    if bytes.contains(&b'\n') && !bytes.starts_with(b"PROXY UNKNOWN ") {
        return Err(ProxyError::Line);
    }
    if bytes.len() == V1_MAX { Err(ProxyError::LineTooLong) } else { Ok(None) }
}

/// The addresses in a line without its end. The outer `None` is a mistake.
fn parse_line(line: &[u8]) -> Option<Option<(SocketAddr, SocketAddr)>> {
    // "the receiver must ignore anything presented before the CRLF": also what is not text.
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Some(None);
    }
    // Exactly one space separates the words, so an additional one makes a word that is empty.
    let mut words = str::from_utf8(line).ok()?.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let parse_ip: fn(&str) -> Option<IpAddr> = match words.next()? {
        // The standard library refuses leading zeros.
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        // It accepts a dotted quad at the end, as HAProxy and nginx write an address that is IPv4-mapped.
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (client, server) = (parse_ip(words.next()?)?, parse_ip(words.next()?)?);
    let (client_port, server_port) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    words.next().is_none().then_some(Some((normal(client, client_port), normal(server, server_port))))
}

/// A port in decimal, without leading zeros and without a sign.
fn parse_port(word: &str) -> Option<u16> {
    let is_canonical = word == "0" || word.starts_with(|first: char| matches!(first, '1'..='9'));
    if is_canonical { word.parse().ok() } else { None }
}

fn read_v2(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    // "the receiver must only accept this value"
    let Some(&version_and_command) = bytes.get(12) else { return Ok(None) };
    if version_and_command >> 4 != 2 {
        return Err(ProxyError::Version);
    }
    let is_local = match version_and_command & 0xF {
        0 => true,
        1 => false,
        _ => return Err(ProxyError::Command),
    };
    // "discard the protocol block including the family which is ignored"
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let needed = match (family >> 4, family & 0xF) {
        _ if is_local => 0,
        (0..=3, 3..) | (4.., _) => return Err(ProxyError::Family),
        (0 | 3, _) | (_, 0) => 0,
        // Of a datagram, too: "The receiver must then use the information provided in the protocol block".
        (1, _) => 12,
        (2, _) => 36,
    };
    let Some(&[high, low]) = bytes.get(14..V2_FIXED).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len - V2_FIXED < needed {
        return Err(ProxyError::Addresses);
    }
    if len > PROXY_HEADER_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let addresses = match header[V2_FIXED..][..needed] {
        [] => None,
        [a, b, c, d, e, f, g, h, ref ports @ ..] if needed == 12 => {
            Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports))
        }
        ref block => v6_addresses(block),
    };
    let addresses = addresses.and_then(|(client, server, ports)| match *ports {
        [a, b, c, d] => {
            let (client_port, server_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Some((normal(client, client_port), normal(server, server_port)))
        }
        _ => None,
    });
    Ok(Some((ProxyHeader { addresses }, len)))
}

/// The addresses of both sides, and their ports, which follow.
fn v6_addresses(block: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (client, rest) = block.split_first_chunk::<16>()?;
    let (server, ports) = rest.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*client).into(), Ipv6Addr::from(*server).into(), ports))
}

fn v6_octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// An address as a socket of its own family would have it. A proxy that listens on both families sees IPv4 as mapped.
fn normal(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn addresses(client: &str, server: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((client.parse().unwrap(), server.parse().unwrap()))
    }

    /// A header of version 2 with the fields that can be wrong.
    fn v2(version_and_command: u8, family: u8, len: u16, rest: &[u8]) -> Vec<u8> {
        [V2_SIGNATURE, &[version_and_command, family], &len.to_be_bytes(), rest].concat()
    }

    /// Addresses and length, if there is all of a header.
    type Read = Option<(Option<(SocketAddr, SocketAddr)>, usize)>;

    fn read(bytes: &[u8]) -> Result<Read, ProxyError> {
        Ok(ProxyHeader::read(bytes)?.map(|(header, len)| (header.addresses, len)))
    }

    /// proxy-protocol.txt 2.1: one line, either family, and what follows it is not part of it.
    #[test]
    fn version_1_is_one_line() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443", addresses("192.0.2.1:56324", "198.51.100.7:443")),
            ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0", addresses("255.255.255.255:65535", "0.0.0.0:0")),
            (
                "PROXY TCP6 2001:db8::A 2001:DB8:0:0:0:0:0:7 1 2",
                addresses("[2001:db8::a]:1", "[2001:db8::7]:2"),
            ),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:207 1 2", addresses("192.0.2.1:1", "192.0.2.7:2")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN ", None),
            ("PROXY UNKNOWN any\rthing \n \u{FF}", None),
        ] {
            for rest in ["", "\r\n", "\0\x01\0\0", "PROXY UNKNOWN\r\n"] {
                let bytes = format!("{line}\r\n{rest}");
                assert_eq!(read(bytes.as_bytes()), Ok(Some((expected, line.len() + 2))), "{bytes:?}");
            }
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_MAX - 16));
        assert_eq!(read(longest.as_bytes()), Ok(Some((None, V1_MAX))));
    }

    /// proxy-protocol.txt 2.1: "Any sequence which does not exactly match the protocol must be discarded".
    #[test]
    fn version_1_has_to_match_exactly() {
        for line in [
            "PROXY",
            "PROXY ",
            "PROXYTCP4 192.0.2.1 192.0.2.2 1 2",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2",
            "PROXY unknown",
            "PROXY UNKNOWNS",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1  2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 ",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3",
            "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1",
            "PROXY TCP4 192.0.2.1",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.256 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2 192.0.2.2 1 2",
            "PROXY TCP4 0xC0.0.2.1 192.0.2.2 1 2",
            "PROXY TCP4 www.example.org 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 00",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2",
            "PROXY TCP4 192.0.2.1 2001:db8::2 1 2",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2",
            "PROXY TCP6 2001:db8::12345 2001:db8::2 1 2",
            "PROXY TCP6 [2001:db8::1] [2001:db8::2] 1 2",
            "PROXY TCP6 fe80::1%1 2001:db8::2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\u{A0}",
        ] {
            assert_eq!(read(format!("{line}\r\n").as_bytes()), Err(ProxyError::Line), "{line:?}");
        }
        let no_end = "PROXY UNKNOWN ".to_owned() + &"f".repeat(V1_MAX);
        assert_eq!(read(&no_end.as_bytes()[..V1_MAX - 1]), Ok(None));
        assert_eq!(read(no_end.as_bytes()), Err(ProxyError::LineTooLong));
        assert_eq!(read(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"), Err(ProxyError::Line));
        let two_mistakes = "PROXY TCP4 \n".to_owned() + &"f".repeat(V1_MAX);
        assert_eq!(read(two_mistakes.as_bytes()), Err(ProxyError::Line));
        assert_eq!(read(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r"), Ok(None));
    }

    /// What does not begin with a signature is told apart from a header with a mistake, by its first wrong byte.
    #[test]
    fn other_protocols_are_no_headers() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"\0\x01\0\0",
            b"GET",
            b"PRI * HTTP/2.0",
            b"PROPFIND",
            b"proxy",
            b"\r\n\r\nG",
        ] {
            assert_eq!(read(bytes), Err(ProxyError::Missing), "{bytes:?}");
        }
        for bytes in [&b""[..], b"P", b"PRO", b"PROXY", b"\r", b"\r\n\r\n\0"] {
            assert_eq!(read(bytes), Ok(None), "{bytes:?}");
        }
    }

    /// proxy-protocol.txt 2.2: both families, and TLVs behind the addresses are skipped.
    #[test]
    fn version_2_has_addresses_and_tlvs() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xDC, 4, 1, 0xBB];
        let expected = addresses("192.0.2.1:56324", "198.51.100.7:443");
        assert_eq!(read(&v2(0x21, 0x11, 12, &v4)), Ok(Some((expected, 28))));
        // Of a datagram.
        assert_eq!(read(&v2(0x21, 0x12, 12, &v4)), Ok(Some((expected, 28))));
        let with_tlvs = [&v4[..], &[4, 0, 1, 9, 0xEA, 0, 0], b"next"].concat();
        assert_eq!(read(&v2(0x21, 0x11, 19, &with_tlvs)), Ok(Some((expected, 35))));

        let v6 = |client: &str, server: &str| {
            let octets = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
            [&octets(client)[..], &octets(server), &[0, 1, 0, 2]].concat()
        };
        for (client, server, expected) in [
            ("2001:db8::1", "2001:db8::2", addresses("[2001:db8::1]:1", "[2001:db8::2]:2")),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", addresses("192.0.2.1:1", "192.0.2.2:2")),
            ("::ffff:192.0.2.1", "2001:db8::2", addresses("192.0.2.1:1", "[2001:db8::2]:2")),
        ] {
            assert_eq!(read(&v2(0x21, 0x21, 36, &v6(client, server))), Ok(Some((expected, 52))));
        }
        let most = vec![0; PROXY_HEADER_MAX - V2_FIXED];
        let header = v2(0x21, 0x11, most.len() as u16, &most);
        assert_eq!(read(&header), Ok(Some((addresses("0.0.0.0:0", "0.0.0.0:0"), PROXY_HEADER_MAX))));
    }

    /// proxy-protocol.txt 2.2: LOCAL discards the block and its family; UNSPEC and UNIX have no address; the length always counts.
    #[test]
    fn version_2_without_addresses_is_skipped() {
        for (command, family, len) in [
            (0x20, 0x00, 0),
            (0x20, 0x11, 12),
            (0x20, 0x11, 0),
            (0x20, 0xFF, 7),
            (0x21, 0x00, 0),
            (0x21, 0x00, 12),
            (0x21, 0x01, 12),
            (0x21, 0x10, 12),
            (0x21, 0x20, 0),
            (0x21, 0x31, 216),
            (0x21, 0x32, 216),
        ] {
            let header = v2(command, family, len, &vec![1; usize::from(len) + 5]);
            let expected = Ok(Some((None, V2_FIXED + usize::from(len))));
            assert_eq!(read(&header), expected, "{command:x} {family:x} {len}");
        }
    }

    /// proxy-protocol.txt 2.2: other versions, commands, families and protocols are refused, as is a length without room.
    #[test]
    fn version_2_is_refused_for_undefined_values() {
        for (header, error) in [
            (v2(0x11, 0x11, 12, &[0; 12]), ProxyError::Version),
            (v2(0x31, 0x11, 12, &[0; 12]), ProxyError::Version),
            (v2(0x22, 0x11, 12, &[0; 12]), ProxyError::Command),
            (v2(0x2F, 0x11, 12, &[0; 12]), ProxyError::Command),
            (v2(0x21, 0x13, 12, &[0; 12]), ProxyError::Family),
            (v2(0x21, 0x03, 12, &[0; 12]), ProxyError::Family),
            (v2(0x21, 0x41, 12, &[0; 12]), ProxyError::Family),
            (v2(0x21, 0xF0, 12, &[0; 12]), ProxyError::Family),
            (v2(0x21, 0x11, 11, &[0; 12]), ProxyError::Addresses),
            (v2(0x21, 0x21, 35, &[0; 36]), ProxyError::Addresses),
            (v2(0x21, 0x21, 12, &[0; 36]), ProxyError::Addresses),
            (v2(0x20, 0x00, 4097, &[]), ProxyError::TooLong),
            (v2(0x21, 0x11, 0xFFFF, &[]), ProxyError::TooLong),
        ] {
            assert_eq!(read(&header), Err(error), "{header:x?}");
        }
    }

    fn headers() -> impl Strategy<Value = Vec<u8>> {
        let address = || (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        let written = (address(), address()).prop_map(|(client, server)| {
            let mut bytes = Vec::new();
            ProxyHeader::write_v2(client, server, &mut bytes);
            bytes
        });
        let binary = (any::<u8>(), any::<u8>(), 0u16..60, vec(any::<u8>(), 0..60))
            .prop_map(|(command, family, len, rest)| v2(0x20 | command & 3, family & 0x33, len, &rest));
        prop_oneof![
            written,
            binary,
            "PROXY (TCP[46]|UNKNOWN) [0-9a-f.: \n\r]{0,120}".prop_map(String::into_bytes)
        ]
    }

    proptest! {
        /// What is written is read again, with whatever follows it.
        #[test]
        fn headers_round_trip(client: (IpAddr, u16), server: (IpAddr, u16), rest in vec(any::<u8>(), 0..20)) {
            let (client, server) = (normal(client.0, client.1), normal(server.0, server.1));
            let mut bytes = Vec::new();
            ProxyHeader::write_v2(client, server, &mut bytes);
            let len = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(read(&bytes), Ok(Some((Some((client, server)), len))));
        }

        /// How a header is cut into segments changes nothing, and no bytes make the reader panic.
        #[test]
        fn segments_do_not_matter(bytes in prop_oneof![headers(), vec(any::<u8>(), 0..80)]) {
            let whole = ProxyHeader::read(&bytes);
            let first = (0..=bytes.len()).map(|len| ProxyHeader::read(&bytes[..len])).find(|read| *read != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }
    }
}
