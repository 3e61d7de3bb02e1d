//! `[tls]`: the certificate and the key that TLS clients are shown, and whether they can be used.

use std::fmt;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Certificate;
use super::checks::{Disagreement, mistake};
use crate::tls::{Identity, IdentityError};

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub cert: Option<Pem>,
    /// Its key.
    pub key: Option<Pem>,
}

/// The text of a PEM file; not shown, since it may hold a key.
#[derive(Clone, PartialEq)]
pub struct Pem(String);

impl Pem {
    /// Keeps the text of a file.
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
    /// Who this server is to TLS clients, if it is anyone.
    ///
    /// # Errors
    /// Certificate or key cannot be used, or not together.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        Identity::from_pem(cert.0.as_bytes(), key.0.as_bytes()).map(Some)
    }

    /// Whether only its own key vouches for the certificate, so that browsers refuse it.
    pub fn is_self_signed(&self) -> bool {
        self.chain().first().is_some_and(|first| first.is_self_signed)
    }

    /// Whether clients that reach this server by `host` find it in the certificate.
    pub fn names(&self, host: &str) -> bool {
        let Some(Ok(first)) = self.ders().next() else { return false };
        let (Ok(host), Ok(certificate)) = (ServerName::try_from(host), ParsedCertificate::try_from(&first))
        else {
            return false;
        };
        verify_server_name(&certificate, &host).is_ok()
    }

    /// Which certificate of the chain is not valid at `now` (unix seconds), as a sentence.
    pub fn out_of_date(&self, now: u64) -> Option<String> {
        let told = |(n, certificate): (usize, Certificate)| {
            let which = if n == 0 {
                "the certificate".to_owned()
            } else {
                format!("certificate {} of the chain", n + 1)
            };
            if now > certificate.until.unix() {
                return Some(format!("{which} expired on {}", certificate.until));
            }
            (now < certificate.from.unix())
                .then(|| format!("{which} is valid from {} only", certificate.from))
        };
        self.chain().into_iter().enumerate().find_map(told)
    }

    /// Whatever is wrong with it; `listens` says whether TLS clients are to come in.
    pub(super) fn disagreements(&self, listens: bool, now: u64) -> Vec<Disagreement> {
        match (&self.cert, &self.key) {
            (None, None) if listens => {
                let fix = "set tls.cert and tls.key, or remove listen.tls";
                vec![mistake(
                    &["listen.tls", "tls.cert", "tls.key"],
                    "TLS needs a certificate and its key",
                    fix,
                )]
            }
            (None, None) => Vec::new(),
            (Some(_), None) => {
                vec![mistake(&["tls.cert", "tls.key"], "a certificate without its key", "set tls.key")]
            }
            (None, Some(_)) => {
                vec![mistake(&["tls.key", "tls.cert"], "a key without its certificate", "set tls.cert")]
            }
            (Some(_), Some(_)) => match self.identity() {
                Ok(_) => self.out_of_date(now).map(stale).into_iter().collect(),
                Err(error) => vec![unusable(&error)],
            },
        }
    }

    fn chain(&self) -> Vec<Certificate> {
        self.ders().filter_map(|der| Certificate::parse(&der.ok()?)).collect()
    }

    fn ders(&self) -> impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>> {
        let pem = self.cert.as_ref().map_or("", |cert| &cert.0);
        CertificateDer::pem_slice_iter(pem.as_bytes())
    }
}

/// It runs all the same: other clients than browsers may not mind, and calls over UDP do not.
fn stale(what: String) -> Disagreement {
    let fix = "renew it, else clients refuse it";
    Disagreement { warning: true, ..mistake(&["tls.cert", "tls.key"], what, fix) }
}

fn unusable(error: &IdentityError) -> Disagreement {
    use IdentityError::{BadCertificate, BadKey, Mismatch, NoCertificate, NoKey, Other, UnusableKey};
    let (keys, fix): (&[&str; 2], _) = match error {
        NoCertificate | BadCertificate(..) | Other(_) => (
            &["tls.cert", "tls.key"],
            "name a PEM file with the whole chain, such as the fullchain.pem of an ACME client",
        ),
        NoKey | BadKey(_) | UnusableKey(_) => (
            &["tls.key", "tls.cert"],
            "name a PEM file with the key, such as the privkey.pem of an ACME client",
        ),
        Mismatch => (&["tls.key", "tls.cert"], "name the key that the certificate was made for"),
    };
    mistake(keys, error.to_string(), fix)
}
