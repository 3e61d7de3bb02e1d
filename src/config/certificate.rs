//! What an operator should know about a certificate: when it is valid (RFC 5280 section 4.1.2.5) and whether it is
//! self-signed. Whether it can be used is checked by `crate::tls`.

use std::fmt;

use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// The validity and the issuer of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Valid from.
    pub from: Time,
    /// Valid until, inclusive.
    pub until: Time,
    /// Whether issuer and subject are the same.
    pub is_self_signed: bool,
}

/// A time, displayed as a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(ASN1Time);

impl Certificate {
    /// Parses a certificate; `None` if it is malformed.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Certificate {
            from: Time(validity.not_before),
            until: Time(validity.not_after),
            is_self_signed: certificate.issuer() == certificate.subject(),
        })
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
        assert!(!Certificate::parse(certificate.der()).unwrap().is_self_signed);
    }

    #[test]
    fn truncated_certificates_are_malformed() {
        let der = params("a").self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len().min(200) {
            assert_eq!(Certificate::parse(&der[..end]), None);
        }
    }
}
