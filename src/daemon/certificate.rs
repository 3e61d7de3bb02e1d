//! The certificate of a relay whose configuration has none: that of the arguments, otherwise a self-signed one, so that TLS
//! works with clients that do not verify it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tracing::{info, warn};

use super::{ServeArgs, reading, state};
use crate::config::tls::{Pem, TlsSettings};

/// The certificate of the arguments, otherwise the one in the state directory. Whether it can be used is judged with those of
/// configurations.
pub fn obtain(args: &ServeArgs, directory: impl FnOnce() -> Result<PathBuf>) -> Result<TlsSettings> {
    let Some((cert, key)) = &args.certificate else {
        return stored_or_new(args.domain.as_deref(), &directory()?);
    };
    let tls = TlsSettings::only(file(cert, "--cert"), file(key, "--key"));
    if let Some(domain) = &args.domain
        && tls.all().iter().all(|one| one.load().is_ok())
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
    Ok(TlsSettings::only(both.clone(), both))
}

/// A file of the arguments.
fn file(path: &Path, flag: &'static str) -> Pem {
    let read = reading::read(path);
    if flag == "--key" && read.as_ref().is_ok_and(|contents| contents.is_public) {
        warn!("TLS: every user of this machine may read the private key; run `chmod o-rwx` on it");
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Pem::of_file(flag, path.display().to_string(), absolute, read)
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
    use crate::daemon::unix_now;

    #[test]
    fn a_self_signed_certificate_can_be_used() {
        for name in ["hairpin", "turn.example.org", "203.0.113.7"] {
            let pem = Pem::new("self-signed.pem", self_signed(name).unwrap());
            let tls = TlsSettings::only(pem.clone(), pem);
            assert!(tls.is_self_signed());
            let loaded = tls.all()[0].load().unwrap();
            assert_eq!((loaded.warnings(unix_now()), loaded.expires_soon(unix_now())), (Vec::new(), None));
        }
    }

    #[test]
    fn missing_files_are_reported_with_their_flag() {
        let certificate = Some(("missing.pem".into(), "key.pem".into()));
        let args = ServeArgs { certificate, ..ServeArgs::default() };
        let tls = obtain(&args, || panic!("it is not needed")).unwrap();
        let error = tls.all()[0].load().unwrap_err();
        let expected = "--cert missing.pem cannot be read: No such file or directory; correct the path";
        assert_eq!(error.to_string(), expected);
    }
}
