//! The lifecycle of a relay: start, serve, reload, stop. No packet passes through here.
//!
//! - [`serve`]: the whole life of a relay; `relay`: the running one; `change`, `listeners`: how it changes while it runs;
//!   `signals`: what ends, drains or reloads it
//! - [`drain`], `drain_orders`: an end that waits for running allocations; `stop`: an end in time, whatever a thread does
//! - `place`, [`addresses`], `own`, `netlink`, `watch`: this machine's addresses, which come and go
//! - `external`: the external addresses that are asked for
//! - [`configuration`], [`state`], [`store`], `files`, [`random`]: what is read from and kept on this machine
//! - [`reading`]: the files of an operator; `certificate`: the certificate of a relay without a configuration
//! - `certificates`: those that serve, which are read again when `file_watch` notices changes
//! - `announce`: the log lines of a start
//! - `privileges`: the user that a process of root becomes; `account`: users of this machine
//! - `main_loop`: what a running relay is asked to do; [`control`]: orders to it; [`reload`]: what a reload came to
//! - [`overlays`], `overlay_orders`: peers that programs name
//! - [`control_operators`], `operators`, [`revocations`]: what operators list, end and revoke
//! - [`ice`]: ICE servers for browsers
//! - [`security`]: HTTP or HTTPS; [`service_manager`]: what systemd is told
//! - [`logging`]; [`http`], `metrics`, `backends`, `host`, [`process`] and `heartbeat`: metrics and health

mod account;
pub mod addresses;
pub mod admin;
mod announce;
mod backends;
mod certificate;
pub mod certificates;
mod change;
pub mod configuration;
pub mod control;
pub mod control_operators;
pub mod control_socket;
pub mod drain;
mod drain_orders;
#[cfg(test)]
mod every_key;
mod external;
mod file_watch;
mod files;
mod heartbeat;
mod host;
pub mod http;
pub mod ice;
mod listeners;
pub mod logging;
mod main_loop;
mod metrics;
mod netlink;
mod operators;
mod overlay_orders;
pub mod overlays;
mod own;
mod place;
mod privileges;
pub mod process;
pub mod random;
pub mod reading;
mod relay;
pub mod reload;
pub mod revocations;
pub mod security;
pub mod service_manager;
mod signals;
pub mod state;
pub mod status;
mod stop;
pub mod store;
mod watch;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::auth::Secret;
use crate::config::tls::quoted;
use crate::config::{Argument, Finding, Loaded, SECRET_VARIABLE, Settings};
use crate::datapath::yield_to_workers;
use admin::{AdminSockets, NewApi};
use control::Control;
use drain::Drain;
use logging::Logging;
use main_loop::{Daemon, Inputs};
use overlays::OverlayStore;
use privileges::Said;
use relay::RunningRelay;
use revocations::RevokedUsers;
use service_manager::ServiceManager;
use signals::{BlockedSignals, Signals};
use status::Instance;
use stop::StopGuard;
use store::Store;

/// The arguments of `hairpin serve`.
#[derive(Clone, Debug, Default)]
pub struct ServeArgs {
    /// The configuration file; `None` runs the defaults.
    pub config: Option<PathBuf>,
    /// The domain name of this relay.
    pub domain: Option<String>,
    /// The files with the certificate chain for TLS and its private key; `None` uses a self-signed certificate.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The directory for the generated secret and certificate. Beside a configuration it is for what that does not have.
    pub state_dir: Option<PathBuf>,
    /// The settings among the arguments.
    pub settings: Vec<Argument>,
    /// Whether ICE servers with credentials are printed even if standard output is not a terminal.
    pub print_ice_servers: bool,
}

impl ServeArgs {
    /// Whether a shared secret and a certificate are generated where the settings have none.
    fn generates(&self) -> bool {
        self.config.is_none() || self.state_dir.is_some()
    }

    fn state_directory(&self) -> Result<PathBuf> {
        state::directory(self.state_dir.as_deref(), &variable, is_service() || privileges::was_root())
    }
}

/// How a configuration file is read: for the first time, or again.
type ReadConfiguration = fn(&Path, &[Argument], bool) -> Result<Loaded, Vec<Finding>>;

/// The exit status for a configuration with mistakes.
pub const MISTAKES: u8 = 2;

/// How long the printed credentials are valid.
const PRINTED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long answers to those who wait for the end of a drain may take.
const ANSWERS: Duration = Duration::from_millis(100);

/// The user of the printed credentials.
const PRINTED_USER: &str = "hairpin";

/// Runs a relay until a signal stops it. `api` makes what serves its admin sockets.
pub fn serve(args: &ServeArgs, api: NewApi) -> ExitCode {
    if let Err(error) = signals::block_others() {
        return fail_to_start(&error);
    }
    let loaded = match load(args, configuration::read) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_findings(&mistakes);
            return MISTAKES.into();
        }
    };
    // Before logging, which starts a thread.
    let signals = match BlockedSignals::new() {
        Ok(signals) => signals,
        Err(error) => return fail_to_start(&error),
    };
    // Before any other thread, each of which inherits the privileges.
    let said = match privileges::settle(&loaded.settings, args) {
        Ok(said) => said,
        Err(mistake) => {
            print_findings(&[*mistake]);
            return MISTAKES.into();
        }
    };
    let logging = Logging::start(&loaded.settings.log);
    match run(args, loaded, said, signals, &logging, api) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fail_to_start(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "hairpin: cannot handle signals: {error}");
    ExitCode::FAILURE
}

fn load(args: &ServeArgs, read: ReadConfiguration) -> Result<Loaded, Vec<Finding>> {
    match &args.config {
        Some(file) => read(file, &args.settings, args.generates()),
        None => configuration::defaults(&args.settings),
    }
}

/// Writes findings to standard error, one line each.
pub fn print_findings(findings: &[Finding]) {
    let mut stderr = io::stderr().lock();
    for finding in findings {
        let _ = writeln!(stderr, "{finding}");
    }
}

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "only the daemon and datapath read the clock")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "only the daemon and datapath read the clock")]
pub fn unix_millis() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Whether systemd runs this process as a service. Desktop terminals are children of systemd too, but not services.
pub fn is_service() -> bool {
    let named = ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some());
    let attended = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    named && !attended
}

/// An environment variable.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn run(
    args: &ServeArgs,
    loaded: Loaded,
    said: Said,
    signals: BlockedSignals,
    logging: &Logging,
    api: NewApi,
) -> Result<()> {
    let mut loaded = loaded;
    let stop = StopGuard::new(loaded.settings.stop_deadline);
    let signals = Signals::new(signals, stop.clone())?;
    info!(version = crate::VERSION, "hairpin is starting");
    // What `peers.allow` does not open is said where it is announced.
    loaded.warnings.iter().for_each(|warning| warn!("{}", warning.logged()));
    loaded.overrides.iter().for_each(|note| info!("{note}"));
    said.note.iter().for_each(|note| info!("{note}"));
    said.warnings.iter().for_each(|warning| warn!("{warning}"));
    let secrets = complete_secrets(&mut loaded.settings, args)?;
    if let Some(KeptSecrets { directory, generated }) = &secrets {
        let origin = if *generated { "generated now" } else { "from an earlier start" };
        info!("the shared secret is in {} ({origin})", directory.display());
    }
    complete_certificate(&mut loaded.settings, args)?;
    let (loaded, secret_directory) = (loaded, secrets.map(|secrets| secrets.directory));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = Arc::new(Store::open(args.state_directory()));
    if let Some(problem) = store.problem() {
        warn!("revocations and peer overlays cannot be changed: {problem}");
    }
    let overlays = OverlayStore::load(store.clone())?;
    let revoked = Arc::new(RevokedUsers::load(store)?);
    let done = runtime.block_on(async {
        let relay = RunningRelay::start(&loaded.settings, overlays.rules(), logging.lost(), revoked)?;
        // Long lists, scrapes and reloads must not delay packets on a machine whose CPUs are all in use.
        yield_to_workers();
        overlays.announce(relay.settings(), relay.site());
        let (control, orders) = Control::new(relay.draining.watch(), relay.operators());
        let mut admin = AdminSockets::new(api(control));
        let identities = relay.identities();
        admin.apply(admin.open(&loaded.settings.admin, identities.as_ref(), &[])?, identities)?;
        let mut inputs = Inputs::new(signals, orders);
        let service = ServiceManager::start(relay.health(stop.clone()));
        let mut daemon = Daemon {
            args,
            logging,
            relay,
            stop: stop.clone(),
            admin,
            instance: Instance::new()?,
            last_reload: None,
            overlays,
            secret_directory,
            offered: false,
            explained: Vec::new(),
            service,
        };
        let why = main_loop::run(&mut daemon, &mut inputs).await;
        info!("{why}: ending every allocation and stopping");
        let relay = daemon.relay;
        stop.arm();
        daemon.service.tell();
        stop.begin(relay.unfinished());
        let drained = relay.draining.watch().now() != Drain::Off;
        let told = inputs.refuse_orders() || drained;
        // A thread of its own: lookups and writes that hang may have all of the runtime's.
        let (ended, end) = oneshot::channel();
        let stopping = move || {
            relay.stop();
            drop(relay);
            let _ = ended.send(());
        };
        thread::Builder::new().name("stop".into()).spawn(stopping)?;
        end.await?;
        if told {
            // Whoever waits for the end of the drain or for the outcome of an order gets an answer.
            tokio::time::sleep(ANSWERS).await;
        }
        info!("hairpin has stopped");
        Ok(())
    });
    // Dropping it would wait for a lookup or a write that hangs.
    runtime.shutdown_background();
    done
}

/// Where a shared secret is kept that the settings do not have.
struct KeptSecrets {
    directory: PathBuf,
    /// Whether it is new.
    generated: bool,
}

/// Adds a shared secret if the settings need one and do not have it. Without a configuration, the realm, too.
fn complete_secrets(settings: &mut Settings, args: &ServeArgs) -> Result<Option<KeptSecrets>> {
    if let Some(domain) = &args.domain {
        settings.auth.realm = domain.clone();
    }
    if !args.generates() || settings.auth.has_credentials() {
        return Ok(None);
    }
    let directory = args.state_directory()?;
    let (secrets, generated) = state::secrets_or_new(&directory)?;
    settings.auth.secrets = secrets;
    Ok(Some(KeptSecrets { directory, generated }))
}

/// Adds a certificate if the settings need one and do not have it.
fn complete_certificate(settings: &mut Settings, args: &ServeArgs) -> Result<()> {
    if !args.generates() {
        return Ok(());
    }
    if (!settings.tls.has_certificate() || args.certificate.is_some()) && settings.uses_tls() {
        settings.tls = certificate::obtain(args, || args.state_directory())?;
    }
    Ok(())
}

/// Prints ICE servers for a browser to a terminal, or if asked to; otherwise the log says how to get them, because whatever
/// collects the output of a program would collect the credentials. A failure to print does not affect the relay.
fn offer_ice_servers(
    settings: &Settings,
    relay: &RunningRelay,
    args: &ServeArgs,
    secret_directory: Option<&Path>,
) {
    let Some(secret) = settings.auth.secrets.first() else {
        if args.print_ice_servers {
            warn!(
                "--print-ice-servers: there is no shared secret to make credentials from; set auth.secrets or auth.secret_files \
                 (static users have their own passwords, and LiveKit issues credentials for its API keys itself)"
            );
        }
        return;
    };
    let to_terminal = args.config.is_none() && io::stdout().is_terminal() && !is_service();
    if !args.print_ice_servers && !to_terminal {
        info!(
            "to get ICE servers with credentials, run `hairpin credentials --user NAME{}` as {}{}, or start it with \
             --print-ice-servers",
            credentials_arguments(args, secret_directory),
            if is_service() || privileges::was_root() { "root" } else { "the user that runs the relay" },
            if is_of_environment(secret) { ", with the same HAIRPIN_AUTH_SECRET" } else { "" }
        );
        return;
    }
    let urls = relay.ice_urls(args.domain.as_deref());
    let expiry = unix_now() + PRINTED_FOR.as_secs().min(settings.auth.max_lifetime);
    let servers = ice::servers(&urls, secret, PRINTED_USER, expiry);
    let _ = writeln!(io::stdout().lock(), "{servers}");
}

/// The arguments with which `hairpin credentials` finds the secret of this relay from another shell, whose working directory and
/// environment are others.
fn credentials_arguments(args: &ServeArgs, secret_directory: Option<&Path>) -> String {
    let path = |flag: &str, path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        format!(" {flag} {}", quoted(&path.display().to_string()))
    };
    let config = args.config.as_deref().map(|file| path("--config", file));
    let directory =
        secret_directory.or(args.state_dir.as_deref()).map(|directory| path("--state-dir", directory));
    let domain = args.domain.as_ref().map(|domain| format!(" --domain {domain}"));
    [config, directory, domain].into_iter().flatten().collect()
}

/// Whether a secret comes from the environment of this process.
fn is_of_environment(secret: &Secret) -> bool {
    let value = variable(SECRET_VARIABLE).and_then(|value| value.into_string().ok()).unwrap_or_default();
    value.split([',', '\n']).any(|text| text.trim_ascii().as_bytes() == secret.as_bytes())
}
