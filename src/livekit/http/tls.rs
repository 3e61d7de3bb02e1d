//! The certificate of the sidecar's HTTP server, renewed without a restart by the same means as those of a relay.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::counters::HttpCounters;
use crate::config::tls::{Pem, TlsSettings};
use crate::daemon::certificates::{CertificateStatus, Certificates};
use crate::daemon::reading;
use crate::tls::Identities;

/// The certificate that serves.
pub struct Tls {
    certificates: tokio::sync::Mutex<Certificates>,
    current: Mutex<Option<Identities>>,
}

/// A task that ends when it is dropped.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used; the error says which, and what to do.
    pub fn open(cert: &Path, key: &Path) -> Result<Tls> {
        let file = |label, path: &Path| {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            Pem::of_file(label, path.display().to_string(), absolute, reading::read(path))
        };
        let settings = TlsSettings::only(file("http.cert", cert), file("http.key", key));
        let certificates = Certificates::start(&settings)?;
        let current = Mutex::new(certificates.identities());
        Ok(Tls { certificates: tokio::sync::Mutex::new(certificates), current })
    }

    /// What clients get now.
    pub fn identities(&self) -> Option<Identities> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses new certificates when the files change, while it is polled. If they cannot be used, the earlier one stays.
    pub async fn renew(&self, counters: &HttpCounters) {
        let mut certificates = self.certificates.lock().await;
        let _watch = Task(certificates.watch());
        loop {
            for CertificateStatus { file, expiry, .. } in certificates.board().stats().certificates {
                counters.set_certificate_expiry(&file, expiry.unwrap_or(0));
            }
            certificates.changed().await;
            if certificates.renew().await {
                let identities = certificates.identities();
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = identities;
            }
        }
    }
}
