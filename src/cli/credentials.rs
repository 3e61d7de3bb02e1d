//! `hairpin credentials`: prints the ICE servers for one user.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::{CredentialsArgs, arguments};
use crate::auth::Secret;
use crate::config::{Loaded, Settings, external};
use crate::daemon::{self, MISTAKES, addresses, configuration, ice, state};
use crate::plural::counted;

pub fn run(args: &CredentialsArgs) -> ExitCode {
    let set = arguments(&args.set);
    let loaded = match &args.config {
        Some(file) => configuration::read(file, &set, args.state_dir.is_some()),
        None => configuration::defaults(&set),
    };
    let Loaded { settings, .. } = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            daemon::print_findings(&mistakes);
            return MISTAKES.into();
        }
    };
    match servers(args, &settings) {
        Ok(servers) => {
            let _ = writeln!(io::stdout().lock(), "{servers}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "hairpin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn servers(args: &CredentialsArgs, settings: &Settings) -> Result<serde_json::Value> {
    let secret = secret(args, settings)?;
    let (ttl, most) = (args.ttl.as_secs(), settings.auth.max_lifetime);
    if ttl > most {
        bail!(
            "credentials for {} would be refused, because auth.max_lifetime is {}; choose a shorter --ttl, or raise \
             auth.max_lifetime",
            counted(ttl as usize, "second"),
            counted(most as usize, "second"),
        );
    }
    let relay: Vec<IpAddr> = if settings.relay.addresses.is_empty() {
        addresses::discovered()
    } else {
        settings.relay.addresses.clone()
    };
    if external::asks(&settings.relay.external_ip) && args.domain.is_none() {
        bail!(
            "only the running relay knows the addresses that relay.external_ip asks for; name the relay with --domain"
        );
    }
    let external = external::written(&settings.relay.external_ip);
    let external = external::pair(&external, &relay).context("relay.external_ip")?;
    let offer = ice::Offer {
        listeners: &settings.listener_addresses(),
        addresses: &relay,
        external: &external,
        domain: args.domain.as_deref(),
        certified: &settings.tls.certified_names(),
        settings,
    };
    let urls = offer.urls();
    for note in offer.notes() {
        let _ = writeln!(io::stderr().lock(), "hairpin: {note}");
    }
    if urls.is_empty() {
        bail!("this machine has no address that clients can reach; name the relay with --domain");
    }
    Ok(ice::servers(&urls, &secret, &args.user, daemon::unix_now() + ttl))
}

fn secret(args: &CredentialsArgs, settings: &Settings) -> Result<Secret> {
    if let Some(secret) = settings.auth.secrets.first() {
        return Ok(secret.clone());
    }
    if let Some(file) =
        args.config.as_ref().filter(|_| args.state_dir.is_none() || settings.auth.has_credentials())
    {
        bail!(
            "{} has no shared secret to make credentials from; set auth.secrets or auth.secret_files (static users have their \
             own passwords, and LiveKit issues credentials for its API keys itself)",
            file.display()
        );
    }
    let directory = state::directory(args.state_dir.as_deref(), &daemon::variable, daemon::is_service())?;
    let secrets = state::secrets(&directory)?;
    secrets.and_then(|secrets| secrets.into_iter().next()).with_context(|| {
        format!(
            "there is no shared secret in {}; start `hairpin serve` first, or pass its --state-dir or --config; the service of \
             the Debian package has --config /etc/hairpin/hairpin.toml --state-dir /var/lib/hairpin",
            directory.display()
        )
    })
}
