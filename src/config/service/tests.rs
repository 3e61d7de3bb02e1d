//! What the TCP connections of a `[[listener]]` may be.

use std::net::SocketAddr;

use super::*;
use crate::config::tests::{GOOD, lines, one, read};
use crate::datapath::StreamService;

const TLS: &str = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";

const HEAD: &str = "[[listener]]\naddress = \"192.0.2.1:443\"\ntransports = [\"udp\", \"tcp\"]\n";

/// The service of a `[[listener]]` with these lines.
fn service(text: &str) -> ServiceSettings {
    let settings = read(&format!("{TLS}{HEAD}{text}\n{GOOD}"));
    (*settings.listener[0].service).clone()
}

fn backend(text: &str, send_proxy: bool) -> Backend {
    let (host, port) = text.rsplit_once(':').unwrap();
    Backend { host: host.into(), port: port.parse().unwrap(), send_proxy }
}

fn name(text: &str) -> CertificateName {
    CertificateName::parse(text).unwrap()
}

/// A route is a text or a table, and TOML has several ways to write a table.
#[test]
fn routes_can_be_written_in_every_way_of_toml() {
    let www = (name("www.example.org"), Route::Pass(backend("127.0.0.1:8443", false)));
    let apps = (name("*.apps.example.org"), Route::Pass(backend("backend.internal:8443", true)));
    let both = Route::Terminate {
        http: Some(backend("127.0.0.1:7880", true)),
        h2c: Some(backend("localhost:7881", true)),
    };
    let turn = (name("turn.example.org"), both);
    for text in [
        "[listener.routes]\n\"www.example.org\" = \"127.0.0.1:8443\"\n\
         \"*.apps.example.org\" = { pass = \"backend.internal:8443\", send_proxy = true }\n\
         \"turn.example.org\" = { http = \"127.0.0.1:7880\", h2c = \"localhost:7881\", send_proxy = true }",
        "routes = { \"www.example.org\" = { pass = \"127.0.0.1:8443\", send_proxy = false }, \
         \"*.Apps.example.org.\" = { pass = \"backend.internal:8443\", send_proxy = true }, \
         \"TURN.example.org\" = { http = \"127.0.0.1:7880\", h2c = \"localhost:7881\", send_proxy = true } }",
        "routes.\"www.example.org\".pass = \"127.0.0.1:8443\"\n\
         routes.\"*.apps.example.org\" = { pass = \"backend.internal:8443\", send_proxy = true }\n\
         routes.\"turn.example.org\".http = \"127.0.0.1:7880\"\n\
         routes.\"turn.example.org\".h2c = \"localhost:7881\"\n\
         routes.\"turn.example.org\".send_proxy = true",
        "[listener.routes.\"www.example.org\"]\npass = \"127.0.0.1:8443\"\n\
         [listener.routes.\"*.apps.example.org\"]\npass = \"backend.internal:8443\"\nsend_proxy = true\n\
         [listener.routes.\"turn.example.org\"]\nhttp = \"127.0.0.1:7880\"\nh2c = \"localhost:7881\"\nsend_proxy = true",
    ] {
        let expected = BTreeMap::from([www.clone(), apps.clone(), turn.clone()]);
        // A wildcard route needs no certificate if it passes TLS on.
        assert_eq!(service(text).routes, expected, "{text}");
    }
    assert!(service("[listener.routes]").routes.is_empty());
}

#[test]
fn the_other_settings_are_read() {
    let text = "protocols = [\"tls\", \"turn\"]\nhttp = \"localhost:8080\"\ndefault_backend = \"[::1]:8443\"\n\
                proxy_from = [\"10.0.0.0/8\", \"2001:db8::5\"]\nproxy = \"optional\"\nmss = 1300";
    let expected = ServiceSettings {
        protocols: Some(vec![Protocol::Tls, Protocol::Turn]),
        http: Some(backend("localhost:8080", false)),
        default_backend: Some(backend("::1:8443", false)),
        proxy_from: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        proxy: ProxyMode::Optional,
        mss: 1300,
        ..ServiceSettings::default()
    };
    assert_eq!(service(text), expected);
    assert_eq!(service(""), ServiceSettings { mss: 1360, ..ServiceSettings::default() });
    for text in [
        "default_backend = { pass = \"127.0.0.1:8443\", send_proxy = true }",
        "default_backend.pass = \"127.0.0.1:8443\"\ndefault_backend.send_proxy = true",
        "[listener.default_backend]\npass = \"127.0.0.1:8443\"\nsend_proxy = true",
    ] {
        assert_eq!(service(text).default_backend, Some(backend("127.0.0.1:8443", true)), "{text}");
    }
    let proxied = service("http = { pass = \"127.0.0.1:80\", send_proxy = true }");
    assert_eq!(proxied.http, Some(backend("127.0.0.1:80", true)));
}

/// Every mistake names the route, the line and the fix.
#[test]
fn mistakes_in_routes_are_told() {
    for (text, expected) in [
        (
            "\"www.example.org\" = \"127.0.0.1\"",
            "listener.routes.\"www.example.org\" = \"127.0.0.1\": the port is missing",
        ),
        (
            "\"www.example.org\" = \"unix:/run/x\"",
            "a Unix socket cannot be a backend; let the server listen on a loopback",
        ),
        ("\"www.example.org\" = 8443", "expected text, found a number; write it in quotes"),
        (
            "\"www.example.org\" = { pass = \"x\" }",
            "listener.routes.\"www.example.org\".pass = \"x\": the port is missing",
        ),
        (
            "\"www.example.org\" = { pas = \"127.0.0.1:1\" }",
            "listener.routes.\"www.example.org\".pas: unknown setting; did you mean pass?",
        ),
        (
            "\"www.example.org\" = { backend = \"127.0.0.1:1\" }",
            "unknown setting; use pass, http, h2c, send_proxy",
        ),
        (
            "\"turn.example.org\" = { pass = \"127.0.0.1:1\", http = \"127.0.0.1:2\" }",
            "listener.routes.\"turn.example.org\" = { pass = \"127.0.0.1:1\", http = \"127.0.0.1:2\" }: pass leaves TLS to the \
             backend, and http and h2c end it here, so a name cannot have both; keep pass, or keep http and h2c",
        ),
        (
            "\"turn.example.org\" = { pass = \"127.0.0.1:1\", h2c = \"127.0.0.1:2\" }",
            "keep pass, or keep http and h2c",
        ),
        ("\"turn.example.org\" = {}", "the route has no backend; add pass, or http or h2c"),
        (
            "\"turn.example.org\" = { send_proxy = true }",
            "the route has no backend; add pass, or http or h2c",
        ),
        (
            "\"turn.example.org\" = { http = \"127.0.0.1:2\", send_proxy = \"yes\" }",
            "listener.routes.\"turn.example.org\".send_proxy = \"yes\": expected true or false, found text",
        ),
        (
            "\"192.0.2.9\" = \"127.0.0.1:1\"",
            "listener.routes = \"192.0.2.9\": is an address, and clients that connect to an address name no host (SNI)",
        ),
        ("\"a.*.org\" = \"127.0.0.1:1\"", "only the whole first label may be *; write it like *.example.org"),
        ("\"*\" = \"127.0.0.1:1\"", "only the whole first label may be *"),
        ("\"a b\" = \"127.0.0.1:1\"", "is not a host name; write it like turn.example.org"),
        (
            "www.example.org = \"127.0.0.1:1\"",
            "a name with dots needs quotes, because TOML splits it otherwise; write \"www.example.org\" = ...",
        ),
        ("www.example.org.pass = \"127.0.0.1:1\"", "write \"www.example.org\" = ..."),
        ("example.org = { http = \"127.0.0.1:1\" }", "write \"example.org\" = ..."),
    ] {
        let found = one(&format!("{TLS}{HEAD}[listener.routes]\n{text}"));
        let prefix = "hairpin.toml:8: listener.routes";
        assert!(found.starts_with(prefix) && found.contains(expected), "{text}: {found}");
    }
    for (text, key) in [
        ("default_backend = \"127.0.0.1:1\"", "default_backend"),
        ("default_backend.pass = \"127.0.0.1:1\"", "default_backend"),
        ("http = { pass = \"127.0.0.1:1\" }", "http"),
        ("protocols = [\"turn\", \"tls\"]", "protocols"),
        ("transports = [\"tcp\"]", "transports"),
        ("proxy_from = \"10.0.0.0/8\"", "proxy_from"),
        ("proxy = \"optional\"", "proxy"),
        ("mss = 1300", "mss"),
        ("address = \"192.0.2.1:444\"", "address"),
        ("peers.allow = [\"10.0.0.1\"]", "peers"),
        ("peers = { mode = \"alone\" }", "peers"),
        ("[listener.routes.peers]\nmode = \"alone\"", "peers"),
    ] {
        let found =
            one(&format!("{TLS}{HEAD}[listener.routes]\n\"www.example.org\" = \"127.0.0.1:1\"\n{text}"));
        let expected = format!(
            "hairpin.toml:9: listener.routes.{key}: is a setting of [[listener]], and stands below [listener.routes]; move the line \
             above [listener.routes]"
        );
        assert_eq!(found, expected, "{text}");
    }
    let unquoted = one(&format!("{TLS}{HEAD}[listener.routes]\nproxy.example.org = \"127.0.0.1:1\""));
    assert!(unquoted.contains("write \"proxy.example.org\" = ..."), "{unquoted}");
    let twice = "\"www.example.org\" = \"127.0.0.1:1\"\n\"WWW.example.org.\" = \"127.0.0.1:2\"";
    let found = one(&format!("{TLS}{HEAD}[listener.routes]\n{twice}"));
    let expected =
        "hairpin.toml:9: listener.routes = \"WWW.example.org.\": www.example.org has two routes; remove one";
    assert_eq!(found, expected);
    let labels = "\"bücher.example\" = \"127.0.0.1:1\"\n\"xn--bcher-kva.example\" = \"127.0.0.1:2\"";
    assert!(one(&format!("{TLS}{HEAD}[listener.routes]\n{labels}")).contains("has two routes; remove one"));
    assert!(
        one(&format!("{TLS}{HEAD}routes = \"www.example.org\"")).contains("expected a table, found text")
    );
    assert!(
        one(&format!("{TLS}{HEAD}[[listener.routes]]\n\"a.example\" = \"x:1\"")).contains("listener.routes")
    );
}

/// A table of routes has a bound, and so have the mistakes that are told.
#[test]
fn routes_have_a_bound() {
    let routes = |count: usize, port: &str| -> String {
        (0..count).map(|n| format!("\"a{n}.example\" = \"127.0.0.1:{port}\"\n")).collect()
    };
    let most = format!("{TLS}{HEAD}[listener.routes]\n{}", routes(1024, "1"));
    assert_eq!(lines(&most), [""; 0]);
    let found = one(&format!("{TLS}{HEAD}[listener.routes]\n{}", routes(1025, "1")));
    assert!(found.contains("listener.routes: there are 1025 routes; list up to 1024"), "{found}");
    let wrong = lines(&format!("{TLS}{HEAD}[listener.routes]\n{}", routes(1024, "x")));
    assert_eq!(wrong.len(), 100);
}

#[test]
fn mistakes_in_the_other_settings_are_told() {
    for (text, expected) in [
        (
            "protocols = []",
            "listener.protocols = []: TCP connections could speak nothing; list \"turn\", \"tls\" or both",
        ),
        (
            "protocols = [\"http\"]",
            "listener.protocols = \"http\": unknown protocol; use turn or tls; where HTTP goes is said by",
        ),
        ("protocols = [\"TLS\"]", "unknown protocol; use one of turn, tls"),
        ("protocols = [\"tls\", \"tls\"]", "tls is listed twice; remove one"),
        ("protocols = true", "expected text, found true or false"),
        ("http = \"8080\"", "listener.http = \"8080\": not a host with a port"),
        (
            "http = { pass = \"127.0.0.1:80\", h2c = \"127.0.0.1:81\" }",
            "listener.http.h2c: unknown setting; use pass, send_proxy",
        ),
        ("http = { send_proxy = true }", "the backend is missing; write it like { pass = \"127.0.0.1:8443\""),
        ("http = [\"127.0.0.1:80\"]", "expected text, found a list"),
        ("default_backend = \"localhost\"", "listener.default_backend = \"localhost\": the port is missing"),
        (
            "proxy_from = [\"10.0.0.0/33\"]",
            "listener.proxy_from = \"10.0.0.0/33\": the prefix length must be",
        ),
        ("proxy_from = [\"balancer.internal\"]", "listener.proxy_from = \"balancer.internal\""),
        ("proxy_from = \"10.0.0.1\"\nproxy = \"maybe\"", "unknown value; use one of required, optional"),
        ("mss = 87", "listener.mss = 87: out of range; write 0, or a number from 88 to 32767"),
        ("mss = 32768", "out of range"),
        ("mss = -1", "out of range"),
        ("mss = \"1300\"", "expected a number, found text"),
        ("protocol = \"tls\"", "listener.protocol: unknown setting; did you mean protocols?"),
        ("backend = \"127.0.0.1:1\"", "unknown setting"),
    ] {
        let found = one(&format!("{TLS}{HEAD}{text}"));
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert!(one("[listen]\nmss = 40").contains("listen.mss = 40: out of range"));
}

/// What the workers serve of each address.
#[test]
fn services_are_found_by_address() {
    let text = format!(
        "{TLS}[listen]\ntcp = \"127.0.0.1:3478\"\nmss = 1200\n{HEAD}protocols = [\"tls\"]\ntransports = \"tls\"\nmss = 1300\n\
         http = \"127.0.0.1:80\"\nproxy_from = \"10.0.0.0/8\"\n[listener.routes]\n\"www.example.org\" = \"127.0.0.1:8443\"\n{GOOD}"
    );
    let settings = read(&text.replace("transports = [\"udp\", \"tcp\"]\n", ""));
    let find = |address: &str| {
        let listeners = settings.listeners();
        let found = listeners.iter().find(|one| one.address.to_string() == address).unwrap();
        found.service.stream_service(true)
    };
    let plain = StreamService { turn: true, tls: true, ..StreamService::default() };
    let plain = StreamService { proxies: Proxies { from: Vec::new(), required: true }, ..plain };
    assert_eq!(find("127.0.0.1:3478"), plain);
    let shared = find("192.0.2.1:443");
    assert!(!shared.turn && shared.tls && shared.http.is_some() && shared.proxies.required);
    assert!(matches!(shared.routes.find("www.example.org"), Some(Route::Pass(_))));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let sizes = settings.segment_sizes();
    assert_eq!((sizes.len(), sizes[&at("127.0.0.1:3478")], sizes[&at("192.0.2.1:443")]), (2, 1200, 1300));
}

/// Without a certificate there is no TLS, but connections can be passed on unopened.
#[test]
fn tls_is_served_if_there_is_anything_to_serve() {
    let tls = |service: &ServiceSettings, has_identity| service.stream_service(has_identity).tls;
    let mut service = ServiceSettings::default();
    assert!(tls(&service, true) && !tls(&service, false));
    service.protocols = Some(vec![Protocol::Turn]);
    assert!(!tls(&service, true));
    service.protocols = None;
    let ends = Route::Terminate { http: Some(backend("127.0.0.1:1", false)), h2c: None };
    service.routes.insert(name("turn.example.org"), ends);
    assert!(!tls(&service, false), "TLS cannot end here");
    service.routes.insert(name("www.example.org"), Route::Pass(backend("127.0.0.1:1", false)));
    assert!(tls(&service, false));
    let service =
        ServiceSettings { default_backend: Some(backend("127.0.0.1:1", false)), ..Default::default() };
    assert!(tls(&service, false));
}

/// A URL with a name that leads to a web server is for no client: TLS for names without a route and without a certificate is
/// passed on by `default_backend`.
#[test]
fn names_that_are_passed_on() {
    let passed = |text: &str, name: &str| {
        let settings = read(&format!("{TLS}{HEAD}{text}\n{GOOD}"));
        settings.passes_on("192.0.2.1:443".parse().unwrap(), name)
    };
    let default = "default_backend = \"127.0.0.1:1\"\n";
    let routes = "routes = { \"www.example.org\" = \"127.0.0.1:2\", \"turn.example.org\" = { http = \"127.0.0.1:3\" } }";
    for (name, by_default, by_route) in [
        ("turn.example.org", false, false),
        ("Turn.Example.org.", false, false),
        ("www.example.org", true, true),
        ("other.example.org", true, false),
        ("192.0.2.1", false, false),
        ("[2001:db8::1]", false, false),
    ] {
        let found = ["", default, routes, &format!("{default}{routes}")].map(|text| passed(text, name));
        assert_eq!(found, [false, by_default, by_route, by_default || by_route], "{name}");
    }
    let elsewhere = read(&format!("{TLS}{HEAD}{default}\n{GOOD}"));
    assert!(!elsewhere.passes_on("192.0.2.1:5349".parse().unwrap(), "other.example.org"));
}

/// A reload tells what has changed of a listener, by names and backends.
#[test]
fn changes_are_told_by_route() {
    let with = |text: &str| read(&format!("{TLS}{HEAD}{text}\n{GOOD}"));
    let told = |before: &str, after: &str| -> Vec<String> {
        let changes = with(before).changes(&with(after));
        changes.iter().map(|change| format!("{}: {}", change.key, change.what)).collect()
    };
    let before = "http = \"127.0.0.1:80\"\nroutes = { \"a.example\" = \"127.0.0.1:1\", \"b.example\" = \"127.0.0.1:2\" }";
    let after = "mss = 1300\nproxy_from = \"10.0.0.0/8\"\ndefault_backend = \"127.0.0.1:4\"\n\
                 routes = { \"a.example\" = { pass = \"127.0.0.1:1\", send_proxy = true }, \"c.example\" = \"127.0.0.1:3\" }";
    let changes = [
        "default_backend none -> 127.0.0.1:4",
        "http 127.0.0.1:80 -> none",
        "proxy_from [] -> [10.0.0.0/8]",
        "mss 1360 -> 1300",
        "route a.example -> 127.0.0.1:1 (send_proxy) (was 127.0.0.1:1)",
        "route c.example -> 127.0.0.1:3 added",
        "route b.example -> 127.0.0.1:2 removed",
    ];
    let changes = changes.map(|change| format!("listener: tcp 192.0.2.1:443: {change}"));
    assert_eq!(told(before, after), changes);
    assert_eq!(told(before, before), [""; 0]);
    let protocols = told("", "protocols = [\"turn\"]");
    assert_eq!(protocols, ["listener: tcp 192.0.2.1:443: protocols by default -> turn"]);
    // A transport that joins or leaves the socket hides no other change.
    let of = |transports: &str, text: &str| {
        read(&format!("{TLS}{}{text}\n{GOOD}", HEAD.replace("[\"udp\", \"tcp\"]", transports)))
    };
    let transports = ["[\"tls\"]", "[\"tcp\", \"tls\"]", "[\"tls\", \"tcp\"]", "[\"tcp\"]"];
    for (before, after) in transports.into_iter().flat_map(|one| transports.map(|other| (one, other))) {
        let changes = of(before, "http = \"127.0.0.1:1\"").changes(&of(after, "http = \"127.0.0.1:2\""));
        let told = changes.iter().filter(|change| change.what.ends_with("http 127.0.0.1:1 -> 127.0.0.1:2"));
        assert_eq!(told.count(), 1, "{before} {after}: {changes:?}");
    }
}
