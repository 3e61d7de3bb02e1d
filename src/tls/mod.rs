//! Who this server is to TLS clients: a chain of certificates and its key (RFC 8489 section 6.2.3).
//!
//! TLS 1.2 and 1.3 with rustls and its aws-lc-rs provider: rustls' own default, said to be faster than ring, and like ring it
//! needs nothing but a C compiler to build. Clients are not asked for certificates.
//! Left out on purpose: reading files, which is the daemon's.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Application protocols (RFC 7443 section 3). Most clients name none, which is fine.
const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// A chain and its key, ready to serve.
#[derive(Clone)]
pub struct Identity(Arc<ServerConfig>);

/// Why there is none; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not a single CERTIFICATE section.
    #[error(
        "the certificate file has no certificate: it needs at least one -----BEGIN CERTIFICATE----- section"
    )]
    NoCertificate,
    /// A section of the certificate file is damaged.
    #[error("the certificate file is damaged in its certificate {0}: {1}")]
    BadCertificate(usize, String),
    /// No section with a key.
    #[error(
        "the key file has no private key: it needs a PRIVATE KEY (PKCS#8), RSA PRIVATE KEY (PKCS#1) or EC PRIVATE KEY (SEC1) \
         section, without a passphrase"
    )]
    NoKey,
    /// The section with the key is damaged.
    #[error("the key file is damaged: {0}")]
    BadKey(String),
    /// Its algorithm or size cannot be used.
    #[error("the private key cannot be used (RSA with 2048 bits or more, ECDSA and Ed25519 can): {0}")]
    UnusableKey(String),
    /// They do not belong together.
    #[error(
        "the key does not belong to the first certificate of the chain: the server's own certificate comes first, then \
         those that vouch for it"
    )]
    Mismatch,
    /// Anything else.
    #[error("certificate and key cannot be used: {0}")]
    Other(String),
}

impl Identity {
    /// From the contents of a PEM file with the chain, the server's own certificate first, and of one with its key.
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
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Identity(Arc::new(config)))
    }

    /// The rustls configuration that serves it.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
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

/// Says what is wrong with a key, with a certificate, or with both together.
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
