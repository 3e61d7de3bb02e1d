//! Who a relay must be for browsers: its certificate is verified by name as they do it, and they refuse others in silence.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::failure::{CertificateFault, Failure};

/// The most names of a certificate that a sentence lists.
const NAMES: usize = 5;

/// The authorities that certificates may come from: those of this machine, and those of a file.
#[derive(Clone)]
pub struct Roots {
    provider: Arc<CryptoProvider>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Reads them.
    ///
    /// # Errors
    /// The file has no certificates that can be read.
    pub fn load(ca_file: Option<&Path>) -> Result<Roots, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = ca_file {
            let wrong = || format!("{} has no certificates in PEM that can be read", file.display());
            let mut found = false;
            for certificate in CertificateDer::pem_file_iter(file).map_err(|_| wrong())? {
                store.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
                found = true;
            }
            if !found {
                return Err(wrong());
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(Roots { provider, store: Arc::new(store) })
    }
}

/// Completes a handshake as a browser would.
///
/// # Errors
/// What browsers would refuse, or that this is no TLS.
pub async fn handshake(tcp: TcpStream, name: &str, roots: &Roots) -> Result<TlsStream<TcpStream>, Failure> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| Failure::NoTlsName(name.to_owned()))?;
    let witness = Arc::new(Witness::new(roots)?);
    let config = ClientConfig::builder_with_provider(roots.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Tls(error.to_string()))?
        .dangerous()
        // It verifies as rustls does, and remembers the certificate.
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(server, tcp).await;
    connected.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Failure::Certificate(fault(why, &witness.seen()), name.to_owned())
            }
            Some(rustls::Error::InvalidMessage(_)) => Failure::NotTls,
            Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
                Failure::Certificate(CertificateFault::OtherName(Vec::new()), name.to_owned())
            }
            Some(other) => Failure::Tls(other.to_string()),
            None => Failure::of_exchange(&error),
        }
    })
}

/// What is wrong with a certificate.
fn fault(why: &CertificateError, certificate: &[u8]) -> CertificateFault {
    let parsed = parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed);
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired(
            parsed.map(|parsed| parsed.validity().not_after.timestamp()).unwrap_or_default(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFault::NotValidYet
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = parsed.and_then(|parsed| {
                let names = parsed.subject_alternative_name().ok()??.value.general_names.iter();
                let shown = names.filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => shown_address(bytes),
                    _ => None,
                });
                Some(shown.take(NAMES).collect())
            });
            CertificateFault::OtherName(names.unwrap_or_default())
        }
        // A bad signature is that of another authority with the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match parsed {
            Some(parsed) if parsed.subject() == parsed.issuer() => CertificateFault::SelfSigned,
            _ => CertificateFault::UnknownIssuer,
        },
        // A self-signed certificate of an authority of its own: webpki takes it for an authority, which is no server.
        CertificateError::Other(_) if parsed.as_ref().is_some_and(|one| one.subject() == one.issuer()) => {
            CertificateFault::SelfSigned
        }
        other => CertificateFault::Other(other.to_string()),
    }
}

fn shown_address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|v4| std::net::IpAddr::from(v4).to_string()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::IpAddr::from(v6).to_string()),
    }
}

/// Verifies as rustls does, and remembers the certificate, so that a sentence can say what is wrong with it.
#[derive(Debug)]
struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    seen: Mutex<Vec<u8>>,
}

impl Witness {
    fn new(roots: &Roots) -> Result<Witness, Failure> {
        let built = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), roots.provider.clone());
        let verifier = built.build().map_err(|_| Failure::NoRoots)?;
        Ok(Witness { verifier, seen: Mutex::default() })
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = end_entity.to_vec();
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
