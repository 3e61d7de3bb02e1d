//! ICE servers in the format of browsers: `{"iceServers": [{"urls": [..], "username": .., "credential": ..}]}`, with
//! time-limited credentials.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::auth::{Secret, time_limited_password};
use crate::config::Settings;
use crate::turn::{External, Transport};

/// The ICE servers for clients of this relay, valid until `expiry` (Unix seconds).
pub fn servers(urls: &[String], secret: &Secret, user: &str, expiry: u64) -> Value {
    let username = format!("{expiry}:{user}");
    let credential = time_limited_password(secret.as_bytes(), &username);
    json!({ "iceServers": [{ "urls": urls, "username": username, "credential": credential }] })
}

/// What URLs for clients are made of.
pub struct Offer<'a> {
    /// Where clients are served.
    pub listeners: &'a [(Transport, SocketAddr)],
    /// The relayed addresses: wildcard listeners are reached at the first one of their family.
    pub addresses: &'a [IpAddr],
    /// What they are outside of a NAT.
    pub external: &'a External,
    /// What every URL has instead of an address.
    pub domain: Option<&'a str>,
    /// The names of certificates.
    pub certified: &'a [String],
    /// What clients connect to instead of a listener, and whether a listener passes a name on to a backend.
    pub settings: &'a Settings,
}

impl Offer<'_> {
    /// The URL of every listener (RFC 7065), once, and those for UDP first: clients try them in this order, and UDP has the least
    /// delay. `public` of a listener comes before the domain, and the domain before an address. With an address, URLs for TLS have
    /// the first name of the certificate, given all of them, because clients refuse an address that is not one of these. A name
    /// that a listener passes on to a backend leads to no TURN over TLS there, and nobody else reaches a loopback address.
    pub fn urls(&self) -> Vec<String> {
        let mut listeners = self.listeners.to_vec();
        listeners.sort_by_key(|(transport, _)| transport.index());
        let mut urls: Vec<String> = Vec::new();
        let hides_loopback = self.hides_loopback();
        for listener in listeners.into_iter().filter(|one| !(hides_loopback && self.is_loopback(*one))) {
            let (scheme, over) = match listener.0 {
                Transport::Udp => ("turn", "udp"),
                Transport::Tcp => ("turn", "tcp"),
                Transport::Tls => ("turns", "tcp"),
            };
            let Some((host, port)) = self.host(listener) else { continue };
            let url = format!("{scheme}:{host}:{port}?transport={over}");
            if !urls.iter().any(|known| known.eq_ignore_ascii_case(&url)) {
                urls.push(url);
            }
        }
        urls
    }

    /// Why some listeners have no URL, and what to do.
    pub fn notes(&self) -> Vec<String> {
        let hides_loopback = self.hides_loopback();
        let note = |&(transport, address): &(Transport, SocketAddr)| {
            let shown = format!("{} {address}", transport.as_str());
            if hides_loopback && self.is_loopback((transport, address)) {
                return Some(format!(
                    "{shown} is in no URL for clients: nobody else reaches a loopback address; if a balancer or a proxy does, set \
                     public = \"HOST:PORT\" in its [[listener]] to what clients connect to"
                ));
            }
            let (name, origin) = match self.settings.public(transport, address) {
                Some(public) => (public.host.clone(), "public"),
                None => (self.domain?.to_owned(), "--domain"),
            };
            self.is_passed((transport, address), &name).then(|| {
                format!(
                    "{shown} has no turns: URL for {name} ({origin}): a route passes connections for this name on to a backend; \
                     choose a name of the relay's own, or end TLS here with {{ http = \"HOST:PORT\" }}"
                )
            })
        };
        self.listeners.iter().filter_map(note).collect()
    }

    /// The host and the port of a URL.
    fn host(&self, listener: (Transport, SocketAddr)) -> Option<(String, u16)> {
        let (transport, address) = listener;
        let public = self.settings.public(transport, address);
        let port = public.and_then(|public| public.port).unwrap_or(address.port());
        let host = match (public, self.domain) {
            (Some(public), _) => public.url_host(),
            (None, Some(domain)) => domain.to_owned(),
            (None, None) => host(self.reached(address.ip())?),
        };
        let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
        let is_chosen = public.is_none() && self.domain.is_some();
        if transport == Transport::Tls && is_address && !is_chosen && !self.certified.contains(&host) {
            // A wildcard stands for many names.
            let is_name = |name: &&String| !name.starts_with('*') && name.parse::<IpAddr>().is_err();
            let mut names = self.certified.iter().filter(is_name);
            if let Some(name) = names.find(|name| !self.is_passed(listener, name)) {
                return Some((name.clone(), port));
            }
        }
        (!self.is_passed(listener, &host)).then_some((host, port))
    }

    /// Where clients reach a listener with this address.
    fn reached(&self, ip: IpAddr) -> Option<IpAddr> {
        let of_family = || self.addresses.iter().copied().find(|one| one.is_ipv4() == ip.is_ipv4());
        let ip = if ip.is_unspecified() { of_family() } else { Some(ip) };
        Some(self.external.outside(SocketAddr::new(ip?, 0)).ip())
    }

    /// Whether listeners at loopback addresses have no URL, since others have one.
    fn hides_loopback(&self) -> bool {
        self.listeners.iter().any(|one| !self.is_loopback(*one) && self.host(*one).is_some())
    }

    fn is_loopback(&self, (transport, address): (Transport, SocketAddr)) -> bool {
        self.settings.public(transport, address).is_none()
            && self.reached(address.ip()).is_some_and(|ip| ip.is_loopback())
    }

    fn is_passed(&self, (transport, address): (Transport, SocketAddr), name: &str) -> bool {
        transport == Transport::Tls && self.settings.passes_on(address, name)
    }
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ReadContext, load};

    fn listeners(texts: &[&str]) -> Vec<(Transport, SocketAddr)> {
        texts.iter().map(|text| (Transport::Udp, text.parse().unwrap())).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The URLs of listeners without settings of their own.
    fn offered(
        listeners: &[(Transport, SocketAddr)],
        addresses: &[IpAddr],
        external: &External,
        domain: Option<&str>,
        certified: &[String],
    ) -> Vec<String> {
        let settings = &Settings::default();
        Offer { listeners, addresses, external, domain, certified, settings }.urls()
    }

    /// What is offered with this configuration, and what is said about it, at 192.0.2.7.
    fn configured(text: &str, domain: Option<&str>, certified: &[&str]) -> (Vec<String>, Vec<String>) {
        let text = format!(
            "{text}\n[relay]\naddresses = [\"192.0.2.7\"]\n[auth]\nsecrets = [\"a secret of these tests\"]"
        );
        let context = ReadContext { generates: true, ..ReadContext::NONE };
        let settings = &load("hairpin.toml", &text, &context).unwrap().settings;
        let certified: Vec<String> = certified.iter().map(|name| (*name).to_owned()).collect();
        let (listeners, addresses) = (&settings.listener_addresses()[..], &settings.relay.addresses[..]);
        let offer =
            Offer { listeners, addresses, external: &none(), domain, certified: &certified, settings };
        (offer.urls(), offer.notes())
    }

    fn none() -> External {
        External::default()
    }

    #[test]
    fn addresses_behind_a_nat_appear_as_their_external_addresses() {
        let pair = |local: &str, public: &str| (local.parse().unwrap(), public.parse().unwrap());
        let external = External::new(vec![pair("10.0.0.5", "203.0.113.5"), pair("10.0.0.6", "203.0.113.6")]);
        let udp = listeners(&["0.0.0.0:3478", "10.0.0.6:3479"]);
        let expected = ["turn:203.0.113.5:3478?transport=udp", "turn:203.0.113.6:3479?transport=udp"];
        assert_eq!(offered(&udp, &addresses(&["10.0.0.5", "10.0.0.6"]), &external, None, &[]), expected);
    }

    #[test]
    fn wildcards_become_the_advertised_addresses() {
        let udp = listeners(&["0.0.0.0:3478", "[::]:3478"]);
        let both = addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let expected = ["turn:192.0.2.1:3478?transport=udp", "turn:[2001:db8::1]:3478?transport=udp"];
        assert_eq!(offered(&udp, &both, &none(), None, &[]), expected);
        assert_eq!(offered(&udp, &both[..1], &none(), None, &[]), expected[..1]);
        assert_eq!(
            offered(&udp, &both, &none(), Some("turn.example.org"), &[]),
            ["turn:turn.example.org:3478?transport=udp"]
        );
    }

    #[test]
    fn specific_listeners_keep_their_address() {
        let udp = listeners(&["192.0.2.7:4000", "[2001:db8::7]:4001"]);
        let expected = ["turn:192.0.2.7:4000?transport=udp", "turn:[2001:db8::7]:4001?transport=udp"];
        assert_eq!(offered(&udp, &addresses(&["192.0.2.1"]), &none(), None, &[]), expected);
    }

    /// RFC 7065 §3.1
    #[test]
    fn every_transport_has_its_url() {
        let listeners: Vec<_> =
            Transport::ALL.into_iter().map(|one| (one, "192.0.2.7:4000".parse().unwrap())).collect();
        let expected = [
            "turn:192.0.2.7:4000?transport=udp",
            "turn:192.0.2.7:4000?transport=tcp",
            "turns:192.0.2.7:4000?transport=tcp",
        ];
        assert_eq!(offered(&listeners, &[], &none(), None, &[]), expected);
    }

    /// Clients take the first server that works, and gather a candidate from each server for UDP.
    #[test]
    fn udp_is_first_and_every_way_is_there_once() {
        let listeners = [
            (Transport::Tls, "0.0.0.0:443"),
            (Transport::Tcp, "0.0.0.0:443"),
            (Transport::Udp, "0.0.0.0:443"),
            (Transport::Udp, "192.0.2.7:443"),
            (Transport::Tcp, "0.0.0.0:3478"),
            (Transport::Udp, "0.0.0.0:3478"),
        ];
        let listeners = listeners.map(|(transport, text)| (transport, text.parse().unwrap()));
        let expected = [
            "turn:192.0.2.7:443?transport=udp",
            "turn:192.0.2.7:3478?transport=udp",
            "turn:192.0.2.7:443?transport=tcp",
            "turn:192.0.2.7:3478?transport=tcp",
            "turns:192.0.2.7:443?transport=tcp",
        ];
        assert_eq!(offered(&listeners, &addresses(&["192.0.2.7"]), &none(), None, &[]), expected);
        let named = offered(&listeners, &[], &none(), Some("turn.example.org"), &[]);
        assert_eq!(named, expected.map(|url| url.replace("192.0.2.7", "turn.example.org")));
    }

    /// RFC 9525 §6: a client verifies the certificate by the host of the URL.
    #[test]
    fn tls_has_a_name_of_the_certificate() {
        let both: Vec<_> =
            [Transport::Tcp, Transport::Tls].map(|one| (one, "192.0.2.7:4000".parse().unwrap())).into();
        let host = |names: &[&str], domain| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let urls = offered(&both, &[], &none(), domain, &names);
            assert_eq!(urls[0], format!("turn:{}:4000?transport=tcp", domain.unwrap_or("192.0.2.7")));
            urls[1].clone()
        };
        let named = "turns:turn.example.org:4000?transport=tcp";
        assert_eq!(host(&["*.example.org", "turn.example.org", "www.example.org"], None), named);
        assert_eq!(host(&["www.example.org"], Some("turn.example.org")), named);
        for names in [&["turn.example.org", "192.0.2.7"][..], &["*.example.org"], &["192.0.2.8"], &[]] {
            assert_eq!(host(names, None), "turns:192.0.2.7:4000?transport=tcp", "{names:?}");
        }
    }

    /// A client that asked for a name which a route passes on would reach a web server. The operator is told.
    #[test]
    fn a_name_that_is_passed_on_is_not_offered_for_tls() {
        let text = "[listen]\ntls = \"0.0.0.0:5349\"\n[[listener]]\naddress = \"0.0.0.0:443\"\ntransports = [\"tcp\", \"tls\"]\n\
                    routes = { \"www.example.org\" = \"127.0.0.1:8443\" }";
        let names = ["www.example.org", "turn.example.org"];
        let (urls, notes) = configured(text, Some("www.example.org"), &names);
        let expected = ["turn:www.example.org:443?transport=tcp", "turns:www.example.org:5349?transport=tcp"];
        assert_eq!(urls, expected);
        assert!(
            notes.len() == 1
                && notes[0].starts_with(
                    "tls 0.0.0.0:443 has no turns: URL for www.example.org (--domain): a route passes"
                ),
            "{notes:?}"
        );
        let (urls, notes) = configured(text, None, &names);
        let expected = [
            "turn:192.0.2.7:443?transport=tcp",
            "turns:www.example.org:5349?transport=tcp",
            "turns:turn.example.org:443?transport=tcp",
        ];
        assert_eq!((urls, notes.len()), (expected.map(str::to_owned).into(), 0));
    }

    /// Behind a balancer and behind a NAT that maps ports, clients connect to another host and port than the listener's.
    #[test]
    fn the_public_host_and_port_are_offered() {
        let urls = |text: &str, domain| configured(text, domain, &["turn.example.org"]);
        let balanced = |public: &str| {
            format!(
                "[listen]\nudp = [\"0.0.0.0:443\"]\n[[listener]]\naddress = \"127.0.0.1:5349\"\ntransports = [\"tls\"]\n\
                 proxy_from = [\"127.0.0.1\"]\n{public}"
            )
        };
        let udp = "turn:192.0.2.7:443?transport=udp".to_owned();
        for (public, expected) in [
            ("turn.example.org:443", "turns:turn.example.org:443?transport=tcp"),
            ("Other.example.org.:8443", "turns:other.example.org:8443?transport=tcp"),
            ("turn.example.org", "turns:turn.example.org:5349?transport=tcp"),
            // An address is no name of the certificate.
            ("203.0.113.9:443", "turns:turn.example.org:443?transport=tcp"),
            ("[2001:DB8::9]:443", "turns:turn.example.org:443?transport=tcp"),
        ] {
            let (found, notes) = urls(&balanced(&format!("public = \"{public}\"")), None);
            assert_eq!((found, notes.len()), (vec![udp.clone(), expected.to_owned()], 0), "{public}");
        }
        // What is written for one listener counts more than the name of all.
        let (found, _) = urls(&balanced("public = \"turn.example.org:443\""), Some("relay.example.org"));
        let expected =
            ["turn:relay.example.org:443?transport=udp", "turns:turn.example.org:443?transport=tcp"];
        assert_eq!(found, expected);
        let mapped = "[[listener]]\naddress = \"10.0.0.5:8443\"\ntransports = [\"tls\", \"tcp\", \"udp\"]\npublic = \"203.0.113.9:443\"";
        let expected = [
            "turn:203.0.113.9:443?transport=udp",
            "turn:203.0.113.9:443?transport=tcp",
            "turns:turn.example.org:443?transport=tcp",
        ];
        assert_eq!(urls(mapped, None).0, expected);
        // Two sockets behind one public address are one URL.
        let twice = "[[listener]]\naddress = \"10.0.0.5:1\"\ntransports = [\"udp\"]\npublic = \"Turn.example.org:443\"\n[[listener]]\n\
                     address = \"10.0.0.5:2\"\ntransports = [\"udp\"]\npublic = \"turn.example.org:443\"";
        assert_eq!(urls(twice, None).0, ["turn:turn.example.org:443?transport=udp"]);
    }

    /// Nobody else reaches a loopback address; where there is nothing else, it is a relay for this machine alone.
    #[test]
    fn loopback_addresses_are_offered_only_where_there_is_no_other() {
        let text = "[listen]\ntcp = []\nudp = [\"0.0.0.0:443\"]\ntls = [\"127.0.0.1:5349\", \"[::1]:5349\"]";
        for domain in [None, Some("turn.example.org")] {
            let (urls, notes) = configured(text, domain, &[]);
            assert_eq!(urls.len(), 1, "{urls:?}");
            assert!(urls[0].ends_with(":443?transport=udp"), "{urls:?}");
            assert!(notes.len() == 2 && notes[0].contains("set public = \"HOST:PORT\""), "{notes:?}");
        }
        let alone = "[listen]\ntcp = []\nudp = [\"127.0.0.1:3478\"]\ntls = [\"127.0.0.1:5349\"]";
        let expected = ["turn:127.0.0.1:3478?transport=udp", "turns:127.0.0.1:5349?transport=tcp"];
        assert_eq!(configured(alone, None, &[]), (expected.map(str::to_owned).into(), Vec::new()));
        let (urls, _) = configured(alone, Some("turn.example.org"), &[]);
        assert_eq!(urls[1], "turns:turn.example.org:5349?transport=tcp");
    }

    #[test]
    fn the_object_has_the_format_of_browsers() {
        let urls = ["turn:192.0.2.1:3478?transport=udp".to_owned()];
        let object = servers(&urls, &Secret::new("north"), "mbzrxpgjys", 12_334_939);
        assert_eq!(
            object.to_string(),
            r#"{"iceServers":[{"credential":"Iq7YXkRon8YXJfdN1Ke9EZOw1UE=","urls":["turn:192.0.2.1:3478?transport=udp"],"username":"12334939:mbzrxpgjys"}]}"#
        );
    }
}
