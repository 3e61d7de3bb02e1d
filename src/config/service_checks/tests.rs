//! Services of `[[listener]]` sections that do not fit to the rest of a configuration.

use crate::config::tests::{GOOD, lines, note, one, reader};
use crate::config::{ReadContext, load};

/// Its names: turn.example.org.
const TLS: &str = "[tls]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\n";

/// A `[[listener]]` on line 4, with these transports and lines.
fn listener(transports: &str, text: &str) -> String {
    format!("{TLS}[[listener]]\naddress = \"192.0.2.1:443\"\ntransports = {transports}\n{text}")
}

fn all(text: &str) -> String {
    listener("[\"udp\", \"tcp\", \"tls\"]", text)
}

/// A backend that is a listener of this process would pass connections on to itself.
#[test]
fn an_own_listener_is_no_backend() {
    let wildcard = |text: &str| all(text).replacen("192.0.2.1:443", "0.0.0.0:443", 1);
    for backend in [
        "127.0.0.1:443",
        "127.1.2.3:443",
        "192.0.2.1:443",
        "localhost:443",
        "LocalHost.:443",
        "x.localhost:443",
    ] {
        let found = one(&wildcard(&format!("default_backend = \"{backend}\"")));
        let expected = "is this relay's own listener 0.0.0.0:443 (the [[listener]] of line 5), so connections would come back here; \
                        write the address and port of another server";
        assert!(
            found.starts_with("hairpin.toml:7: listener.default_backend = ") && found.contains(expected),
            "{found}"
        );
    }
    for backend in ["127.0.0.1:8443", "[::1]:443", "203.0.113.9:443", "www.example.org:443"] {
        assert_eq!(lines(&wildcard(&format!("default_backend = \"{backend}\""))), [""; 0], "{backend}");
    }
    let v6 = all("http = \"localhost:443\"").replacen("192.0.2.1:443", "[::]:443", 1);
    assert!(one(&v6).contains("own listener [::]:443"));
    assert_eq!(
        lines(&v6.replace("localhost", "127.0.0.1")),
        [""; 0],
        "an IPv6 listener does not accept IPv4 clients"
    );
    // The key is there once, and after it the backend, however the route is written.
    for (text, key) in [
        ("http = \"192.0.2.1:443\"", "listener.http = \"192.0.2.1:443\":"),
        ("http = { pass = \"192.0.2.1:443\" }", "listener.http = \"192.0.2.1:443\":"),
        (
            "[listener.routes]\n\"a.example\" = \"192.0.2.1:443\"",
            "listener.routes.\"a.example\".pass = \"192.0.2.1:443\":",
        ),
        (
            "[listener.routes]\n\"turn.example.org\" = { http = \"192.0.2.1:443\", send_proxy = true }",
            "listener.routes.\"turn.example.org\".http = \"192.0.2.1:443\":",
        ),
        (
            "[listener.routes]\n\"turn.example.org\".http = \"192.0.2.1:443\"",
            "listener.routes.\"turn.example.org\".http = ",
        ),
        (
            "[listener.routes]\n\"turn.example.org\".h2c = \"192.0.2.1:443\"",
            "listener.routes.\"turn.example.org\".h2c = ",
        ),
    ] {
        let found = one(&all(text));
        assert!(found.contains(key) && found.contains("own listener 192.0.2.1:443"), "{text}: {found}");
    }
    assert_eq!(lines(&all("http = \"127.0.0.1:443\"")), [""; 0], "another address of this machine");
    assert!(
        one(&format!("[listen]\ntcp = \"127.0.0.1:8443\"\n{}", all("http = \"localhost:8443\"")))
            .contains("(listen.tcp)")
    );
    assert!(
        one(&format!("[listen]\ntls = \"127.0.0.1:8443\"\n{}", all("http = \"localhost:8443\"")))
            .contains("(listen.tls)")
    );
    let udp = format!("[listen]\nudp = \"127.0.0.1:8443\"\n{}", all("http = \"localhost:8443\""));
    assert_eq!(lines(&udp), [""; 0], "a UDP socket accepts no connections");
    let nat = format!("[relay]\nexternal_ip = \"203.0.113.7\"\n{}", wildcard("http = \"203.0.113.7:443\""));
    assert!(one(&nat).contains("own listener 0.0.0.0:443"), "its external address");
}

/// The name of an own listener is known without DNS if /etc/hosts has it, or if clients ask this relay for it.
#[test]
fn an_own_name_is_no_backend() {
    let context = ReadContext {
        hosts: &|| {
            "127.0.1.1 relay\n::1 ip6-localhost\n192.0.2.1 own.example\n203.0.113.9 far.example\n".into()
        },
        ..reader()
    };
    let found = |text: &str| -> Vec<String> {
        let text = format!("{}\n{GOOD}", all(text).replacen("192.0.2.1:443", "0.0.0.0:443", 1));
        let mistakes = load("hairpin.toml", &text, &context).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    };
    for host in ["relay", "Relay.", "own.example", "turn.example.org", "TURN.example.org."] {
        for key in ["http", "default_backend", "routes.\"a.example\""] {
            let [one] = &found(&format!("{key} = \"{host}:443\""))[..] else { panic!("{key} {host}") };
            assert!(one.contains("own listener 0.0.0.0:443") && one.contains("come back here"), "{one}");
        }
    }
    let [one] = &found("routes.\"www.example.org\" = \"www.example.org:443\"")[..] else { panic!() };
    let expected = "clients reach this relay by the name www.example.org, so www.example.org:443 is its own listener 0.0.0.0:443 (the \
                    [[listener]] of line 5), and connections would come back here; write the address and port of another server";
    assert!(one.contains(expected), "{one}");
    for text in [
        "default_backend = \"www.example.org:443\"",
        "default_backend = \"turn.example.org:8443\"",
        "default_backend = \"far.example:443\"",
        "default_backend = \"ip6-localhost:443\"",
        "routes.\"far.example\" = \"far.example:443\"",
        "routes.\"www.example.org\" = \"www.example.org:8443\"",
        "routes.\"*.example.org\" = \"www.example.org:443\"",
        "routes.\"www.example.org\" = \"turn.example.org:9641\"",
    ] {
        assert_eq!(found(text), [""; 0], "{text}");
    }
    let metrics =
        format!("[http]\nlisten = \"0.0.0.0:9641\"\n{}\n{GOOD}", all("http = \"turn.example.org:9641\""));
    let found = load("hairpin.toml", &metrics, &context).unwrap_err();
    assert!(found.len() == 1 && found[0].what.contains("turn.example.org:9641 is http.listen"), "{found:?}");
}

/// The Internet would reach the API, or metrics, as a program of this machine.
#[test]
fn the_api_and_the_metrics_are_no_backends() {
    let found = one(&all("http = \"127.0.0.1:9641\""));
    assert!(
        found.contains(
            "127.0.0.1:9641 is http.listen: strangers would reach it as if they were programs of this machine"
        ),
        "{found}"
    );
    let admin = "[admin]\nlisten = \"127.0.0.1:9642\"\ntokens_file = \"tokens\"\n";
    let context = ReadContext {
        read: &|path| match path.to_str() {
            Some("tokens") => Ok("a:admin:0123456789abcdef0123456789abcdef\n".into()),
            _ => (reader().read)(path),
        },
        ..reader()
    };
    let text = format!("{admin}{}\n{GOOD}", all("default_backend = \"localhost:9642\""));
    let found = load("file", &text, &context).unwrap_err();
    assert!(
        found.len() == 1 && found[0].what.contains("localhost:9642 is admin.listen: strangers"),
        "{found:?}"
    );
}

/// TLS cannot end here without a certificate for the name.
#[test]
fn a_terminated_route_needs_a_certificate() {
    let route = |name: &str| format!("[listener.routes]\n\"{name}\" = {{ http = \"127.0.0.1:1\" }}");
    assert_eq!(lines(&all(&route("turn.example.org"))), [""; 0]);
    for name in ["www.example.org", "*.example.org"] {
        let found = one(&all(&route(name)));
        let expected = format!(
            "hairpin.toml:8: listener.routes.\"{name}\" = {{ http = \"127.0.0.1:1\" }}: http and h2c end TLS here, and no certificate \
             is valid for {name}; add one as a [[tls.certificate]], or let the backend end TLS: {{ pass = \"HOST:PORT\" }}"
        );
        assert_eq!(found, expected);
    }
    let listed =
        "[[tls.certificate]]\ncert = \"rsa.pem\"\nkey = \"rsa-key.pem\"\nnames = [\"*.example.org\"]\n";
    let both = |name| load("file", &format!("{listed}{}\n{GOOD}", all(&route(name))), &reader()).map(|_| ());
    assert_eq!((both("www.example.org"), both("*.example.org")), (Ok(()), Ok(())));
    let without = all(&route("turn.example.org")).replace(TLS, "").replace(", \"tls\"]", "]");
    assert!(one(&without).contains("there is no certificate for turn.example.org"));
    // The mistake is the certificate's.
    let unreadable = all(&route("www.example.org")).replace("fullchain.pem", "missing.pem");
    assert!(one(&unreadable).contains("tls.cert"));
}

/// A pass route beats a certificate, which is worth a word if the certificate names exactly that host.
#[test]
fn a_pass_route_for_a_certified_name_is_noted() {
    let route = |name: &str| all(&format!("[listener.routes]\n\"{name}\" = \"127.0.0.1:1\""));
    let expected = "hairpin.toml:8: note: listener.routes.\"turn.example.org\" = \"127.0.0.1:1\": connections for turn.example.org are \
                    passed on, although there is a certificate for it, so this listener serves no TURN by that name";
    assert!(note(&route("turn.example.org")).starts_with(expected), "{}", note(&route("turn.example.org")));
    let loaded = load("file", &format!("{}\n{GOOD}", route("www.example.org")), &reader()).unwrap();
    assert_eq!(loaded.notes, []);
}

/// What clients are offered is served.
#[test]
fn protocols_agree_with_transports() {
    for (transports, text, expected) in [
        (
            "[\"udp\", \"tls\"]",
            "protocols = [\"turn\"]",
            "hairpin.toml:7: listener.protocols = [\"turn\"]: clients are offered \"tls\" (transports), but \"tls\" is missing here; add \
             \"tls\", or remove \"tls\" from transports",
        ),
        (
            "[\"tcp\"]",
            "protocols = [\"tls\"]",
            "clients are offered \"tcp\" (transports), but \"turn\" is missing here; add \"turn\", or remove \"tcp\" from transports",
        ),
        (
            "[\"tcp\"]",
            "protocols = \"turn\"\ndefault_backend = \"127.0.0.1:1\"",
            "default_backend is for TLS connections, and \"tls\" is missing here",
        ),
        (
            "[\"tcp\"]",
            "protocols = \"turn\"\nroutes = { \"a.example\" = \"127.0.0.1:1\" }",
            "routes is for TLS connections",
        ),
    ] {
        let found = one(&listener(transports, text));
        assert!(found.contains(expected), "{text}: {found}");
    }
    for (transports, text) in [
        ("[\"tcp\"]", "protocols = \"turn\"\nhttp = \"127.0.0.1:1\""),
        (
            "[\"udp\", \"tls\"]",
            "protocols = \"tls\"\nhttp = \"127.0.0.1:1\"\ndefault_backend = \"127.0.0.1:1\"",
        ),
        ("[\"tcp\"]", "protocols = [\"turn\", \"tls\"]"),
    ] {
        assert_eq!(lines(&listener(transports, text)), [""; 0], "{text}");
    }
    let without = |text| listener("\"tcp\"", text).replace(TLS, "");
    assert!(
        one(&without("protocols = [\"turn\", \"tls\"]"))
            .contains("TLS requires a certificate, or a route that passes it on")
    );
    assert_eq!(
        lines(&without("protocols = [\"turn\", \"tls\"]\ndefault_backend = \"127.0.0.1:1\"")),
        [""; 0]
    );
    assert_eq!(lines(&without("")), [""; 0]);
}

#[test]
fn a_listener_without_connections_has_no_service() {
    for text in [
        "protocols = \"turn\"",
        "routes = { \"a.example\" = \"127.0.0.1:1\" }",
        "default_backend = \"127.0.0.1:1\"",
        "http = \"127.0.0.1:1\"",
        "proxy_from = \"10.0.0.0/8\"",
        "proxy_from = []\nproxy = \"optional\"",
        "mss = 1300",
        "mss = 1360",
    ] {
        let found = lines(&listener("\"udp\"", text)).join("\n");
        assert!(
            found
                .contains("this is about TCP connections, and the listener has none; add \"tcp\" or \"tls\""),
            "{text}: {found}"
        );
    }
}

/// The sender of a PROXY header can claim any address.
#[test]
fn whom_everybody_can_be_is_warned_about() {
    for range in ["0.0.0.0/0", "::/0", "0.0.0.0/1", "2000::/3"] {
        let found = one(&all(&format!("proxy_from = [\"10.0.0.0/8\", \"{range}\"]")));
        let expected = format!(
            "{range} stands for machines of others: whoever connects from there can claim to be any client; list only"
        );
        assert!(found.contains(" warning: listener.proxy_from = ") && found.contains(&expected), "{found}");
    }
    assert_eq!(
        lines(&all("proxy_from = [\"10.0.0.0/8\", \"fc00::/7\", \"203.0.113.0/24\"]\nproxy = \"optional\"")),
        [""; 0]
    );
    let found = one(&all("proxy = \"required\""));
    assert!(
        found.starts_with(
            "hairpin.toml:7: warning: listener.proxy = \"required\": it has no effect without proxy_from"
        ),
        "{found}"
    );
}

/// A public name that a route passes on leads to a web server.
#[test]
fn a_public_name_that_is_passed_on() {
    let routes = "[listener.routes]\n\"*.example.net\" = \"127.0.0.1:8443\"";
    let found = one(&all(&format!("public = \"www.example.net:443\"\n{routes}")));
    let expected = "hairpin.toml:7: warning: listener.public = \"www.example.net:443\": a route passes connections for www.example.net on";
    assert!(found.starts_with(expected), "{found}");
    assert_eq!(lines(&all(&format!("public = \"turn.example.org:443\"\n{routes}"))), [""; 0]);
}
