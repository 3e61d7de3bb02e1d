//! The URLs of TURN servers as clients get them (RFC 7065).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// How clients reach a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientTransport {
    /// UDP.
    Udp,
    /// TCP without TLS.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl ClientTransport {
    /// Every transport.
    pub const ALL: [ClientTransport; 3] = [ClientTransport::Udp, ClientTransport::Tcp, ClientTransport::Tls];

    /// Its name in the relay's status, in metrics and in LiveKit's `protocol`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClientTransport::Udp => "udp",
            ClientTransport::Tcp => "tcp",
            ClientTransport::Tls => "tls",
        }
    }

    /// The transport with this name.
    pub fn from_name(name: &str) -> Option<ClientTransport> {
        ClientTransport::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

impl fmt::Display for ClientTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ClientTransport::Udp => "UDP",
            ClientTransport::Tcp => "TCP",
            ClientTransport::Tls => "TLS",
        })
    }
}

/// The URL of a TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceUrl {
    /// The transport.
    pub transport: ClientTransport,
    /// A name or an address, which has no brackets here.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl IceUrl {
    /// Reads a `turn:` or `turns:` URL. `None` for everything else: `stun:`, and DTLS, which browsers do not speak.
    pub fn parse(url: &str) -> Option<IceUrl> {
        let (scheme, rest) = url.split_once(':')?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "turn" => false,
            "turns" => true,
            _ => return None,
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = match (is_tls, query.to_ascii_lowercase().as_str()) {
            // RFC 7065 section 3.2: UDP unless the URL says otherwise, and TLS over TCP.
            (false, "" | "transport=udp") => ClientTransport::Udp,
            (false, "transport=tcp") => ClientTransport::Tcp,
            (true, "" | "transport=tcp") => ClientTransport::Tls,
            _ => return None,
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        // RFC 7065 section 3.2
        let default = if is_tls { 5349 } else { 3478 };
        let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port != 0))?;
        (!host.is_empty()).then(|| IceUrl { transport, host: host.to_owned(), port })
    }

    /// The host, if it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7065 §3.1, §3.2
    #[test]
    fn urls_of_turn_servers_are_read() {
        use ClientTransport::{Tcp, Tls, Udp};
        for (text, transport, host, port) in [
            ("turn:192.0.2.1:3478?transport=udp", Udp, "192.0.2.1", 3478),
            ("turn:turn.example.org", Udp, "turn.example.org", 3478),
            ("turn:turn.example.org:80?transport=tcp", Tcp, "turn.example.org", 80),
            ("turns:turn.example.org:443?transport=tcp", Tls, "turn.example.org", 443),
            ("turns:turn.example.org", Tls, "turn.example.org", 5349),
            ("TURNS:[2001:db8::1]:443?Transport=TCP", Tls, "2001:db8::1", 443),
            ("turn:[2001:db8::1]", Udp, "2001:db8::1", 3478),
        ] {
            let expected = IceUrl { transport, host: host.into(), port };
            assert_eq!(IceUrl::parse(text), Some(expected), "{text}");
        }
        for text in [
            "stun:192.0.2.1:3478",
            "turns:turn.example.org?transport=udp",
            "turn:",
            "turn:host:0",
            "turn:host:65536",
            "turn:host:1?transport=sctp",
            "turn:[host]:1",
            "turn:[2001:db8::1]1",
            "turn",
            "",
        ] {
            assert_eq!(IceUrl::parse(text), None, "{text}");
        }
    }
}
