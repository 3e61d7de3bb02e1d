//! Whether settings agree with each other. Each single value is checked where it is read.

use std::net::{IpAddr, SocketAddr};

use super::external;
use super::report::Disagreement;
use super::settings::{ListenSettings, Settings, SiblingSettings};
use super::table::SECRET_VARIABLE;
use super::tls::TlsSettings;
use crate::turn::peers::Cidr;

/// Every disagreement, in the order of the table. `generates`: what is missing is generated.
pub fn agreement(settings: &Settings, generates: bool) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let ListenSettings { udp, tcp, tls, .. } = &settings.listen;
    if settings.listeners().is_empty() {
        found.push(Disagreement::mistake(
            &["listen.udp", "listen.tcp", "listen.tls", "listener"],
            "there is no listener for clients",
            "list an address, or remove the line to use the default",
        ));
    }
    let http = &settings.http.listen;
    found.extend(overlap(&[("listen.udp", udp)]));
    let admin = &settings.admin.listen;
    found.extend(overlap(&[
        ("listen.tcp", tcp),
        ("listen.tls", tls),
        ("http.listen", http),
        ("admin.listen", admin),
    ]));
    found.extend(certificate(&settings.tls, !tls.is_empty() && !generates));
    found.extend(admin_access(settings, generates));
    // Discovered addresses are only known when the relay starts.
    let relay = &settings.relay;
    if !relay.addresses.is_empty()
        && let Err(misfit) = external::pair(&external::written(&relay.external_ip), &relay.addresses)
    {
        found.push(Disagreement::mistake(&["relay.external_ip", "relay.addresses"], misfit.what, misfit.fix));
    }
    let asked = relay.external_ip.iter().filter(|entry| entry.local.is_none() && entry.written().is_none());
    if asked.count() > 1 {
        let what = "several entries ask for the external address of the same relayed addresses";
        let fix = "remove all but one, or write which relayed address each is for, like \"auto/10.0.0.7\"";
        found.push(Disagreement::mistake(&["relay.external_ip"], what, fix));
    }
    let ports = &settings.relay.ports;
    let in_range =
        |listener: &&SocketAddr| ports.contains(&listener.port()) && shares_an_address(listener, settings);
    let inside: Vec<_> = udp.iter().filter(in_range).map(ToString::to_string).collect();
    if !inside.is_empty() {
        let (listeners, first, last) = (inside.join(" and "), ports.start(), ports.end());
        let what = format!("the relay ports {first}-{last} include the port of {listeners}");
        found.push(Disagreement::mistake(
            &["relay.ports", "listen.udp"],
            what,
            "change relay.ports or listen.udp",
        ));
    }
    if settings.limits.max_allocation_lifetime < settings.limits.allocation_lifetime {
        let what = format!(
            "max_allocation_lifetime, {} s, is less than allocation_lifetime, {} s",
            settings.limits.max_allocation_lifetime, settings.limits.allocation_lifetime
        );
        let keys = &["limits.max_allocation_lifetime", "limits.allocation_lifetime"];
        found.push(Disagreement::mistake(
            keys,
            what,
            "raise max_allocation_lifetime or lower allocation_lifetime",
        ));
    }
    let public: Vec<_> = settings
        .limits
        .exempt_sources
        .iter()
        .filter(|range| !is_private(range))
        .map(Cidr::to_string)
        .collect();
    if !public.is_empty() {
        let are = if public.len() == 1 { "is" } else { "are" };
        let public = public.join(", ");
        let what = format!(
            "{public} {are} public: a flood of forged packets in the name of such an address gets a hundred times as many responses"
        );
        let fix = "list only addresses of your own balancers, NAT gateways and proxies";
        found.push(Disagreement::warning(&["limits.exempt_sources"], what, fix));
    }
    let nameless = |one: &&SiblingSettings| one.certificate_names_address && one.domain.is_empty();
    for sibling in settings.siblings.iter().filter(nameless) {
        let address = sibling.v4.or(sibling.v6);
        let shown = address.map(|ip| ip.to_string()).unwrap_or_default();
        // RFC 8489 §10: ALTERNATE-DOMAIN
        let what = format!(
            "the sibling {shown} has no `domain`: TLS clients of RFC 8489 look for the name of this relay in its certificate"
        );
        let fix = "add the host name in its certificate, such as domain = \"turn-2.example.org\"";
        found.push(Disagreement::warning(&["sibling"], what, fix));
    }
    found.extend(http_access(settings, generates));
    found
}

/// What the pages for monitoring require, and what others can read of them.
fn http_access(settings: &Settings, generates: bool) -> Vec<Disagreement> {
    let (http, tls) = (&settings.http, &settings.tls);
    let mut found = Vec::new();
    if http.uses_tls() && !generates && !tls.has_certificate() && tls.key.is_none() {
        found.push(Disagreement::mistake(
            &["http.tls", "tls.cert", "tls.key"],
            "TLS requires a certificate and its private key",
            "set tls.cert and tls.key, add a [[tls.certificate]], or remove http.tls",
        ));
    }
    let exposed = http.listen.iter().filter(|listener| !listener.ip().is_loopback());
    let exposed: Vec<String> = exposed.map(ToString::to_string).collect();
    let (what, fix) = match (http.tls, !http.tokens.is_empty()) {
        (true, true) => return found,
        (true, false) => (
            "whoever can connect there can read the metrics, and why the relay is not ready",
            "set http.tokens_file, or make sure that only your own machines can connect",
        ),
        (false, true) => (
            "the tokens of http.tokens_file and the metrics can be read on the way",
            "set http.tls = true, or make sure that nobody else is on that network",
        ),
        (false, false) => (
            "whoever can connect there can read the metrics, and why the relay is not ready",
            "set http.tls = true and http.tokens_file, or make sure that only your own machines can connect",
        ),
    };
    if !exposed.is_empty() {
        let are = if exposed.len() == 1 { "is not a loopback address" } else { "are not loopback addresses" };
        let what = format!("{} {are}: {what}", exposed.join(" and "));
        found.push(Disagreement::warning(&["http.listen"], what, fix));
    }
    found
}

/// What the API over TCP requires: tokens, and TLS wherever others could read them.
fn admin_access(settings: &Settings, generates: bool) -> Vec<Disagreement> {
    let (admin, tls) = (&settings.admin, &settings.tls);
    if admin.listen.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if admin.tokens.is_empty() {
        found.push(Disagreement::mistake(
            &["admin.listen", "admin.tokens_file"],
            "there is no token, so nobody could use the API over TCP",
            "set admin.tokens_file to a file with lines like NAME:admin:TOKEN, or remove admin.listen (the control socket needs \
             no token)",
        ));
    }
    let exposed = admin.listen.iter().find(|listener| !listener.ip().is_loopback());
    if let Some(listener) = exposed.filter(|_| !admin.tls) {
        found.push(Disagreement::mistake(
            &["admin.listen", "admin.tls"],
            format!("{listener} is not a loopback address, and tokens must not cross a network without TLS"),
            "set admin.tls = true and a certificate (tls.cert and tls.key, or [[tls.certificate]]), or list a loopback address like 127.0.0.1",
        ));
    }
    if admin.tls && !generates && !tls.has_certificate() && tls.key.is_none() {
        found.push(Disagreement::mistake(
            &["admin.tls", "tls.cert", "tls.key"],
            "TLS requires a certificate and its private key",
            "set tls.cert and tls.key, add a [[tls.certificate]], or remove admin.tls",
        ));
    }
    found
}

/// Addresses that this machine does not have now. The relay waits for them, since a service may start before the network.
pub fn missing(settings: &Settings, has_address: &dyn Fn(IpAddr) -> bool) -> Vec<Disagreement> {
    let lists: [(&'static str, Vec<IpAddr>, &str); 7] = [
        ("listen.udp", ips(&settings.listen.udp), "clients are not served there until it has"),
        ("listen.tcp", ips(&settings.listen.tcp), "clients are not served there until it has"),
        ("listen.tls", ips(&settings.listen.tls), "clients are not served there until it has"),
        ("relay.addresses", settings.relay.addresses.clone(), "the relay waits for it"),
        (
            "relay.external_ip",
            settings.relay.external_ip.iter().filter_map(|entry| entry.local).collect(),
            "the relay waits for it",
        ),
        ("http.listen", ips(&settings.http.listen), "nothing is served there until it has"),
        ("admin.listen", ips(&settings.admin.listen), "nothing is served there until it has"),
    ];
    let mut found = Vec::new();
    for (key, addresses, consequence) in lists {
        for address in addresses.iter().filter(|ip| !ip.is_unspecified() && !has_address(**ip)) {
            let what = format!("{address} is not an address of this machine now");
            let fix = format!("{consequence}; if it is a mistake, `ip addr` lists those that it has");
            found.push(Disagreement::warning(&[key], what, fix));
        }
    }
    found
}

fn ips(sockets: &[SocketAddr]) -> Vec<IpAddr> {
    sockets.iter().map(SocketAddr::ip).collect()
}

/// Refuses to be an anonymous relay.
pub fn credentials(settings: &Settings) -> Option<Disagreement> {
    (!settings.auth.has_credentials()).then(|| {
        Disagreement::mistake(
            &[
                "auth.secrets",
                "auth.secret_files",
                "auth.livekit_keys_file",
                "auth.users_file",
                "auth.user",
                SECRET_VARIABLE,
            ],
            "there are no credentials, and hairpin never runs as an anonymous relay",
            "set auth.secrets, auth.secret_files, auth.livekit_keys_file, auth.users_file, an [[auth.user]] or HAIRPIN_AUTH_SECRET in \
             the environment, or start, and check, with --state-dir, which generates a secret",
        )
    })
}

/// The first two listeners of one kind of socket that cannot both be opened. TCP and TLS share a socket at the same address.
fn overlap(lists: &[(&'static str, &Vec<SocketAddr>)]) -> Option<Disagreement> {
    let all =
        || lists.iter().enumerate().flat_map(|(n, (key, list))| list.iter().map(move |addr| (n, *key, addr)));
    all().find_map(|(n, key, one)| {
        let what = |other: &SocketAddr| match covers(one, other) {
            true => format!("{one} includes {other}, which is listed too"),
            false => format!("{other} is listed twice"),
        };
        let (_, other_key, other) = all().find(|(m, other_key, other)| {
            let shares = (key, *other_key) == ("listen.tcp", "listen.tls");
            covers(one, other) || (n < *m && one == *other && !shares)
        })?;
        Some(Disagreement::mistake(&[key, other_key], what(other), "remove or change one of them"))
    })
}

/// Whether two addresses of the same kind of socket cannot both be opened.
pub(super) fn clash(one: &SocketAddr, other: &SocketAddr) -> bool {
    one == other || covers(one, other) || covers(other, one)
}

fn covers(wildcard: &SocketAddr, other: &SocketAddr) -> bool {
    wildcard.ip().is_unspecified()
        && !other.ip().is_unspecified()
        && (wildcard.is_ipv4(), wildcard.port()) == (other.is_ipv4(), other.port())
}

/// Files of certificates that are missing. There must be a certificate if `listens`.
fn certificate(tls: &TlsSettings, listens: bool) -> Option<Disagreement> {
    match (&tls.cert, &tls.key) {
        (Some(_), None) => Some(Disagreement::mistake(
            &["tls.cert", "tls.key"],
            "the certificate has no private key",
            "set tls.key",
        )),
        (None, Some(_)) => Some(Disagreement::mistake(
            &["tls.key", "tls.cert"],
            "the private key has no certificate",
            "set tls.cert",
        )),
        (None, None) if listens && !tls.has_certificate() => Some(Disagreement::mistake(
            &["listen.tls", "tls.cert", "tls.key"],
            "TLS requires a certificate and its private key",
            "set tls.cert and tls.key, add a [[tls.certificate]], or remove listen.tls",
        )),
        _ => None,
    }
}

/// Whether nobody outside of the operator's networks has an address of this range.
pub(super) fn is_private(range: &Cidr) -> bool {
    const PRIVATE: [&str; 9] = [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ];
    PRIVATE.iter().any(|private| private.parse::<Cidr>().is_ok_and(|private| private.covers(range)))
}

/// Whether relay sockets may be bound to the listener's address. Discovered addresses may be any.
pub(super) fn shares_an_address(listener: &SocketAddr, settings: &Settings) -> bool {
    let addresses = &settings.relay.addresses;
    let same_family = |wildcard: &SocketAddr| addresses.iter().any(|a| a.is_ipv4() == wildcard.is_ipv4());
    addresses.is_empty()
        || addresses.contains(&listener.ip())
        || (listener.ip().is_unspecified() && same_family(listener))
}
