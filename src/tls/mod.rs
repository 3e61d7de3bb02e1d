//! The identities of this server for TLS clients: certificate chains and their private keys (RFC 8489 section 6.2.3), the
//! [choice](Identities) between them, and the [keys](Sessions) that sessions are resumed with.
//!
//! TLS 1.2 and 1.3 are provided by rustls with aws-lc-rs, its default provider. Clients are not asked for certificates. Early data
//! (0-RTT) is never accepted: whoever records it could send a request again (RFC 8446 section 8).
//! Reading files is not done here but in the daemon.

mod alert;
pub mod client_hello;
mod files;
mod identify;
mod identities;
mod name;
mod pem;
mod protocols;
mod refusal;
mod sessions;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, SignatureAlgorithm};

pub use client_hello::{ClientHello, HelloError, HelloReader};
pub use files::{Found, certificates};
use identify::Der;
pub use identities::{Identities, NamedIdentity, UnknownName};
pub use name::CertificateName;
pub use protocols::Protocols;
pub use refusal::HelloRefusal;
pub use sessions::Sessions;

/// A certificate chain and its private key, ready to serve.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

/// Why there is no identity, as sentences that say what is required and how to fix it.
///
/// They consist of fixed text and line numbers: the errors of libraries quote what they could not read, which may be the
/// private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct IdentityError {
    /// The file to blame.
    pub file: IdentityFile,
    /// What is wrong.
    pub what: String,
    /// How to fix it; `FILE` stands for the name of the file.
    pub fix: String,
}

/// A file that an identity is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFile {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
}

impl Identity {
    /// Takes the contents of two PEM files: the certificate chain, the server's own certificate first, and its private key.
    ///
    /// # Errors
    ///
    /// Returns an [`IdentityError`] if the chain or the key is missing or damaged, if the key has an unsupported algorithm or
    /// size, or if it does not match the first certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let chain: Vec<_> = certificates(chain)?.into_iter().map(|found| found.der).collect();
        let key = files::private_key(key)?;
        let key = check(&chain, &key, &aws_lc_rs::default_provider())?;
        Ok(Identity { key: Arc::new(key) })
    }

    /// The rustls configuration with only this certificate, for these application protocols.
    pub fn server_config(&self, protocols: &[&[u8]], sessions: &Sessions) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&self.key))));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ticketer = sessions.ticketer.clone();
        config.session_storage = sessions.storage.clone();
        config.max_early_data_size = 0;
        config
    }

    /// The kind of key.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A chain and its private key, if that is supported and belongs to the first certificate.
fn check(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, IdentityError> {
    use rustls::{Error, InconsistentKeys};
    let loaded = provider.key_provider.load_private_key(key.clone_key()).map_err(|_| unusable_key(key))?;
    let certified = CertifiedKey::new(chain.to_vec(), loaded);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(IdentityError {
            file: IdentityFile::Key,
            what: "the private key does not belong to the first certificate of the chain; the server's own certificate must \
                   come first, followed by the intermediate certificates"
                .into(),
            fix: "use the private key that the certificate was made for".into(),
        }),
        Err(Error::InvalidCertificate(_)) => Err(files::bad_certificate(1)),
        Err(_) => Err(other(())),
    }
}

/// A private key that the provider does not take.
fn unusable_key(key: &PrivateKeyDer<'static>) -> IdentityError {
    let (label, expected) = match key {
        PrivateKeyDer::Pkcs1(_) => ("RSA PRIVATE KEY", Der::Pkcs1),
        PrivateKeyDer::Sec1(_) => ("EC PRIVATE KEY", Der::Sec1),
        _ => ("PRIVATE KEY", Der::Pkcs8),
    };
    let found = identify::der(key.secret_der());
    let what = match found {
        Some(found) if found != expected => {
            format!("the private key is not supported: its section is labelled {label}, but contains something else")
        }
        _ => "the private key is not supported or damaged: it must be RSA with at least 2048 bits, ECDSA (P-256, P-384 or \
              P-521) or Ed25519"
            .to_owned(),
    };
    let fix = "try `openssl pkey -in FILE -out FILE.new`, or make a new key and certificate".to_owned();
    IdentityError { file: IdentityFile::Key, what, fix }
}

fn other<E>(_: E) -> IdentityError {
    IdentityError {
        file: IdentityFile::Certificate,
        what: "the certificate and its private key cannot be used for TLS".into(),
        fix: "make a new certificate".into(),
    }
}

#[cfg(test)]
mod tests;
