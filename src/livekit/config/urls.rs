//! URLs of servers, ICE servers and web pages, as far as settings have them.

use std::fmt;
use std::net::Ipv6Addr;

use toml_edit::Value;

use crate::config::kind::ValueError;
use crate::config::kinds::{Elements, text};

/// A URL without a path: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// In lower case.
    pub scheme: String,
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    /// If it is written.
    pub port: Option<u16>,
}

impl BaseUrl {
    /// Reads a URL with one of these schemes.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<BaseUrl, String> {
        let (scheme, rest) = text.split_once("://").ok_or("not a URL")?;
        let scheme = scheme.to_ascii_lowercase();
        if !schemes.contains(&scheme.as_str()) {
            return Err(format!("not a URL with the scheme {}", schemes.join(" or ")));
        }
        if rest.contains('@') {
            return Err("a URL with a user name or a password".into());
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("a URL with a path".into());
        }
        let (host, port) = split_port(authority).ok_or("not a host with a port")?;
        Ok(BaseUrl { scheme, host, port })
    }

    /// The port, or that of the scheme.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme.as_str() {
            "https" | "wss" => 443,
            _ => 80,
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "wss")
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}://[{}]", self.scheme, self.host)?,
            false => write!(f, "{}://{}", self.scheme, self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(authority: &str) -> Option<(String, Option<u16>)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return match rest.strip_prefix(':') {
            Some(text) => Some((address.to_string(), Some(port(text)?))),
            None if rest.is_empty() => Some((address.to_string(), None)),
            None => None,
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, text)) => (host, Some(port(text)?)),
        None => (authority, None),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = !host.is_empty() && host.len() <= 253 && host.chars().all(is_host);
    fits.then(|| (host.to_ascii_lowercase(), port))
}

/// Reads the URL of a Redis server: `redis://USER@HOST:PORT/DB`, of which only the host has to be written.
///
/// # Errors
/// What is wrong with it and how to fix that, without quoting it.
pub fn redis_url(text: &str) -> Result<String, (String, String)> {
    let example = "write it like \"redis://10.0.0.5:6379/0\", or \"rediss://...\" for TLS";
    let wrong = |what: &str| (what.to_owned(), example.to_owned());
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("not a URL"))?;
    if !matches!(scheme, "redis" | "rediss") {
        return Err(wrong("not a URL with the scheme redis or rediss"));
    }
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    if user.contains(':') {
        let fix = "write the password into a file, and its name as peers.redis_password_file";
        return Err(("a URL with a password".into(), fix.into()));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !database.bytes().all(|byte| byte.is_ascii_digit()) || database.len() > 4 {
        return Err(wrong("not the number of a database"));
    }
    let (host, port) = split_port(authority).ok_or_else(|| wrong("not a host with a port"))?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let database = if database.is_empty() { "0" } else { database };
    Ok(format!("{scheme}://{user}{host}:{}/{database}", port.unwrap_or(6379)))
}

/// URLs of ICE servers.
pub const ICE_URLS: Elements<String> = Elements { read: ice_url, differ: true, name: "ICE URLs" };

/// RFC 7064 and RFC 7065: `turn:host:port?transport=udp`.
fn ice_url(value: &Value) -> Result<String, ValueError> {
    let url = text(value)?;
    let wrong = |what: &str| {
        let fix = "write it like \"turn:turn.example.org:3478?transport=udp\" or \"turns:turn.example.org:5349?transport=tcp\"";
        Err(ValueError::of(value, what, fix))
    };
    let Some((scheme, rest)) = url.split_once(':') else { return wrong("not an ICE URL") };
    if !matches!(scheme, "stun" | "stuns" | "turn" | "turns") {
        return wrong("not an ICE URL: the scheme is none of turn, turns, stun and stuns");
    }
    if rest.starts_with("//") {
        return wrong("an ICE URL has no slashes");
    }
    let (authority, query) = match rest.split_once('?') {
        Some((authority, query)) => (authority, Some(query)),
        None => (rest, None),
    };
    let has_transport = matches!(query, Some("transport=udp" | "transport=tcp"));
    if query.is_some() && !(has_transport && scheme.starts_with("turn")) {
        return wrong(
            "not an ICE URL: after ? only transport=udp or transport=tcp of a TURN server can follow",
        );
    }
    match split_port(authority) {
        Some(_) => Ok(url.to_owned()),
        None => wrong("not an ICE URL: the host or the port cannot be used"),
    }
}

/// The origin that stands for every page.
pub const ANY_ORIGIN: &str = "*";

/// The schemes of origins: those of web pages, and of applications that show pages in a web view.
const ORIGIN_SCHEMES: [&str; 5] = ["https", "http", "capacitor", "ionic", "tauri"];

/// Origins of web pages.
pub const ORIGINS: Elements<String> = Elements { read: origin, differ: true, name: "origins" };

/// RFC 6454 section 6.2: scheme, host and port, as browsers send them.
fn origin(value: &Value) -> Result<String, ValueError> {
    let fix = "write it like \"https://meet.example.org\", without a path; the port only if it is not that of the scheme";
    if text(value)? == ANY_ORIGIN {
        return Ok(ANY_ORIGIN.to_owned());
    }
    let url = BaseUrl::parse(text(value)?, &ORIGIN_SCHEMES)
        .map_err(|what| ValueError::of(value, format!("not an origin: {what}"), fix))?;
    let default = BaseUrl { port: None, ..url.clone() }.port();
    Ok(BaseUrl { port: url.port.filter(|port| *port != default), ..url }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &[&str] = &["wss", "ws", "https", "http"];

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        for (text, shown, port, tls) in [
            ("wss://livekit.example.org", "wss://livekit.example.org", 443, true),
            ("wss://LiveKit.example.org/", "wss://livekit.example.org", 443, true),
            ("HTTP://127.0.0.1:7880", "http://127.0.0.1:7880", 7880, false),
            ("ws://[2001:DB8::1]:7880/", "ws://[2001:db8::1]:7880", 7880, false),
            ("https://[::1]", "https://[::1]", 443, true),
        ] {
            let url = BaseUrl::parse(text, WEB).unwrap();
            assert_eq!((url.to_string().as_str(), url.port(), url.is_tls()), (shown, port, tls), "{text}");
        }
        for (text, said) in [
            ("livekit.example.org", "not a URL"),
            ("ftp://livekit.example.org", "scheme wss or ws"),
            ("wss://livekit.example.org/rtc", "path"),
            ("wss://livekit.example.org?x=1", "path"),
            ("wss://me:secret@livekit.example.org", "password"),
            ("wss://", "host"),
            ("wss://a b", "host"),
            ("wss://a:0", "port"),
            ("wss://a:99999", "port"),
            ("wss://2001:db8::1", "host"),
            ("wss://[livekit]", "host"),
        ] {
            let said_of = BaseUrl::parse(text, WEB).unwrap_err();
            assert!(said_of.contains(said) && !said_of.contains("secret"), "{text}: {said_of}");
        }
    }

    #[test]
    fn a_url_of_redis_has_no_password() {
        for (text, url) in [
            ("redis://10.0.0.5", "redis://10.0.0.5:6379/0"),
            ("rediss://livekit@redis.example.org:6380/3", "rediss://livekit@redis.example.org:6380/3"),
            ("redis://[::1]/", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(redis_url(text).as_deref(), Ok(url));
        }
        for text in ["10.0.0.5:6379", "http://10.0.0.5", "redis://10.0.0.5/x", "redis://"] {
            assert!(redis_url(text).is_err(), "{text}");
        }
        let (what, fix) = redis_url("redis://:hunter2@10.0.0.5").unwrap_err();
        assert!(what.contains("password") && fix.contains("redis_password_file"));
        assert!(!what.contains("hunter2") && !fix.contains("hunter2"));
    }

    #[test]
    fn ice_urls_and_origins_are_as_browsers_want_them() {
        let value = |text: &str| Value::from(text);
        for text in [
            "turn:turn.example.org:3478?transport=udp",
            "turns:turn.example.org:5349?transport=tcp",
            "turns:[2001:db8::1]:443",
            "stun:turn.example.org",
        ] {
            assert_eq!(ice_url(&value(text)).as_deref(), Ok(text));
        }
        for text in [
            "turn://turn.example.org",
            "turn:turn.example.org?transport=sctp",
            "stun:turn.example.org?transport=udp",
            "https://turn.example.org",
            "turn:",
            "turn:2001:db8::1",
        ] {
            assert!(ice_url(&value(text)).is_err(), "{text}");
        }
        for (text, kept) in [
            ("https://Meet.example.org/", "https://meet.example.org"),
            ("https://meet.example.org:443", "https://meet.example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("*", "*"),
        ] {
            assert_eq!(origin(&value(text)).as_deref(), Ok(kept));
        }
        for text in ["https://*.example.org", "meet.example.org", "https://meet.example.org/room", "null"] {
            assert!(origin(&value(text)).is_err(), "{text}");
        }
    }
}
