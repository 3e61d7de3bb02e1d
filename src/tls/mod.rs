//! The identity of this server for TLS clients: a certificate chain and its private key (RFC 8489 section 6.2.3).
//!
//! TLS 1.2 and 1.3 are provided by rustls with aws-lc-rs, its default provider. Clients are not asked for certificates.
//! Reading files is not done here but in the daemon.

mod files;
mod identify;
mod pem;

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use files::{Found, certificates};
use identify::Der;

/// Application protocols (RFC 7443 section 3). Most clients offer none.
const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// A certificate chain and its private key, ready to serve.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The same for clients that offer other protocols only.
    without_alpn: Arc<ServerConfig>,
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
        let provider = Arc::new(aws_lc_rs::default_provider());
        check(&chain, &key, &provider)?;
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

/// Checks that the private key is supported and belongs to the first certificate.
fn check(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), IdentityError> {
    use rustls::{Error, InconsistentKeys};
    let loaded = provider.key_provider.load_private_key(key.clone_key()).map_err(|_| unusable_key(key))?;
    match rustls::sign::CertifiedKey::new(chain.to_vec(), loaded).keys_match() {
        Ok(()) => Ok(()),
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
