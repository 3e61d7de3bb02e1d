//! The text of a backend, `host:port`.

use std::net::{IpAddr, SocketAddr};

use super::external::is_host_name;
use crate::datapath::Backend;

/// What is wrong with a text, and how to fix it.
type Wrong = (String, String);

/// Reads `host:port`, `ip:port` or `[v6]:port`.
///
/// # Errors
/// What is wrong with it, and how to fix it.
pub fn parse(text: &str) -> Result<Backend, Wrong> {
    let wrong = |what: &str, fix: String| Err((what.to_owned(), fix));
    if text.starts_with("unix:") || text.contains('/') && !text.contains("://") || text.starts_with('@') {
        let fix = "let the server listen on a loopback port too, and write it like \"127.0.0.1:8443\"";
        return wrong("a Unix socket cannot be a backend", fix.to_owned());
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let fix = match host.is_empty() || host.contains('@') || host.contains(char::is_whitespace) {
            true => "write host and port, like \"127.0.0.1:8443\"".to_owned(),
            false if has_port(host) => format!("write \"{host}\""),
            false => format!("write \"{host}\" and a port, like \"{host}:8443\""),
        };
        return wrong("a URL is not a backend: connections are passed on as bytes", fix);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let what = match ip.is_ipv6() && !text.starts_with('[') {
            true => "an IPv6 address without brackets, or without a port",
            false => "the port is missing",
        };
        return wrong(what, format!("write it like \"{}\"", SocketAddr::new(ip, 8443)));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return match is_host_name(text) {
            true => wrong("the port is missing", format!("write it like \"{text}:8443\"")),
            false => wrong(
                "not a host with a port",
                "write it like \"127.0.0.1:8443\" or \"localhost:3000\"".into(),
            ),
        };
    };
    let Some(number) = port.parse::<u16>().ok().filter(|n| *n > 0 && !port.starts_with('+')) else {
        return wrong("not a valid port", "write a port from 1 to 65535 after the colon".into());
    };
    let host = match text.parse::<SocketAddr>() {
        Ok(address) => literal(address)?,
        Err(_) => name(host, number)?,
    };
    Ok(Backend { host, port: number, send_proxy: false })
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// An address that connections can be made to.
fn literal(address: SocketAddr) -> Result<String, Wrong> {
    let port = address.port();
    let wrong = |what: &str, fix: String| Err((what.to_owned(), fix));
    let ip = address.ip();
    if ip.is_unspecified() {
        let loopback = if ip.is_ipv4() { format!("127.0.0.1:{port}") } else { format!("[::1]:{port}") };
        let what = "a wildcard address is for listening";
        return wrong(what, format!("write \"{loopback}\" for a server on this machine"));
    }
    if ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return wrong("no server has this address", "write that of one, like \"127.0.0.1:8443\"".to_owned());
    }
    if let IpAddr::V6(v6) = ip {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return wrong("an IPv4-mapped IPv6 address", format!("write \"{v4}:{port}\""));
        }
        if v6.is_unicast_link_local() {
            let what = "a link-local address needs an interface, which cannot be written here";
            return wrong(what, "write another address of that server".to_owned());
        }
    }
    Ok(ip.to_string())
}

/// A host name, in A-labels.
fn name(host: &str, port: u16) -> Result<String, Wrong> {
    if host.starts_with('[') || host.contains(':') {
        let fix = format!("write an IPv6 address in brackets, like \"[2001:db8::1]:{port}\"");
        return Err(("not a host with a port".to_owned(), fix));
    }
    let ascii = match host.is_ascii() {
        true => Some(host.to_owned()),
        false => idna::domain_to_ascii(host).ok(),
    };
    ascii.filter(|host| is_host_name(host)).ok_or_else(|| {
        let fix = format!("write it like \"127.0.0.1:{port}\" or \"localhost:{port}\"");
        ("not a host name or an address".to_owned(), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses_have_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:8443", "127.0.0.1", 8443),
            ("[::1]:443", "::1", 443),
            ("[2001:DB8:0::1]:1", "2001:db8::1", 1),
            ("localhost:3000", "localhost", 3000),
            ("backend.internal:65535", "backend.internal", 65535),
            ("backend.internal.:80", "backend.internal.", 80),
            ("my_app:8080", "my_app", 8080),
            ("bücher.example:443", "xn--bcher-kva.example", 443),
        ] {
            let backend = Backend { host: host.into(), port, send_proxy: false };
            assert_eq!(parse(text), Ok(backend), "{text}");
        }
    }

    /// An operator is told what to write instead.
    #[test]
    fn what_is_no_backend() {
        for (text, what, fix) in [
            ("", "not a host with a port", "write it like"),
            ("127.0.0.1", "the port is missing", "\"127.0.0.1:8443\""),
            ("[::1]", "the port is missing", "\"[::1]:8443\""),
            ("::1", "an IPv6 address without brackets", "\"[::1]:8443\""),
            ("::1:8443", "an IPv6 address without brackets", "write it like"),
            ("localhost", "the port is missing", "\"localhost:8443\""),
            ("localhost:", "not a valid port", "from 1 to 65535"),
            ("localhost:0", "not a valid port", "from 1 to 65535"),
            ("localhost:65536", "not a valid port", "from 1 to 65535"),
            ("localhost:+80", "not a valid port", "from 1 to 65535"),
            ("localhost:https", "not a valid port", "from 1 to 65535"),
            (":8443", "not a host with a port", "write it like"),
            ("8443", "not a host with a port", "write it like"),
            ("0.0.0.0:8443", "a wildcard address is for listening", "\"127.0.0.1:8443\""),
            ("[::]:8443", "a wildcard address is for listening", "\"[::1]:8443\""),
            ("224.0.0.1:80", "no server has this address", "like"),
            ("255.255.255.255:80", "no server has this address", "like"),
            ("[::ffff:10.0.0.1]:80", "an IPv4-mapped IPv6 address", "\"10.0.0.1:80\""),
            ("[fe80::1]:80", "a link-local address needs an interface", "another address"),
            ("999.1.1.1:80", "not a host name or an address", "write it like"),
            ("a b:80", "not a host name or an address", "write it like"),
            ("[nonsense]:80", "not a host with a port", "in brackets"),
            ("a:b:80", "not a host with a port", "in brackets"),
            ("unix:/run/nginx.sock", "a Unix socket cannot be a backend", "127.0.0.1:8443"),
            ("/run/nginx.sock", "a Unix socket cannot be a backend", "127.0.0.1:8443"),
            ("@nginx", "a Unix socket cannot be a backend", "127.0.0.1:8443"),
            ("http://127.0.0.1:8080", "a URL is not a backend", "write \"127.0.0.1:8080\""),
            ("https://www.example.org/x", "a URL is not a backend", "\"www.example.org:8443\""),
            ("https://", "a URL is not a backend", "write host and port"),
        ] {
            let (found, said) = parse(text).expect_err(text);
            assert!(found.starts_with(what) && said.contains(fix), "{text}: {found}; {said}");
        }
    }
}
