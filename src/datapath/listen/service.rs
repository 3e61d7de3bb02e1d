//! What a listener for streams serves, and where connections go that are not for TURN. Plain data: the stages decide by it.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::datapath::splice::backend::Backend;
use crate::tls::CertificateName;
use crate::turn::peers::Cidr;

/// What one listener for streams serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamService {
    /// TURN without TLS.
    pub turn: bool,
    /// TLS.
    pub tls: bool,
    /// Where HTTP without TLS goes; `None`: it is not served.
    pub http: Option<Backend>,
    /// Where TLS clients go, by the name that they ask for.
    pub routes: Routes,
    /// Who sends a header of the PROXY protocol.
    pub proxies: Proxies,
}

/// The proxies whose PROXY headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses.
    pub from: Vec<Cidr>,
    /// Their connections must begin with a header.
    pub required: bool,
}

/// Where TLS clients go, by the name that they ask for (SNI, RFC 6066 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    names: HashMap<CertificateName, Route>,
    /// For names without a route and without a certificate.
    pub default: Option<Backend>,
}

/// What happens to TLS connections for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// They are passed through unopened.
    Pass(Backend),
    /// TLS ends here. What is not TURN goes to a backend as bytes.
    Terminate {
        /// For HTTP/1.1.
        http: Option<Backend>,
        /// For HTTP/2 without TLS.
        h2c: Option<Backend>,
    },
}

impl Proxies {
    /// Whether a header from this address is believed.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.from.iter().any(|range| range.contains(ip))
    }
}

impl Routes {
    /// Routes by name.
    pub fn new(
        names: impl IntoIterator<Item = (CertificateName, Route)>,
        default: Option<Backend>,
    ) -> Routes {
        Routes { names: names.into_iter().collect(), default }
    }

    /// Whether no connection is passed on.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.default.is_none()
    }

    /// The route of a name as a client has sent it: that of exactly this name before that of a wildcard.
    pub fn find(&self, name: &str) -> Option<&Route> {
        CertificateName::candidates(name).find_map(|name| self.names.get(&name))
    }

    /// Every server that connections are passed on to.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.names.values().flat_map(Route::backends).chain(&self.default)
    }
}

impl Route {
    fn backends(&self) -> impl Iterator<Item = &Backend> {
        let (one, other) = match self {
            Route::Pass(backend) => (Some(backend), None),
            Route::Terminate { http, h2c } => (http.as_ref(), h2c.as_ref()),
        };
        one.into_iter().chain(other)
    }
}

impl StreamService {
    /// Every server that connections are passed on to.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.routes.backends().chain(&self.http)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6125 §6.4.3: a wildcard stands for one label, and the exact name comes before it.
    #[test]
    fn routes_are_found_by_name() {
        let backend = |port| Backend { host: "127.0.0.1".into(), port, send_proxy: false };
        let route = |name, port| (CertificateName::parse(name).unwrap(), Route::Pass(backend(port)));
        let routes = Routes::new([route("*.example.org", 1), route("www.example.org", 2)], None);
        let port = |name| match routes.find(name) {
            Some(Route::Pass(backend)) => Some(backend.port),
            _ => None,
        };
        assert_eq!(port("WWW.example.org."), Some(2));
        assert_eq!(port("api.example.org"), Some(1));
        assert_eq!((port("a.b.example.org"), port("example.org")), (None, None));
        assert_eq!(routes.backends().count(), 2);
    }
}
