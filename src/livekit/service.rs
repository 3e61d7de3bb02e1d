//! The life of the sidecar: start, work, reload, stop.

use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::config::{self, Loaded, Purpose};
use super::http::server::HttpServer;
use super::probe::rounds;
use super::sidecar::Sidecar;
use super::signals::{BlockedSignals, Signal, Signals};
use super::{peers, reconcile, relayed, sfu_health};
use crate::daemon::logging::Logging;
use crate::daemon::{MISTAKES, print_findings};
use crate::plural::counted;

/// Time for lookups that hang when the sidecar stops.
const STOP: Duration = Duration::from_secs(1);

/// Runs the sidecar with this configuration until a signal stops it.
pub fn run(file: &Path) -> ExitCode {
    // Before logging, which starts a thread.
    let signals = match BlockedSignals::new() {
        Ok(signals) => signals,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "hairpin-livekit: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let loaded = match config::read(file, Purpose::Run) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_findings(&mistakes);
            return MISTAKES.into();
        }
    };
    let logging = Logging::start(&loaded.settings.log);
    match start(file, loaded, signals, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(file: &Path, loaded: Loaded, signals: BlockedSignals, logging: &Logging) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(file, loaded, signals.watch()?, logging));
    // Dropping it would wait for a lookup that hangs.
    runtime.shutdown_timeout(STOP);
    result
}

/// Works until a signal stops it, or a part of it ends, which is a bug.
async fn serve(file: &Path, loaded: Loaded, mut signals: Signals, logging: &Logging) -> Result<()> {
    info!(version = crate::VERSION, "hairpin-livekit is starting with {}", file.display());
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    let mut http = Arc::new(HttpServer::open(&loaded.settings.http)?);
    let mut sidecar = Arc::new(Sidecar::new(loaded.settings)?);
    loop {
        // A reload that changes nothing does not interrupt it.
        let mut working = pin!(work(sidecar.clone(), http.clone()));
        let renewed = loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                ended = &mut working => return Err(ended),
            };
            match signal {
                Signal::Stop(name) => {
                    info!("{name}: stopping; calls and what the relays were told go on");
                    sidecar.lifecycle.stop();
                    return Ok(());
                }
                Signal::Reload => {
                    if let Some(renewed) = reload(file, &sidecar, &http, logging) {
                        break renewed;
                    }
                }
            }
        };
        (sidecar, http) = renewed;
    }
}

/// Does the work of a sidecar, and serves HTTP, until it is dropped, or a part ends, which is a bug. The log has what the part has
/// died of.
pub async fn work(sidecar: Arc<Sidecar>, http: Arc<HttpServer>) -> anyhow::Error {
    let mut parts = JoinSet::new();
    for relay in &sidecar.relays {
        let relay = relay.clone();
        parts.spawn(async move { relay.watch().await });
    }
    let served = sidecar.clone();
    parts.spawn(async move { http.serve(served).await });
    let interval = Duration::from_secs(sidecar.settings.lifecycle.reconcile.max(1).into());
    parts.spawn(sidecar.lifecycle.clone().work());
    parts.spawn(reconcile::run(sidecar.lifecycle.clone(), interval));
    parts.spawn(relayed::run(sidecar.lifecycle.clone(), sidecar.relays.clone()));
    let health = &sidecar.settings.health;
    let interval = Duration::from_secs(health.interval.max(1).into());
    parts.spawn(sfu_health::watch(sidecar.livekit.clone(), sidecar.health.clone(), interval));
    for relay in &sidecar.relays {
        let interval = health.probe.then_some(interval);
        parts.spawn(rounds::watch(relay.clone(), interval, sidecar.metrics.probes.clone()));
    }
    parts.spawn(peers::run(sidecar.clone()));
    let ended = match parts.join_next().await {
        Some(Err(error)) if error.is_panic() => "has panicked, as the line above says",
        _ => "has ended",
    };
    anyhow!("a part of the sidecar {ended}; a supervisor like systemd starts it again")
}

/// The sidecar with the configuration as it is now; `None` if it has a mistake.
fn reload(
    file: &Path,
    running: &Arc<Sidecar>,
    http: &HttpServer,
    logging: &Logging,
) -> Option<(Arc<Sidecar>, Arc<HttpServer>)> {
    let loaded = match config::read(file, Purpose::Run) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| error!("{mistake}"));
            let what = counted(mistakes.len(), "mistake");
            error!("the configuration has {what}: nothing is changed");
            return None;
        }
    };
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    let changed = config::changes(&running.settings, &loaded.settings);
    let log = loaded.settings.log.clone();
    // What can fail comes first.
    let renewed = http.reopen(&loaded.settings.http).and_then(|http| {
        let sidecar = Sidecar::renewed(running, loaded.settings)?;
        Ok((Arc::new(sidecar), Arc::new(http)))
    });
    let renewed = match renewed {
        Ok(renewed) => renewed,
        Err(error) => {
            error!("the configuration cannot be used, and nothing is changed: {error:#}");
            return None;
        }
    };
    logging.apply(&log);
    match &changed[..] {
        [] => info!("the configuration was read again: no setting has changed"),
        keys => info!(
            "the configuration was read again: {} changed: {}",
            counted(keys.len(), "setting"),
            keys.join(", ")
        ),
    }
    Some(renewed)
}
