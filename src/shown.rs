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
    let is_part =
        |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'%' | b'[' | b']' | b'/');
    let mut masked_text = String::new();
    let (bytes, mut copied, mut at) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        let end = at + bytes[at..].iter().take_while(|byte| is_part(**byte)).count();
        if end == at {
            at += 1;
            continue;
        }
        // A colon or a full stop of the sentence may follow an address
        let word = text[at..end].trim_end_matches([':', '.']);
        let is_within =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let is_within_a_name =
            is_within(at.checked_sub(1).map(|before| &bytes[before])) || is_within(bytes.get(end));
        if let Some(network) = address(word).filter(|_| !is_within_a_name) {
            masked_text += &text[copied..at];
            masked_text += &network.to_string();
            copied = at + word.len();
        }
        at = end;
    }
    if copied == 0 {
        return text.into();
    }
    masked_text += &text[copied..];
    masked_text.into()
}

/// An address with or without a port. A range is none.
fn address(word: &str) -> Option<Network> {
    let ip = word.parse::<IpAddr>().or_else(|_| word.parse::<SocketAddr>().map(|addr| addr.ip()));
    let ip = ip.or_else(|_| word.trim_start_matches('[').trim_end_matches(']').parse());
    ip.ok().map(masked)
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
        ] {
            assert_eq!(mask_text(sentence), shown);
        }
        for sentence in
            ["10.0.0.0/8 at 12:30:01, feed::", "src/a.rs:12:5: 1.2.3", "std::fmt", "", "ends with é 7"]
        {
            assert_eq!(mask_text(sentence), sentence);
        }
    }
}
