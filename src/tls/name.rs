//! The names that clients may ask for with SNI (RFC 6066 section 3), as A-labels in lower case and without a trailing dot.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::DnsName;

/// A host name, or `*.` and one: every name with exactly one label in place of the `*` (RFC 6125 section 6.4.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateName {
    is_wildcard: bool,
    /// Without the `*.` of a wildcard.
    host: String,
}

impl CertificateName {
    /// Reads a name that an operator has written, in any case, with U-labels or A-labels.
    ///
    /// # Errors
    /// What is wrong with it, and how to fix it.
    pub fn parse(text: &str) -> Result<CertificateName, (&'static str, &'static str)> {
        let (is_wildcard, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        if host.contains('*') {
            return Err(("only the whole first label may be *", "write it like *.example.org"));
        }
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            let what = "is an address, and clients that connect to an address name no host (SNI)";
            return Err((what, "remove it; such clients get the default certificate"));
        }
        let is_host = |host: &String| DnsName::try_from(host.as_str()).is_ok();
        match idna::domain_to_ascii(host).ok().filter(is_host) {
            Some(host) => Ok(CertificateName { is_wildcard, host: canonical(&host) }),
            None => Err(("is not a host name", "write it like turn.example.org or *.example.org")),
        }
    }

    /// Whether a certificate for these names is valid for every name that this one stands for.
    pub fn is_covered_by(&self, names: &[CertificateName]) -> bool {
        let covers = |name: &CertificateName| {
            self == name || !self.is_wildcard && name.is_wildcard && parent(&self.host) == Some(&name.host)
        };
        names.iter().any(covers)
    }

    /// The names that stand for a name as a client has sent it: exactly this one, then the wildcard.
    pub fn candidates(sent: &str) -> impl Iterator<Item = CertificateName> {
        let host = canonical(sent);
        let wildcard =
            parent(&host).map(|parent| CertificateName { is_wildcard: true, host: parent.to_owned() });
        [CertificateName { is_wildcard: false, host }].into_iter().chain(wildcard)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_wildcard { "*." } else { "" }, self.host)
    }
}

/// A name in the form that names are compared in. Clients send A-labels, some in upper case or with a trailing dot.
pub(super) fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A name without its first label.
pub(super) fn parent(host: &str) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, &'static str> {
        CertificateName::parse(text).map(|name| name.to_string()).map_err(|(what, _)| what)
    }

    /// RFC 6066 §3: names on the wire are A-labels without a trailing dot, and compared without regard to case.
    #[test]
    fn names_are_canonical() {
        for (text, expected) in [
            ("turn.example.org", "turn.example.org"),
            ("Turn.Example.ORG.", "turn.example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example.", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("relay_1.example", "relay_1.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in ["", ".", "*", "*.", "a..b", "-a.example", "a b", "turn:x", "https://x.example", "x/y"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert_eq!(parsed("a.*.example"), Err("only the whole first label may be *"));
        assert_eq!(parsed("w*.example"), Err("only the whole first label may be *"));
        for address in ["192.0.2.7", "2001:db8::7", "[2001:db8::7]"] {
            assert!(parsed(address).unwrap_err().starts_with("is an address"), "{address}");
        }
    }

    /// RFC 6125 §6.4.3: a wildcard stands for one label.
    #[test]
    fn wildcards_cover_one_label() {
        let names = |list: &[&str]| -> Vec<_> {
            list.iter().map(|text| CertificateName::parse(text).unwrap()).collect()
        };
        let covers = |name: &str, of: &[&str]| names(&[name])[0].is_covered_by(&names(of));
        assert!(covers("a.example.org", &["b.example.org", "*.example.org"]));
        assert!(covers("*.example.org", &["*.example.org"]));
        for name in ["example.org", "a.b.example.org", "*.b.example.org", "a.example.com"] {
            assert!(!covers(name, &["*.example.org"]), "{name}");
        }
        assert!(!covers("*.example.org", &["a.example.org"]));
    }
}
