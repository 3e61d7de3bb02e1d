//! Follows what is known of the SFU, and keeps the overlays of all relays up to date.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::addresses::{Known, SfuAddresses, gather};
use super::machine;
use super::nodes::Nodes;
use super::overlay::{Step, Told};
use super::sfu::SfuConfig;
use super::store::{NodeStore, Target};
use crate::config::files::unreadable;
use crate::daemon::{reading, unix_now};
use crate::livekit::health::Part;
use crate::livekit::relays::Relay;
use crate::livekit::settings::{PeersMode, Settings};
use crate::livekit::sidecar::Sidecar;

/// How often the relays are looked at.
const RELAYS: Duration = Duration::from_millis(500);

/// How often LiveKit's configuration and Redis are read. Nodes renew their entries at the same interval.
const SFU: Duration = Duration::from_secs(2);

/// What is known, shared by what reads and what sets.
#[derive(Default)]
struct State {
    /// LiveKit's configuration as it was read last without a mistake.
    config: Option<SfuConfig>,
    /// Why it cannot be read now.
    config_problem: Option<String>,
    nodes: Nodes,
    /// Whether there is a Redis to ask.
    has_redis: bool,
    redis_problem: Option<String>,
    /// Whether everything was read once.
    is_read: bool,
}

/// Sets the overlays until it is dropped.
pub async fn run(sidecar: Arc<Sidecar>) {
    let state = Mutex::new(State::default());
    tokio::join!(follow(&sidecar.settings, &state), apply(&sidecar, &state));
}

/// Reads LiveKit's configuration and the nodes in Redis, again and again.
async fn follow(settings: &Settings, state: &Mutex<State>) {
    let origin = Instant::now();
    let mut store: Option<NodeStore> = None;
    if settings.peers.mode == PeersMode::Off {
        lock(state).is_read = true;
        return std::future::pending().await;
    }
    loop {
        let read = read_config(settings).await;
        let redis = {
            let mut state = lock(state);
            match read {
                Ok(config) => (state.config, state.config_problem) = (config, None),
                Err(problem) => state.config_problem = Some(problem),
            }
            state.config.as_ref().and_then(|config| config.redis.clone())
        };
        match Target::new(&settings.peers, redis.as_ref()) {
            Ok(target) => {
                lock(state).has_redis = target.is_some();
                let is_same =
                    |store: &NodeStore| target.as_ref().is_some_and(|new| store.target.is_like(new));
                if !store.as_ref().is_some_and(is_same) {
                    store = target.map(NodeStore::new);
                }
            }
            Err(problem) => lock(state).redis_problem = Some(problem),
        }
        if let Some(store) = &mut store {
            let answer = store.nodes().await;
            let mut state = lock(state);
            state.redis_problem = match answer {
                Ok(values) => {
                    let problems = state.nodes.update(&values, origin.elapsed(), unix_now());
                    problems.into_iter().next()
                }
                Err(problem) => Some(problem),
            };
        }
        lock(state).is_read = true;
        sleep(SFU).await;
    }
}

/// LiveKit's configuration; `None` if LiveKit is not on this machine.
async fn read_config(settings: &Settings) -> Result<Option<SfuConfig>, String> {
    let Some(file) = settings.livekit.config_file.clone() else { return Ok(None) };
    let shown = file.display().to_string();
    let read = spawn_blocking(move || reading::read(&file)).await;
    let wrong = |what: String, fix: &str| format!("{shown}: {what}; {fix}");
    match read {
        Ok(Ok(contents)) => {
            let text = str::from_utf8(&contents.bytes)
                .map_err(|_| wrong("is not UTF-8".into(), "correct LiveKit's configuration"))?;
            SfuConfig::read(text).map(Some).map_err(|what| wrong(what, "correct LiveKit's configuration"))
        }
        Ok(Err(error)) => {
            let (what, _) = unreadable(&error);
            Err(wrong(what, "correct livekit.config_file, or let the user that runs the sidecar read it"))
        }
        Err(_) => Err(wrong("cannot be read".into(), "see the line above")),
    }
}

/// Tells the relays, again and again.
async fn apply(sidecar: &Sidecar, state: &Mutex<State>) {
    let mut relays: Vec<(&Arc<Relay>, Told, BTreeSet<String>)> =
        sidecar.relays.iter().map(|relay| (relay, Told::default(), BTreeSet::new())).collect();
    let mut logged = BTreeSet::new();
    loop {
        if lock(state).is_read {
            let (found, holds) = found(sidecar, state);
            let problems = problems(state, &found);
            log_new(&mut logged, &problems, "peers");
            let mut failures = Vec::new();
            for (relay, told, warned) in &mut relays {
                let wanted = (!holds && !found.rules.is_empty()).then_some(&found.rules[..]);
                if let Err(failure) = tell(relay, told, warned, sidecar.settings.peers.mode, wanted).await {
                    failures.push(failure);
                }
            }
            report(sidecar, &found, &problems, failures);
        }
        sleep(RELAYS).await;
    }
}

/// The SFU's addresses, and whether relays keep what they have for now, because the nodes are not known yet.
fn found(sidecar: &Sidecar, state: &Mutex<State>) -> (SfuAddresses, bool) {
    let own = machine::addresses();
    let statuses = sidecar.relays.iter().filter_map(|relay| relay.state().status);
    let external: Vec<(IpAddr, IpAddr)> = statuses
        .flat_map(|status| {
            let pairs = status.relay_addresses.iter();
            pairs.filter_map(|one| Some((one.address, one.external?))).collect::<Vec<_>>()
        })
        .collect();
    let state = lock(state);
    let nodes = state.nodes.ips();
    let found = gather(&Known {
        config: state.config.as_ref(),
        configured: &sidecar.settings.peers.addresses,
        nodes: &nodes,
        allow: &sidecar.settings.peers.allow,
        own: &own,
        external: &external,
    });
    (found, state.has_redis && !state.nodes.is_known())
}

/// What is wrong, in whole sentences.
fn problems(state: &Mutex<State>, found: &SfuAddresses) -> Vec<String> {
    let state = lock(state);
    let read = state.config_problem.iter().chain(&state.redis_problem).cloned();
    read.chain(found.warnings.iter().cloned()).collect()
}

/// Sets or clears the overlay of a relay, if it is not as it should be.
async fn tell(
    relay: &Relay,
    told: &mut Told,
    warned: &mut BTreeSet<String>,
    mode: PeersMode,
    wanted: Option<&[String]>,
) -> Result<(), String> {
    let name = &relay.settings.name;
    // Whether it answers is said elsewhere.
    let Some(status) = relay.state().status else { return Ok(()) };
    match told.judge(&status, mode, wanted) {
        Step::Nothing => Ok(()),
        Step::Clear => {
            relay.clear_peers().await.map_err(|failure| failed(name, &failure.message))?;
            told.told(&status, mode, &[]);
            info!("relay {name}: peers are as its own configuration has them");
            Ok(())
        }
        Step::Set => {
            let addresses = wanted.unwrap_or_default();
            let mode_name = if mode == PeersMode::Add { "add" } else { "only" };
            let set = relay.set_peers(mode_name, addresses).await;
            let warnings = set.map_err(|failure| failed(name, &failure.message))?;
            told.told(&status, mode, addresses);
            let shown = shortened(addresses);
            match mode {
                PeersMode::Add => info!("relay {name}: clients also reach the SFU at {shown}"),
                _ => info!("relay {name}: clients reach the SFU at {shown}, and nothing else"),
            }
            log_new(warned, &warnings, &format!("relay {name}"));
            Ok(())
        }
    }
}

fn failed(name: &str, message: &str) -> String {
    format!("relay {name}: its peers cannot be set: {message}")
}

/// Reports to `/readyz` whether the relays reach the SFU.
fn report(sidecar: &Sidecar, found: &SfuAddresses, problems: &[String], failures: Vec<String>) {
    if sidecar.settings.peers.mode == PeersMode::Off {
        return;
    }
    let failure = failures.into_iter().next();
    // Problems that leave addresses are warnings, and in the log already.
    let nothing = problems.first().filter(|_| found.rules.is_empty()).cloned();
    let outcome = failure.clone().or(nothing).map_or(Ok(()), Err);
    let is_news = sidecar.health.report(Part::Peers, outcome);
    if let Some(failure) = failure.filter(|_| is_news) {
        warn!("{failure}");
    }
}

/// Logs sentences that were not there the last time.
fn log_new(logged: &mut BTreeSet<String>, now: &[String], of: &str) {
    let now: BTreeSet<String> = now.iter().cloned().collect();
    now.difference(logged).for_each(|sentence| warn!("{of}: {sentence}"));
    *logged = now;
}

/// The first addresses of a list.
fn shortened(addresses: &[String]) -> String {
    /// How many are shown.
    const SHOWN: usize = 8;
    match addresses.len().checked_sub(SHOWN) {
        None | Some(0) => addresses.join(", "),
        Some(more) => format!("{} and {} more", addresses[..SHOWN].join(", "), more),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
