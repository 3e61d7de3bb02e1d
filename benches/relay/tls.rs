//! Who the servers are to TLS clients: one self-signed certificate for the relay's address, made anew whenever the
//! benchmark is started.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate and its key as PEM files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    /// The one in this directory.
    pub fn of(dir: &Path) -> Identity {
        Identity { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") }
    }

    /// A new one, which vouches for this address.
    pub fn make(&self, ip: Ipv4Addr) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([ip.to_string()])?.self_signed(&key)?;
        fs::write(&self.certificate, certificate.pem())?;
        fs::write(&self.key, key.serialize_pem()).context("the certificate's key")
    }

    /// For a server.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from_pem_file(&self.certificate)?], key)?;
        Ok(Arc::new(config))
    }
}

/// For clients who trust this certificate and no other. They offer one cipher, the first that browsers offer, so that
/// every server encrypts alike.
pub fn client(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
