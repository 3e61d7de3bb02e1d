//! Follows what is known of the SFU, and keeps the overlays of all relays up to date.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::addresses::{Known, SfuAddresses, gather};
use super::machine;
use super::nodes::Nodes;
use super::sfu::SfuConfig;
use super::store::{NodeStore, Target};
use super::tell::{Has, Teller, Wanted, log_new};
use crate::config::files::unreadable;
use crate::daemon::{reading, unix_now};
use crate::livekit::health::Part;
use crate::livekit::relays::{Relay, RelayState};
use crate::livekit::settings::{PeersMode, Settings};
use crate::livekit::sidecar::Sidecar;

/// How often it is worked out what relays should have.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often LiveKit's configuration and Redis are read. Nodes renew their entries at the same interval.
const SFU: Duration = Duration::from_secs(2);

const NO_NODE: &str = "Redis has no live node of LiveKit in the hash \"nodes\"; correct peers.redis (its database too), or start LiveKit";

const NO_ADDRESS: &str = "no address of the SFU is known that a relay may open; set rtc.node_ip in LiveKit's configuration, or \
                          peers.addresses of the sidecar";

/// How soon it is looked again whether relays were told.
const MOMENT: Duration = Duration::from_millis(50);

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
    let (state, wanted) = (Mutex::new(State::default()), watch::Sender::new(None));
    let (mut tellers, mut told) = (JoinSet::new(), Vec::new());
    for relay in &sidecar.relays {
        let teller = Teller::new(relay.clone(), sidecar.settings.peers.mode);
        told.push((relay.clone(), teller.has()));
        tellers.spawn(teller.work(wanted.subscribe()));
    }
    tokio::select! {
        () = follow(&sidecar.settings, &state) => {}
        () = apply(&sidecar, &state, &wanted, &told) => {}
        // One that ends has panicked; so does the sidecar.
        Some(_) = tellers.join_next() => {}
    }
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
            Ok(Some(target)) => {
                lock(state).has_redis = true;
                if !store.as_ref().is_some_and(|store| store.target.is_like(&target)) {
                    store = Some(NodeStore::new(target));
                }
            }
            Ok(None) => {
                store = None;
                let mut state = lock(state);
                (state.nodes, state.has_redis, state.redis_problem) = (Nodes::default(), false, None);
            }
            Err(problem) => {
                store = None;
                let mut state = lock(state);
                // Configured addresses can be those of all nodes.
                state.has_redis = settings.peers.addresses.is_empty();
                state.redis_problem = Some(problem);
            }
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

/// Works out what relays should have, again and again, and reports whether they have it.
async fn apply(
    sidecar: &Sidecar,
    state: &Mutex<State>,
    wanted: &watch::Sender<Wanted>,
    told: &[(Arc<Relay>, watch::Receiver<Has>)],
) {
    let mut logged = BTreeSet::new();
    loop {
        if lock(state).is_read {
            let (found, holds) = found(sidecar, state);
            let problems = problems(state, &found);
            log_new(&mut logged, &problems, "peers");
            let addresses = (!holds && !found.rules.is_empty()).then_some(&found.rules[..]);
            wanted.send_if_modified(|wanted| {
                let is_new = wanted.as_deref() != addresses;
                if is_new {
                    *wanted = addresses.map(Arc::from);
                }
                is_new
            });
            let failure = told.iter().find_map(|(_, has)| has.borrow().as_ref().err().cloned());
            // Nothing is reported while a relay is still to be told: it would refuse clients the SFU.
            let waits = told.iter().any(|(relay, has)| waits(&relay.state(), &has.borrow(), addresses));
            if waits && failure.is_none() {
                sleep(MOMENT).await;
                continue;
            }
            report(sidecar, state, addresses.is_some(), &problems, failure);
        }
        sleep(INTERVAL).await;
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

/// Whether a relay is still to be told of these addresses. One that does not answer is not waited for.
fn waits(state: &RelayState, has: &Has, addresses: Option<&[String]>) -> bool {
    match (&state.status, &state.problem) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(_), _) => has.as_ref().is_ok_and(|has| has.as_deref() != addresses),
    }
}

/// Reports to `/readyz` whether the relays reach the SFU.
fn report(
    sidecar: &Sidecar,
    state: &Mutex<State>,
    is_known: bool,
    problems: &[String],
    failure: Option<String>,
) {
    let outcome = {
        let state = lock(state);
        let lacks_nodes = state.has_redis && !state.nodes.is_known();
        let first = if lacks_nodes { state.redis_problem.as_ref() } else { problems.first() };
        judge(&sidecar.settings, is_known, lacks_nodes, first, failure)
    };
    let news = outcome.as_ref().err().filter(|said| !problems.contains(said)).cloned();
    if sidecar.health.report(Part::Peers, outcome)
        && let Some(said) = news
    {
        warn!("peers: {said}");
    }
}

/// Whether the relays reach the SFU. `is_known`: there are addresses for them; `first` is the first thing that is wrong.
fn judge(
    settings: &Settings,
    is_known: bool,
    lacks_nodes: bool,
    first: Option<&String>,
    failure: Option<String>,
) -> Result<(), String> {
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Without a source the peers of relays are as their own configuration has them, and a warning has said so at the start.
    if settings.peers.mode == PeersMode::Off || !settings.knows_peers() || is_known {
        // Problems that leave addresses are warnings, and in the log already.
        return Ok(());
    }
    let without = if lacks_nodes { NO_NODE } else { NO_ADDRESS };
    Err(first.map_or(without, |first| first).to_owned())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that answers is ready once it was told, and one that does not answer holds up nobody.
    #[test]
    fn a_relay_is_waited_for_until_it_was_told() {
        let (fresh, gone) = (
            RelayState::default(),
            RelayState { problem: Some("it is down".into()), ..RelayState::default() },
        );
        let sfu = ["203.0.113.7:7882".to_owned()];
        assert!(waits(&fresh, &Ok(None), None), "it was not asked yet");
        assert!(!waits(&gone, &Ok(None), Some(&sfu)));
    }

    /// Relays without an overlay of the sidecar are not ready, whatever the reason.
    #[test]
    fn peers_that_were_never_set_do_not_work() {
        let mut settings = Settings::blank();
        assert_eq!(judge(&settings, false, false, None, None), Ok(()), "nobody has named the SFU");
        settings.peers.redis = "redis://10.0.0.5:6379/0".into();
        let down = "Redis is down; start it".to_owned();
        let judged = |is_known, lacks_nodes, first| judge(&settings, is_known, lacks_nodes, first, None);
        assert_eq!(judged(false, true, None), Err(NO_NODE.to_owned()));
        assert_eq!(judged(false, true, Some(&down)), Err(down.clone()));
        assert_eq!(judged(false, false, None), Err(NO_ADDRESS.to_owned()));
        // Calls go on without Redis
        assert_eq!(judged(true, false, Some(&down)), Ok(()));
        assert_eq!(judge(&settings, true, false, None, Some(down.clone())), Err(down));
        settings.peers.mode = PeersMode::Off;
        assert_eq!(judge(&settings, false, true, None, None), Ok(()));
    }
}
