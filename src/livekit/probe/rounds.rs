//! Probes of each relay, over and over: the outcome goes to the [relay](Relay), to metrics, and once per change to the log. One round
//! follows the other, so that a relay that does not respond is not probed more than others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::client::TurnCredential;
use super::failure::Failure;
use super::meeting;
use super::metrics::ProbeMetrics;
use super::targets::{self, ProbeTarget};
use super::tls::Roots;
use crate::livekit::relays::{Probe, Relay, in_time};
use crate::wire::Family;

/// How many targets are probed at a time. Each has two allocations, of which a relay has few for probes.
const AT_A_TIME: usize = 3;

/// Time for the answer of a resolver.
const RESOLVE: Duration = Duration::from_secs(5);

/// Time before a target that has failed is probed again: one lost packet is no failure.
const SECOND_TRY: Duration = Duration::from_millis(500);

/// How often a relay is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Issued {
    username: String,
    password: String,
}

/// A credential of the relay's own for probes.
///
/// # Errors
/// The relay does not make one, in a sentence.
pub async fn credential(relay: &Relay) -> Result<TurnCredential, String> {
    let made = in_time(relay.control().post("/v1/probe-credentials", &json!({}))).await;
    let made = made.map_err(|failure| format!("no credential for a probe: {}", failure.message))?;
    let Issued { username, password } = serde_json::from_value(made)
        .map_err(|_| "the relay has answered with something else than a credential".to_owned())?;
    Ok(TurnCredential { username, password })
}

/// What is to be probed of a relay, and the family of addresses to ask for.
pub async fn targets(relay: &Relay) -> (Vec<(ProbeTarget, Result<(), String>)>, Family) {
    let Some(status) = relay.state().status else { return (Vec::new(), Family::V4) };
    let family = targets::family(&status);
    let urls = relay.ice_urls();
    match relay.settings.url.is_empty() {
        true => {
            let found = targets::listeners(&status, &urls);
            (found.into_iter().map(|target| (target, Ok(()))).collect(), family)
        }
        false => {
            let own = targets::own_addresses(&status);
            (targets::elsewhere(&urls, &own, resolve).await, family)
        }
    }
}

/// The addresses of a name, IPv4 first, as this machine resolves it.
///
/// # Errors
/// What the resolver says, or that it does not answer.
pub async fn resolve(name: String) -> Result<Vec<IpAddr>, String> {
    let found = timeout(RESOLVE, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| "the resolver does not answer".to_owned())?;
    let mut ips: Vec<IpAddr> = found.map_err(|error| error.to_string())?.map(|addr| addr.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    Ok(ips)
}

/// Probes every target of a relay once.
///
/// # Errors
/// The relay makes no credential, in a sentence.
pub async fn round(relay: &Relay, roots: &Arc<Roots>) -> Result<Vec<Probe>, String> {
    let probed = outcomes(relay, roots).await?;
    let probes = probed.into_iter().map(|(target, outcome)| {
        let outcome = outcome.map_err(|failure| failure.sentence(&target));
        Probe { transport: target.transport, port: target.address.port(), target: target.shown, outcome }
    });
    Ok(probes.collect())
}

/// The same, with the failures themselves.
///
/// # Errors
/// The relay makes no credential, in a sentence.
pub async fn outcomes(relay: &Relay, roots: &Arc<Roots>) -> Result<Vec<(ProbeTarget, Outcome)>, String> {
    let (targets, family) = targets(relay).await;
    let credential = credential(relay).await?;
    let (mut running, mut probes) = (JoinSet::new(), BTreeMap::new());
    for (index, (target, found)) in targets.into_iter().enumerate() {
        while running.len() >= AT_A_TIME {
            collect(running.join_next().await, &mut probes);
        }
        let (credential, roots) = (credential.clone(), roots.clone());
        running.spawn(async move {
            let outcome = match found {
                Ok(()) => twice(&target, family, &credential, &roots).await,
                Err(why) => Err(Failure::Unresolved(why)),
            };
            (index, (target, outcome))
        });
    }
    while let Some(done) = running.join_next().await {
        collect(Some(done), &mut probes);
    }
    Ok(probes.into_values().collect())
}

/// How long a probe took, or why it has failed.
pub type Outcome = Result<Duration, Failure>;

fn collect<E, P>(done: Option<Result<(usize, P), E>>, probes: &mut BTreeMap<usize, P>) {
    if let Some(Ok((index, probe))) = done {
        probes.insert(index, probe);
    }
}

/// Probes a target, and once more if that has failed.
async fn twice(
    target: &ProbeTarget,
    family: Family,
    credential: &TurnCredential,
    roots: &Roots,
) -> Result<Duration, Failure> {
    match meeting::probe(target, family, credential, roots).await {
        Ok(took) => Ok(took),
        // It will not be another one so soon.
        Err(failure @ (Failure::Certificate(..) | Failure::NoTlsName(_) | Failure::NoRoots)) => Err(failure),
        Err(_) => {
            sleep(SECOND_TRY).await;
            meeting::probe(target, family, credential, roots).await
        }
    }
}

/// Watches over a relay until it is dropped: probes it every `interval`, and as soon as it serves again, unless there is none. A relay
/// that does not serve is not probed: its own status says why.
pub async fn watch(relay: Arc<Relay>, interval: Option<Duration>, metrics: ProbeMetrics) {
    let name = relay.settings.name.clone();
    let (mut changes, mut left_out) = (Changes::default(), LeftOut::default());
    let (mut probed, mut next) = (None, Instant::now());
    if interval.is_none() {
        // A reload has turned probes off: what they have shown before does not hold for ever.
        relay.forget_probes();
        metrics.forget_probes(&name);
    }
    loop {
        let serving = serving(&relay);
        let is_due = serving.is_some() && (serving != probed || Instant::now() >= next);
        if let Some(interval) = interval.filter(|_| is_due) {
            next = Instant::now() + interval;
            let mut round = pin!(round_now(&relay));
            let outcome = loop {
                tokio::select! {
                    outcome = &mut round => break outcome,
                    // Whoever hangs holds up the round, and must be seen meanwhile.
                    () = sleep(LOOK) => show(&relay, &metrics, &mut left_out),
                }
            };
            relay.look().await;
            match outcome {
                // It has stopped to serve in the meantime, which is no fault of its listeners.
                Ok(_) if self::serving(&relay) != serving => {}
                Ok(probes) => {
                    changes.log(&name, &probes);
                    metrics.publish(&name, &probes);
                    relay.probed(probes);
                }
                Err(problem) => changes.not_probed(&name, &problem),
            }
            probed = serving;
        }
        if self::serving(&relay) != probed {
            probed = None;
        }
        show(&relay, &metrics, &mut left_out);
        sleep(LOOK).await;
    }
}

async fn round_now(relay: &Relay) -> Result<Vec<Probe>, String> {
    // Read anew, so that another file of authorities holds at once.
    match Roots::load(relay.settings.ca_file.as_deref()) {
        Ok(roots) => round(relay, &Arc::new(roots)).await,
        Err(problem) => Err(format!("{problem}; correct relay.ca_file")),
    }
}

/// Shows whether clients are sent to a relay.
fn show(relay: &Relay, metrics: &ProbeMetrics, left_out: &mut LeftOut) {
    let (name, obstacle) = (&relay.settings.name, relay.obstacle());
    metrics.relay(name, obstacle.is_none());
    match left_out.look(obstacle) {
        Some(Err(obstacle)) => warn!("{obstacle}; clients are not sent to it"),
        Some(Ok(())) => info!("relay {name}: clients are sent to it again"),
        None => {}
    }
}

/// Which process serves, if it does.
fn serving(relay: &Relay) -> Option<String> {
    let status = relay.state().status?;
    (status.ready && status.draining.is_null()).then(|| status.instance.clone())
}

/// Whether clients are sent to a relay, as far as the log has said.
#[derive(Default)]
struct LeftOut {
    /// How many looks in a row have found an obstacle.
    looks: u32,
}

impl LeftOut {
    /// After so many looks it is said: a restart takes less.
    const LOOKS: u32 = 4;

    /// Takes what a look has found, and returns it if it is news.
    fn look(&mut self, obstacle: Option<String>) -> Option<Result<(), String>> {
        match obstacle {
            Some(obstacle) => {
                self.looks = self.looks.saturating_add(1);
                (self.looks == LeftOut::LOOKS).then_some(Err(obstacle))
            }
            None => {
                let was_said = std::mem::take(&mut self.looks) >= LeftOut::LOOKS;
                was_said.then_some(Ok(()))
            }
        }
    }
}

/// What was logged last.
#[derive(Default)]
struct Changes {
    failing: BTreeMap<String, String>,
    not_probed: Option<String>,
}

impl Changes {
    /// Logs what has changed since the last round.
    fn log(&mut self, relay: &str, probes: &[Probe]) {
        self.not_probed = None;
        for probe in probes {
            let at = format!("{} at {}", probe.transport, probe.target);
            match &probe.outcome {
                Ok(took) => {
                    if self.failing.remove(&at).is_some() {
                        info!(relay, seconds = took.as_secs_f32(), "the relay can be reached again: {at}");
                    }
                }
                Err(problem) => {
                    if self.failing.insert(at.clone(), problem.clone()).as_ref() != Some(problem) {
                        warn!(relay, "clients cannot use the relay over {at}: {problem}");
                    }
                }
            }
        }
        let known =
            |at: &str| probes.iter().any(|probe| format!("{} at {}", probe.transport, probe.target) == at);
        self.failing.retain(|at, _| known(at));
    }

    fn not_probed(&mut self, relay: &str, problem: &str) {
        if self.not_probed.as_deref() != Some(problem) {
            warn!(relay, "the relay is not probed: {problem}");
            self.not_probed = Some(problem.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line when a relay is left out, one when it is not any more, and none about a restart.
    #[test]
    fn a_relay_that_is_left_out_is_news_once() {
        let mut left_out = LeftOut::default();
        let draining = || Some("it drains".to_owned());
        let news: Vec<_> = (0..100).filter_map(|_| left_out.look(draining())).collect();
        assert_eq!(news, [Err("it drains".to_owned())]);
        assert_eq!((left_out.look(None), left_out.look(None)), (Some(Ok(())), None));
        assert_eq!((left_out.look(draining()), left_out.look(None)), (None, None));
    }
}
