//! `relay.external_ip`: the external addresses of relayed addresses behind a 1:1 NAT, written as `public`, or as
//! `public/local` where a family has several relayed addresses. Instead of a public address there may be a DNS name, or `auto`,
//! which the daemon asks for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::turn::External;

/// An entry of `relay.external_ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalEntry {
    /// Where the public address comes from.
    pub public: Public,
    /// The relayed address of this machine that it is for. Without one, a written address is for the only one of its family, and
    /// others are for all that no other entry is for.
    pub local: Option<IpAddr>,
}

/// Where a public address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Public {
    /// It is written.
    Address(IpAddr),
    /// It is that of a DNS name.
    Name(String),
    /// The cloud or a STUN server knows it.
    Auto,
}

/// The entries with a written address.
pub fn written(entries: &[ExternalEntry]) -> Vec<ExternalIp> {
    entries.iter().filter_map(ExternalEntry::written).collect()
}

/// Whether an address has to be asked for.
pub fn asks(entries: &[ExternalEntry]) -> bool {
    entries.iter().any(|entry| entry.written().is_none())
}

/// A public address, with the relayed address behind it if one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// The address that clients are told and peers see.
    pub public: IpAddr,
    /// The relayed address of this machine; `None` means the only one of the family.
    pub local: Option<IpAddr>,
}

/// Why the external addresses do not fit the relayed ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct Misfit {
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub fix: String,
}

/// Pairs external addresses with these relayed addresses, configured or discovered.
///
/// # Errors
/// One of them has no relayed address, or more than one.
pub fn pair(external: &[ExternalIp], relay: &[IpAddr]) -> Result<External, Misfit> {
    let mut pairs: Vec<(IpAddr, IpAddr)> = Vec::new();
    for entry in external {
        let local = entry.behind(relay)?;
        if pairs.iter().any(|(other, _)| *other == local) {
            return Err(misfit(format!("{local} would have two external addresses"), "remove one of them"));
        }
        if pairs.iter().any(|(_, other)| *other == entry.public) {
            let what = format!("{} is the external address of two relayed addresses", entry.public);
            return Err(misfit(what, "give each its own external address"));
        }
        pairs.push((local, entry.public));
    }
    Ok(External::new(pairs))
}

impl ExternalIp {
    /// Whether the relayed address that it is for is not among these, although it may come.
    pub fn waits(&self, relay: &[IpAddr]) -> bool {
        match self.local {
            Some(local) => !relay.contains(&local) && !is_never_discovered(local),
            None => !relay.iter().any(|ip| ip.is_ipv4() == self.public.is_ipv4()),
        }
    }

    fn behind(&self, relay: &[IpAddr]) -> Result<IpAddr, Misfit> {
        let public = self.public;
        if let Some(local) = self.local {
            let what = || format!("{local} is not one of the relayed addresses ({})", list(relay));
            let fix = "write one of them after the slash, or list it in relay.addresses";
            return if relay.contains(&local) { Ok(local) } else { Err(misfit(what(), fix)) };
        }
        let family = if public.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut same = relay.iter().filter(|ip| ip.is_ipv4() == public.is_ipv4());
        match (same.next(), same.next()) {
            (Some(only), None) => Ok(*only),
            (None, _) => {
                let what = format!("{public} has no relayed address: there is no {family} one");
                Err(misfit(what, "list the address behind the NAT in relay.addresses, or remove this one"))
            }
            (Some(first), Some(_)) => {
                let what = format!("{public} could belong to any of several {family} relayed addresses");
                Err(misfit(what, format!("write which one, like \"{public}/{first}\"")))
            }
        }
    }
}

impl ExternalEntry {
    /// The addresses, if the public one is written.
    pub fn written(&self) -> Option<ExternalIp> {
        match self.public {
            Public::Address(public) => Some(ExternalIp { public, local: self.local }),
            Public::Name(_) | Public::Auto => None,
        }
    }
}

/// Text that is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntry;

impl FromStr for ExternalEntry {
    type Err = NoEntry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (public, local) = match text.split_once('/') {
            Some((public, local)) => (public, Some(local.parse().map_err(|_| NoEntry)?)),
            None => (text, None),
        };
        let public = match public.parse() {
            Ok(address) => Public::Address(address),
            Err(_) if public.eq_ignore_ascii_case("auto") => Public::Auto,
            Err(_) if is_host_name(public) => Public::Name(public.to_ascii_lowercase()),
            Err(_) => return Err(NoEntry),
        };
        Ok(ExternalEntry { public, local })
    }
}

/// Whether text is a host name. One whose last label is a number is a mistyped address.
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(is_label) && last.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl fmt::Display for ExternalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.public {
            Public::Address(public) => public.fmt(f)?,
            Public::Name(name) => f.write_str(name)?,
            Public::Auto => f.write_str("auto")?,
        }
        self.local.map_or(Ok(()), |local| write!(f, "/{local}"))
    }
}

impl fmt::Display for ExternalIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{}/{local}", self.public),
            None => self.public.fmt(f),
        }
    }
}

/// Addresses that cannot be reached from elsewhere.
fn is_never_discovered(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

fn misfit(what: impl Into<String>, fix: impl Into<String>) -> Misfit {
    Misfit { what: what.into(), fix: fix.into() }
}

fn list(relay: &[IpAddr]) -> String {
    relay.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn paired(external: &[&str], relay: &[&str]) -> Result<External, String> {
        let external: Vec<ExternalEntry> = external.iter().map(|text| text.parse().unwrap()).collect();
        let external = written(&external);
        let relay: Vec<IpAddr> = relay.iter().map(|text| text.parse().unwrap()).collect();
        pair(&external, &relay).map_err(|misfit| misfit.to_string())
    }

    fn outside(external: &External, local: &str) -> String {
        external.outside(SocketAddr::new(local.parse().unwrap(), 9)).ip().to_string()
    }

    #[test]
    fn a_public_address_alone_belongs_to_the_only_one_of_its_family() {
        let external = paired(&["203.0.113.5", "2001:db8::5"], &["10.0.0.5", "fd00::5"]).unwrap();
        assert_eq!(outside(&external, "10.0.0.5"), "203.0.113.5");
        assert_eq!(outside(&external, "fd00::5"), "2001:db8::5");
    }

    #[test]
    fn several_are_told_apart_by_the_local_one() {
        let external =
            paired(&["203.0.113.6/10.0.0.6", "203.0.113.5/10.0.0.5"], &["10.0.0.5", "10.0.0.6", "10.0.0.7"])
                .unwrap();
        assert_eq!(outside(&external, "10.0.0.5"), "203.0.113.5");
        assert_eq!(outside(&external, "10.0.0.6"), "203.0.113.6");
        assert_eq!(outside(&external, "10.0.0.7"), "10.0.0.7");
    }

    #[test]
    fn a_public_address_may_be_asked_for() {
        let entry = |text: &str| text.parse::<ExternalEntry>();
        let local = Some("10.0.0.5".parse().unwrap());
        assert_eq!(entry("auto"), Ok(ExternalEntry { public: Public::Auto, local: None }));
        assert_eq!(entry("AUTO/10.0.0.5"), Ok(ExternalEntry { public: Public::Auto, local }));
        let name = Public::Name("turn.example.org".into());
        assert_eq!(entry("Turn.Example.org/10.0.0.5"), Ok(ExternalEntry { public: name, local }));
        for text in ["auto", "auto/10.0.0.5", "turn.example.org/fd00::5", "203.0.113.5/10.0.0.5"] {
            assert_eq!(entry(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "203.0.113.256",
            "203.0.113",
            "a b",
            "auto/",
            "auto/eth0",
            "-a.b",
            "a..b",
            "turn:3478",
            "2001:db8::g",
        ] {
            assert_eq!(entry(text), Err(NoEntry), "{text}");
        }
    }

    #[test]
    fn misfits_are_reported_with_the_fix() {
        for (external, relay, expected) in [
            (&["203.0.113.5"][..], &["10.0.0.5", "10.0.0.6"][..], "like \"203.0.113.5/10.0.0.5\""),
            (&["203.0.113.5"], &["fd00::5"], "there is no IPv4 one; list the address behind the NAT"),
            (
                &["203.0.113.5/10.0.0.9"],
                &["10.0.0.5"],
                "10.0.0.9 is not one of the relayed addresses (10.0.0.5)",
            ),
            (&["203.0.113.5", "203.0.113.6"], &["10.0.0.5"], "10.0.0.5 would have two external addresses"),
            (
                &["203.0.113.5/10.0.0.5", "203.0.113.5/10.0.0.6"],
                &["10.0.0.5", "10.0.0.6"],
                "203.0.113.5 is the external address of two relayed addresses",
            ),
        ] {
            let misfit = paired(external, relay).unwrap_err();
            assert!(misfit.contains(expected), "{misfit}");
        }
    }
}
