//! `[[tls.certificate]]`: how a section becomes a certificate. Its keys are in the table.

use super::section::Refusal;
use super::settings::Settings;
use super::tls::{CertificateSettings, Pem};
use crate::tls::CertificateName;

/// A `[[tls.certificate]]` section that is being read.
#[derive(Default)]
pub struct CertificateDraft {
    /// `cert`.
    pub cert: Option<Pem>,
    /// `key`.
    pub key: Option<Pem>,
    /// `names`.
    pub names: Vec<CertificateName>,
}

/// The most `[[tls.certificate]]` sections, so that the files of all of them can be read and watched.
const CERTIFICATES_MAX: usize = 1000;

/// Adds a certificate to the settings.
///
/// # Errors
/// The section cannot be used together with the others.
pub fn add(settings: &mut Settings, draft: CertificateDraft) -> Result<(), Refusal> {
    let CertificateDraft { cert: Some(cert), key: Some(key), names } = draft else {
        return Err(Refusal { key: "cert", what: "the file is missing", fix: "set cert and key" });
    };
    let new = CertificateSettings { cert, key, names };
    let certificates = &mut settings.tls.certificates;
    if certificates.iter().any(|one| one.has_the_files_of(&new)) {
        return Err(Refusal { key: "cert", what: "this certificate is listed twice", fix: "remove one" });
    }
    if certificates.len() == CERTIFICATES_MAX {
        return Err(Refusal {
            key: "cert",
            what: "there are more than 1000 certificates",
            fix: "remove some",
        });
    }
    certificates.push(new);
    Ok(())
}
