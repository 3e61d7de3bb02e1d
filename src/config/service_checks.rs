//! Whether what the TCP connections of a `[[listener]]` may be agrees with its transports, with the certificates and with the other
//! listeners.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::checks;
use super::external::ExternalIp;
use super::hosts::Hosts;
use super::listener::ListenerSettings;
use super::listener_section::at;
use super::report::{Finding, Note};
use super::section::Source;
use super::service::Protocol;
use super::settings::Settings;
use crate::datapath::{Backend, Route};
use crate::tls::CertificateName;
use crate::turn::Transport;
use crate::turn::peers::Cidr;

/// What is wrong with the services of `[[listener]]` sections, and what is unusual.
pub fn agreement(settings: &Settings, source: Source<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let sections = &settings.listener;
    let has_backend = sections.iter().any(|one| !one.service.backends().is_empty());
    let certified = certified(settings, source);
    let endpoints = match has_backend {
        true => Endpoints::of(settings, certified.clone().unwrap_or_default(), source),
        false => Endpoints::default(),
    };
    for section in sections {
        found.extend(streams(section, source));
        found.extend(protocols(settings, section, source));
        found.extend(proxies(section, source));
        found.extend(public(section, source));
        for (key, backend) in section.service.backends() {
            found.extend(endpoints.is_own(section, &key, backend, source));
        }
        let terminated = section.service.routes.iter().filter(|(_, route)| !is_passed(route));
        for (name, _) in terminated {
            let Some(certified) = certified.as_ref().filter(|names| !name.is_covered_by(names)) else {
                continue;
            };
            let what = match certified.is_empty() {
                true => format!("http and h2c end TLS here, and there is no certificate for {name}"),
                false => format!("http and h2c end TLS here, and no certificate is valid for {name}"),
            };
            let fix =
                "add one as a [[tls.certificate]], or let the backend end TLS: { pass = \"HOST:PORT\" }";
            found.push(at(&format!("routes.\"{name}\""), &section.places.routes[name], what, fix, source));
        }
    }
    found
}

/// What the services of `[[listener]]` sections do that may not be expected.
pub fn notes(settings: &Settings, source: Source<'_>) -> Vec<Note> {
    let certified = certified(settings, source).unwrap_or_default();
    let mut found = Vec::new();
    for section in &settings.listener {
        let passed = section.service.routes.iter().filter(|(_, route)| is_passed(route));
        for (name, _) in passed.filter(|(name, _)| certified.contains(name)) {
            let what = format!(
                "connections for {name} are passed on, although there is a certificate for it, so this listener serves no TURN by \
                 that name"
            );
            let fix = "remove the route, or end TLS here with { http = \"HOST:PORT\" }, if clients are to reach TURN by it";
            found.push(Note(at(
                &format!("routes.\"{name}\""),
                &section.places.routes[name],
                what,
                fix,
                source,
            )));
        }
    }
    found
}

fn is_passed(route: &Route) -> bool {
    matches!(route, Route::Pass(_))
}

/// The names that certificates are for. `None`: that is not known, or does not matter.
fn certified(settings: &Settings, source: Source<'_>) -> Option<Vec<CertificateName>> {
    if settings.listener.iter().all(|one| one.service.backends().is_empty())
        || source.context.generates && !settings.tls.has_certificate()
    {
        return None;
    }
    let mut names = Vec::new();
    for one in settings.tls.all() {
        // What is wrong with it is reported elsewhere.
        names.extend(one.load().ok()?.names().iter().cloned());
    }
    Some(names)
}

/// Settings about TCP connections of a listener that has none.
fn streams(section: &ListenerSettings, source: Source<'_>) -> Vec<Finding> {
    if section.transports.iter().any(|one| one.is_stream()) {
        return Vec::new();
    }
    let (service, places) = (&section.service, &section.places);
    let first_route = service.routes.keys().next().and_then(|name| places.routes.get(name));
    let nowhere = Range::default();
    let set: [(&str, bool, &Range<usize>); 7] = [
        ("protocols", service.protocols.is_some(), &places.protocols),
        ("routes", !service.routes.is_empty(), first_route.unwrap_or(&nowhere)),
        ("default_backend", service.default_backend.is_some(), &places.default_backend),
        ("http", service.http.is_some(), &places.http),
        ("proxy_from", !service.proxy_from.is_empty(), &places.proxy_from),
        ("proxy", !places.proxy.is_empty(), &places.proxy),
        ("mss", !places.mss.is_empty(), &places.mss),
    ];
    let what = "this is about TCP connections, and the listener has none";
    let fix = "add \"tcp\" or \"tls\" to transports, or remove it";
    let set = set.into_iter().filter(|(_, is_set, _)| *is_set);
    set.map(|(key, _, place)| at(key, place, what, fix, source)).collect()
}

/// What `protocols` leaves out although something else needs it.
fn protocols(settings: &Settings, section: &ListenerSettings, source: Source<'_>) -> Vec<Finding> {
    let (service, places) = (&section.service, &section.places);
    let Some(listed) = &service.protocols else { return Vec::new() };
    let mut found = Vec::new();
    let mut mistake = |what: String, fix: String| {
        found.push(at("protocols", &places.protocols, what, fix, source));
    };
    for transport in &section.transports {
        let Some(protocol) = Protocol::of(*transport).filter(|one| !listed.contains(one)) else { continue };
        let (transport, protocol) = (transport.as_str(), protocol.as_str());
        mistake(
            format!("clients are offered {transport:?} (transports), but {protocol:?} is missing here"),
            format!("add {protocol:?}, or remove {transport:?} from transports"),
        );
    }
    let needs_tls =
        [("routes", !service.routes.is_empty()), ("default_backend", service.default_backend.is_some())];
    for (key, _) in needs_tls.iter().filter(|(_, is_set)| *is_set && !listed.contains(&Protocol::Tls)) {
        mistake(
            format!("{key} is for TLS connections, and \"tls\" is missing here"),
            format!("add \"tls\", or remove {key}"),
        );
    }
    let is_offered = section.transports.contains(&Transport::Tls);
    if listed.contains(&Protocol::Tls)
        && !is_offered
        && !service.passes_tls()
        && !settings.tls.has_certificate()
        && !source.context.generates
    {
        mistake(
            "TLS requires a certificate, or a route that passes it on".to_owned(),
            "set tls.cert and tls.key, add a [[tls.certificate]], or remove \"tls\" here".to_owned(),
        );
    }
    found
}

/// What is unusual about `proxy_from` and `proxy`.
fn proxies(section: &ListenerSettings, source: Source<'_>) -> Vec<Finding> {
    let (service, places) = (&section.service, &section.places);
    let mut found = Vec::new();
    let mut warning = |key: &str, place: &Range<usize>, what: String, fix: &str| {
        found.push(Finding { warning: true, ..at(key, place, what, fix, source) });
    };
    let wide: Vec<String> =
        service.proxy_from.iter().filter(|range| is_wide(range)).map(Cidr::to_string).collect();
    if !wide.is_empty() {
        let what = format!(
            "{} stands for machines of others: whoever connects from there can claim to be any client",
            wide.join(", ")
        );
        warning(
            "proxy_from",
            &places.proxy_from,
            what,
            "list only the addresses of your own balancers and proxies",
        );
    }
    if service.proxy_from.is_empty() && !places.proxy.is_empty() {
        let what = "it has no effect without proxy_from: no PROXY header is believed".to_owned();
        let fix = "list the addresses of your balancers in proxy_from, or remove this line";
        warning("proxy", &places.proxy, what, fix);
    }
    found
}

/// A public name that leads to a backend.
fn public(section: &ListenerSettings, source: Source<'_>) -> Option<Finding> {
    let name = &section.public.as_ref()?.host;
    if !section.transports.contains(&Transport::Tls) || !section.service.passes_on(name) {
        return None;
    }
    let what = format!("a route passes connections for {name} on to a backend, so no turns: URL has it");
    let fix = "write a name of the relay's own, or remove the route";
    Some(Finding { warning: true, ..at("public", &section.places.public, what, fix, source) })
}

/// Whether a range is wider than networks of one operator are.
fn is_wide(range: &Cidr) -> bool {
    let wide = match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => first.octets()[0] != last.octets()[0],
        (IpAddr::V6(first), IpAddr::V6(last)) => first.segments()[0] != last.segments()[0],
        _ => false,
    };
    wide && !checks::is_private(range)
}

/// Where this process listens for streams.
#[derive(Default)]
struct Endpoints {
    listeners: Vec<Endpoint>,
    own: Vec<Cidr>,
    external: Vec<ExternalIp>,
    /// What is known of the backends' names without asking anyone.
    hosts: Hosts,
    /// Clients reach this relay by the names of its certificates.
    names: Vec<CertificateName>,
}

struct Endpoint {
    name: String,
    address: SocketAddr,
    /// Clients of the relay, and not programs of this machine, connect to it.
    is_for_clients: bool,
}

impl Endpoints {
    fn of(settings: &Settings, names: Vec<CertificateName>, source: Source<'_>) -> Endpoints {
        let mut listeners = Vec::new();
        let mut add = |name: &str, address, is_for_clients| {
            listeners.push(Endpoint { name: name.to_owned(), address, is_for_clients });
        };
        for (transport, address) in settings.listen.all().into_iter().filter(|(one, _)| one.is_stream()) {
            add(&format!("listen.{}", transport.as_str()), address, true);
        }
        for section in &settings.listener {
            let name = format!("the [[listener]] of line {}", source.line(section.places.address.start));
            let streams = section.each().filter(|one| one.transport.is_stream());
            streams.for_each(|one| add(&name, one.address, true));
        }
        settings.http.listen.iter().for_each(|address| add("http.listen", *address, false));
        settings.admin.listen.iter().for_each(|address| add("admin.listen", *address, false));
        let external = settings.relay.external_ip.iter().filter_map(|entry| entry.written()).collect();
        let backends = settings.listener.iter().flat_map(|section| section.service.backends());
        let hosts = Hosts::read(&(source.context.hosts)(), backends.map(|(_, backend)| &*backend.host));
        Endpoints { listeners, own: (source.context.own)().0, external, hosts, names }
    }

    /// A backend that is this process itself: connections to it would go round in circles, or reach what is only for programs of this
    /// machine.
    fn is_own(
        &self,
        section: &ListenerSettings,
        key: &str,
        backend: &Backend,
        source: Source<'_>,
    ) -> Option<Finding> {
        let known = self.hosts.addresses(&backend.host);
        let is_named = || known.is_empty() && self.is_own_name(&backend.host, key);
        let is_at = |endpoint: &&Endpoint| {
            let ip = endpoint.address.ip();
            endpoint.address.port() == backend.port
                && (known.iter().any(|one| self.reaches(*one, ip)) || !ip.is_loopback() && is_named())
        };
        let Endpoint { name, address, is_for_clients } = self.listeners.iter().find(is_at)?;
        let (what, fix) = match is_for_clients {
            true if known.is_empty() => (
                format!(
                    "clients reach this relay by the name {}, so {backend} is its own listener {address} ({name}), and connections \
                     would come back here",
                    backend.host
                ),
                "write the address and port of another server",
            ),
            true => (
                format!(
                    "{backend} is this relay's own listener {address} ({name}), so connections would come back here"
                ),
                "write the address and port of another server",
            ),
            false => (
                format!(
                    "{backend} is {name}: strangers would reach it as if they were programs of this machine"
                ),
                "write the address and port of another server; metrics and the API have listeners, TLS and tokens of their own",
            ),
        };
        let places = &section.places;
        let route =
            section.service.routes.keys().find(|name| key.starts_with(&format!("routes.\"{name}\".")));
        let place = match (key, route) {
            ("http", _) => &places.http,
            (_, Some(name)) => &places.routes[name],
            _ => &places.default_backend,
        };
        // The place is that of the whole route, which has the key as well.
        Some(Finding { value: format!("\"{backend}\""), ..at(key, place, what, fix, source) })
    }

    /// Whether clients reach this relay by the name of a backend: it is that of its own route, or of a certificate.
    fn is_own_name(&self, host: &str, key: &str) -> bool {
        let Ok(name) = CertificateName::parse(host) else { return false };
        self.names.contains(&name) || key.starts_with(&format!("routes.\"{name}\"."))
    }

    /// Whether a connection to `ip` arrives at a listener with this address.
    fn reaches(&self, ip: IpAddr, listener: IpAddr) -> bool {
        let is_outside = |local: IpAddr| {
            let mut pairs = self.external.iter().filter(|pair| pair.public == ip);
            pairs.any(|pair| local.is_unspecified() || pair.local.is_none_or(|inside| inside == local))
        };
        let is_own = || ip.is_loopback() || self.own.iter().any(|range| range.contains(ip));
        ip.is_ipv4() == listener.is_ipv4()
            && (ip == listener || is_outside(listener) || listener.is_unspecified() && is_own())
    }
}

#[cfg(test)]
mod tests;
