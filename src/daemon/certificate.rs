//! The certificate of a relay without a configuration: that of the arguments, otherwise a self-signed one, so that TLS works
//! with clients that do not verify it.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tracing::{info, warn};

use super::{ServeArgs, is_service, state, unix_now, variable};
use crate::config::tls::{Pem, TlsSettings};

/// The certificate of the arguments, otherwise the one in the state directory.
pub fn obtain(args: &ServeArgs) -> Result<TlsSettings> {
    let tls = match &args.certificate {
        Some((cert, key)) => {
            TlsSettings { cert: Some(file(cert, "--cert")?), key: Some(file(key, "--key")?) }
        }
        None => stored_or_new(args)?,
    };
    tls.identity().context("TLS")?;
    if let Some(what) = tls.out_of_date(unix_now()) {
        warn!("TLS: {what}; renew it, or clients refuse it");
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

fn stored_or_new(args: &ServeArgs) -> Result<TlsSettings> {
    let directory = state::directory(args.state_dir.as_deref(), &variable, is_service())?;
    let name = args.domain.as_deref().unwrap_or("hairpin");
    let (text, generated) = state::certificate_or_new(&directory, || self_signed(name))?;
    let origin = if generated { "generated now" } else { "from an earlier start" };
    info!("the self-signed certificate is in {} ({origin})", directory.display());
    let both = Pem::new(text);
    Ok(TlsSettings { cert: Some(both.clone()), key: Some(both) })
}

fn file(path: &Path, flag: &str) -> Result<Pem> {
    let text = state::read_text(path).with_context(|| {
        format!(
            "{flag} {} cannot be read; correct the path, or allow the user that runs hairpin to read the file",
            path.display()
        )
    })?;
    Ok(Pem::new(text))
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
            let pem = Pem::new(self_signed(name).unwrap());
            let tls = TlsSettings { cert: Some(pem.clone()), key: Some(pem) };
            assert!(tls.identity().unwrap().is_some() && tls.is_self_signed());
            assert_eq!(tls.out_of_date(unix_now()), None);
        }
    }

    #[test]
    fn missing_files_are_reported_with_their_flag() {
        let certificate = Some(("missing.pem".into(), "key.pem".into()));
        let error = obtain(&ServeArgs { certificate, ..ServeArgs::default() }).unwrap_err();
        assert!(format!("{error:#}").starts_with("--cert missing.pem cannot be read; correct"), "{error:#}");
    }
}
