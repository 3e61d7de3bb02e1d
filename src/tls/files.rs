//! The certificate and key files of an operator: what is needed of them, and what they are instead.

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use super::{IdentityError, IdentityFile, identify, pem};
use crate::text;

/// A certificate of a file.
pub struct Found {
    /// The line of its beginning.
    pub line: usize,
    /// Whether it begins on the line on which the section before it ends, so that other programs do not find it.
    pub is_joined: bool,
    /// Its contents.
    pub der: CertificateDer<'static>,
}

/// The certificates of a PEM file, in its order; there is at least one.
///
/// # Errors
///
/// The file is not PEM, is damaged, or has no certificate.
pub fn certificates(bytes: &[u8]) -> Result<Vec<Found>, IdentityError> {
    let file = IdentityFile::Certificate;
    let sections = sections(file, bytes)?;
    let is_certificate = |label| matches!(label, "CERTIFICATE" | "X509 CERTIFICATE");
    if !sections.iter().any(|section| is_certificate(section.label)) {
        return Err(none(file, &sections));
    }
    let mut found = Vec::new();
    for pem::Section { line, is_joined, der, .. } in
        sections.into_iter().filter(|section| is_certificate(section.label))
    {
        if identify::der(&der) != Some(identify::Der::Certificate) {
            return Err(bad_certificate(found.len() + 1));
        }
        found.push(Found { line, is_joined, der: der.into() });
    }
    Ok(found)
}

/// The first private key of a PEM file.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let file = IdentityFile::Key;
    let mut sections = sections(file, bytes)?;
    let is_key = |label| matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY");
    let Some(n) = sections.iter().position(|section| is_key(section.label)) else {
        return Err(none(file, &sections));
    };
    let pem::Section { label, is_encrypted, der, .. } = sections.swap_remove(n);
    if is_encrypted {
        return Err(encrypted());
    }
    Ok(match label {
        "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
        "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
        _ => PrivatePkcs8KeyDer::from(der).into(),
    })
}

/// The error about a certificate that is malformed.
pub fn bad_certificate(n: usize) -> IdentityError {
    let what = format!("certificate {n} of the certificate file is malformed");
    error(IdentityFile::Certificate, what, "copy the original file again")
}

fn sections(file: IdentityFile, bytes: &[u8]) -> Result<Vec<pem::Section>, IdentityError> {
    let not_pem = |line: Option<usize>, what: &str, fix: &str| {
        let line = line.map(|line| format!(", line {line},")).unwrap_or_default();
        error(file, format!("{}{line} {what}", name(file)), fix)
    };
    let has_marker = bytes.windows(5).any(|window| window == b"-----");
    let text = match text::of(bytes) {
        Ok(text) => text,
        Err(found) if has_marker => return Err(not_pem(Some(found.line), found.what, found.fix)),
        // A line makes no sense in a file that is not text.
        Err(found) => {
            let (what, fix) =
                if found.is_encoding { (found.what, found.fix) } else { ("is not PEM", needed(file)) };
            return Err(instead(file, bytes).unwrap_or_else(|| not_pem(None, what, fix)));
        }
    };
    let sections = pem::sections(text).map_err(|found| not_pem(found.line, found.what, found.fix))?;
    match instead(file, bytes) {
        Some(error) if sections.is_empty() => Err(error),
        _ => Ok(sections),
    }
}

/// A file that is something else than PEM.
fn instead(file: IdentityFile, bytes: &[u8]) -> Option<IdentityError> {
    let found = identify::file(bytes)?;
    let fix = match found.command {
        Some(command) => format!("convert it to PEM with `{command}`"),
        None => needed(file).to_owned(),
    };
    Some(error(file, format!("{} {}", name(file), found.what), fix))
}

/// The error about a file that has no certificate or no private key, but perhaps other sections.
fn none(file: IdentityFile, sections: &[pem::Section]) -> IdentityError {
    let has = |labels: &[&str]| sections.iter().any(|section| labels.contains(&section.label));
    let missing = match file {
        IdentityFile::Certificate => {
            "the certificate file has no certificate: it needs at least one -----BEGIN CERTIFICATE----- section"
        }
        IdentityFile::Key => {
            "the key file has no private key: it needs a PRIVATE KEY (PKCS#8), RSA PRIVATE KEY (PKCS#1) or EC PRIVATE KEY (SEC1) \
             section"
        }
    };
    let is_key = file == IdentityFile::Key;
    let (but, fix) = if is_key && has(&["ENCRYPTED PRIVATE KEY"]) {
        return encrypted();
    } else if is_key && has(&["OPENSSH PRIVATE KEY"]) {
        (
            "; it has a key in OpenSSH's format",
            "convert a copy of it with `ssh-keygen -p -N \"\" -m PEM -f FILE`",
        )
    } else if is_key && has(&["DSA PRIVATE KEY"]) {
        ("; it has a DSA key, which TLS does not support any more", "make a new key and certificate")
    } else if has(&["PKCS7", "CMS"]) {
        ("; it is PKCS#7", "convert it with `openssl pkcs7 -in FILE -print_certs -out FILE.new`")
    } else if has(&["TRUSTED CERTIFICATE"]) {
        ("; it has one in openssl's own format", "convert it with `openssl x509 -in FILE -out FILE.new`")
    } else if has(&["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"]) {
        ("; it has a certificate request, which an authority has yet to sign", needed(file))
    } else if is_key && has(&["CERTIFICATE", "X509 CERTIFICATE"]) {
        ("; it has a certificate", needed(file))
    } else if is_key && has(&["PUBLIC KEY", "RSA PUBLIC KEY"]) {
        ("; it has a public key", needed(file))
    } else if has(&["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]) {
        ("; it has a private key", needed(file))
    } else {
        ("", needed(file))
    };
    error(file, format!("{missing}{but}"), fix)
}

fn encrypted() -> IdentityError {
    error(
        IdentityFile::Key,
        "the private key is encrypted, and hairpin can only use one without a passphrase",
        "decrypt it with `openssl pkey -in FILE -out FILE.new`, which asks for the passphrase",
    )
}

fn name(file: IdentityFile) -> &'static str {
    match file {
        IdentityFile::Certificate => "the certificate file",
        IdentityFile::Key => "the key file",
    }
}

fn needed(file: IdentityFile) -> &'static str {
    match file {
        IdentityFile::Certificate => {
            "use a PEM file with the whole chain, such as the fullchain.pem of an ACME client"
        }
        IdentityFile::Key => "use a PEM file with the private key, such as the privkey.pem of an ACME client",
    }
}

fn error(file: IdentityFile, what: impl Into<String>, fix: impl Into<String>) -> IdentityError {
    IdentityError { file, what: what.into(), fix: fix.into() }
}
