//! `[tls]`: the certificate chain for TLS clients and its private key.

use std::fmt;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Certificate;
use crate::tls::{Identity, IdentityError};

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub cert: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
}

/// The text of a PEM file. `Debug` does not show it, since it may contain a private key.
#[derive(Clone, PartialEq)]
pub struct Pem(String);

impl Pem {
    /// Wraps the text of a file.
    pub fn new(text: String) -> Pem {
        Pem(text)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TlsSettings {
    /// The certificate chain and its key, ready for TLS; `None` unless both are set.
    ///
    /// # Errors
    /// One of them cannot be used, or they do not belong together.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        Identity::from_pem(cert.0.as_bytes(), key.0.as_bytes()).map(Some)
    }

    /// Whether the certificate is self-signed, so that browsers refuse it.
    pub fn is_self_signed(&self) -> bool {
        self.chain().first().is_some_and(|first| first.is_self_signed)
    }

    /// Whether the certificate is valid for clients that connect to `host`.
    pub fn is_valid_for(&self, host: &str) -> bool {
        let Some(Ok(first)) = self.ders().next() else { return false };
        let (Ok(host), Ok(certificate)) = (ServerName::try_from(host), ParsedCertificate::try_from(&first))
        else {
            return false;
        };
        verify_server_name(&certificate, &host).is_ok()
    }

    /// A sentence about the first certificate of the chain that is not valid at `now` (Unix seconds).
    pub fn out_of_date(&self, now: u64) -> Option<String> {
        let judge = |(n, certificate): (usize, Certificate)| {
            let which = if n == 0 {
                "the certificate".to_owned()
            } else {
                format!("certificate {} of the chain", n + 1)
            };
            if now > certificate.until.unix() {
                return Some(format!("{which} expired on {}", certificate.until));
            }
            (now < certificate.from.unix())
                .then(|| format!("{which} is not valid before {}", certificate.from))
        };
        self.chain().into_iter().enumerate().find_map(judge)
    }

    fn chain(&self) -> Vec<Certificate> {
        self.ders().filter_map(|der| Certificate::parse(&der.ok()?)).collect()
    }

    fn ders(&self) -> impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>> {
        let pem = self.cert.as_ref().map_or("", |cert| &cert.0);
        CertificateDer::pem_slice_iter(pem.as_bytes())
    }
}
