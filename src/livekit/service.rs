//! The life of the sidecar: start, work, reload, stop.

use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::config::{self, Loaded, Purpose};
use super::http::server::HttpServer;
use super::probe::rounds;
use super::sidecar::Sidecar;
use super::signals::{BlockedSignals, Signal, Signals};
use super::{peers, reconcile, relayed, sfu_health};
use crate::daemon::logging::Logging;
use crate::daemon::service_manager::{Health, ServiceManager};
use crate::daemon::{MISTAKES, print_findings};
use crate::plural::counted;

/// Time for lookups that hang when the sidecar stops.
const STOP: Duration = Duration::from_secs(1);

/// How often the main loop gives a sign of life, and how old that may be: a configuration may be on a slow file system.
const BEAT: Duration = Duration::from_millis(500);
const BEAT_LIMIT: Duration = Duration::from_secs(10);

/// Signs of life of the main loop.
struct Heartbeat {
    started: Instant,
    /// The latest one, in milliseconds after the start.
    at: AtomicU64,
    stops: AtomicBool,
}

impl Heartbeat {
    fn new() -> Heartbeat {
        Heartbeat { started: Instant::now(), at: AtomicU64::new(0), stops: AtomicBool::new(false) }
    }

    fn note(&self) {
        self.at.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// For the service manager, which asks on a thread of its own.
    fn health(&self) -> Health {
        let age =
            self.started.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)));
        let live = match age > BEAT_LIMIT {
            true => Err(format!("the sidecar has given no sign of life for {} s", age.as_secs())),
            false => Ok(()),
        };
        let stop = self.stops.load(Ordering::Relaxed).then_some(STOP);
        Health { live, ready: Ok(()), drains: false, stop }
    }
}

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
    loaded.warnings.iter().for_each(|warning| warn!("{}", warning.logged()));
    let mut http = Arc::new(HttpServer::open(&loaded.settings.http)?);
    let mut sidecar = Arc::new(Sidecar::new(loaded.settings)?);
    let heartbeat = Arc::new(Heartbeat::new());
    let beats = heartbeat.clone();
    let service = ServiceManager::start(move || beats.health());
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // A reload that changes nothing does not interrupt it.
        let mut working = pin!(work(sidecar.clone(), http.clone()));
        let renewed = loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                ended = &mut working => return Err(ended),
                _ = beat.tick() => {
                    heartbeat.note();
                    if service.is_some() {
                        service.serves(status(&sidecar));
                    }
                    continue;
                }
            };
            match signal {
                Signal::Stop(name) => {
                    info!("{name}: stopping; calls and what the relays were told go on");
                    heartbeat.stops.store(true, Ordering::Relaxed);
                    service.tell();
                    sidecar.lifecycle.stop();
                    return Ok(());
                }
                Signal::Reload => {
                    service.reload_begins();
                    let started = Instant::now();
                    let renewed = reload(file, &sidecar, &http, logging);
                    service.reload_ended(renewed.as_ref().err().cloned());
                    sidecar.metrics.reloads.count(renewed.is_ok(), started.elapsed());
                    if let Ok(renewed) = renewed {
                        break renewed;
                    }
                }
            }
        };
        (sidecar, http) = renewed;
    }
}

/// What `systemctl status` shows.
fn status(sidecar: &Sidecar) -> String {
    let readiness = sidecar.readiness();
    match (&readiness.obstacles[..], &readiness.problems[..]) {
        ([], []) => format!("serving with {}", counted(sidecar.relays.len(), "relay")),
        ([], problems) => {
            format!("serving with {}; {}", counted(sidecar.relays.len(), "relay"), problems.join("; "))
        }
        (obstacles, _) => format!("waiting: {}", obstacles.join("; ")),
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

/// The sidecar with the configuration as it is now.
///
/// # Errors
/// It has a mistake, or cannot be used.
fn reload(
    file: &Path,
    running: &Arc<Sidecar>,
    http: &HttpServer,
    logging: &Logging,
) -> Result<(Arc<Sidecar>, Arc<HttpServer>), String> {
    let loaded = match config::read(file, Purpose::Run) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| error!("{}", mistake.logged()));
            let what = counted(mistakes.len(), "mistake");
            error!("the configuration has {what}: nothing is changed");
            return Err(format!("the configuration has {what}"));
        }
    };
    loaded.warnings.iter().for_each(|warning| warn!("{}", warning.logged()));
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
            return Err(format!("{error:#}"));
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
    Ok(renewed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The watchdog hears nothing of a main loop that is stuck, and a stop that begins is told.
    #[tokio::test(start_paused = true)]
    async fn a_stuck_main_loop_is_noticed() {
        let heartbeat = Heartbeat::new();
        tokio::time::advance(BEAT_LIMIT).await;
        assert_eq!(heartbeat.health().live, Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let silence = "the sidecar has given no sign of life for 11 s";
        assert_eq!(heartbeat.health().live, Err(silence.to_owned()));
        heartbeat.note();
        assert_eq!((heartbeat.health().live, heartbeat.health().stop), (Ok(()), None));
        heartbeat.stops.store(true, Ordering::Relaxed);
        assert_eq!(heartbeat.health().stop, Some(STOP));
    }
}
