//! Where a TLS connection goes, by the name that its client asks for. A pure decision.

use crate::datapath::listen::service::{Route, StreamService};
use crate::datapath::splice::backend::Backend;
use crate::tls::{Identities, Protocols};

/// What happens to a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// TLS ends here.
    Terminate(Inside),
    /// It is passed through unopened.
    Pass(Backend),
    /// Nobody serves it.
    Refused,
}

/// What is served beside TURN inside a TLS connection that ends here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    /// Where HTTP/1.1 goes.
    pub(super) http: Option<Backend>,
    /// Where HTTP/2 goes.
    pub(super) h2c: Option<Backend>,
}

/// Decides by the name that a client asks for, if any. A route comes before a certificate, and a certificate before the default
/// backend. Without a name (the URL has an address) it is TURN with the default certificate.
pub(super) fn route(
    service: &StreamService,
    name: Option<&str>,
    identities: Option<&Identities>,
) -> Decision {
    let route = name.and_then(|name| service.routes.find(name));
    let has_certificate = identities.is_some_and(|own| name.is_none_or(|name| own.covers(name)));
    match (route, &service.routes.default) {
        (Some(Route::Pass(backend)), _) => Decision::Pass(backend.clone()),
        (Some(Route::Terminate { http, h2c }), _) => {
            Decision::Terminate(Inside { http: http.clone(), h2c: h2c.clone() })
        }
        (None, Some(backend)) if !has_certificate => Decision::Pass(backend.clone()),
        (None, _) if identities.is_some() => Decision::Terminate(Inside::default()),
        (None, _) => Decision::Refused,
    }
}

impl Inside {
    /// Whether the name has a route: one that ends TLS has a backend at least.
    pub(super) fn has_route(&self) -> bool {
        self.http.is_some() || self.h2c.is_some()
    }

    /// The application protocols to negotiate beside those of TURN.
    pub(super) fn protocols(&self) -> Protocols {
        Protocols { http: self.http.is_some(), h2: self.h2c.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;
    use crate::datapath::listen::service::Routes;
    use crate::tls::{CertificateName, Identity, NamedIdentity, Sessions, UnknownName};

    fn name(text: &str) -> CertificateName {
        CertificateName::parse(text).unwrap()
    }

    fn backend(port: u16) -> Backend {
        Backend { host: "127.0.0.1".into(), port, send_proxy: false }
    }

    fn identities(names: &[&str]) -> Identities {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["x.example".into()]).unwrap();
        let identity =
            Identity::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).unwrap();
        let names = names.iter().copied().map(name).collect();
        let named = NamedIdentity { identity, names, until: 0 };
        Identities::new(&[named], UnknownName::Refuse, &Sessions::new().unwrap()).unwrap()
    }

    fn service(default: Option<Backend>) -> StreamService {
        let routes = [
            (name("www.example.org"), Route::Pass(backend(1))),
            (name("*.apps.example.org"), Route::Pass(backend(2))),
            (name("live.example.org"), Route::Terminate { http: Some(backend(3)), h2c: None }),
        ];
        StreamService { tls: true, routes: Routes::new(routes, default), ..StreamService::default() }
    }

    /// The order: route, certificate, default backend, and the setting for unknown names, which the choice of a certificate knows.
    #[test]
    fn the_name_decides() {
        let certificates = identities(&["turn.example.org", "*.example.org"]);
        let with = service(Some(backend(9)));
        let inside = Inside { http: Some(backend(3)), h2c: None };
        for (name, expected) in [
            (Some("www.example.org"), Decision::Pass(backend(1))),
            (Some("a.apps.example.org"), Decision::Pass(backend(2))),
            (Some("live.example.org"), Decision::Terminate(inside)),
            (Some("turn.example.org"), Decision::Terminate(Inside::default())),
            (Some("other.example"), Decision::Pass(backend(9))),
            (None, Decision::Terminate(Inside::default())),
        ] {
            assert_eq!(route(&with, name, Some(&certificates)), expected, "{name:?}");
        }
        let without = service(None);
        let terminate = Decision::Terminate(Inside::default());
        assert_eq!(route(&without, Some("other.example"), Some(&certificates)), terminate);
    }

    /// Without a certificate only routes and the default backend serve anybody.
    #[test]
    fn without_a_certificate() {
        assert_eq!(route(&service(None), Some("www.example.org"), None), Decision::Pass(backend(1)));
        assert_eq!(route(&service(None), Some("other.example"), None), Decision::Refused);
        assert_eq!(route(&service(None), None, None), Decision::Refused);
        assert_eq!(route(&service(Some(backend(9))), None, None), Decision::Pass(backend(9)));
    }
}
