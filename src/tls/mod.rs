//! The identity of this server for TLS clients: a certificate chain and its private key (RFC 8489 section 6.2.3).
//!
//! TLS 1.2 and 1.3 are provided by rustls with aws-lc-rs, its default provider. Clients are not asked for certificates.
//! Reading files is not done here but in the daemon.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Application protocols (RFC 7443 section 3). Most clients offer none.
const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// A certificate chain and its private key, ready to serve.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The same for clients that offer other protocols only.
    without_alpn: Arc<ServerConfig>,
}

/// Why there is no identity, as a sentence that says what is required.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no CERTIFICATE section.
    #[error(
        "the certificate file has no certificate: it needs at least one -----BEGIN CERTIFICATE----- section"
    )]
    NoCertificate,
    /// A certificate is malformed.
    #[error("certificate {0} of the certificate file is malformed: {1}")]
    BadCertificate(usize, String),
    /// There is no section with a private key.
    #[error(
        "the key file has no private key: it needs a PRIVATE KEY (PKCS#8), RSA PRIVATE KEY (PKCS#1) or EC PRIVATE KEY (SEC1) \
         section, without a passphrase"
    )]
    NoKey,
    /// The private key is malformed.
    #[error("the private key in the key file is malformed: {0}")]
    BadKey(String),
    /// The algorithm or size of the private key is not supported.
    #[error(
        "the private key is not supported: it must be RSA with at least 2048 bits, ECDSA or Ed25519: {0}"
    )]
    UnusableKey(String),
    /// The private key does not belong to the first certificate.
    #[error(
        "the private key does not belong to the first certificate of the chain; the server's own certificate must come \
         first, followed by the intermediate certificates"
    )]
    Mismatch,
    /// Any other error.
    #[error("the certificate and its private key cannot be used: {0}")]
    Other(String),
}

impl Identity {
    /// Takes the contents of two PEM files: the certificate chain, the server's own certificate first, and its private key.
    ///
    /// # Errors
    ///
    /// Returns an [`IdentityError`] if the chain or the key is missing or damaged, if the key has an unsupported algorithm or
    /// size, or if it does not match the first certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let chain = certificates(chain)?;
        let key = private_key(key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        check(&chain, &key, &provider)?;
        let other = |error: rustls::Error| IdentityError::Other(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(other)?;
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Identity { config: Arc::new(config), without_alpn })
    }

    /// The rustls configuration that serves this identity.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The rustls configuration for a client that offers these application protocols.
    ///
    /// If none of them is ours, it is served as if it had offered none, as a server without ALPN would (RFC 7301 section
    /// 3.1): browsers behind an HTTP proxy offer only `http/1.1`, and there is nothing else here to negotiate.
    pub fn config_for<'a>(&self, mut offered: impl Iterator<Item = &'a [u8]>) -> Arc<ServerConfig> {
        if offered.any(|protocol| PROTOCOLS.contains(&protocol)) {
            self.config.clone()
        } else {
            self.without_alpn.clone()
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let bad = |error: pem::Error| IdentityError::BadCertificate(chain.len() + 1, error.to_string());
        chain.push(certificate.map_err(bad)?);
    }
    if chain.is_empty() { Err(IdentityError::NoCertificate) } else { Ok(chain) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => IdentityError::NoKey,
        error => IdentityError::BadKey(error.to_string()),
    })
}

/// Checks that the private key is supported and belongs to the first certificate.
fn check(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), IdentityError> {
    use rustls::{Error, InconsistentKeys};
    let loaded = provider.key_provider.load_private_key(key.clone_key());
    let loaded = loaded.map_err(|error| IdentityError::UnusableKey(error.to_string()))?;
    match rustls::sign::CertifiedKey::new(chain.to_vec(), loaded).keys_match() {
        Ok(()) => Ok(()),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(IdentityError::Mismatch),
        Err(Error::InvalidCertificate(error)) => Err(IdentityError::BadCertificate(1, format!("{error:?}"))),
        Err(error) => Err(IdentityError::Other(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
