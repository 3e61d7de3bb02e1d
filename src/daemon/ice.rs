//! ICE servers in the format of browsers: `{"iceServers": [{"urls": [..], "username": .., "credential": ..}]}`, with
//! time-limited credentials.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::auth::{Secret, time_limited_password};
use crate::turn::{External, Transport};

/// The ICE servers for clients of this relay, valid until `expiry` (Unix seconds).
pub fn servers(urls: &[String], secret: &Secret, user: &str, expiry: u64) -> Value {
    let username = format!("{expiry}:{user}");
    let credential = time_limited_password(secret.as_bytes(), &username);
    json!({ "iceServers": [{ "urls": urls, "username": username, "credential": credential }] })
}

/// The URL of every listener (RFC 7065), once, and those for UDP first: clients try them in this order, and UDP has the least delay.
/// Wildcard listeners are reached at the external address of the first of `addresses` of
/// their family. With a `domain`, every URL has that instead of an address. Otherwise URLs for TLS have the first name of the
/// certificate, given all of them, because clients refuse an address that is not one of these. A name that a listener passes on to
/// a backend leads to no TURN over TLS there.
pub fn urls(
    listeners: &[(Transport, SocketAddr)],
    addresses: &[IpAddr],
    external: &External,
    domain: Option<&str>,
    certified: &[String],
    is_passed: &dyn Fn(SocketAddr, &str) -> bool,
) -> Vec<String> {
    // A wildcard stands for many names.
    let is_name = |name: &&String| !name.starts_with('*') && name.parse::<IpAddr>().is_err();
    let host = |ip| host(external.outside(SocketAddr::new(ip, 0)).ip());
    let mut listeners = listeners.to_vec();
    listeners.sort_by_key(|(transport, _)| transport.index());
    let mut urls = Vec::new();
    for (transport, listener) in &listeners {
        let (scheme, over) = match transport {
            Transport::Udp => ("turn", "udp"),
            Transport::Tcp => ("turn", "tcp"),
            Transport::Tls => ("turns", "tcp"),
        };
        let host = match (domain, listener.ip()) {
            (Some(domain), _) => Some(domain.to_owned()),
            (None, ip) if !ip.is_unspecified() => Some(host(ip)),
            (None, any) => addresses.iter().find(|ip| ip.is_ipv4() == any.is_ipv4()).map(|ip| host(*ip)),
        };
        let is_passed = |name: &str| *transport == Transport::Tls && is_passed(*listener, name);
        let name = certified.iter().filter(is_name).find(|name| !is_passed(name));
        let host = host.map(|host| match name {
            Some(name) if *transport == Transport::Tls && domain.is_none() && !certified.contains(&host) => {
                name.clone()
            }
            _ => host,
        });
        let host = host.filter(|host| !is_passed(host));
        let url = host.map(|host| format!("{scheme}:{host}:{}?transport={over}", listener.port()));
        urls.extend(url.filter(|url| !urls.contains(url)));
    }
    urls
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

    fn listeners(texts: &[&str]) -> Vec<(Transport, SocketAddr)> {
        texts.iter().map(|text| (Transport::Udp, text.parse().unwrap())).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The URLs if nothing is passed on.
    fn offered(
        listeners: &[(Transport, SocketAddr)],
        addresses: &[IpAddr],
        external: &External,
        domain: Option<&str>,
        certified: &[String],
    ) -> Vec<String> {
        urls(listeners, addresses, external, domain, certified, &|_, _| false)
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

    /// A client that asked for a name which a route passes on would reach a web server.
    #[test]
    fn a_name_that_is_passed_on_is_not_offered_for_tls() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listeners = [
            (Transport::Tcp, at("0.0.0.0:443")),
            (Transport::Tls, at("0.0.0.0:443")),
            (Transport::Tls, at("0.0.0.0:5349")),
        ];
        let names = ["www.example.org".to_owned(), "turn.example.org".to_owned()];
        let is_passed = |address: SocketAddr, name: &str| address.port() == 443 && name.starts_with("www.");
        let offered = |domain| urls(&listeners, &[], &none(), domain, &names, &is_passed);
        let expected = ["turn:www.example.org:443?transport=tcp", "turns:www.example.org:5349?transport=tcp"];
        assert_eq!(offered(Some("www.example.org")), expected);
        let address = addresses(&["192.0.2.7"]);
        let expected = [
            "turn:192.0.2.7:443?transport=tcp",
            "turns:turn.example.org:443?transport=tcp",
            "turns:www.example.org:5349?transport=tcp",
        ];
        assert_eq!(urls(&listeners, &address, &none(), None, &names, &is_passed), expected);
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
