//! Who calls the API, and whether they may.
//!
//! The mode of the control socket admits processes. Over TCP a token is needed, and besides, nothing that a web page could make a
//! browser do is served: not under a foreign name of this machine (DNS rebinding), and not across sites.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts;
use tracing::warn;

use super::response::Failure;
use crate::config::settings::AdminSettings;
use crate::config::tokens::{Scope, Tokens};
use crate::daemon::admin::Caller;
use crate::http::bearer::bearer;
use crate::http::lines::LineLimit;
use crate::shown::Shown;

/// Who may call.
#[derive(Default)]
pub struct Access {
    tokens: Tokens,
    hosts: Vec<String>,
    failures: Arc<LineLimit>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A process of this machine.
    Process { uid: u32, gid: u32, pid: Option<i32> },
    /// Whoever has a token.
    Token { name: String, scope: Scope, from: SocketAddr },
}

impl Who {
    /// What they may do.
    pub fn scope(&self) -> Scope {
        match self {
            Who::Process { .. } => Scope::Admin,
            Who::Token { scope, .. } => *scope,
        }
    }
}

impl Access {
    /// The same by new settings. Lines about failures that were suppressed stay counted.
    pub fn renewed(&self, settings: &AdminSettings) -> Access {
        Access {
            tokens: settings.tokens.clone(),
            hosts: settings.hosts.clone(),
            failures: self.failures.clone(),
        }
    }

    /// Finds out who calls.
    pub fn identify(&self, caller: Caller, head: &Parts) -> Result<Who, Failure> {
        let (from, to) = match caller {
            Caller::Process { uid, gid, pid } => return Ok(Who::Process { uid, gid, pid }),
            Caller::Remote { from, to } => (from, to),
        };
        self.check_host(head, to.ip())?;
        if head.headers.contains_key(ORIGIN) {
            let message = "requests of web pages are refused (the header Origin is set)";
            return Err(Failure::forbidden(message));
        }
        let Some(presented) = bearer(&head.headers) else {
            return Err(Failure::unauthorized("send a token, with the header Authorization: Bearer TOKEN"));
        };
        match self.tokens.find(presented) {
            Some(token) => Ok(Who::Token { name: token.name.clone(), scope: token.scope, from }),
            None => {
                self.note_failure(from);
                Err(Failure::unauthorized("this token is not one of admin.tokens_file"))
            }
        }
    }

    /// Checks the name under which the relay was called. A page of another site can make a browser send requests here under its
    /// own name, but not under another.
    fn check_host(&self, head: &Parts, to: IpAddr) -> Result<(), Failure> {
        let mut hosts = head.headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Failure::bad_request("send one Host header"));
        };
        let host = host.to_str().unwrap_or_default();
        let others = head.uri.authority().map(|authority| authority.as_str());
        match [host].into_iter().chain(others).find(|host| !self.is_ours(name(host), to)) {
            None => Ok(()),
            Some(other) => Err(Failure::forbidden(format!(
                "the host {other:?} is not a name of this relay; use the address of admin.listen, or add the name to admin.hosts"
            ))),
        }
    }

    fn is_ours(&self, host: &str, to: IpAddr) -> bool {
        if let Ok(ip) = host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            return ip == to.to_canonical()
                || ip.is_loopback()
                || self.hosts.iter().any(|known| address(known).is_some_and(|known| known == ip));
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host == "localhost" || self.hosts.contains(&host)
    }

    fn note_failure(&self, from: SocketAddr) {
        if let Some(suppressed) = self.failures.take() {
            warn!(from = %Shown(from), "a call of the admin API with a wrong token was refused{suppressed}");
        }
    }
}

/// An entry of `admin.hosts` that is an address.
fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(ip, _)| ip);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn access() -> Access {
        let text = format!("ops:admin:{TOKEN}\nwatch:read:{TOKEN}x\n");
        let settings = AdminSettings {
            tokens: Tokens::in_file(text.as_bytes()).0,
            hosts: vec!["turn.example.org".into(), "2001:db8:0:0::7".into(), "198.51.100.7".into()],
            ..AdminSettings::default()
        };
        Access::default().renewed(&settings)
    }

    fn identify(headers: &[(&str, &str)]) -> Result<Who, (u16, String)> {
        let mut request = Request::get("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let caller = Caller::Remote {
            from: "192.0.2.9:50000".parse().unwrap(),
            to: "192.0.2.1:9642".parse().unwrap(),
        };
        let head = request.body(()).unwrap().into_parts().0;
        access().identify(caller, &head).map_err(|failure| (failure.status.as_u16(), failure.message))
    }

    fn status(headers: &[(&str, &str)]) -> u16 {
        identify(headers).map_or_else(|(status, _)| status, |_| 200)
    }

    #[test]
    fn a_token_is_needed_over_tcp() {
        let host = ("Host", "192.0.2.1:9642");
        let bearer = |token: &str| format!("Bearer {token}");
        for (header, name, scope) in
            [(bearer(TOKEN), "ops", Scope::Admin), (format!("bearer {TOKEN}x"), "watch", Scope::Read)]
        {
            let who = identify(&[host, ("Authorization", &header)]).unwrap();
            let from = "192.0.2.9:50000".parse().unwrap();
            assert_eq!(who, Who::Token { name: name.into(), scope, from });
        }
        for header in [bearer(&TOKEN[1..]), TOKEN.into(), format!("Basic {TOKEN}"), bearer("")] {
            assert_eq!(status(&[host, ("Authorization", &header)]), 401, "{header}");
        }
        assert_eq!(status(&[host]), 401);
        let twice = [host, ("Authorization", &*bearer(TOKEN)), ("Authorization", &*bearer(TOKEN))];
        assert_eq!(status(&twice), 401);
    }

    /// DNS rebinding: a page makes a browser connect here under the page's own host name.
    #[test]
    fn only_names_of_this_relay_are_served() {
        let authorization = ("Authorization", &*format!("Bearer {TOKEN}"));
        for host in [
            "192.0.2.1:9642",
            "192.0.2.1",
            "localhost:9642",
            "LOCALHOST",
            "localhost.:9642",
            "127.0.0.1:8000",
            "[::1]:9642",
            "Turn.Example.org",
            "turn.example.org:443",
            "198.51.100.7",
            "[2001:DB8::7]:9642",
        ] {
            assert_eq!(status(&[("Host", host), authorization]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "192.0.2.2:9642",
            "[2001:db8::8]",
            "turn.example.org.evil.example",
            "localhost.evil.example",
        ] {
            assert_eq!(status(&[("Host", host), authorization]), 403, "{host}");
        }
        assert_eq!(status(&[authorization]), 400, "HTTP/1.1 requires a Host");
        assert_eq!(status(&[("Host", "localhost"), ("Host", "evil.example"), authorization]), 400);
        assert_eq!(status(&[("Host", ""), authorization]), 403);
    }

    #[test]
    fn requests_of_web_pages_are_refused() {
        let authorization = ("Authorization", &*format!("Bearer {TOKEN}"));
        for origin in ["https://evil.example", "null", "http://localhost:9642"] {
            assert_eq!(status(&[("Host", "localhost"), ("Origin", origin), authorization]), 403, "{origin}");
        }
    }
}
