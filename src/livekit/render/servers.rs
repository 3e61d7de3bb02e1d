//! The relays as TURN servers in the configuration of LiveKit and MediaMTX, from their ICE URLs.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::livekit::ice_url::{ClientTransport, IceUrl};

/// A way to reach a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; that of IPv6 has brackets, as LiveKit needs it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The transport.
    pub transport: ClientTransport,
}

impl Server {
    /// The server of an ICE URL.
    ///
    /// # Errors
    ///
    /// The URL is none of TURN over UDP, TCP or TLS.
    pub fn of(url: &str) -> Result<Server, String> {
        let wrong = || {
            format!(
                "{url:?} is not the URL of a TURN server that LiveKit and MediaMTX know; write it like \
                 turn:turn.example.org:3478?transport=udp or turns:turn.example.org:443"
            )
        };
        let IceUrl { transport, host, port } = IceUrl::parse(url).ok_or_else(wrong)?;
        let host = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) if is_name(&host) => host,
            Err(_) => return Err(wrong()),
        };
        Ok(Server { host, port, transport })
    }

    /// Its ICE URL.
    pub fn url(&self) -> String {
        let (scheme, over) = match self.transport {
            ClientTransport::Udp => ("turn", "udp"),
            ClientTransport::Tcp => ("turn", "tcp"),
            ClientTransport::Tls => ("turns", "tcp"),
        };
        format!("{scheme}:{}:{}?transport={over}", self.host, self.port)
    }

    /// Whether the host is a name.
    pub fn is_named(&self) -> bool {
        !self.host.starts_with('[') && self.host.parse::<Ipv4Addr>().is_err()
    }
}

/// The servers of all relays, each way once, UDP first. With a `domain`, every host has that name.
///
/// # Errors
///
/// A URL that is none.
pub fn all(urls: impl IntoIterator<Item = String>, domain: Option<&str>) -> Result<Vec<Server>, String> {
    let mut servers: Vec<Server> = Vec::new();
    // An entry of its own for STUN is not needed: a relay answers that, too.
    for url in urls.into_iter().filter(|url| !url.starts_with("stun")) {
        let mut server = Server::of(&url)?;
        if let Some(domain) = domain {
            domain.clone_into(&mut server.host);
        }
        let is_known = |known: &Server| {
            known.host.eq_ignore_ascii_case(&server.host)
                && (known.port, known.transport) == (server.port, server.transport)
        };
        if !servers.iter().any(is_known) {
            servers.push(server);
        }
    }
    servers.sort_by_key(|server| server.transport);
    Ok(servers)
}

/// A name for all relays, or an address.
///
/// # Errors
///
/// How to write it.
pub fn domain(text: &str) -> Result<String, String> {
    match Server::of(&format!("turn:{text}:1")) {
        Ok(server) if server.port == 1 => Ok(server.host),
        _ => Err("write a name like turn.example.org, or an address like 192.0.2.1 or [2001:db8::1]".into()),
    }
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7065 §3.1
    #[test]
    fn urls_are_read_with_their_defaults_and_written_in_full() {
        for (url, expected) in [
            ("turn:turn.example.org", "turn:turn.example.org:3478?transport=udp"),
            ("turns:turn.example.org", "turns:turn.example.org:5349?transport=tcp"),
            ("TURN:192.0.2.1:443?transport=TCP", "turn:192.0.2.1:443?transport=tcp"),
            ("turn:[2001:db8:0::1]:3478?transport=udp", "turn:[2001:db8::1]:3478?transport=udp"),
            ("turns:[2001:db8::1]", "turns:[2001:db8::1]:5349?transport=tcp"),
        ] {
            assert_eq!(Server::of(url).unwrap().url(), expected);
        }
        for url in [
            "",
            "turn",
            "stun:a:1",
            "http://a",
            "turn:",
            "turn:a:0",
            "turn:a:65536",
            "turn:a:1x",
            "turn:[::1",
            "turn:::1",
            "turn:[a]:1",
            "turn:a b:1",
            "turn:a..b",
            "turn:[::1]1",
            "turn:a?transport=sctp",
            "turns:a?transport=udp",
            "turn:a\n:1",
        ] {
            assert!(Server::of(url).is_err(), "{url:?}");
        }
    }

    /// Clients take the first server that works, and libwebrtc one UDP port per server: UDP first, each way once.
    #[test]
    fn udp_is_first_and_every_way_is_there_once() {
        let urls = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let one = urls(&[
            "turns:a:5349",
            "turn:a:3478?transport=tcp",
            "turn:a:3478",
            "turn:A:3478?transport=udp",
            "turn:b:3478",
        ]);
        let shown = |servers: Vec<Server>| servers.iter().map(Server::url).collect::<Vec<_>>();
        let expected = [
            "turn:a:3478?transport=udp",
            "turn:b:3478?transport=udp",
            "turn:a:3478?transport=tcp",
            "turns:a:5349?transport=tcp",
        ];
        assert_eq!(shown(all(one.clone(), None).unwrap()), expected);
        // Several relays behind one name have one entry.
        let expected = [
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:5349?transport=tcp",
        ];
        assert_eq!(shown(all(one, Some("turn.example.org")).unwrap()), expected);
    }
}
