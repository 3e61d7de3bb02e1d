//! The slow plane: from an args to a running relay, and down again.
//!
//! - [`serve`]: start, serve, stop
//! - [`configuration`], [`addresses`], [`state`], `files`, [`random`]: what this machine says and keeps
//! - `certificate`: the certificate of a start without a configuration
//! - `announce`: what a start tells the operator
//! - [`ice`]: ICE servers for browsers
//! - [`logging`]; [`http`], `metrics` and `host`: health and counters
//!
//! Nothing here is on the way of a packet.

pub mod addresses;
mod announce;
mod certificate;
pub mod configuration;
mod files;
mod heartbeat;
mod host;
pub mod http;
pub mod ice;
pub mod logging;
mod metrics;
pub mod random;
mod relay;
mod signals;
pub mod state;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tracing::{error, info, warn};

use crate::auth::Secret;
use crate::config::{Finding, Loaded, Settings};
use logging::Logging;
use relay::RunningRelay;
use signals::Signal;

/// What `hairpin serve` was told.
#[derive(Clone, Debug, Default)]
pub struct ServeArgs {
    /// The configuration file; without one a safe relay is started.
    pub config: Option<PathBuf>,
    /// The domain that names this relay.
    pub domain: Option<String>,
    /// Files with the chain of certificates for TLS and with its key; without them a self-signed one is made.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where what is generated is kept.
    pub state_dir: Option<PathBuf>,
}

/// The exit status for a configuration with mistakes.
pub const MISTAKES: u8 = 2;

/// How long the credentials that a start prints are valid.
const PRINTED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The user of the credentials that a start prints.
const PRINTED_USER: &str = "hairpin";

/// Runs a relay until it is told to stop.
pub fn serve(args: &ServeArgs) -> ExitCode {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            tell(&mistakes);
            return MISTAKES.into();
        }
    };
    let logging = Logging::start(&loaded.settings.log);
    match run(args, loaded, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(args: &ServeArgs) -> Result<Loaded, Vec<Finding>> {
    match &args.config {
        Some(file) => configuration::read(file),
        None => configuration::defaults(),
    }
}

/// Writes findings to standard error, one line each.
pub fn tell(findings: &[Finding]) {
    let mut stderr = io::stderr().lock();
    for finding in findings {
        let _ = writeln!(stderr, "{finding}");
    }
}

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "the daemon is one of the two who read the clock")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether systemd runs this process. Terminals of desktops are its children too, and no services.
pub fn is_service() -> bool {
    let named = ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some());
    let attended = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    named && !attended
}

/// A variable of the environment.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn run(args: &ServeArgs, loaded: Loaded, logging: &Logging) -> Result<()> {
    let Loaded { mut settings, warnings } = loaded;
    info!(version = env!("CARGO_PKG_VERSION"), "hairpin starts");
    warnings.iter().for_each(|warning| warn!("{warning}"));
    if args.config.is_none() {
        complete(&mut settings, args)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = signals::Signals::new()?;
        let mut relay = RunningRelay::start(&settings, logging.lost())?;
        if args.config.is_none() && !is_service() {
            print(&settings, &relay, args);
        }
        let signal = loop {
            match signals.next().await {
                Signal::Stop(signal) => break signal,
                Signal::Reload => reload(args, &settings, &mut relay).await,
            }
        };
        info!("{signal}: stopping, every allocation ends");
        let stopping = tokio::task::spawn_blocking(move || relay.stop());
        tokio::select! {
            stopped = stopping => stopped?,
            () = signals.stop() => std::process::exit(1),
        }
        info!("hairpin has stopped");
        Ok(())
    })
}

/// Reads the configuration again and judges credentials by it from now on. If anything is wrong with it, nothing changes.
async fn reload(args: &ServeArgs, settings: &Settings, relay: &mut RunningRelay) {
    match renew_auth(args, relay).await {
        Ok(new) => {
            if !settings.same_except_auth(&new) {
                warn!(
                    "SIGHUP renews credentials alone: other settings have changed too, and wait for a restart"
                );
            }
            info!("SIGHUP: credentials are renewed; running calls go on");
        }
        Err(error) => error!("SIGHUP: nothing is changed: {error:#}"),
    }
}

async fn renew_auth(args: &ServeArgs, relay: &mut RunningRelay) -> Result<Settings> {
    let mut new = load(args).map_err(|mistakes| {
        mistakes.iter().for_each(|mistake| error!("{mistake}"));
        anyhow::anyhow!("{} mistakes in the configuration", mistakes.len())
    })?;
    if args.config.is_none() {
        complete(&mut new.settings, args)?;
    }
    relay.renew_auth(&new.settings).await?;
    Ok(new.settings)
}

/// What a start without a file needs beside the defaults: a secret, a realm, and a certificate.
fn complete(settings: &mut Settings, args: &ServeArgs) -> Result<()> {
    if let Some(domain) = &args.domain {
        settings.auth.realm = domain.clone();
    }
    if settings.auth.secrets.is_empty() {
        let directory = state::directory(args.state_dir.as_deref(), &variable, is_service())?;
        let (secret, made) = state::secret_or_new(&directory)?;
        let made = if made { "made just now" } else { "made at an earlier start" };
        info!("the shared secret is kept in {} ({made})", directory.display());
        settings.auth.secrets.push(secret);
    }
    settings.tls = certificate::obtain(args)?;
    Ok(())
}

/// Prints ICE servers, ready for a browser. Whoever cannot read them loses nothing else.
fn print(settings: &Settings, relay: &RunningRelay, args: &ServeArgs) {
    let Some(secret) = settings.auth.secrets.first() else { return };
    let site = relay.site();
    let urls = ice::urls(&site.listeners, &site.relay, &site.external, args.domain.as_deref());
    let servers = ice_servers(&urls, secret);
    let _ = writeln!(io::stdout().lock(), "{servers}");
}

fn ice_servers(urls: &[String], secret: &Secret) -> serde_json::Value {
    ice::servers(urls, secret, PRINTED_USER, unix_now() + PRINTED_FOR.as_secs())
}
