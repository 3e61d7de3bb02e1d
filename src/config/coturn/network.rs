//! Where clients connect to, and where peers are reached from: `[listen]`, `[relay]`, and the files of `[tls]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use toml_edit::Value;

use super::document::{Document, Place, Weight};
use super::grammar::Entry;
use super::source::{Input, Lines, shown};
use crate::config::external::is_host_name;

const PLAIN: u16 = 3478;
const TLS: u16 = 5349;
const RELAY: RangeInclusive<u16> = 49152..=65535;
/// Ports below belong to system services.
const RELAY_MIN: u16 = 1024;

/// An address and the line that it is from.
type At<X> = (X, usize);

/// Writes `[listen]`, `[relay]` and `[tls]`.
pub fn translate(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) {
    let mapped = mapped(lines, document);
    let listening = local_addresses("listening-ip", "listen", input, lines, &mapped, document);
    let relaying = local_addresses("relay-ip", "relay", input, lines, &mapped, document);
    let has_tls = certificate(input, lines, document);
    let udp = listeners(lines, &listening, &mapped, has_tls, document);
    channels(lines, document);
    let relay = relay_addresses(&listening, relaying, document);
    let relay = external(lines, &mapped, relay, document);
    if !relay.is_empty() {
        let at = relay.iter().map(|(_, line)| *line).collect();
        let list: Vec<String> = relay.iter().map(|(ip, _)| ip.to_string()).collect();
        document.set("relay.addresses", Value::from_iter(list), Place::Lines(at));
    }
    let relay: Vec<IpAddr> = relay.into_iter().map(|(ip, _)| ip).collect();
    ports(lines, &udp, &relay, document);
}

/// The pairs of `external-ip=public/private`.
fn mapped(lines: &Lines<'_>, document: &mut Document) -> Vec<At<(IpAddr, IpAddr)>> {
    let mut pairs: Vec<At<(IpAddr, IpAddr)>> = Vec::new();
    for entry in lines.all("external-ip") {
        let Some((public, private)) = entry.value.split_once('/') else { continue };
        let mut lost = |why: &str| {
            let text = format!("external-ip={} is left out: {why}", shown(entry.value));
            document.comment("relay", Weight::Lost, Place::line(entry.line), text);
        };
        match (public.trim().parse::<IpAddr>(), private.trim().parse::<IpAddr>()) {
            (Ok(public), Ok(private)) if public.is_ipv4() != private.is_ipv4() => {
                lost("one address is IPv4 and the other IPv6");
            }
            (Ok(public), Ok(private)) if public == private => {
                lost("both addresses are the same, so there is no NAT between them");
            }
            (Ok(_), Ok(private)) if pairs.iter().any(|((_, other), _)| *other == private) => {
                lost("an earlier line has another public address for the private one");
            }
            (Ok(public), Ok(private)) => pairs.push(((public, private), entry.line)),
            _ => lost("write the public and the private address as numbers"),
        }
    }
    pairs
}

/// The addresses of a key. A public address behind a NAT is none of this machine's, so the private one stands for it.
fn local_addresses(
    key: &'static str,
    section: &'static str,
    input: &Input<'_>,
    lines: &Lines<'_>,
    mapped: &[At<(IpAddr, IpAddr)>],
    document: &mut Document,
) -> Vec<At<IpAddr>> {
    let mut addresses: Vec<At<IpAddr>> = Vec::new();
    for entry in lines.all(key) {
        let place = || Place::line(entry.line);
        let Ok(written) = entry.value.trim_matches(' ').parse::<IpAddr>() else {
            let text = format!("{key}={} is left out: write the address as a number", shown(entry.value));
            document.comment(section, Weight::Lost, place(), text);
            continue;
        };
        let behind = mapped.iter().find(|((public, _), _)| *public == written);
        let is_private_listed =
            |private: &IpAddr| lines.all(key).any(|entry| entry.value.parse() == Ok(*private));
        let address = match behind {
            Some(((_, private), at)) => {
                let text = format!(
                    "{key}={written} is a public address behind a NAT (external-ip in line {at}): this machine has {private}, which is \
                     used instead"
                );
                document.comment(section, Weight::Danger, place(), text);
                if is_private_listed(private) {
                    continue;
                }
                *private
            }
            None => written,
        };
        if addresses.iter().any(|(other, _)| *other == address) {
            continue;
        }
        if !address.is_unspecified() && !(input.is_own)(address) {
            let text = format!(
                "{key}={written}: this machine does not have {address} now, and hairpin waits for it at its start; behind a NAT write the \
                 private address of the machine"
            );
            document.comment(section, Weight::Danger, place(), text);
        }
        addresses.push((address, entry.line));
    }
    addresses
}

/// Writes the listeners; returns those for UDP.
fn listeners(
    lines: &Lines<'_>,
    listening: &[At<IpAddr>],
    mapped: &[At<(IpAddr, IpAddr)>],
    has_tls: bool,
    document: &mut Document,
) -> Vec<SocketAddr> {
    let mut at: Vec<usize> = listening.iter().map(|(_, line)| *line).collect();
    let plain = port("listening-port", PLAIN, lines, &mut at, document);
    let mut tls_at: Vec<usize> = listening.iter().map(|(_, line)| *line).collect();
    let tls_port = port("tls-listening-port", TLS, lines, &mut tls_at, document);
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: Vec<IpAddr> = match listening {
        [] => {
            everywhere(lines, document);
            any.to_vec()
        }
        some => some.iter().map(|(ip, _)| *ip).collect(),
    };
    let sockets = |port| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
    let (mut udp, mut tcp, mut tls) = (sockets(plain), sockets(plain), sockets(tls_port));
    let mut aux = Vec::new();
    for entry in lines.all("aux-server") {
        let Some(socket) = entry.value.parse::<SocketAddr>().ok().filter(|socket| socket.port() != 0) else {
            let text = format!(
                "aux-server={} is left out: write it like 192.0.2.1:443 or [2001:db8::1]:443",
                shown(entry.value)
            );
            document.comment("listen", Weight::Lost, Place::line(entry.line), text);
            continue;
        };
        let behind = mapped.iter().find(|((public, _), _)| *public == socket.ip());
        let socket = behind.map_or(socket, |((_, private), _)| SocketAddr::new(*private, socket.port()));
        let covers = |other: &SocketAddr| {
            other == &socket
                || other.port() == socket.port()
                    && other.ip().is_unspecified()
                    && other.is_ipv4() == socket.is_ipv4()
        };
        if udp.iter().any(covers) {
            let text = format!("aux-server={socket} is left out: another listener has that address already");
            document.comment("listen", Weight::Note, Place::line(entry.line), text);
            continue;
        }
        // TCP and TLS at one address are one socket, and it can only be opened if neither list has it in another way.
        if !tcp.iter().chain(&tls).any(|other| covers(other) && *other != socket) {
            for list in [&mut tcp, &mut tls] {
                if !list.contains(&socket) {
                    list.push(socket);
                }
            }
        }
        udp.push(socket);
        aux.push(entry.line);
    }
    at.extend(&aux);
    tls_at.extend(aux);
    let off = |key: &'static str, list: &mut Vec<SocketAddr>, at: &mut Vec<usize>| {
        if let Some(entry) = lines.on(key) {
            list.clear();
            *at = vec![entry.line];
        }
    };
    let (mut udp_at, mut tcp_at) = (at.clone(), at);
    off("no-udp", &mut udp, &mut udp_at);
    off("no-tcp", &mut tcp, &mut tcp_at);
    off("no-tls", &mut tls, &mut tls_at);
    if !has_tls {
        tls.clear();
    }
    let sockets = |list: &[SocketAddr]| Value::from_iter(list.iter().map(ToString::to_string));
    document.set("listen.udp", sockets(&udp), Place::Lines(udp_at));
    document.set("listen.tcp", sockets(&tcp), Place::Lines(tcp_at));
    if !tls.is_empty() {
        document.set("listen.tls", sockets(&tls), Place::Lines(tls_at.clone()));
        if lines.last("no-dtls").is_none_or(|entry| entry.flag() == Some(false)) {
            let text = "coturn before 4.17 also speaks DTLS on this port over UDP, which hairpin does not; browsers do not use it";
            document.remark(Weight::Note, Place::Nowhere, text);
        }
    } else if has_tls {
        // A certificate alone turns TLS on.
        document.set("listen.tls", sockets(&tls), Place::Lines(tls_at));
        let text = "no URL for TLS is offered, but there is a certificate, so TLS is also understood on the ports of tcp; remove it if \
                    nothing else needs it";
        document.remark(Weight::Note, Place::Nowhere, text);
    } else if let Some(entry) = lines.last("tls-listening-port").filter(|_| lines.on("no-tls").is_none()) {
        let text = "tls-listening-port is left out: TLS needs cert and pkey";
        document.comment("listen", Weight::Lost, Place::line(entry.line), text);
    }
    udp
}

/// Says that listeners are wider than they were meant, because no address of coturn's could be used.
fn everywhere(lines: &Lines<'_>, document: &mut Document) {
    let keys = ["listening-ip", "listening-device"];
    let at: Vec<usize> = keys.into_iter().flat_map(|key| lines.all(key)).map(|entry| entry.line).collect();
    if !at.is_empty() {
        let text = "no listening-ip could be used, so listeners are on every address of this machine: list those that are meant in udp, tcp \
                    and tls, or close the others in the firewall";
        document.comment("listen", Weight::Danger, Place::Lines(at), text);
    }
}

fn port(
    key: &'static str,
    default: u16,
    lines: &Lines<'_>,
    at: &mut Vec<usize>,
    document: &mut Document,
) -> u16 {
    let Some(entry) = lines.last(key) else { return default };
    match entry.number().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0) {
        Some(port) => {
            at.push(entry.line);
            port
        }
        None => {
            let text = format!("{key}={} is no port; {default} is used, the default", shown(entry.value));
            document.comment("listen", Weight::Danger, Place::line(entry.line), text);
            default
        }
    }
}

/// Channel numbers: what coturn accepted, so that its clients go on.
fn channels(lines: &Lines<'_>, document: &mut Document) {
    let entry = lines.last("rfc5766-channel-numbers");
    let on = entry.and_then(|entry| entry.flag()).unwrap_or(true);
    document.set(
        "listen.rfc5766_channels",
        on,
        entry.map_or(Place::Nowhere, |entry| Place::line(entry.line)),
    );
    if entry.is_none() {
        let text = "coturn before 4.16 accepts these channel numbers of RFC 5766, so they are accepted here. Browsers do not need them; \
                    turnutils_uclient 4.6 does";
        document.remark(Weight::Note, Place::Nowhere, text);
    }
}

/// The relayed addresses: without any, those of explicit listeners, as in coturn.
fn relay_addresses(
    listening: &[At<IpAddr>],
    relaying: Vec<At<IpAddr>>,
    document: &mut Document,
) -> Vec<At<IpAddr>> {
    let explicit = if relaying.is_empty() { listening.to_vec() } else { relaying };
    let (usable, lost): (Vec<_>, Vec<_>) = explicit.into_iter().partition(|(ip, _)| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    });
    for (ip, line) in lost.into_iter().filter(|(ip, _)| !ip.is_unspecified()) {
        let text = format!("{ip} is not used for relayed addresses: peers elsewhere cannot reach it");
        document.comment("relay", Weight::Note, Place::line(line), text);
    }
    usable
}

/// Writes the external addresses. Returns the relayed addresses that can be used with them.
fn external(
    lines: &Lines<'_>,
    mapped: &[At<(IpAddr, IpAddr)>],
    mut relay: Vec<At<IpAddr>>,
    document: &mut Document,
) -> Vec<At<IpAddr>> {
    let (mut entries, mut at) = (Vec::new(), Vec::new());
    let mut comments: Vec<(Weight, usize, String)> = Vec::new();
    for ((public, private), line) in mapped {
        if !relay.is_empty() && !relay.iter().any(|(ip, _)| ip == private) {
            let text = format!(
                "external-ip={public}/{private} is left out: {private} is not among the relayed addresses"
            );
            comments.push((Weight::Lost, *line, text));
            continue;
        }
        entries.push(format!("{public}/{private}"));
        at.push(*line);
        let text = format!(
            "coturn also lets clients send to {private} because of this line, which is this machine; hairpin lets them reach each other \
             there and nothing else"
        );
        comments.push((Weight::Note, *line, text));
    }
    let mut whole = lines.all("external-ip").filter(|entry| !entry.value.contains('/'));
    if let Some(entry) = whole.next() {
        match whole_family(entry, mapped, &mut relay, &mut comments) {
            Ok(public) => {
                entries.push(public);
                at.push(entry.line);
            }
            Err(why) => comments.push(why),
        }
    }
    for entry in whole {
        let text = format!(
            "external-ip={} is left out: coturn uses the first line without a private address",
            shown(entry.value)
        );
        comments.push((Weight::Lost, entry.line, text));
    }
    if !entries.is_empty() {
        document.set("relay.external_ip", Value::from_iter(entries), Place::Lines(at));
    }
    for (weight, line, text) in comments {
        document.comment("relay", weight, Place::line(line), text);
    }
    relay
}

/// An external address for every relayed one of its family.
fn whole_family(
    entry: Entry<'_>,
    mapped: &[At<(IpAddr, IpAddr)>],
    relay: &mut Vec<At<IpAddr>>,
    comments: &mut Vec<(Weight, usize, String)>,
) -> Result<String, (Weight, usize, String)> {
    let written = shown(entry.value);
    let left_out =
        |weight, why: String| Err((weight, entry.line, format!("external-ip={written} is left out: {why}")));
    let value = entry.value.trim_matches(' ');
    let Ok(public) = value.parse::<IpAddr>() else {
        if !is_host_name(value) {
            return left_out(Weight::Danger, "it is neither an address nor a DNS name".into());
        }
        let text = format!(
            "coturn asks for the address of {written} once, at its start; hairpin asks again (external_ip_interval)"
        );
        comments.push((Weight::Note, entry.line, text));
        return Ok(value.to_owned());
    };
    if mapped.iter().any(|((_, private), _)| private.is_ipv4() == public.is_ipv4()) {
        return left_out(
            Weight::Lost,
            "other lines have the external addresses of this family one by one".into(),
        );
    }
    let is_family = |(ip, _): &At<IpAddr>| ip.is_ipv4() == public.is_ipv4();
    let family: Vec<At<IpAddr>> = relay.iter().copied().filter(is_family).collect();
    match family[..] {
        [(only, _)] if only == public => {
            left_out(Weight::Note, "it is the relayed address itself, so there is no NAT".into())
        }
        [] if !relay.is_empty() => left_out(Weight::Lost, "no relayed address is of its family".into()),
        [] | [_] => Ok(value.to_owned()),
        [(first, _), ..] => {
            relay.retain(|one| !is_family(one) || one.0 == first);
            let text = format!(
                "external-ip={written} would stand for {} relayed addresses, and a NAT cannot tell them apart: only {first} is used. \
                 Otherwise write public/private for each",
                family.len()
            );
            comments.push((Weight::Danger, entry.line, text));
            Ok(value.to_owned())
        }
    }
}

fn ports(lines: &Lines<'_>, udp: &[SocketAddr], relay: &[IpAddr], document: &mut Document) {
    let mut at = Vec::new();
    let mut port = |key: &str, default: u16| match lines.last(key) {
        None => default,
        Some(entry) => {
            at.push(entry.line);
            entry.number().and_then(|port| u16::try_from(port).ok()).unwrap_or(default)
        }
    };
    let (written_min, written_max) = (port("min-port", *RELAY.start()), port("max-port", *RELAY.end()));
    let (first, last) =
        (written_min.min(written_max).max(RELAY_MIN), written_min.max(written_max).max(RELAY_MIN));
    // A relayed address must not take the port of a listener.
    let shares = |socket: &SocketAddr| {
        let same = |ip: &IpAddr| {
            *ip == socket.ip() || socket.ip().is_unspecified() && ip.is_ipv4() == socket.is_ipv4()
        };
        relay.is_empty() || relay.iter().any(same)
    };
    let taken = udp.iter().filter(|socket| shares(socket)).map(SocketAddr::port);
    let mut taken: Vec<u16> = taken.filter(|port| (first..=last).contains(port)).collect();
    taken.sort_unstable();
    taken.dedup();
    let mut free = Vec::new();
    let mut start = u32::from(first);
    for port in taken.iter().map(|port| u32::from(*port)).chain([u32::from(last) + 1]) {
        if start < port {
            free.push((start, port - 1));
        }
        start = port + 1;
    }
    let range = free.into_iter().max_by_key(|(first, last)| last - first);
    if range.is_none() {
        let text = format!(
            "{first}-{last} has only the port of a UDP listener, and is left out; the default holds, {}-{}: open it in the firewall",
            RELAY.start(),
            RELAY.end()
        );
        document.comment("relay", Weight::Danger, Place::Lines(at.clone()), text);
    }
    let Some((from, to)) = range.filter(|range| !at.is_empty() || *range != (49152, 65535)) else { return };
    document.set("relay.ports", format!("{from}-{to}"), Place::Lines(at.clone()));
    if !taken.is_empty() {
        let taken: Vec<_> = taken.iter().map(ToString::to_string).collect();
        let text = format!(
            "{first}-{last} includes the port of a UDP listener ({}): only the longest part without it is used",
            taken.join(", ")
        );
        document.remark(Weight::Lost, Place::Nowhere, text);
    }
    if written_min > written_max {
        document.remark(
            Weight::Danger,
            Place::Nowhere,
            "min-port is more than max-port, so coturn does not relay; they are exchanged here",
        );
    } else if written_min < RELAY_MIN {
        document.remark(
            Weight::Lost,
            Place::Nowhere,
            "ports below 1024 belong to system services, and are left out",
        );
    }
}

/// Writes the files of the certificate. `true`: there are both.
fn certificate(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) -> bool {
    let file = |key| lines.last(key).filter(|entry| !entry.value.is_empty());
    let (cert, key) = match (file("cert"), file("pkey")) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return false,
        (Some(one), None) | (None, Some(one)) => {
            let text = format!("{} is left out: TLS needs both cert and pkey", one.key);
            document.comment("tls", Weight::Lost, Place::line(one.line), text);
            return false;
        }
    };
    for (to, entry) in [("tls.cert", cert), ("tls.key", key)] {
        let path = Path::new(entry.value);
        document.set(to, input.folder.join(path).to_string_lossy().as_ref(), Place::line(entry.line));
        if path.is_relative() {
            let text = "coturn looks for relative paths in several folders; here it starts at that of the configuration";
            document.remark(Weight::Lost, Place::Nowhere, text);
        }
    }
    let text = "the user that runs hairpin must be able to read this file. A renewed certificate is used without a signal";
    document.remark(Weight::Note, Place::Nowhere, text);
    true
}
