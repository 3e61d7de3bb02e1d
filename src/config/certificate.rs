//! What an operator should know about a certificate: when it is valid (RFC 5280 section 4.1.2.5), whether it is self-signed,
//! which other one issued it, and why browsers would refuse it. Whether it can be used is checked by `crate::tls`.

use std::fmt;

use x509_parser::der_parser::oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Name};

use crate::plural::counted;
use crate::text;
use crate::tls::CertificateName;

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Valid from.
    pub from: Time,
    /// Valid until, inclusive.
    pub until: Time,
    /// Whether issuer and subject are the same.
    pub is_self_signed: bool,
    /// Whom it certifies.
    pub subject: Name,
    /// Who issued it.
    pub issuer: Name,
    /// What browsers refuse it for, whatever its place in the chain; completes "the certificate has".
    pub refused_key: Option<&'static str>,
    /// What browsers refuse it for as a server's own; completes "the certificate".
    pub refused_server: Option<&'static str>,
    /// The host names that it is valid for.
    pub names: Vec<CertificateName>,
}

/// How much of a certificate's lifetime is left, once that is little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remaining {
    /// Less than a third. ACME clients renew about now.
    Third,
    /// Less than a tenth.
    Tenth,
    /// Less than a thirtieth.
    Thirtieth,
    /// It has expired.
    Nothing,
}

/// The name of a subject or an issuer, and the identifier of its key if the certificate has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    raw: Vec<u8>,
    shown: String,
    key: Option<Vec<u8>>,
}

/// A time, displayed as a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(ASN1Time);

impl Certificate {
    /// Parses a certificate; `None` if it is malformed.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let (mut own_key, mut issuer_key) = (None, None);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(key) => own_key = Some(key.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    issuer_key = authority.key_identifier.as_ref().map(|key| key.0.to_vec());
                }
                _ => {}
            }
        }
        Some(Certificate {
            from: Time(validity.not_before),
            until: Time(validity.not_after),
            is_self_signed: certificate.issuer() == certificate.subject(),
            subject: Name::new(certificate.subject(), own_key),
            issuer: Name::new(certificate.issuer(), issuer_key),
            refused_key: refused_key(&certificate),
            refused_server: refused_server(&certificate),
            names: names(&certificate),
        })
    }

    /// How much of its lifetime is left at `now` (Unix seconds); `None` while it is a third or more.
    pub fn remaining(&self, now: u64) -> Option<Remaining> {
        let (from, until) = (self.from.unix(), self.until.unix());
        let Some(left) = until.checked_sub(now) else { return Some(Remaining::Nothing) };
        let less_than = |part: u64| left < until.saturating_sub(from) / part;
        let stages = [(30, Remaining::Thirtieth), (10, Remaining::Tenth), (3, Remaining::Third)];
        stages.into_iter().find(|(part, _)| less_than(*part)).map(|(_, remaining)| remaining)
    }

    /// A sentence about a certificate that expires soon or has expired.
    pub fn expiry(&self, now: u64) -> Option<String> {
        let part = match self.remaining(now)? {
            Remaining::Nothing => return Some(format!("expired on {}", self.until)),
            Remaining::Third => "a third",
            Remaining::Tenth => "a tenth",
            Remaining::Thirtieth => "a thirtieth",
        };
        let left = self.until.unix().saturating_sub(now);
        let left = match (left / 86_400, left / 3600) {
            (0, 0) => "in less than an hour".to_owned(),
            (0, hours) => format!("in {}", counted(usize::try_from(hours).unwrap_or(usize::MAX), "hour")),
            (days, _) => format!("in {}", counted(usize::try_from(days).unwrap_or(usize::MAX), "day")),
        };
        Some(format!("expires on {}, {left}: less than {part} of its lifetime is left", self.until))
    }

    /// Whether `issuer` may have issued this certificate, by its name and, if both are there, the identifiers of its key
    /// (RFC 5280 section 4.2.1.1). Signatures are not verified.
    pub fn is_issued_by(&self, issuer: &Certificate) -> bool {
        let same_key = match (&self.issuer.key, &issuer.subject.key) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.issuer.raw == issuer.subject.raw && same_key
    }
}

/// The kinds of keys and signatures that Chrome and Firefox refuse.
fn refused_key(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let algorithm = &certificate.public_key().algorithm;
    let kind = &algorithm.algorithm;
    let signature = &certificate.signature_algorithm.algorithm;
    if *kind == oid!(1.3.101.112) {
        return Some("an Ed25519 key");
    }
    if *kind == oid!(1.3.101.113) {
        return Some("an Ed448 key");
    }
    if *kind == oid!(1.2.840.113549.1.1.10) {
        return Some("a key for RSASSA-PSS only");
    }
    if *kind == oid!(1.2.840.10045.2.1) {
        let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match curve {
            Some(curve) if curve == oid!(1.2.840.10045.3.1.7) || curve == oid!(1.3.132.0.34) => {}
            Some(curve) if curve == oid!(1.3.132.0.35) => return Some("a key on the curve P-521"),
            _ => return Some("a key on a curve other than P-256 and P-384"),
        }
    }
    let sha1 = [oid!(1.2.840.113549.1.1.5), oid!(1.2.840.10045.4.1)];
    (sha1.contains(signature) && certificate.issuer() != certificate.subject())
        .then_some("a signature with SHA-1")
}

/// The host names of subjectAltName that clients can ask for.
fn names(certificate: &X509Certificate<'_>) -> Vec<CertificateName> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => CertificateName::parse(name).ok(),
        _ => None,
    };
    names.value.general_names.iter().filter_map(host).collect()
}

fn refused_server(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    if !matches!(certificate.subject_alternative_name(), Ok(Some(_))) {
        return Some("names no host in a subjectAltName");
    }
    match certificate.extended_key_usage() {
        Ok(Some(usage)) if !usage.value.server_auth && !usage.value.any => {
            Some("is not for TLS servers (extendedKeyUsage)")
        }
        _ => None,
    }
}

impl Name {
    fn new(name: &X509Name<'_>, key: Option<Vec<u8>>) -> Name {
        const SHOWN: usize = 80;
        let visible = |c: &char| text::invisible(c.encode_utf8(&mut [0; 4])).is_none();
        let shown = name.to_string().chars().filter(visible).take(SHOWN).collect();
        Name { raw: name.as_raw().to_vec(), shown, key }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.shown)
    }
}

impl Time {
    /// Seconds since the Unix epoch; 0 for earlier times.
    pub fn unix(self) -> u64 {
        self.0.timestamp().try_into().unwrap_or(0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_datetime().date())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2050, 1, 1);
        params
    }

    /// Chrome and Firefox accept RSA and ECDSA with P-256 and P-384.
    #[test]
    fn keys_that_browsers_refuse() {
        use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
        for (algorithm, expected) in [
            (&PKCS_ECDSA_P256_SHA256, None),
            (&PKCS_ECDSA_P384_SHA384, None),
            (&PKCS_ECDSA_P521_SHA512, Some("a key on the curve P-521")),
            (&PKCS_ED25519, Some("an Ed25519 key")),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = params("a").self_signed(&key).unwrap();
            let found = Certificate::parse(certificate.der()).unwrap();
            assert_eq!((found.refused_key, found.refused_server), (expected, None));
        }
    }

    #[test]
    fn certificates_that_are_not_for_a_server() {
        let mut none = params("a");
        none.subject_alt_names.clear();
        let mut client = params("a");
        client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        for (params, what) in [(none, "subjectAltName"), (client, "extendedKeyUsage")] {
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = Certificate::parse(certificate.der()).unwrap();
            assert!(found.refused_server.unwrap().contains(what));
        }
    }

    /// RFC 5280 §4.1.2.5: two digits for the year until 2049, four from 2050 on.
    #[test]
    fn two_and_four_digit_years() {
        let key = KeyPair::generate().unwrap();
        let certificate = params("a").self_signed(&key).unwrap();
        let found = Certificate::parse(certificate.der()).unwrap();
        assert_eq!(
            (found.from.to_string(), found.until.to_string()),
            ("2024-02-29".into(), "2050-01-01".into())
        );
        assert_eq!((found.from.unix(), found.until.unix()), (1_709_164_800, 2_524_608_000));
        assert!(found.is_self_signed);
    }

    #[test]
    fn a_certificate_of_another_issuer_is_not_self_signed() {
        let (key, ca) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let issuer = Issuer::new(params("ca"), ca);
        let certificate = params("a").signed_by(&key, &issuer).unwrap();
        let found = Certificate::parse(certificate.der()).unwrap();
        assert!(!found.is_self_signed && !found.is_issued_by(&found));
        let issuer = Certificate::parse(params("ca").self_signed(&issuer.key()).unwrap().der()).unwrap();
        assert!(found.is_issued_by(&issuer));
        assert_eq!(found.issuer.to_string(), "\"CN=ca\"");
    }

    /// Warnings come at a third, a tenth and a thirtieth of the lifetime.
    #[test]
    fn what_is_left_of_a_lifetime() {
        let mut params = params("a");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let found = Certificate::parse(certificate.der()).unwrap();
        let until = found.until.unix();
        const DAY: u64 = 86_400;
        for (left, expected) in [
            (90 * DAY, None),
            (30 * DAY, None),
            (30 * DAY - 1, Some(Remaining::Third)),
            (9 * DAY, Some(Remaining::Third)),
            (9 * DAY - 1, Some(Remaining::Tenth)),
            (3 * DAY - 1, Some(Remaining::Thirtieth)),
            (0, Some(Remaining::Thirtieth)),
        ] {
            assert_eq!(found.remaining(until - left), expected, "{left} s left");
        }
        assert_eq!(found.remaining(until + 1), Some(Remaining::Nothing));
        for (left, sentence) in [
            (8 * DAY, "expires on 2026-04-01, in 8 days: less than a tenth of its lifetime is left"),
            (DAY, "expires on 2026-04-01, in 1 day: less than a thirtieth of its lifetime is left"),
            (7200, "expires on 2026-04-01, in 2 hours: less than a thirtieth of its lifetime is left"),
            (5, "expires on 2026-04-01, in less than an hour: less than a thirtieth of its lifetime is left"),
        ] {
            assert_eq!(found.expiry(until - left).as_deref(), Some(sentence));
        }
        assert_eq!(found.expiry(until + DAY).as_deref(), Some("expired on 2026-04-01"));
    }

    #[test]
    fn truncated_certificates_are_malformed() {
        let der = params("a").self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len().min(200) {
            assert_eq!(Certificate::parse(&der[..end]), None);
        }
    }
}
