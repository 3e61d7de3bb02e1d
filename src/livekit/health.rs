//! What works and what does not, as the parts of the sidecar report it. `/readyz` says it, and so do metrics.
//!
//! Relays are not listed here: each keeps [its own state](super::relays::RelayState).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::relays::Relay;

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// LiveKit answers, and takes the sidecar's key.
    LiveKit,
    /// The relays reach the SFU: their peer overlays are set.
    Peers,
    /// The sidecar knows who is in which room.
    Rooms,
    /// Participants that have left are revoked at the relays.
    Revocations,
}

/// The last reports.
#[derive(Debug, Default)]
pub struct Health {
    states: Mutex<[State; Part::ALL.len()]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was reported yet.
    #[default]
    Unknown,
    Works,
    /// The sentence says what is wrong and what to do.
    Fails(String),
}

/// What `/readyz` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why calls cannot be served. Without any, the sidecar is ready.
    pub obstacles: Vec<String>,
    /// What is wrong besides.
    pub problems: Vec<String>,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 4] = [Part::LiveKit, Part::Peers, Part::Rooms, Part::Revocations];

    /// Its name in metrics and sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::LiveKit => "livekit",
            Part::Peers => "peers",
            Part::Rooms => "rooms",
            Part::Revocations => "revocations",
        }
    }

    /// Whether there are no calls without it.
    fn is_needed(self) -> bool {
        match self {
            Part::LiveKit | Part::Peers => true,
            Part::Rooms | Part::Revocations => false,
        }
    }
}

impl Health {
    /// Notes that a part works, or the sentence that says what is wrong and what to do. Returns whether that is news, so that the
    /// reporter logs each change once.
    pub fn report(&self, part: Part, outcome: Result<(), String>) -> bool {
        let state = outcome.map_or_else(State::Fails, |()| State::Works);
        let mut states = self.states();
        let is_news = states[part as usize] != state;
        states[part as usize] = state;
        is_news
    }

    /// What is wrong with a part.
    pub fn problem(&self, part: Part) -> Option<String> {
        match &self.states()[part as usize] {
            State::Fails(problem) => Some(problem.clone()),
            State::Unknown | State::Works => None,
        }
    }

    /// Whether a part works; `None` if nothing was reported yet.
    pub fn works(&self, part: Part) -> Option<bool> {
        match self.states()[part as usize] {
            State::Unknown => None,
            State::Works => Some(true),
            State::Fails(_) => Some(false),
        }
    }

    /// Whether calls can be served with these relays.
    pub fn readiness(&self, relays: &[Arc<Relay>]) -> Readiness {
        let mut readiness = Readiness::default();
        let unusable: Vec<String> = relays.iter().filter_map(|relay| relay.obstacle()).collect();
        match unusable.len() == relays.len() {
            true => readiness.obstacles.extend(unusable),
            false => readiness.problems.extend(unusable),
        }
        for relay in relays {
            let state = relay.state();
            let failures = state.probes.iter().flat_map(|probes| probes.iter());
            let failures = failures.filter_map(|probe| Some((probe, probe.outcome.as_ref().err()?)));
            let name = &relay.settings.name;
            let sentences =
                failures.map(|(probe, problem)| format!("relay {name}: {}: {problem}", probe.target));
            readiness.problems.extend(sentences);
        }
        let states = self.states();
        if states[Part::LiveKit as usize] == State::Unknown {
            readiness.obstacles.push("LiveKit has not been asked yet".into());
        }
        for part in Part::ALL {
            if let State::Fails(problem) = &states[part as usize] {
                let list = if part.is_needed() { &mut readiness.obstacles } else { &mut readiness.problems };
                list.push(problem.clone());
            }
        }
        readiness
    }

    fn states(&self) -> MutexGuard<'_, [State; Part::ALL.len()]> {
        // Every change is a single assignment, so a panic cannot leave an inconsistent state.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_news_once() {
        let health = Health::default();
        assert_eq!(health.works(Part::LiveKit), None);
        assert!(health.report(Part::LiveKit, Ok(())));
        assert!(!health.report(Part::LiveKit, Ok(())));
        assert!(health.report(Part::LiveKit, Err("the key is wrong".into())));
        assert!(!health.report(Part::LiveKit, Err("the key is wrong".into())));
        assert!(health.report(Part::LiveKit, Err("it does not answer".into())));
        assert_eq!(health.problem(Part::LiveKit).as_deref(), Some("it does not answer"));
        assert_eq!(health.works(Part::Rooms), None, "parts are apart");
    }

    /// Lost revocations do not end calls; a LiveKit that does not answer does.
    #[test]
    fn only_what_calls_need_is_an_obstacle() {
        let health = Health::default();
        assert_eq!(health.readiness(&[]).obstacles, ["LiveKit has not been asked yet"]);
        health.report(Part::LiveKit, Ok(()));
        health.report(Part::Revocations, Err("a revocation was lost".into()));
        let expected = Readiness { problems: vec!["a revocation was lost".into()], ..Readiness::default() };
        assert_eq!(health.readiness(&[]), expected);
        health.report(Part::LiveKit, Err("LiveKit does not answer".into()));
        assert_eq!(health.readiness(&[]).obstacles, ["LiveKit does not answer"]);
    }
}
