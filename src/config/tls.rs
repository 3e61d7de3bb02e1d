//! `[tls]`: the certificate chain for TLS clients and its private key.

use std::fmt;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Certificate;
use crate::tls::{self, Identity, IdentityError, IdentityFile};

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub cert: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
}

/// The contents of a certificate or key file. `Debug` does not show them, since they may be a private key.
#[derive(Clone, PartialEq)]
pub struct Pem {
    name: String,
    bytes: Vec<u8>,
}

/// What does not keep TLS from working, but clients from connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsWarning {
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub fix: String,
}

/// A certificate of the chain.
struct Member {
    /// The line of its beginning.
    line: usize,
    /// `None` if it is malformed.
    parsed: Option<Certificate>,
}

impl Pem {
    /// Wraps the contents of a file.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Pem {
        Pem { name: name.into(), bytes: bytes.into() }
    }

    /// The name of the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its contents.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
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
        let named = |mut error: IdentityError| {
            let name = match error.file {
                IdentityFile::Certificate => &cert.name,
                IdentityFile::Key => &key.name,
            };
            error.fix = error.fix.replace("FILE", &quoted(name));
            error
        };
        Identity::from_pem(&cert.bytes, &key.bytes).map(Some).map_err(named)
    }

    /// Why clients may refuse the certificate at `now` (Unix seconds).
    pub fn warnings(&self, now: u64) -> Vec<TlsWarning> {
        let warning = |what: String, fix: &str| TlsWarning { what, fix: fix.to_owned() };
        let mut found = Vec::new();
        for (n, one) in self.certificates().iter().enumerate().filter(|(_, one)| one.is_joined) {
            let what = format!(
                "{} begins on line {} of the file, on which the section before it ends, so other programs do not find it",
                nth(n),
                one.line
            );
            found.push(warning(
                what,
                "write it on a line of its own, for example by `(cat cert.pem; echo; cat chain.pem)`",
            ));
        }
        let chain = self.chain();
        for (n, one) in chain.iter().enumerate().filter(|(_, one)| one.parsed.is_none()) {
            let what = format!("{} (line {}) is malformed", nth(n), one.line);
            found.push(warning(what, "copy the original file again"));
        }
        if let [Member { parsed: Some(only), .. }] = &chain[..]
            && !only.is_self_signed
        {
            let what = format!(
                "the file has only the server's own certificate, and not that of its issuer {}, so clients that do not have it \
                 refuse the connection",
                only.issuer
            );
            let fix = "use a file with the whole chain, such as the fullchain.pem of an ACME client";
            found.push(warning(what, fix));
        }
        for (n, pair) in chain.windows(2).enumerate() {
            if let [Member { parsed: Some(one), .. }, Member { parsed: Some(next), .. }] = pair
                && !one.is_issued_by(next)
            {
                let what = format!(
                    "{} is {}, which has not issued the one before it: its issuer is {}",
                    nth(n + 1),
                    next.subject,
                    one.issuer
                );
                found.push(warning(what, "write each certificate after the one that it has issued"));
            }
        }
        for (n, one) in chain.iter().enumerate() {
            if let Some(key) = one.parsed.as_ref().and_then(|one| one.refused_key) {
                let what = format!("{} has {key}, which browsers refuse", nth(n));
                found.push(warning(
                    what,
                    "use a certificate for a P-256, P-384 or RSA key, signed with SHA-256",
                ));
            }
        }
        if let Some(problem) = self.first().and_then(|first| first.refused_server) {
            let what = format!("the certificate {problem}, so browsers refuse it");
            found.push(warning(what, "use a certificate that an authority has issued for a web server"));
        }
        found.extend(self.out_of_date(now).map(|what| warning(what, "renew it, or clients refuse it")));
        found
    }

    /// Whether the certificate is self-signed, so that browsers refuse it.
    pub fn is_self_signed(&self) -> bool {
        self.first().is_some_and(|first| first.is_self_signed)
    }

    /// Whether the certificate is valid for clients that connect to `host`.
    pub fn is_valid_for(&self, host: &str) -> bool {
        let Some(first) = self.certificates().into_iter().next().map(|first| first.der) else { return false };
        let first: CertificateDer<'_> = first;
        let (Ok(host), Ok(certificate)) = (ServerName::try_from(host), ParsedCertificate::try_from(&first))
        else {
            return false;
        };
        verify_server_name(&certificate, &host).is_ok()
    }

    /// A sentence about the first certificate of the chain that is not valid at `now` (Unix seconds).
    fn out_of_date(&self, now: u64) -> Option<String> {
        let judge = |(n, one): (usize, Member)| {
            let (which, certificate) = (nth(n), one.parsed?);
            if now > certificate.until.unix() {
                return Some(format!("{which} expired on {}", certificate.until));
            }
            (now < certificate.from.unix())
                .then(|| format!("{which} is not valid before {}", certificate.from))
        };
        self.chain().into_iter().enumerate().find_map(judge)
    }

    /// The server's own certificate.
    fn first(&self) -> Option<Certificate> {
        self.chain().into_iter().next()?.parsed
    }

    fn chain(&self) -> Vec<Member> {
        let member = |one: &tls::Found| Member { line: one.line, parsed: Certificate::parse(&one.der) };
        self.certificates().iter().map(member).collect()
    }

    fn certificates(&self) -> Vec<tls::Found> {
        let found = self.cert.as_ref().and_then(|cert| tls::certificates(&cert.bytes).ok());
        found.unwrap_or_default()
    }
}

fn nth(n: usize) -> String {
    if n == 0 { "the certificate".to_owned() } else { format!("certificate {} of the chain", n + 1) }
}

/// The name of a file in a command for a shell.
pub fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", printable.replace('\'', "'\\''"))
}
