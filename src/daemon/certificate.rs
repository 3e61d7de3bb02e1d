//! The certificate of a relay whose configuration has none: that of the arguments, otherwise a self-signed one, so that TLS
//! works with clients that do not verify it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tracing::{info, warn};

use super::{ServeArgs, reading, state, unix_now};
use crate::config::files::unreadable;
use crate::config::tls::{Pem, TlsSettings};

/// The certificate of the arguments, otherwise the one in the state directory.
pub fn obtain(args: &ServeArgs, directory: impl FnOnce() -> Result<PathBuf>) -> Result<TlsSettings> {
    let tls = match &args.certificate {
        Some((cert, key)) => {
            let (cert, _) = file(cert, "--cert")?;
            let (key, is_public) = file(key, "--key")?;
            if is_public {
                warn!("TLS: every user of this machine may read the private key; run `chmod o-rwx` on it");
            }
            TlsSettings { cert: Some(cert), key: Some(key) }
        }
        None => stored_or_new(args.domain.as_deref(), &directory()?)?,
    };
    if let Err(error) = tls.identity() {
        bail!("TLS: {}; {}", error.what, error.fix);
    }
    for warning in tls.warnings(unix_now()) {
        warn!("TLS: {}; {}", warning.what, warning.fix);
    }
    if let (Some(domain), Some(_)) = (&args.domain, &args.certificate)
        && !tls.is_valid_for(domain)
    {
        warn!(
            "TLS: the certificate is not valid for {domain}, so clients refuse it; use a certificate for that name, or correct --domain"
        );
    }
    Ok(tls)
}

fn stored_or_new(domain: Option<&str>, directory: &Path) -> Result<TlsSettings> {
    let (pem, generated) = state::certificate_or_new(directory, || self_signed(domain.unwrap_or("hairpin")))?;
    let origin = if generated { "generated now" } else { "from an earlier start" };
    info!("the self-signed certificate is in {} ({origin})", directory.display());
    let both = Pem::new(state::certificate_path(directory).display().to_string(), pem);
    Ok(TlsSettings { cert: Some(both.clone()), key: Some(both) })
}

/// A file of the arguments, and whether everybody may read it.
fn file(path: &Path, flag: &str) -> Result<(Pem, bool)> {
    let name = path.display().to_string();
    match reading::read(path) {
        Ok(contents) => Ok((Pem::new(name, contents.bytes), contents.is_public)),
        Err(error) => {
            let (what, fix) = unreadable(&error);
            bail!("{flag} {name} {what}; {fix}")
        }
    }
}

/// A new certificate for a host name and its private key, as PEM. It does not expire: clients that accept it trust the key.
fn self_signed(name: &str) -> Result<String> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_can_be_used() {
        for name in ["hairpin", "turn.example.org", "203.0.113.7"] {
            let pem = Pem::new("self-signed.pem", self_signed(name).unwrap());
            let tls = TlsSettings { cert: Some(pem.clone()), key: Some(pem) };
            assert!(tls.identity().unwrap().is_some() && tls.is_self_signed());
            assert_eq!(tls.warnings(unix_now()), []);
        }
    }

    #[test]
    fn missing_files_are_reported_with_their_flag() {
        let certificate = Some(("missing.pem".into(), "key.pem".into()));
        let args = ServeArgs { certificate, ..ServeArgs::default() };
        let error = obtain(&args, || panic!("it is not needed")).unwrap_err();
        let expected = "--cert missing.pem cannot be read: No such file or directory; correct the path";
        assert_eq!(format!("{error:#}"), expected);
    }
}
