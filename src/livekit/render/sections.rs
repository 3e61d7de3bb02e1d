//! The sections: `rtc.turn_servers` and `turn` of LiveKit, `webrtcICEServers2` of MediaMTX.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::servers::Server;
use super::yaml::{Body, Section, Value};
use crate::auth::Secret;
use crate::livekit::ice_url::ClientTransport;

/// LiveKit's own TURN port for TLS, where it listens on loopback only.
const TLS_PORT: u16 = 5349;

/// The port that LiveKit tells clients for TLS, whatever its configuration says.
const TLS_PUBLIC: u16 = 443;

/// The longest `ttl` that LiveKit uses.
const TTL_MAX: u64 = 86_400;

/// What a section says, and what to know about it.
pub struct Rendered {
    /// The section.
    pub section: Section,
    /// What it needs, one sentence each. They are not in the file.
    pub notes: Vec<String>,
}

/// What LiveKit makes credentials from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Inline(Secret),
    /// The path of a file with it, as LiveKit sees it.
    File(PathBuf),
}

/// `rtc.turn_servers`: one entry per way to reach a relay.
pub fn turn_servers(servers: &[Server], secret: &SecretSource, ttl: u64) -> Rendered {
    let (key, value, needs) = match secret {
        SecretSource::Inline(secret) => (
            "secret",
            Value::Hidden(secret.clone()),
            "`secret` needs LiveKit 1.9.10 or later; older versions know only a static `username` and `credential`",
        ),
        SecretSource::File(path) => (
            "secret_file",
            Value::Text(path.display().to_string()),
            "`secret_file` needs LiveKit 1.13 or later, and a file without permissions for others that LiveKit can read",
        ),
    };
    let entry = |server: &Server| {
        vec![
            ("host", Value::Text(server.host.clone())),
            ("port", Value::Number(server.port.into())),
            ("protocol", Value::Text(server.transport.as_str().into())),
            (key, value.clone()),
            ("ttl", Value::Number(ttl)),
        ]
    };
    let mut notes = vec![needs.to_owned()];
    if ttl > TTL_MAX {
        notes.push(format!("LiveKit 1.13.11 and later cut `ttl` to {TTL_MAX} s"));
    }
    notes.extend(about_tls_names(servers));
    let section = Section {
        parent: Some("rtc"),
        key: "turn_servers",
        notes: vec!["written by `hairpin-livekit render`, which replaces this list".into(), needs.into()],
        body: Body::List(servers.iter().map(entry).collect()),
        kept: &[],
    };
    Rendered { section, notes }
}

/// What the section `turn` needs to know.
pub struct Takeover {
    /// The name of the relay, which its certificate has.
    pub domain: String,
    /// LiveKit's `rtc.node_ip`, if it is known.
    pub node_ip: Option<IpAddr>,
    /// The ways to reach the relay.
    pub servers: Vec<Server>,
    /// The relay's listeners, if it has said what they are.
    pub listeners: Vec<(ClientTransport, SocketAddr)>,
    /// The addresses that relay, each with its external one behind a NAT, if it has said what they are.
    pub addresses: Vec<(IpAddr, Option<IpAddr>)>,
}

impl Takeover {
    /// Whether LiveKit's URL for UDP, which has its `node_ip`, leads to the relay. It is believed to if nothing says otherwise.
    fn is_at_node_ip(&self) -> bool {
        let Some(node_ip) = self.node_ip else { return true };
        let told = self.addresses.iter().flat_map(|(inside, outside)| [Some(*inside), *outside]);
        let known: Vec<_> = told.flatten().chain(self.listeners.iter().map(|(_, at)| at.ip())).collect();
        known.is_empty() || known.contains(&node_ip)
    }

    /// The address of the relay's machine that clients reach as LiveKit's `node_ip`.
    fn inside(&self) -> Option<IpAddr> {
        let behind = self.addresses.iter().find(|(_, outside)| outside.is_some() && *outside == self.node_ip);
        behind.map(|(inside, _)| *inside).or(self.node_ip)
    }
}

/// `turn`: LiveKit issues credentials of its own and keeps its TURN server on loopback, while the relay is what clients reach.
pub fn turn(takeover: &Takeover) -> Rendered {
    let Takeover { domain, node_ip, servers, listeners, .. } = takeover;
    let udp = servers.iter().find(|server| server.transport == ClientTransport::Udp);
    let udp_port = udp.map(|server| server.port).filter(|_| takeover.is_at_node_ip());
    let loopback: IpAddr = match node_ip {
        Some(IpAddr::V6(_)) => std::net::Ipv6Addr::LOCALHOST.into(),
        _ => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let is_taken = |is_udp: bool, port: u16| {
        listeners.iter().find(|(transport, at)| {
            (*transport == ClientTransport::Udp) == is_udp
                && at.port() == port
                && (at.ip().is_unspecified() || at.ip() == loopback)
        })
    };
    let tls_port = (TLS_PORT..).find(|port| is_taken(false, *port).is_none()).unwrap_or(TLS_PORT);

    let mut entry = vec![
        ("enabled", Value::Flag(true)),
        ("domain", Value::Text(domain.clone())),
        ("tls_port", Value::Number(tls_port.into())),
        ("external_tls", Value::Flag(true)),
    ];
    entry.extend(udp_port.map(|port| ("udp_port", Value::Number(port.into()))));
    entry.push(("bind_addresses", Value::Texts(vec![loopback.to_string()])));

    let mut needs = vec!["auth.livekit_keys_file with every API key of this file".to_owned()];
    if let Some(port) = udp_port {
        let at = match takeover.inside() {
            Some(ip) => SocketAddr::new(ip, port).to_string(),
            None => format!("NODE_IP:{port}"),
        };
        let which = if node_ip.is_some() { "" } else { ", where NODE_IP is LiveKit's rtc.node_ip" };
        needs.insert(0, format!("listen.udp = [\"{at}\"]{which}"));
    }
    needs.insert(needs.len() - 1, format!("TLS for {domain} on port {TLS_PUBLIC}"));
    let needs = format!("the relay needs {}", needs.join("; "));

    let mut notes = vec![needs.clone()];
    let serves = |server: &&Server| server.transport == ClientTransport::Tls && server.port == TLS_PUBLIC;
    if !servers.is_empty() && servers.iter().find(serves).is_none() {
        notes.push(format!(
            "the relay tells no TLS listener on port {TLS_PUBLIC}, where LiveKit sends clients whatever `tls_port` is; add it to \
             listen.tls"
        ));
    }
    if let Some((_, taken)) = udp_port.and_then(|port| is_taken(true, port)) {
        notes.push(format!(
            "the relay listens on {taken}, so LiveKit cannot listen on {loopback}; name the address in listen.udp instead"
        ));
    }
    if let (Some(ip), false) = (node_ip, takeover.is_at_node_ip()) {
        notes.push(format!("the relay is not at LiveKit's node_ip, {ip}, so there is no `udp_port`: its URL would lead to that address"));
    }
    if udp_port.is_none() {
        notes.push("without `udp_port`, LiveKit also gives its clients public STUN servers".to_owned());
    }
    let section = Section {
        parent: None,
        key: "turn",
        notes: vec![
            "written by `hairpin-livekit render --mode turn`, which replaces this section".into(),
            needs,
        ],
        body: Body::Map(entry),
        kept: &["ttl_seconds"],
    };
    Rendered { section, notes }
}

/// `webrtcICEServers2`: MediaMTX makes credentials from the secret.
pub fn mediamtx(servers: &[Server], secret: &Secret) -> Rendered {
    let entry = |server: &Server| {
        vec![
            ("url", Value::Text(server.url())),
            ("username", Value::Text("AUTH_SECRET".into())),
            ("password", Value::Hidden(secret.clone())),
            ("clientOnly", Value::Flag(true)),
        ]
    };
    let section = Section {
        parent: None,
        key: "webrtcICEServers2",
        notes: vec!["written by `hairpin-livekit render --mode mediamtx`, which replaces this list".into()],
        body: Body::List(servers.iter().map(entry).collect()),
        kept: &[],
    };
    Rendered { section, notes: about_tls_names(servers) }
}

/// Certificates rarely have addresses.
fn about_tls_names(servers: &[Server]) -> Vec<String> {
    let unnamed =
        servers.iter().find(|server| server.transport == ClientTransport::Tls && !server.is_named());
    let note = |server: &Server| {
        format!(
            "clients over TLS need a certificate for the address {}; if it has a name, give that with --domain",
            server.host
        )
    };
    unnamed.map(note).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::servers::all;
    use super::*;

    const URLS: [&str; 3] = [
        "turns:turn.example.org:5349?transport=tcp",
        "turn:turn.example.org:3478?transport=tcp",
        "turn:turn.example.org:3478?transport=udp",
    ];

    fn servers(urls: &[&str]) -> Vec<Server> {
        all(urls.iter().map(|url| (*url).to_owned()), None).unwrap()
    }

    fn takeover(urls: &[&str]) -> Takeover {
        let node_ip = Some("203.0.113.20".parse().unwrap());
        Takeover {
            domain: "turn.example.org".into(),
            node_ip,
            servers: servers(urls),
            listeners: Vec::new(),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn turn_servers_has_an_entry_per_url_and_udp_first() {
        let rendered =
            turn_servers(&servers(&URLS), &SecretSource::File("/etc/livekit/turn-secret".into()), 14_400);
        let entry = |protocol, port| {
            format!(
                "    - host: turn.example.org\n      port: {port}\n      protocol: {protocol}\n      secret_file: \
                 /etc/livekit/turn-secret\n      ttl: 14400\n"
            )
        };
        let text = rendered.section.print();
        let head = "rtc:\n  turn_servers:\n    # hairpin-livekit: written by `hairpin-livekit render`, which replaces this list\n";
        assert!(text.starts_with(head) && text.contains("LiveKit 1.13 or later"), "{text}");
        let entries = [entry("udp", 3478), entry("tcp", 3478), entry("tls", 5349)].concat();
        assert!(text.ends_with(&entries), "{text}");
    }

    #[test]
    fn addresses_of_ipv6_have_brackets() {
        let servers = servers(&["turn:[2001:db8::1]:3478", "turns:[2001:db8::1]:443"]);
        let rendered = turn_servers(&servers, &SecretSource::Inline(Secret::new("a \"secret\"")), 60);
        let text = rendered.section.print();
        assert!(text.contains("    - host: \"[2001:db8::1]\"\n      port: 3478\n      protocol: udp\n      secret: \"a \\\"secret\\\"\"\n      ttl: 60\n"), "{text}");
        assert!(
            rendered.notes.iter().any(|note| note.contains("[2001:db8::1]") && note.contains("--domain"))
        );
        assert!(rendered.notes.iter().any(|note| note.contains("1.9.10")));
    }

    #[test]
    fn the_turn_section_says_what_the_relay_needs() {
        let text =
            turn(&takeover(&["turn:turn.example.org:3478", "turns:turn.example.org:443"])).section.print();
        let expected = "\
turn:
  # hairpin-livekit: written by `hairpin-livekit render --mode turn`, which replaces this section
  # hairpin-livekit: the relay needs listen.udp = [\"203.0.113.20:3478\"]; TLS for turn.example.org on port 443; auth.livekit_keys_file with every API key of this file
  enabled: true
  domain: turn.example.org
  tls_port: 5349
  external_tls: true
  udp_port: 3478
  bind_addresses:
    - 127.0.0.1
";
        assert_eq!(text, expected);
    }

    /// LiveKit hard-codes port 443 in its TLS URL, and listens on loopback at ports that the relay may have.
    #[test]
    fn what_keeps_relay_and_livekit_apart_is_said() {
        let notes = turn(&takeover(&URLS)).notes;
        assert!(notes.iter().any(|note| note.contains("no TLS listener on port 443")), "{notes:?}");
        let listeners = vec![
            (ClientTransport::Udp, "0.0.0.0:3478".parse().unwrap()),
            (ClientTransport::Tls, "0.0.0.0:443".parse().unwrap()),
            (ClientTransport::Tls, "0.0.0.0:5349".parse().unwrap()),
        ];
        let urls =
            ["turn:turn.example.org:3478", "turns:turn.example.org:443", "turns:turn.example.org:5349"];
        let addresses = vec![("203.0.113.20".parse().unwrap(), None)];
        let rendered = turn(&Takeover { listeners, addresses, ..takeover(&urls) });
        assert!(rendered.section.print().contains("tls_port: 5350\n"));
        assert!(
            rendered.notes.iter().any(|note| note.contains("listens on 0.0.0.0:3478")),
            "{:?}",
            rendered.notes
        );
        let only_tls = turn(&takeover(&["turns:turn.example.org:443"]));
        assert!(!only_tls.section.print().contains("udp_port"));
        assert!(only_tls.notes.iter().any(|note| note.contains("public STUN servers")));
        let unknown = turn(&Takeover { node_ip: None, ..takeover(&["turn:a:3478"]) });
        assert!(
            unknown.section.print().contains("[\"NODE_IP:3478\"], where NODE_IP is LiveKit's rtc.node_ip")
        );
    }

    /// LiveKit's URL for UDP has its own address, whatever the relay's is.
    #[test]
    fn a_relay_elsewhere_has_no_udp_port_and_one_behind_a_nat_its_inside_address() {
        let urls = ["turn:turn.example.org:3478", "turns:turn.example.org:443"];
        let at = |inside: &str, outside: Option<&str>| {
            let addresses = vec![(inside.parse().unwrap(), outside.map(|outside| outside.parse().unwrap()))];
            turn(&Takeover { addresses, ..takeover(&urls) })
        };
        let elsewhere = at("203.0.113.7", None);
        assert!(!elsewhere.section.print().contains("udp"), "{}", elsewhere.section.print());
        assert!(
            elsewhere.notes.iter().any(|note| note.contains("not at LiveKit's node_ip")),
            "{:?}",
            elsewhere.notes
        );
        let behind = at("10.0.0.5", Some("203.0.113.20")).section.print();
        assert!(
            behind.contains("listen.udp = [\"10.0.0.5:3478\"]") && behind.contains("udp_port: 3478"),
            "{behind}"
        );
    }

    #[test]
    fn mediamtx_makes_credentials_from_the_secret() {
        let text =
            mediamtx(&servers(&["turn:[2001:db8::1]:3478", "turns:turn.example.org:443"]), &Secret::new("s"))
                .section
                .print();
        let expected = "\
webrtcICEServers2:
  # hairpin-livekit: written by `hairpin-livekit render --mode mediamtx`, which replaces this list
  - url: \"turn:[2001:db8::1]:3478?transport=udp\"
    username: AUTH_SECRET
    password: \"s\"
    clientOnly: true
  - url: turns:turn.example.org:443?transport=tcp
    username: AUTH_SECRET
    password: \"s\"
    clientOnly: true
";
        assert_eq!(text, expected);
    }
}
