//! A certificate for TLS clients that can be used: what is in its files, and why clients may refuse it nevertheless.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Certificate;
use super::report::HIDDEN;
use super::tls::{CertificateSettings, Pem, TlsSettings, Unreadable, quoted};
use crate::tls::{self, CertificateName, Identity, IdentityError, IdentityFile, NamedIdentity};

/// A certificate chain with its private key.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    identity: Identity,
    /// The names that the settings list.
    listed: Vec<CertificateName>,
    chain: Vec<Member>,
    /// The server's own certificate.
    own: CertificateDer<'static>,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// The file to blame.
    pub file: IdentityFile,
    /// The setting or argument that names it, and its name.
    pub name: String,
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub fix: String,
    /// Whether the file could not be read at all.
    pub is_unreadable: bool,
    /// Whether another write may complete it: one of the two files is always replaced first.
    pub may_be_unfinished: bool,
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
#[derive(Clone, Debug)]
struct Member {
    /// The line of its beginning.
    line: usize,
    /// Whether it begins on the line on which the section before it ends.
    is_joined: bool,
    /// `None` if it is malformed.
    parsed: Option<Certificate>,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file that cannot be read is known by its name only.
        match self.is_unreadable {
            true => write!(f, "{} {}; {}", self.name, self.what, self.fix),
            false => write!(f, "TLS: {}; {} ({})", self.what, self.fix, self.name),
        }
    }
}

impl TlsSettings {
    /// Whether the default certificate is self-signed, so that browsers refuse it.
    pub fn is_self_signed(&self) -> bool {
        let default = self.all().into_iter().next();
        default.and_then(|default| default.load().ok()).is_some_and(|default| default.is_self_signed())
    }

    /// The names of the certificates that browsers may accept, those of the default one first. What is wrong with one is reported
    /// elsewhere.
    pub fn certified_names(&self) -> Vec<String> {
        let loaded = self.all().into_iter().filter_map(|one| one.load().ok());
        let accepted = loaded.filter(|one| !one.is_self_signed());
        accepted.flat_map(|one| one.names().iter().map(ToString::to_string).collect::<Vec<_>>()).collect()
    }

    /// Whether there are certificates, and clients that ask for this name get none of them by name. One that cannot be read may
    /// have any name.
    pub fn is_known_without(&self, name: &str) -> bool {
        let has = |one: &CertificateSettings| {
            one.load()
                .map_or(true, |one| CertificateName::candidates(name).any(|name| one.names().contains(&name)))
        };
        self.has_certificate() && !self.all().iter().any(has)
    }

    /// Whether a certificate is valid for clients that connect to `host`.
    pub fn is_valid_for(&self, host: &str) -> bool {
        let is_valid = |one: &CertificateSettings| one.load().is_ok_and(|one| one.is_valid_for(host));
        self.all().iter().any(is_valid)
    }
}

impl CertificateSettings {
    /// The certificate, ready for TLS.
    ///
    /// # Errors
    /// A file cannot be used, or the two do not belong together.
    pub fn load(&self) -> Result<ServerCertificate, CertificateError> {
        ServerCertificate::load(self)
    }
}

impl ServerCertificate {
    fn load(settings: &CertificateSettings) -> Result<ServerCertificate, CertificateError> {
        let CertificateSettings { cert, key, names } = settings;
        let (chain, key_bytes) = (read(cert, IdentityFile::Certificate)?, read(key, IdentityFile::Key)?);
        let named = |IdentityError { file, what, fix }: IdentityError| {
            let pem = match file {
                IdentityFile::Certificate => cert,
                IdentityFile::Key => key,
            };
            let fix = fix.replace("FILE", &quoted(&pem.name));
            CertificateError {
                file,
                name: pem.to_string(),
                what,
                fix,
                is_unreadable: false,
                may_be_unfinished: true,
            }
        };
        let identity = Identity::from_pem(chain, key_bytes).map_err(named)?;
        let found = tls::certificates(chain).map_err(named)?;
        let own =
            found.first().map(|first| first.der.clone()).unwrap_or_else(|| CertificateDer::from(vec![]));
        let member = |one: tls::Found| Member {
            line: one.line,
            is_joined: one.is_joined,
            parsed: Certificate::parse(&one.der),
        };
        let chain = found.into_iter().map(member).collect();
        Ok(ServerCertificate { identity, listed: names.clone(), chain, own })
    }

    /// What clients choose it by.
    pub fn named_identity(&self) -> NamedIdentity {
        NamedIdentity {
            identity: self.identity.clone(),
            names: self.names().to_vec(),
            until: self.own().map_or(0, |own| own.until.unix()),
        }
    }

    /// The names that clients ask for.
    pub fn names(&self) -> &[CertificateName] {
        match &self.listed[..] {
            [] => self.own().map_or(&[], |own| &own.names),
            listed => listed,
        }
    }

    /// The same certificate for the names of other settings.
    pub fn with_names_of(&self, settings: &CertificateSettings) -> ServerCertificate {
        ServerCertificate { listed: settings.names.clone(), ..self.clone() }
    }

    /// The server's own certificate; `None` if it is malformed, but rustls takes it.
    pub fn own(&self) -> Option<&Certificate> {
        self.chain.first()?.parsed.as_ref()
    }

    /// Whether it is the same certificate.
    pub fn is(&self, other: &ServerCertificate) -> bool {
        self.own == other.own
    }

    /// Whether the certificate is self-signed, so that browsers refuse it.
    pub fn is_self_signed(&self) -> bool {
        self.own().is_some_and(|own| own.is_self_signed)
    }

    /// Whether the certificate is valid for clients that connect to `host`.
    pub fn is_valid_for(&self, host: &str) -> bool {
        let (Ok(host), Ok(certificate)) =
            (ServerName::try_from(host), ParsedCertificate::try_from(&self.own))
        else {
            return false;
        };
        verify_server_name(&certificate, &host).is_ok()
    }

    /// Why clients may refuse the certificate at `now` (Unix seconds).
    pub fn warnings(&self, now: u64) -> Vec<TlsWarning> {
        let mut found = self.chain_warnings();
        let warning = |what: String, fix: &str| TlsWarning { what, fix: fix.to_owned() };
        if let Some(problem) = self.own().and_then(|own| own.refused_server) {
            let what = format!("the certificate {problem}, so browsers refuse it");
            found.push(warning(what, "use a certificate that an authority has issued for a web server"));
        }
        let valid = self.own().map_or(&[][..], |own| &own.names);
        for name in self.listed.iter().filter(|name| !name.is_covered_by(valid)) {
            let what = format!("the certificate is not valid for {name}, so clients refuse it");
            found.push(warning(what, "use a certificate for that name, or correct names"));
        }
        found.extend(self.out_of_date(now).map(|what| warning(what, "renew it, or clients refuse it")));
        found
    }

    /// A warning about a certificate that expires soon.
    pub fn expires_soon(&self, now: u64) -> Option<TlsWarning> {
        let own = self.own().filter(|own| now <= own.until.unix())?;
        let what = format!("the certificate {}", own.expiry(now)?);
        Some(TlsWarning { what, fix: "renew it, or clients refuse it then".to_owned() })
    }

    fn chain_warnings(&self) -> Vec<TlsWarning> {
        let warning = |what: String, fix: &str| TlsWarning { what, fix: fix.to_owned() };
        let mut found = Vec::new();
        let chain = &self.chain;
        for (n, one) in chain.iter().enumerate().filter(|(_, one)| one.is_joined) {
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
        found
    }

    /// A sentence about the first certificate of the chain that is not valid at `now` (Unix seconds).
    fn out_of_date(&self, now: u64) -> Option<String> {
        let judge = |(n, one): (usize, &Member)| {
            let (which, certificate) = (nth(n), one.parsed.as_ref()?);
            if now > certificate.until.unix() {
                return Some(format!("{which} expired on {}", certificate.until));
            }
            (now < certificate.from.unix())
                .then(|| format!("{which} is not valid before {}", certificate.from))
        };
        self.chain.iter().enumerate().find_map(judge)
    }
}

/// Something wrong with a certificate of the configuration.
pub(super) struct Wrong {
    /// The setting that names the file.
    pub label: &'static str,
    /// Where in the configuration it does.
    pub at: Range<usize>,
    /// Whether its value may be a secret.
    pub is_hidden: bool,
    pub what: String,
    pub fix: String,
    /// Whether clients may be served nevertheless.
    pub warning: bool,
}

/// Everything that is wrong with the certificates of the configuration at `now` (Unix seconds).
pub(super) fn findings(tls: &TlsSettings, now: u64) -> Vec<Wrong> {
    let all = tls.all();
    let (mut found, mut usable) = (Vec::new(), Vec::new());
    for settings in &all {
        let about = |pem: &Pem, what: String, fix: String, warning: bool| Wrong {
            label: pem.label,
            at: pem.at.clone(),
            is_hidden: pem.name == HIDDEN,
            what,
            fix,
            warning,
        };
        match settings.load() {
            Ok(one) => {
                let warnings = one.warnings(now).into_iter().chain(one.expires_soon(now));
                found.extend(warnings.map(|TlsWarning { what, fix }| about(&settings.cert, what, fix, true)));
                usable.push((settings, one));
            }
            Err(error) if error.is_unreadable => {
                for pem in [&settings.cert, &settings.key] {
                    if let Err(Unreadable { what, fix, .. }) = &pem.contents {
                        found.push(about(pem, what.clone(), (*fix).to_owned(), false));
                    }
                }
            }
            Err(CertificateError { file, what, fix, .. }) => {
                let pem = match file {
                    IdentityFile::Certificate => &settings.cert,
                    IdentityFile::Key => &settings.key,
                };
                found.push(about(pem, what, fix, false));
            }
        }
    }
    let certificates: Vec<_> = usable.iter().map(|(_, one)| one).collect();
    for (n, TlsWarning { what, fix }) in clashes(&certificates) {
        let Pem { label, at, name, .. } = &usable[n].0.cert;
        found.push(Wrong { label, at: at.clone(), is_hidden: name == HIDDEN, what, fix, warning: true });
    }
    found
}

/// What is to be said about several certificates together, each with the number of the one it is about.
pub fn clashes(certificates: &[&ServerCertificate]) -> Vec<(usize, TlsWarning)> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for (n, one) in certificates.iter().enumerate() {
        if n > 0 && one.names().is_empty() {
            let what =
                "no client gets the certificate: it names no host, and it is not the default one".to_owned();
            found.push((n, TlsWarning { what, fix: "set names, or remove it".to_owned() }));
        }
        let kind = u8::from(one.identity.algorithm());
        let names: HashSet<&CertificateName> = one.names().iter().collect();
        let shared: Vec<_> = names.into_iter().filter(|name| !seen.insert((kind, *name))).collect();
        if let Some(name) = shared.into_iter().min() {
            let what = format!(
                "another certificate with the same kind of key is for {name}, too, so clients get the one that expires later"
            );
            let fix = "remove one, or list different names".to_owned();
            found.push((n, TlsWarning { what, fix }));
        }
    }
    found
}

fn read(pem: &Pem, file: IdentityFile) -> Result<&[u8], CertificateError> {
    pem.contents.as_deref().map_err(|Unreadable { what, fix, is_missing }| CertificateError {
        file,
        name: pem.to_string(),
        what: what.clone(),
        fix: (*fix).to_owned(),
        is_unreadable: true,
        may_be_unfinished: *is_missing,
    })
}

fn nth(n: usize) -> String {
    if n == 0 { "the certificate".to_owned() } else { format!("certificate {} of the chain", n + 1) }
}
