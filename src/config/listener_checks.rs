//! Whether `[[listener]]` sections agree with each other and with other settings.

use std::net::SocketAddr;

use super::listener::{Listener, ListenerPeers, ListenerSettings, Places};
use super::listener_section::at;
use super::report::{Disagreement, Finding, Note};
use super::section::Source;
use super::settings::{PeersSettings, Settings};
use super::{checks, own_addresses, service_checks};
use crate::turn::Transport;

/// What is wrong with the `[[listener]]` sections beside other settings, and what is unusual.
pub fn agreement(settings: &Settings, source: Source<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (n, section) in settings.listener.iter().enumerate() {
        found.extend(overlap(settings, n, source));
        found.extend(relay_ports(settings, section, source));
        let Places { address, transports, .. } = &section.places;
        if section.transports.contains(&Transport::Tls)
            && !settings.tls.has_certificate()
            && !source.context.generates
        {
            let fix = "set tls.cert and tls.key, add a [[tls.certificate]], or remove \"tls\" here";
            let what = "TLS requires a certificate and its private key";
            found.push(at("transports", transports, what, fix, source));
        }
        if !section.ip.is_unspecified() && !(source.context.has_address)(section.ip) {
            let what = format!("{} is not an address of this machine now", section.ip);
            let fix = "clients are not served there until it has; if it is a mistake, `ip addr` lists those that it has";
            found.push(Finding { warning: true, ..at("address", address, what, fix, source) });
        }
        let disagreements = own_addresses::agreement(&alone(settings, section), source.context);
        found.extend(disagreements.into_iter().map(|one| about_peers(section, one, source)));
    }
    found.extend(service_checks::agreement(settings, source));
    found
}

/// What the `peers.allow` of listeners does not open, although it seems to.
pub fn notes(settings: &Settings, source: Source<'_>) -> Vec<Note> {
    let notes = |section| {
        let notes = own_addresses::notes(&alone(settings, section), source.context).into_iter();
        notes.map(move |one| Note(Finding { warning: false, ..about_peers(section, one, source) }))
    };
    settings.listener.iter().flat_map(notes).chain(service_checks::notes(settings, source)).collect()
}

/// Settings in which everybody has the peers of one listener, to look at these alone.
fn alone(settings: &Settings, section: &ListenerSettings) -> Settings {
    let ListenerPeers { allow, deny, .. } = section.peers.clone();
    Settings { peers: PeersSettings { allow, deny, ..settings.peers.clone() }, ..settings.clone() }
}

/// What is said about `peers` of a section.
fn about_peers(section: &ListenerSettings, one: Disagreement, source: Source<'_>) -> Finding {
    let Disagreement { keys, what, fix, warning } = one;
    let (key, place) = match keys.first() {
        Some(&"peers.deny") => ("peers.deny", &section.places.deny),
        _ => ("peers.allow", &section.places.allow),
    };
    Finding { warning, ..at(key, place, what, fix, source) }
}

/// A listener that cannot be opened beside another one: of the same section, of one before it, or of `[listen]` and `[http]`.
fn overlap(settings: &Settings, n: usize, source: Source<'_>) -> Option<Finding> {
    let section = &settings.listener[n];
    let own: Vec<Listener> = section.each().collect();
    let place = &section.places.address;
    let mut others: Vec<(String, bool, SocketAddr)> = Vec::new();
    for (transport, address) in settings.listen.all() {
        others.push((format!("listen.{}", transport.as_str()), transport.is_stream(), address));
    }
    for (name, addresses) in
        [("http.listen", &settings.http.listen), ("admin.listen", &settings.admin.listen)]
    {
        others.extend(addresses.iter().map(|address| (name.to_owned(), true, *address)));
    }
    for before in &settings.listener[..n] {
        let name = format!("the [[listener]] of line {}", source.line(before.places.address.start));
        others.extend(before.each().map(|one| (name.clone(), one.transport.is_stream(), one.address)));
    }
    let clash = own.iter().find_map(|one| {
        let is_same_kind = |other: &&(String, bool, SocketAddr)| other.1 == one.transport.is_stream();
        let other =
            others.iter().filter(is_same_kind).find(|(.., addr)| checks::clash(&one.address, addr))?;
        Some((one, other))
    });
    let (one, (name, _, address)) = clash?;
    let this = format!("{} {}", one.transport.as_str(), one.address);
    let what = match one.address == *address {
        true => format!("{this} is listed twice, here and in {name}"),
        false if one.address.ip().is_unspecified() => format!("{this} includes {address} of {name}"),
        false => format!("{this} is included in {address} of {name}"),
    };
    let fix = match one.address == *address && one.transport.is_stream() && name != "http.listen" {
        true => {
            "remove or change one of them; \"tcp\" and \"tls\" share an address if one section lists both"
        }
        false => "remove or change one of them",
    };
    Some(at("address", place, what, fix, source))
}

/// Relayed addresses and UDP listeners cannot have the same port.
fn relay_ports(settings: &Settings, section: &ListenerSettings, source: Source<'_>) -> Option<Finding> {
    let ports = &settings.relay.ports;
    let is_inside = |one: &Listener| {
        one.transport == Transport::Udp
            && ports.contains(&one.address.port())
            && checks::shares_an_address(&one.address, settings)
    };
    let inside = section.each().find(is_inside)?;
    let what =
        format!("the relay ports {}-{} include the port of {}", ports.start(), ports.end(), inside.address);
    Some(at("address", &section.places.address, what, "change relay.ports or this port", source))
}

#[cfg(test)]
mod tests;
