//! `[tls]`: the certificates for TLS clients and their private keys, as files that were read. What is in them is judged by
//! [`server_certificate`](super::server_certificate).

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::files::unreadable;
use super::kind::FileContents;
use crate::tls::{CertificateName, UnknownName};

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// The chain of the default certificate, the server's own one first.
    pub cert: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
    /// `[[tls.certificate]]`: more certificates. Without `cert`, the first of them is the default one.
    pub certificates: Vec<CertificateSettings>,
    /// What clients get that ask for a name of no certificate.
    pub unknown_name: UnknownName,
}

/// A certificate chain, its private key, and the names that it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateSettings {
    /// The chain, the server's own certificate first.
    pub cert: Pem,
    /// Its private key.
    pub key: Pem,
    /// The names that clients ask for; if empty, those of the certificate.
    pub names: Vec<CertificateName>,
}

/// A certificate or key file and what it contains. `Debug` does not show that, since it may be a private key.
#[derive(Clone)]
pub struct Pem {
    /// The setting or argument that names it.
    pub label: &'static str,
    /// The name of the file as it was written, unless it may be a secret.
    pub name: String,
    /// Where it is. `None` if it is not read again.
    pub path: Option<PathBuf>,
    /// Its contents, or why there are none.
    pub contents: Result<Vec<u8>, Unreadable>,
    /// The bytes of its setting in the configuration.
    pub(super) at: Range<usize>,
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub what: String,
    /// How to fix it.
    pub fix: &'static str,
    /// Whether it does not exist.
    pub is_missing: bool,
}

impl Pem {
    /// The contents of a file that is not read again.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Pem {
        let (label, name, contents) = ("", name.into(), Ok(bytes.into()));
        Pem { label, name, path: None, contents, at: 0..0 }
    }

    /// What `read` made of the file at `path`, which the setting or argument `label` calls `name`.
    pub fn of_file(
        label: &'static str,
        name: impl Into<String>,
        path: PathBuf,
        read: io::Result<FileContents>,
    ) -> Pem {
        Pem { label, name: name.into(), path: Some(path), contents: contents(read), at: 0..0 }
    }

    /// Whether a setting of the configuration names it, so that reading the configuration has reported what is unusual about it.
    pub fn is_of_configuration(&self) -> bool {
        self.label.starts_with("tls.")
    }

    /// What differs in another file.
    pub(super) fn compared(&self) -> Vec<u8> {
        match &self.contents {
            Ok(bytes) => bytes.clone(),
            Err(Unreadable { what, .. }) => what.clone().into_bytes(),
        }
    }

    /// The same file, read again.
    fn reread(&self, read: &dyn Fn(&Path) -> io::Result<FileContents>) -> Pem {
        let read = self.path.as_deref().map(|path| contents(read(path)));
        Pem { contents: read.unwrap_or_else(|| self.contents.clone()), ..self.clone() }
    }
}

fn contents(read: io::Result<FileContents>) -> Result<Vec<u8>, Unreadable> {
    read.map(|contents| contents.bytes).map_err(|error| {
        let (what, fix) = unreadable(&error);
        Unreadable { what, fix, is_missing: error.kind() == io::ErrorKind::NotFound }
    })
}

impl PartialEq for Pem {
    /// Whether the file has the same name and contents, wherever that is written.
    fn eq(&self, other: &Pem) -> bool {
        (&self.name, &self.path, &self.contents) == (&other.name, &other.path, &other.contents)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The files of a certificate in a sentence, such as `tls.cert fullchain.pem`.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.label.is_empty() { "" } else { " " };
        write!(f, "{}{separator}{}", self.label, self.name)
    }
}

impl TlsSettings {
    /// Only this certificate.
    pub fn only(cert: Pem, key: Pem) -> TlsSettings {
        TlsSettings { cert: Some(cert), key: Some(key), ..TlsSettings::default() }
    }

    /// Every certificate, the default one first.
    pub fn all(&self) -> Vec<CertificateSettings> {
        let default = self.cert.clone().zip(self.key.clone());
        let default = default.map(|(cert, key)| CertificateSettings { cert, key, names: Vec::new() });
        default.into_iter().chain(self.certificates.iter().cloned()).collect()
    }

    /// Whether any certificate is configured.
    pub fn has_certificate(&self) -> bool {
        self.cert.is_some() || !self.certificates.is_empty()
    }

    /// The same settings with the files read again.
    pub fn reread(&self, read: &dyn Fn(&Path) -> io::Result<FileContents>) -> TlsSettings {
        let again = |one: &CertificateSettings| CertificateSettings {
            cert: one.cert.reread(read),
            key: one.key.reread(read),
            names: one.names.clone(),
        };
        TlsSettings {
            cert: self.cert.as_ref().map(|pem| pem.reread(read)),
            key: self.key.as_ref().map(|pem| pem.reread(read)),
            certificates: self.certificates.iter().map(again).collect(),
            unknown_name: self.unknown_name,
        }
    }

    /// Every file that is read.
    pub fn paths(&self) -> Vec<PathBuf> {
        let all = self.all().into_iter();
        all.flat_map(|CertificateSettings { cert, key, .. }| [cert.path, key.path]).flatten().collect()
    }
}

impl CertificateSettings {
    /// Whether `other` names the same files.
    pub fn has_the_files_of(&self, other: &CertificateSettings) -> bool {
        let files = |one: &CertificateSettings| (one.cert.path.clone(), one.key.path.clone());
        files(self) == files(other)
    }
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
