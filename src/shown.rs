//! Addresses of clients and peers, as log lines may show them.
//!
//! With `log.mask_addresses` only the network of an address is written, and no port: with the time, the port behind a NAT
//! names a subscriber. Own addresses of this machine are written as they are. The types of clients' and peers' addresses,
//! [`ClientAddr`](crate::turn::ClientAddr) and [`PeerAddr`](crate::turn::PeerAddr), can only be formatted this way, so a new log
//! line masks what it shows. Answers to operators, such as `hairpin ctl list`, have the whole addresses.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

/// How much of an IPv4 address is shown, in bits.
const V4: u8 = 24;

/// How much of an IPv6 address is shown, in bits: what providers give to one site.
const V6: u8 = 48;

/// Of a process, like its log.
static MASKED: AtomicBool = AtomicBool::new(false);

/// Whether addresses are masked from the next line on.
pub fn mask_addresses(masked: bool) {
    MASKED.store(masked, Ordering::Relaxed);
}

/// Whether addresses are masked.
pub fn are_masked() -> bool {
    MASKED.load(Ordering::Relaxed)
}

/// An address of somebody else, in a log line.
#[derive(Clone, Copy)]
pub struct Shown<A>(pub A);

impl fmt::Display for Shown<SocketAddr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if are_masked() { masked(self.0.ip()).fmt(f) } else { self.0.fmt(f) }
    }
}

impl fmt::Display for Shown<IpAddr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if are_masked() { masked(self.0).fmt(f) } else { self.0.fmt(f) }
    }
}

/// A sentence that was not written for the log, such as a panic's message: addresses in it are masked, ranges are not.
pub fn text(text: &str) -> Cow<'_, str> {
    if are_masked() { mask_text(text) } else { text.into() }
}

/// A network that an address is in.
struct Network {
    ip: IpAddr,
    bits: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

fn masked(ip: IpAddr) -> Network {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let bits = v4.to_bits() >> (32 - V4) << (32 - V4);
            Network { ip: Ipv4Addr::from_bits(bits).into(), bits: V4 }
        }
        IpAddr::V6(v6) => {
            // RFC 3056 section 2: an IPv4 address follows the first 16 bits of 6to4
            let bits = if v6.segments()[0] == 0x2002 { 16 + V4 } else { V6 };
            Network { ip: Ipv6Addr::from_bits(v6.to_bits() >> (128 - bits) << (128 - bits)).into(), bits }
        }
    }
}

/// Masks every address in a text.
fn mask_text(text: &str) -> Cow<'_, str> {
    let mut masked_text = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < text.len() {
        match found_at(text.as_bytes(), at) {
            Some((length, Found::Host(ip))) => {
                masked_text += &text[copied..at];
                masked_text += &masked(ip).to_string();
                copied = at + length;
                at = copied;
            }
            Some((length, Found::Range)) => at += length,
            None => at += 1,
        }
    }
    if copied == 0 {
        return text.into();
    }
    masked_text += &text[copied..];
    masked_text.into()
}

/// What a text has at some place.
enum Found {
    Host(IpAddr),
    /// More than one host, as in the configuration.
    Range,
}

/// An address at this place of a text, and the length of all that belongs to it: brackets, a zone, a prefix length, ports.
fn found_at(text: &[u8], at: usize) -> Option<(usize, Found)> {
    let (before, rest) = text.split_at(at);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let begins = match before {
        // A group of something longer, such as the version 1.2.3.4.5
        [.., byte, b'.'] => !is_name(byte),
        [.., byte] => !is_name(byte),
        [] => true,
    };
    if !begins {
        return None;
    }
    let (mut length, found) = match rest.first()? {
        b'[' => {
            let inside = rest.iter().position(|byte| *byte == b']')?;
            let (length, found) = whole(&rest[1..inside], false)?;
            (length == inside - 1).then_some((inside + 1, found))?
        }
        // A host of a URL; what follows it is a path.
        _ => whole(rest, before.ends_with(b"//") || before.ends_with(b"@"))?,
    };
    length += ports(&rest[length..]);
    Some((length, found))
}

/// An address without brackets, with its zone and prefix length.
fn whole(text: &[u8], has_path: bool) -> Option<(usize, Found)> {
    let (mut length, ip) = ip(text)?;
    if ip.is_ipv6() && text.get(length) == Some(&b'%') {
        let zone =
            text[length + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        length += 1 + zone.count();
    }
    let bits = text[length..].strip_prefix(b"/").filter(|_| !has_path).and_then(number);
    let Some((digits, bits)) = bits else { return Some((length, Found::Host(ip))) };
    let (value, width) = match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let Some(of_hosts) = u32::checked_sub(width, bits) else { return Some((length, Found::Host(ip))) };
    let is_range = of_hosts > 0 && value.trailing_zeros() >= of_hosts;
    Some((length + 1 + digits, if is_range { Found::Range } else { Found::Host(ip) }))
}

/// The most characters of an address, such as `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const LONGEST: usize = 45;

/// The longest address that a text begins with, and its length.
fn ip(text: &[u8]) -> Option<(usize, IpAddr)> {
    let ends =
        |length: usize| !text.get(length).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let run =
        |is_part: fn(&u8) -> bool| text.iter().take(LONGEST + 1).take_while(|byte| is_part(byte)).count();
    let parsed = |length: usize| std::str::from_utf8(&text[..length]).ok()?.parse::<IpAddr>().ok();
    let v6 = run(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte));
    // A port, a colon or a full stop of the sentence may follow.
    let shorter = |longest: usize, separator: u8| {
        (1..=longest).rev().filter(move |length| *length == longest || text[*length] == separator)
    };
    let is_v6 = |ip: &IpAddr| ip.is_ipv6();
    let found = shorter(v6, b':')
        .chain(shorter(v6, b'.'))
        .filter(|length| ends(*length) && !is_first_group(&text[..*length]));
    let found = found
        .filter_map(|length| Some((length, parsed(length).filter(is_v6)?)))
        .max_by_key(|(length, _)| *length);
    let found = found.or_else(|| {
        let v4 = run(|byte| byte.is_ascii_digit() || *byte == b'.');
        let length = text[..v4].iter().rposition(|byte| *byte != b'.')? + 1;
        Some((length, parsed(length).filter(|_| ends(length))?))
    });
    // A value that was cut off, so that some groups are missing
    found.or_else(|| {
        let begun = std::str::from_utf8(text[..v6].strip_suffix(b"...")?).ok()?;
        let groups = begun.trim_end_matches(':');
        Some((begun.len(), format!("{groups}::").parse().ok().filter(|_| groups.matches(':').count() > 2)?))
    })
}

/// Whether this is like `feed::` or `::`, which say nothing about a host.
fn is_first_group(text: &[u8]) -> bool {
    text.strip_suffix(b"::").is_some_and(|group| !group.contains(&b':'))
}

/// The length of a port or a range of them, with its colon.
fn ports(text: &[u8]) -> usize {
    let Some((first, _)) = text.strip_prefix(b":").and_then(number) else { return 0 };
    let last = text[1 + first..].strip_prefix(b"-").and_then(number);
    1 + first + last.map_or(0, |(digits, _)| 1 + digits)
}

/// A short decimal number that is followed by no letter, and how many digits it has.
fn number(text: &[u8]) -> Option<(usize, u32)> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_name = text.get(digits).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let number =
        std::str::from_utf8(&text[..digits]).ok().filter(|_| digits <= 5 && !is_name)?.parse().ok()?;
    Some((digits, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network and never a host: IPv4 to /24, IPv6 to /48, and no IPv4 address inside of an IPv6 one.
    #[test]
    fn what_is_left_of_an_address() {
        for (ip, shown) in [
            ("203.0.113.7", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("64:ff9b::203.0.113.7", "64:ff9b::/48"),
            ("2002:cb00:7107::1", "2002:cb00:7100::/40"),
            ("fe80::1", "fe80::/48"),
        ] {
            assert_eq!(masked(ip.parse().unwrap()).to_string(), shown);
        }
    }

    /// Log lines show addresses of others by types that mask: a bare socket address has none, so its usual names may not occur.
    #[test]
    fn no_log_line_shows_a_bare_address() {
        // Fields of a 5-tuple, whose types mask
        let types = ["%from.client", "%from.server"];
        let bare = [
            "%from",
            "?from",
            "%remote",
            "{from}",
            "{remote}",
            "%client.0",
            "%peer.0",
            "client.ip()",
            "peer.ip()",
        ];
        let mut lines = 0;
        for (file, source) in sources() {
            for (level, rest) in ["error!(", "warn!(", "info!(", "debug!(", "trace!("]
                .iter()
                .flat_map(|level| source.match_indices(level).map(|(at, _)| (*level, &source[at..])))
            {
                let end = rest.find(");").unwrap_or(rest.len());
                let line: String = rest[..end].chars().filter(|c| !c.is_whitespace()).collect();
                let others = types.iter().fold(line.clone(), |line, typed| line.replace(typed, ""));
                let found = bare.iter().find(|bare| others.contains(*bare));
                assert_eq!(found, None, "{file}: {level} {line}");
                lines += 1;
            }
        }
        assert!(lines > 100, "the sources are not where they were: {lines} lines");
    }

    fn sources() -> Vec<(String, String)> {
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|name| name == "rs") && !path.ends_with("shown.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    sources.push((path.display().to_string(), text));
                }
            }
        }
        sources
    }

    #[test]
    fn addresses_inside_of_a_sentence() {
        for (sentence, shown) in [
            ("end client=203.0.113.7:5000, now", "end client=203.0.113.0/24, now"),
            ("from [2001:db8:1:2::9]:443.", "from 2001:db8:1::/48."),
            ("at 2001:db8:1:2::9: refused", "at 2001:db8:1::/48: refused"),
            ("[2001:db8:1:2::9] and 10.1.2.3", "2001:db8:1::/48 and 10.1.2.0/24"),
            ("203.0.113.7", "203.0.113.0/24"),
            ("198.51.100.7..., 2001:db8:1:2::9...", "198.51.100.0/24..., 2001:db8:1::/48..."),
            ("2001:db8:1:2:3..., 2001:db8:1:2:...", "2001:db8:1::/48..., 2001:db8:1::/48..."),
            ("peers.allow: 198.51.100.7:20000-40000 opens", "peers.allow: 198.51.100.0/24 opens"),
            ("[2001:db8:1:2::9]:20000-40000; it", "2001:db8:1::/48; it"),
            ("turn:198.51.100.7:3478?transport=udp", "turn:198.51.100.0/24?transport=udp"),
            ("turn:[2001:db8:1:2::9]:3478", "turn:2001:db8:1::/48"),
            ("peer:198.51.100.7", "peer:198.51.100.0/24"),
            ("peer:2001:db8:1:2::9: gone", "peer:2001:db8:1::/48: gone"),
            ("https://198.51.100.7/x", "https://198.51.100.0/24/x"),
            ("https://198.51.100.7/24", "https://198.51.100.0/24/24"),
            ("alice@198.51.100.7, (198.51.100.8)", "alice@198.51.100.0/24, (198.51.100.0/24)"),
            ("from fe80::1%eth0 to [fe80::1%eth0]:443", "from fe80::/48 to fe80::/48"),
            ("2001:db8:1:2:3:4:5:6%25, ::ffff:198.51.100.7:80", "2001:db8:1::/48, 198.51.100.0/24"),
            ("198.51.100.7/32, 198.51.100.7/32:7882", "198.51.100.0/24, 198.51.100.0/24"),
            ("2001:db8:1:2::9/128 and [2001:db8:1:2::9/128]:7882", "2001:db8:1::/48 and 2001:db8:1::/48"),
            (
                "198.51.100.7/24, 198.51.100.7-198.51.100.9",
                "198.51.100.0/24, 198.51.100.0/24-198.51.100.0/24",
            ),
            ("[\"198.51.100.7\", \"2001:db8:1:2::\"]", "[\"198.51.100.0/24\", \"2001:db8:1::/48\"]"),
        ] {
            assert_eq!(mask_text(sentence), shown);
        }
        for sentence in [
            "10.0.0.0/8 at 12:30:01, feed::",
            "10.0.0.0/8:20000-40000, [2001:db8::/32]:7882, 198.51.100.8/30, ::/0",
            "src/a.rs:12:5: 1.2.3, at 12:30:01...",
            "release 1.2.3.4.5 v1.2.3.4",
            "std::fmt",
            "",
            "ends with é 7",
        ] {
            assert_eq!(mask_text(sentence), sentence);
        }
    }
}
