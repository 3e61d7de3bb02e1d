//! `[[sibling]]`: how a section becomes a relay that takes over clients. Its keys are in the table.

use std::net::{IpAddr, SocketAddr};

use super::section::Refusal;
use super::settings::{Settings, SiblingSettings};
use crate::turn::{PerFamily, Sibling, Transport};

/// Adds a sibling to the settings.
pub(super) fn add(settings: &mut Settings, draft: SiblingSettings) -> Result<(), Refusal> {
    let refusal = |key, what, fix| Err(Refusal { key, what, fix });
    if draft.v4.is_none() && draft.v6.is_none() {
        return refusal("v4", "the sibling has no address", "add v4, v6 or both");
    }
    if [draft.udp, draft.tcp, draft.tls] == [0; 3] {
        return refusal(
            "udp",
            "the sibling has no port",
            "add the ports where it serves clients, such as udp = 3478",
        );
    }
    if draft.certificate_names_address && draft.tls == 0 {
        return refusal(
            "certificate_names_address",
            "the sibling has no port for TLS clients",
            "add one, such as tls = 5349, or remove this line",
        );
    }
    if settings.siblings.contains(&draft) {
        return refusal("v4", "this sibling is listed twice", "remove one");
    }
    settings.siblings.push(draft);
    Ok(())
}

/// What the server knows of a sibling. What of it `is_here`, is this relay itself, is left out, so that every relay may have the
/// same list.
pub(super) fn resolve(sibling: &SiblingSettings, is_here: impl Fn(Transport, SocketAddr) -> bool) -> Sibling {
    let server = |ip: Option<IpAddr>, transport, port: u64| {
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        Some(SocketAddr::new(ip?, port)).filter(|server| !is_here(transport, *server))
    };
    let servers = Transport::ALL.map(|transport| {
        let port = match transport {
            Transport::Udp => sibling.udp,
            Transport::Tcp => sibling.tcp,
            Transport::Tls => sibling.tls,
        };
        PerFamily { v4: server(sibling.v4, transport, port), v6: server(sibling.v6, transport, port) }
    });
    let domain = Some(sibling.domain.as_str()).filter(|domain| !domain.is_empty()).map(Into::into);
    Sibling { servers, domain, certificate_names_address: sibling.certificate_names_address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ReadContext, Site};
    use crate::turn::{Admission, External};

    const SECRET: &str = "[auth]\nsecrets = [\"a secret for these tests\"]\n";

    fn load(text: &str) -> Result<Vec<SiblingSettings>, Vec<String>> {
        let loaded = crate::config::load("file", &format!("{text}\n{SECRET}"), &ReadContext::NONE);
        let said = |found: Vec<crate::config::Finding>| found.iter().map(ToString::to_string).collect();
        loaded.map(|loaded| loaded.settings.siblings).map_err(said)
    }

    #[test]
    fn a_sibling_has_addresses_ports_and_a_name() {
        let text = "[[sibling]]\nv4 = \"203.0.113.8\"\nv6 = \"2001:db8::8\"\nudp = 3478\ntcp = 3479\ntls = 5349\n\
                    domain = \"turn-2.example.org.\"\ncertificate_names_address = true\n\
                    [[sibling]]\nv6 = \"2001:db8::9\"\nudp = 3478";
        let siblings = load(text).unwrap();
        let first = SiblingSettings {
            v4: Some("203.0.113.8".parse().unwrap()),
            v6: Some("2001:db8::8".parse().unwrap()),
            udp: 3478,
            tcp: 3479,
            tls: 5349,
            domain: "turn-2.example.org".into(),
            certificate_names_address: true,
        };
        let second =
            SiblingSettings { v6: Some("2001:db8::9".parse().unwrap()), udp: 3478, ..Default::default() };
        assert_eq!(siblings, [first, second]);
    }

    #[test]
    fn mistakes_in_a_sibling_are_told() {
        for (text, expected) in [
            ("udp = 3478", "sibling.v4: the sibling has no address; add v4, v6 or both"),
            ("v4 = \"203.0.113.8\"", "sibling.udp: the sibling has no port; add the ports where it serves"),
            (
                "v4 = \"203.0.113.8\"\nudp = 3478\ncertificate_names_address = true",
                "sibling.certificate_names_address = true: the sibling has no port for TLS clients; add one",
            ),
            ("v4 = \"2001:db8::8\"\nudp = 3478", "sibling.v4 = \"2001:db8::8\": not an IPv4 address"),
            ("v6 = \"203.0.113.8\"\nudp = 3478", "sibling.v6 = \"203.0.113.8\": not an IPv6 address"),
            ("v4 = \"turn-2.example.org\"\nudp = 3478", "not an IPv4 address; write it like \"203.0.113.8\""),
            ("v4 = \"0.0.0.0\"\nudp = 3478", "sibling.v4 = \"0.0.0.0\": cannot be the address of a relay"),
            (
                "v4 = \"224.0.0.1\"\nudp = 3478",
                "sibling.v4 = \"224.0.0.1\": cannot be the address of a relay",
            ),
            ("v6 = \"fe80::1\"\nudp = 3478", "sibling.v6 = \"fe80::1\": cannot be the address of a relay"),
            ("v6 = \"::ffff:1.2.3.4\"\nudp = 3478", "cannot be the address of a relay"),
            (
                "v4 = \"203.0.113.8\"\nudp = 0",
                "sibling.udp = 0: out of range; write a number from 1 to 65535",
            ),
            ("v4 = \"203.0.113.8\"\nudp = 65536", "out of range; write a number from 1 to 65535"),
            (
                "v4 = \"203.0.113.8\"\ntls = 5349\ndomain = \"türn.example.org\"",
                "not ASCII; write its A-labels, like \"xn--bcher-kva.example.org\"",
            ),
            ("v4 = \"203.0.113.8\"\ntls = 5349\ndomain = \"turn_2.example.org\"", "not a host name"),
            ("v4 = \"203.0.113.8\"\ntls = 5349\ndomain = \"-.example.org\"", "not a host name"),
            ("v4 = \"203.0.113.8\"\ntls = 5349\ndomain = \"turn..org\"", "not a host name"),
            ("v4 = \"203.0.113.8\"\ntls = 5349\ndomain = \"203.0.113.8\"", "not a host name"),
            ("v4 = \"203.0.113.8\"\nport = 3478", "sibling.port: unknown setting"),
            (
                "v4 = \"203.0.113.8\"\nudp = 3478\n[[sibling]]\nv4 = \"203.0.113.8\"\nudp = 3478",
                "this sibling is listed twice; remove one",
            ),
        ] {
            let found = load(&format!("[[sibling]]\n{text}")).unwrap_err();
            assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
        }
    }

    /// RFC 8489 §10: without ALTERNATE-DOMAIN, a client over TLS looks for the name that it knows.
    #[test]
    fn a_sibling_for_tls_clients_without_a_name_is_a_warning() {
        let warnings = |domain: &str| {
            let text = format!(
                "[[sibling]]\nv4 = \"203.0.113.8\"\ntls = 5349\ncertificate_names_address = true\n{domain}\n{SECRET}"
            );
            let loaded = crate::config::load("file", &text, &ReadContext::NONE).unwrap();
            loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(warnings("domain = \"turn-2.example.org\"").is_empty());
        let found = warnings("");
        let expected = "the sibling 203.0.113.8 has no `domain`: TLS clients of RFC 8489 look for the name of this relay";
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }

    /// Every relay may have the same list: what is this relay itself is left out.
    #[test]
    fn a_relay_is_no_sibling_of_itself() {
        let text = "[[sibling]]\nv4 = \"203.0.113.7\"\nudp = 3478\ntcp = 3478\n\
                    [[sibling]]\nv4 = \"203.0.113.8\"\nudp = 3478\ntcp = 3478";
        let settings = Settings { siblings: load(text).unwrap(), ..Settings::default() };
        let site = |listener: &str, local: &str| Site {
            listeners: vec![(Transport::Udp, listener.parse().unwrap())],
            closing: Vec::new(),
            relay: vec![local.parse().unwrap()],
            external: External::new(vec![("10.0.0.7".parse().unwrap(), "203.0.113.7".parse().unwrap())]),
            own: vec![local.parse().unwrap()],
            draining: true,
            ..Site::default()
        };
        for (listener, local, is_here) in [
            ("203.0.113.7:3478", "203.0.113.7", true),
            ("0.0.0.0:3478", "203.0.113.7", true),
            ("10.0.0.7:3478", "10.0.0.7", true),
            ("0.0.0.0:3478", "10.0.0.7", true),
            ("0.0.0.0:3479", "203.0.113.7", false),
            ("203.0.113.9:3478", "203.0.113.9", false),
            ("[::]:3478", "203.0.113.7", false),
        ] {
            let siblings = settings.turn(&site(listener, local)).admission;
            let Admission::Draining(siblings) = siblings else { panic!("it drains") };
            let over_udp: Vec<_> = siblings.iter().map(|one| one.servers[0].v4.is_some()).collect();
            assert_eq!(over_udp, [!is_here, true], "{listener} {local}");
            // Another server on this machine may have the port of another transport.
            assert!(siblings.iter().all(|one| one.servers[1].v4.is_some()));
        }
    }
}
