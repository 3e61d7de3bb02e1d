//! Which peers may be reached. In coturn an allowed peer is never denied, and what is neither may be reached, private networks
//! included. Here the longest prefix decides, and what is not globally reachable is refused by default.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml_edit::Value;

use super::document::{Document, Place, Weight};
use super::source::{Input, Lines, realm_of, shown};
use crate::turn::peers::{Cidr, PeerRule, PeerRuleError, refused_by_default};

/// Networks whose machines clients reach through coturn unless they are denied there.
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// Ranges of one line.
struct Ranges {
    written: String,
    place: Place,
    ranges: Vec<Cidr>,
}

/// Writes `[peers]`.
pub fn translate(input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) {
    let mut allowed = gather("allowed-peer-ip", input, lines, document);
    let mut denied = gather("denied-peer-ip", input, lines, document);
    let everything: Vec<Cidr> = denied.iter().flat_map(|one| one.ranges.iter().copied()).collect();
    let own = allow(input, lines, &mut allowed, document);
    // Of the two, coturn asks for allowed peers first. Here the longer prefix decides, so only what is wider matters.
    let open: HashSet<Cidr> = allowed.iter().flat_map(|one| one.ranges.iter().copied()).collect();
    deny(&open, &own, &mut denied, document);
    write("peers.allow", &allowed, document);
    write("peers.deny", &denied, document);
    let private = PRIVATE.map(|range| range.parse::<Cidr>().expect("a range of ours"));
    let is_open = |range: &Cidr| !everything.iter().any(|denied| denied.covers(range));
    if private.iter().any(is_open) {
        let text = "coturn lets clients reach private networks (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, ...) unless they are denied; \
                    hairpin refuses every address that is not public. If an SFU or another peer is in a private network, add its address \
                    and ports, like allow = [\"10.20.0.5:50000-60000\"]; one on this machine is named in the same way";
        document.comment("peers", Weight::Lost, Place::Nowhere, text);
    }
}

/// The ranges of a key, in CIDR notation.
fn gather(key: &'static str, input: &Input<'_>, lines: &Lines<'_>, document: &mut Document) -> Vec<Ranges> {
    let from_file = lines.all(key).map(|entry| (entry.value, Place::line(entry.line)));
    let is_dynamic = lines.last("no-dynamic-ip-list").is_none();
    let realm = realm_of(input, lines);
    let database = input.database.filter(|_| is_dynamic).into_iter();
    let rows = database
        .flat_map(|database| if key == "allowed-peer-ip" { &database.allowed } else { &database.denied });
    // A range of no realm is one of every realm.
    let here = |of: &str| of.is_empty() || realm.as_deref() == Some(of);
    let rows = rows.filter(|(of, _)| here(of)).map(|(_, range)| (range.as_str(), Place::Database));
    let mut found = Vec::new();
    for (written, place) in from_file.chain(rows) {
        match ranges(written) {
            Ok(ranges) => found.push(Ranges { written: shown(written), place, ranges }),
            Err(NoRange::Cidr(range)) if key == "denied-peer-ip" => {
                let text = format!(
                    "denied-peer-ip={range}: coturn 4.6 does not read CIDR notation and lets clients reach these peers; here they are denied, \
                     as was meant"
                );
                document.comment("peers", Weight::Danger, place.clone(), text);
                found.push(Ranges { written: shown(written), place, ranges: vec![range] });
            }
            Err(why) => {
                let what = why.sentence();
                let text = format!("{key}={} is left out: {what}", shown(written));
                document.comment("peers", Weight::Danger, place, text);
            }
        }
    }
    found
}

/// Why a value is no range.
enum NoRange {
    Address,
    Families,
    Reversed,
    Cidr(Cidr),
}

impl NoRange {
    fn sentence(&self) -> &'static str {
        match self {
            NoRange::Address => {
                "it is neither an address nor two with a hyphen between them; a DNS name is no peer here"
            }
            NoRange::Families => "one address is IPv4 and the other IPv6",
            NoRange::Reversed => "the last address is before the first, so that coturn finds none in it",
            NoRange::Cidr(_) => "coturn does not read CIDR notation, and ignores it or does not start",
        }
    }
}

/// The fewest ranges with the addresses of `first` or `first-last`.
fn ranges(written: &str) -> Result<Vec<Cidr>, NoRange> {
    let (first, last) = match written.split_once('-') {
        Some((first, last)) => (first.trim_matches(' '), last.trim_matches(' ')),
        None => (written.trim_matches(' '), written.trim_matches(' ')),
    };
    let (Ok(first), Ok(last)) = (first.parse::<IpAddr>(), last.parse::<IpAddr>()) else {
        let cidr = written.trim_matches(' ').parse::<Cidr>().ok().filter(|_| written.contains('/'));
        return Err(cidr.map_or(NoRange::Address, NoRange::Cidr));
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err(NoRange::Families);
    }
    if first > last {
        return Err(NoRange::Reversed);
    }
    match format!("{first}-{last}").parse::<PeerRule>() {
        Err(PeerRuleError::FirstLast(rules)) => Ok(rules.into_iter().map(|rule| rule.range).collect()),
        _ => Err(NoRange::Address),
    }
}

/// Ranges that coturn refuses before it looks at what is allowed, and what they are. Its clients have never reached them, and here
/// an allowed part of one would be open.
const NEVER: [(&str, &str); 7] = [
    ("127.0.0.0/8", "loopback, where every service of this machine listens"),
    ("::1/128", "loopback, where every service of this machine listens"),
    ("0.0.0.0/8", "this machine to the kernel"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("169.254.0.0/16", "link-local, with the metadata service of clouds and its credentials"),
    ("fe80::/10", "link-local"),
];

/// Ranges that coturn refuses since 4.17 even if they are allowed.
const INTERNAL: [&str; 2] = ["fc00::/7", "fec0::/10"];

/// What of the allowed ranges is opened here. Returns the addresses of the relay itself among them.
fn allow(
    input: &Input<'_>,
    lines: &Lines<'_>,
    allowed: &mut [Ranges],
    document: &mut Document,
) -> Vec<IpAddr> {
    let own = own_addresses(lines);
    let mut dropped = Vec::new();
    for Ranges { written, place, ranges } in allowed.iter_mut() {
        for (never, what) in NEVER {
            let never_open: Cidr = never.parse().expect("a range of ours");
            let before = ranges.len();
            ranges.retain(|range| !never_open.covers(range));
            if ranges.len() < before {
                let text = format!(
                    "allowed-peer-ip={written}: what of it is in {never} is left out: {what}. If one server there is meant, write its \
                     address and port, like allow = [\"127.0.0.1:7882\"]"
                );
                document.comment("peers", Weight::Danger, place.clone(), text);
            }
        }
        let is_internal = |range: &Cidr| {
            INTERNAL.iter().any(|internal| {
                let internal: Cidr = internal.parse().expect("a range of ours");
                internal.covers(range)
            })
        };
        if ranges.iter().any(is_internal) {
            let text = format!(
                "allowed-peer-ip={written} opens addresses of a private network to every client. coturn 4.17 refuses them nevertheless; \
                 keep only the servers that are meant, with their ports"
            );
            document.comment("peers", Weight::Danger, place.clone(), text);
        }
        let is_own =
            |range: &Cidr| range.is_one() && (own.contains(&range.first()) || (input.is_own)(range.first()));
        if ranges.iter().any(is_own) {
            dropped.extend(ranges.iter().filter(|range| is_own(range)).map(Cidr::first));
            ranges.retain(|range| !is_own(range));
            let text = format!(
                "allowed-peer-ip={written} is the relay itself, and is left out: its clients reach each other here without it, and it would \
                 open every service of this machine to them. For a server on this machine, name its ports: allow = \
                 [\"{written}:50000-60000\"]"
            );
            document.comment("peers", Weight::Note, place.clone(), text);
        }
        // An allowed range that is wider than a refused one does not open it.
        let closed: Vec<&str> = refused_by_default()
            .map(|(range, _)| range)
            .filter(|refused| {
                let refused: Cidr = refused.parse().expect("a range of ours");
                ranges.iter().any(|range| range.covers(&refused) && *range != refused)
            })
            .collect();
        let is_all =
            ["0.0.0.0/0", "::/0"].iter().any(|all| ranges.iter().any(|range| range.to_string() == *all));
        if is_all {
            let text = format!(
                "allowed-peer-ip={written} undoes every denied-peer-ip in coturn: clients reach every address, this machine's private \
                 networks and cloud metadata included. It is left out; list what is meant"
            );
            ranges.clear();
            document.comment("peers", Weight::Danger, place.clone(), text);
        } else if !closed.is_empty() {
            let list = closed.iter().take(8).copied().collect::<Vec<_>>().join(", ");
            let more = if closed.len() > 8 { ", ..." } else { "" };
            let text = format!(
                "allowed-peer-ip={written} includes ranges that stay refused by default: {list}{more}. List those that are meant by \
                 themselves"
            );
            document.comment("peers", Weight::Danger, place.clone(), text);
        }
    }
    dropped
}

/// The addresses that the configuration names as this machine's.
fn own_addresses(lines: &Lines<'_>) -> Vec<IpAddr> {
    let local =
        ["listening-ip", "relay-ip"].into_iter().flat_map(|key| lines.all(key)).map(|entry| entry.value);
    let external = lines.all("external-ip").flat_map(|entry| entry.value.split('/'));
    local.chain(external).filter_map(|text| text.trim_matches(' ').parse().ok()).collect()
}

/// What of the denied ranges is to be denied here: neither what coturn allows nevertheless, nor what is refused by default. `own`
/// are addresses of the relay that coturn allows: its clients meet there.
fn deny(open: &HashSet<Cidr>, own: &[IpAddr], denied: &mut [Ranges], document: &mut Document) {
    let special: Vec<Cidr> =
        refused_by_default().map(|(range, _)| range.parse().expect("a range of ours")).collect();
    let mut by_default = Vec::new();
    for Ranges { written, place, ranges } in denied.iter_mut() {
        for own in own {
            if ranges.iter().any(|range| range.contains(*own)) {
                *ranges = ranges.iter().flat_map(|range| without(*range, *own)).collect();
                let text = format!(
                    "denied-peer-ip={written} is written without {own}, the relay itself, which allowed-peer-ip allows: its clients reach \
                     each other there"
                );
                document.comment("peers", Weight::Note, place.clone(), text);
            }
        }
        let before = ranges.len();
        // Looked up by its prefixes, because a database may have many of both.
        ranges.retain(|range| {
            !(0..=length(range))
                .any(|len| Cidr::new(range.first(), len).is_some_and(|wider| open.contains(&wider)))
        });
        if ranges.len() < before {
            let text = format!(
                "denied-peer-ip={written}: coturn allows it, or a part of it, because of allowed-peer-ip; so does hairpin"
            );
            document.comment("peers", Weight::Danger, place.clone(), text);
        }
        let before = ranges.len();
        ranges.retain(|range| !special.iter().any(|special| special.covers(range)));
        if ranges.is_empty() && before > 0 {
            by_default.extend(place.lines());
        }
    }
    if !by_default.is_empty() {
        let text = "these denied-peer-ip are left out, because hairpin refuses them by default; clients of this relay still reach each other, \
                    also where its own address is in such a range";
        document.comment("peers", Weight::Note, Place::Lines(by_default), text);
    }
}

/// A range without one address, in the fewest ranges.
fn without(range: Cidr, ip: IpAddr) -> Vec<Cidr> {
    if !range.contains(ip) {
        return vec![range];
    }
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = length(&range);
    // Each further bit of the address leaves out the half without it.
    let halves = (length + 1..=most).filter_map(|len| Cidr::new(flipped(ip, most - len), len));
    halves.collect()
}

/// The length of a range's prefix.
fn length(range: &Cidr) -> u8 {
    let most = if range.first().is_ipv4() { 32 } else { 128 };
    (0..=most).find(|len| Cidr::new(range.first(), *len) == Some(*range)).unwrap_or(most)
}

/// An address with one bit changed, counted from the last.
fn flipped(ip: IpAddr, bit: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 1 << bit).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ 1 << bit).into(),
    }
}

fn write(key: &'static str, all: &[Ranges], document: &mut Document) {
    let mut list: Vec<String> = Vec::new();
    let mut at = Vec::new();
    let mut seen = HashSet::new();
    for Ranges { place, ranges, .. } in all.iter().filter(|one| !one.ranges.is_empty()) {
        at.extend(place.lines());
        list.extend(
            ranges
                .iter()
                .filter(|range| seen.insert(**range))
                .map(|range| PeerRule::from(*range).to_string()),
        );
    }
    if !list.is_empty() {
        let place = if at.is_empty() { Place::Database } else { Place::Lines(at) };
        document.set(key, Value::from_iter(list), place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_the_fewest_prefixes() {
        let cover = |written: &str| {
            let ranges = ranges(written).unwrap_or_else(|why| panic!("{written}: {}", why.sentence()));
            ranges.iter().map(Cidr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(cover("10.0.0.0-10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(cover("172.16.0.0 - 172.31.255.255"), ["172.16.0.0/12"]);
        assert_eq!(cover("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(
            cover("192.0.2.1-192.0.2.6"),
            ["192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32"]
        );
        assert_eq!(cover("fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["fd00::/8"]);
        assert_eq!(cover("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(cover("2001:db8::7").len(), 1);
    }

    #[test]
    fn a_range_without_an_address_has_all_others() {
        let left = |range: &str, ip: &str| {
            let left = without(range.parse().unwrap(), ip.parse().unwrap());
            left.iter().map(Cidr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left("10.0.0.0/30", "10.0.0.2"), ["10.0.0.0/31", "10.0.0.3/32"]);
        assert_eq!(left("10.0.0.2/32", "10.0.0.2"), [""; 0]);
        assert_eq!(left("10.0.0.0/30", "10.0.0.4"), ["10.0.0.0/30"]);
        assert_eq!((left("0.0.0.0/0", "192.0.2.1").len(), left("::/0", "2001:db8::1").len()), (32, 128));
    }

    #[test]
    fn what_coturn_does_not_read_is_no_range() {
        for (written, expected) in [
            ("10.0.0.0/8", "does not read CIDR"),
            ("10.0.0.9-10.0.0.1", "before the first"),
            ("10.0.0.1-fd00::1", "IPv4 and the other IPv6"),
            ("sfu.example.org", "a DNS name is no peer"),
            ("", "neither an address"),
        ] {
            let why = ranges(written).err().map(|why| why.sentence()).unwrap_or_default();
            assert!(why.contains(expected), "{written}: {why}");
        }
    }
}
