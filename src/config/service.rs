//! What the TCP connections of a listener may be, and where those go that are not for TURN: `protocols`, `routes` and their like of a
//! `[[listener]]`.

use std::collections::BTreeMap;
use std::fmt;

use crate::datapath::{Backend, Proxies, Route, Routes, StreamService};
use crate::tls::CertificateName;
use crate::turn::Transport;
use crate::turn::peers::Cidr;

/// The routes that one line of the log has.
const SHOWN_ROUTES: usize = 20;

/// What the TCP connections of a listener may be. The default is that of `[listen]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// What they may speak; `None`: TURN, and TLS if there is anything to serve by it.
    pub protocols: Option<Vec<Protocol>>,
    /// Where HTTP without TLS goes; `None`: it is not served.
    pub http: Option<Backend>,
    /// Where TLS clients go, by the name that they ask for.
    pub routes: BTreeMap<CertificateName, Route>,
    /// For names without a route and without a certificate.
    pub default_backend: Option<Backend>,
    /// The proxies whose PROXY headers are believed.
    pub proxy_from: Vec<Cidr>,
    /// Whether each of their connections begins with one.
    pub proxy: ProxyMode,
    /// The largest TCP segment; 0 is the kernel's choice.
    pub mss: u16,
}

/// What a TCP connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TURN without TLS.
    Turn,
    /// TLS.
    Tls,
}

/// What the connections of proxies begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// Always a PROXY header.
    #[default]
    Required,
    /// A PROXY header or not.
    Optional,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 2] = [Protocol::Turn, Protocol::Tls];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Turn => "turn",
            Protocol::Tls => "tls",
        }
    }

    /// Its name in sentences.
    fn title(self) -> &'static str {
        match self {
            Protocol::Turn => "TURN",
            Protocol::Tls => "TLS",
        }
    }

    /// What connections speak whose clients are offered a transport of streams.
    pub fn of(transport: Transport) -> Option<Protocol> {
        match transport {
            Transport::Udp => None,
            Transport::Tcp => Some(Protocol::Turn),
            Transport::Tls => Some(Protocol::Tls),
        }
    }
}

impl ProxyMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyMode::Required => "required",
            ProxyMode::Optional => "optional",
        }
    }
}

impl ServiceSettings {
    /// Whether its connections may speak `protocol`. `has_identity`: TLS can end here.
    pub fn speaks(&self, protocol: Protocol, has_identity: bool) -> bool {
        match &self.protocols {
            Some(listed) => listed.contains(&protocol),
            None => protocol == Protocol::Turn || has_identity || self.passes_tls(),
        }
    }

    /// What its connections speak. `has_identity`: TLS can end here.
    pub fn spoken(&self, has_identity: bool) -> Vec<Protocol> {
        let service = self.stream_service(has_identity);
        let spoken = [(Protocol::Turn, service.turn), (Protocol::Tls, service.tls)];
        spoken.into_iter().filter(|(_, speaks)| *speaks).map(|(protocol, _)| protocol).collect()
    }

    /// What its connections are, in one line.
    pub fn summary(&self, has_identity: bool) -> String {
        let spoken: Vec<&str> = self.spoken(has_identity).into_iter().map(Protocol::title).collect();
        let mut parts = vec![spoken.join(" and ")];
        let routes = self.routes.iter().take(SHOWN_ROUTES);
        let mut routes: Vec<String> =
            routes.map(|(name, route)| ShownRoute(name, route).to_string()).collect();
        if let Some(more) = self.routes.len().checked_sub(SHOWN_ROUTES).filter(|more| *more > 0) {
            routes.push(format!("{more} more"));
        }
        if !routes.is_empty() {
            parts.push(format!("routes {}", routes.join(", ")));
        }
        let default = self.default_backend.as_ref();
        parts.extend(default.map(|backend| format!("other names -> {}", ShownBackend(backend))));
        parts.extend(self.http.as_ref().map(|backend| format!("plain HTTP -> {}", ShownBackend(backend))));
        if !self.proxy_from.is_empty() {
            let from: Vec<String> = self.proxy_from.iter().map(Cidr::to_string).collect();
            parts.push(format!("PROXY header {} from {}", self.proxy.as_str(), from.join(", ")));
        }
        parts.join("; ")
    }

    /// Whether some TLS connections are passed on unopened, for which no certificate is needed.
    pub fn passes_tls(&self) -> bool {
        self.default_backend.is_some() || self.routes.values().any(|route| matches!(route, Route::Pass(_)))
    }

    /// Whether TLS connections for this name are passed on unopened by a route.
    pub fn passes_on(&self, name: &str) -> bool {
        let route = CertificateName::candidates(name).find_map(|name| self.routes.get(&name));
        matches!(route, Some(Route::Pass(_)))
    }

    /// Whether TLS connections for this name go to `default_backend` unless there is a certificate for it.
    pub fn takes_by_default(&self, name: &str) -> bool {
        let mut names = CertificateName::candidates(name);
        self.default_backend.is_some() && !names.any(|name| self.routes.contains_key(&name))
    }

    /// The same for the workers. `has_identity`: there is a certificate.
    pub fn stream_service(&self, has_identity: bool) -> StreamService {
        let routes = self.routes.iter().map(|(name, route)| (name.clone(), route.clone()));
        StreamService {
            turn: self.speaks(Protocol::Turn, has_identity),
            tls: self.speaks(Protocol::Tls, has_identity) && (has_identity || self.passes_tls()),
            http: self.http.clone(),
            routes: Routes::new(routes, self.default_backend.clone()),
            proxies: Proxies { from: self.proxy_from.clone(), required: self.proxy == ProxyMode::Required },
        }
    }

    /// Every server that connections are passed on to, with the key of its setting.
    pub fn backends(&self) -> Vec<(String, &Backend)> {
        let mut found: Vec<(String, &Backend)> = Vec::new();
        found.extend(self.http.iter().map(|backend| ("http".to_owned(), backend)));
        found.extend(self.default_backend.iter().map(|backend| ("default_backend".to_owned(), backend)));
        for (name, route) in &self.routes {
            let key = |field: &str| format!("routes.\"{name}\".{field}");
            match route {
                Route::Pass(backend) => found.push((key("pass"), backend)),
                Route::Terminate { http, h2c } => {
                    found.extend(http.iter().map(|backend| (key("http"), backend)));
                    found.extend(h2c.iter().map(|backend| (key("h2c"), backend)));
                }
            }
        }
        found
    }

    /// What differs in `new`, a phrase for each difference.
    pub fn changes(&self, new: &ServiceSettings) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, before: String, after: String| {
            if before != after {
                found.push(format!("{what} {before} -> {after}"));
            }
        };
        let protocols = |one: &ServiceSettings| match &one.protocols {
            None => "by default".to_owned(),
            Some(listed) => listed.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(" and "),
        };
        compare("protocols", protocols(self), protocols(new));
        let backend =
            |one: &Option<Backend>| one.as_ref().map_or("none".into(), |one| ShownBackend(one).to_string());
        compare("default_backend", backend(&self.default_backend), backend(&new.default_backend));
        compare("http", backend(&self.http), backend(&new.http));
        let ranges = |one: &ServiceSettings| {
            let ranges: Vec<String> = one.proxy_from.iter().map(Cidr::to_string).collect();
            format!("[{}]", ranges.join(", "))
        };
        compare("proxy_from", ranges(self), ranges(new));
        compare("proxy", self.proxy.as_str().to_owned(), new.proxy.as_str().to_owned());
        compare("mss", self.mss.to_string(), new.mss.to_string());
        for (name, route) in &new.routes {
            match self.routes.get(name) {
                None => found.push(format!("route {} added", ShownRoute(name, route))),
                Some(before) if before != route => {
                    let before = ShownRoute(name, before).to_string();
                    let before = before.strip_prefix(&format!("{name} -> ")).unwrap_or(&before).to_owned();
                    found.push(format!("route {} (was {before})", ShownRoute(name, route)));
                }
                Some(_) => {}
            }
        }
        let removed = self.routes.iter().filter(|(name, _)| !new.routes.contains_key(name));
        found.extend(removed.map(|(name, route)| format!("route {} removed", ShownRoute(name, route))));
        found
    }
}

/// A route in messages, such as `www.example.org -> 127.0.0.1:8443 (send_proxy)`.
pub struct ShownRoute<'a>(pub &'a CertificateName, pub &'a Route);

impl fmt::Display for ShownRoute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownRoute(name, route) = self;
        write!(f, "{name} -> ")?;
        let list = |backends: &[(&str, Option<&Backend>)]| -> Vec<String> {
            let shown = |(kind, backend): &(&str, Option<&Backend>)| {
                Some(format!("{kind}{}", ShownBackend((*backend)?)))
            };
            backends.iter().filter_map(shown).collect()
        };
        let backends = match route {
            Route::Pass(backend) => list(&[("", Some(backend))]),
            Route::Terminate { http, h2c } => list(&[("http ", http.as_ref()), ("h2c ", h2c.as_ref())]),
        };
        f.write_str(&backends.join(", "))
    }
}

/// A backend in messages, such as `127.0.0.1:8443 (send_proxy)`.
pub struct ShownBackend<'a>(pub &'a Backend);

impl fmt::Display for ShownBackend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = if self.0.send_proxy { " (send_proxy)" } else { "" };
        write!(f, "{}{proxy}", self.0)
    }
}

#[cfg(test)]
mod tests;
