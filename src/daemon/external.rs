//! The external addresses that `relay.external_ip` asks for: those of a DNS name, and with `auto` what the metadata service of the
//! cloud or a STUN server says. They are asked for when the relay starts and then on a timer, by a task of its own.
//!
//! Nothing is guessed: until the external address of a relayed address is known, that does not relay. Only an address that is
//! public itself relays as it is if nobody says otherwise, and the log says so. What was known once stays when nobody answers.
//!
//! - `answer`: questions, and which answers are believed; `known`: what is known, and what `relay.external_ip` means by that
//! - `metadata` with `http`, `stun`, `dns`: who is asked

mod answer;
mod dns;
mod http;
mod known;
mod metadata;
mod stun;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use self::answer::{Answer, Question, is_public, list, one, told, valid};
pub use self::known::{ASKING, Known, Questions, Resolved};
use crate::turn::PerFamily;

/// The first pause while an address is not known; each is twice as long as the one before.
const RETRY: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Answers that are kept although nothing is about them any more.
const KEPT: usize = 64;

/// What metrics show.
#[derive(Debug, Default)]
pub struct ExternalStats {
    changes: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// What metrics show, at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExternalCounts {
    /// External addresses that became others.
    pub changes: u64,
    /// Questions with an answer.
    pub answered: u64,
    /// Questions without one.
    pub failed: u64,
}

/// The relay's side of the task that asks.
pub struct ExternalSource {
    questions: watch::Sender<Questions>,
    known: Arc<Mutex<Known>>,
    stats: Arc<ExternalStats>,
}

/// What a round of questions came to.
enum Asked {
    /// Everything is known.
    All,
    /// Something is not.
    Some,
    /// There are other questions, or somebody wants to know anew.
    Again,
}

/// The task that asks.
pub struct Asker {
    questions: watch::Receiver<Questions>,
    known: Arc<Mutex<Known>>,
    stats: Arc<ExternalStats>,
}

impl ExternalSource {
    /// Nothing is known yet, and the task asks nothing before [`ExternalSource::ask`].
    pub fn new() -> (ExternalSource, Asker) {
        let (sender, questions) = watch::channel(Questions::default());
        let (known, stats) = (Arc::<Mutex<Known>>::default(), Arc::<ExternalStats>::default());
        let asker = Asker { questions, known: known.clone(), stats: stats.clone() };
        (ExternalSource { questions: sender, known, stats }, asker)
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks these from now on, and immediately if they are others than before.
    pub fn ask(&self, questions: &Questions) {
        self.questions.send_if_modified(|now| {
            let differs = now != questions;
            now.clone_from(questions);
            differs
        });
    }

    /// Asks these from now on, and immediately.
    pub fn ask_now(&self, questions: &Questions) {
        self.questions.send_replace(questions.clone());
    }

    /// For metrics.
    pub fn stats(&self) -> Arc<ExternalStats> {
        self.stats.clone()
    }
}

impl ExternalStats {
    /// The counts now.
    pub fn counts(&self) -> ExternalCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExternalCounts {
            changes: count(&self.changes),
            answered: count(&self.answered),
            failed: count(&self.failed),
        }
    }
}

impl Asker {
    /// Asks until the [`ExternalSource`] is dropped, and notifies of answers that are new.
    pub async fn run(mut self, changed: Arc<Notify>) {
        let mut retry = RETRY;
        loop {
            let questions = self.questions.borrow_and_update().clone();
            let mut orders = self.questions.clone();
            let Some(asked) = self.unless_replaced(&questions, &mut orders, &changed).await else { return };
            let pause = match asked {
                Asked::All => questions.interval,
                Asked::Some => retry.min(questions.interval),
                Asked::Again => {
                    retry = RETRY;
                    continue;
                }
            };
            retry = if matches!(asked, Asked::All) { RETRY } else { RETRY_MAX.min(retry * 2) };
            tokio::select! {
                () = sleep(pause) => {}
                more = orders.changed() => match more {
                    Ok(()) => retry = RETRY,
                    Err(_) => return,
                },
            }
        }
    }

    /// Asks everything once. Other questions end that at once; an order to ask the same again waits until it is done, because a
    /// round that is given up every time would never have an answer. `None` if the [`ExternalSource`] is dropped.
    async fn unless_replaced(
        &self,
        questions: &Questions,
        orders: &mut watch::Receiver<Questions>,
        changed: &Notify,
    ) -> Option<Asked> {
        let round = async {
            match questions.list.is_empty() {
                true => std::future::pending().await,
                false => self.round(questions, changed).await,
            }
        };
        tokio::pin!(round);
        let mut again = false;
        loop {
            tokio::select! {
                all = &mut round => return Some(match (again, all) {
                    (true, _) => Asked::Again,
                    (false, true) => Asked::All,
                    (false, false) => Asked::Some,
                }),
                more = orders.changed() => {
                    more.ok()?;
                    if *orders.borrow_and_update() != *questions {
                        return Some(Asked::Again);
                    }
                    again = true;
                }
            }
        }
    }

    /// Asks everything once. Returns whether everything is known.
    async fn round(&self, questions: &Questions, changed: &Notify) -> bool {
        self.forget(&questions.list);
        let mut asked = JoinSet::new();
        let mut locals = Vec::new();
        for question in &questions.list {
            match question {
                Question::Name(name) => {
                    let (name, last) = (name.clone(), self.last(question));
                    asked.spawn(async move {
                        let found = dns::addresses(&name, last).await;
                        let answer = found.map(|addresses| Answer { addresses, source: "DNS" });
                        vec![(Question::Name(name), answer.and_then(valid))]
                    });
                }
                Question::Auto(local) => locals.push((*local, self.last(question))),
            }
        }
        if !locals.is_empty() {
            let stun_server = questions.stun_server.clone();
            asked.spawn(async move { automatic(locals, &stun_server).await });
        }
        while let Some(answers) = asked.join_next().await {
            for (question, answer) in answers.unwrap_or_default() {
                if self.learn(question, answer) {
                    changed.notify_one();
                }
            }
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        questions.list.iter().all(|question| known.answer(question).is_ok())
    }

    /// Forgets answers that nothing is about any more, once there are many: addresses come and go.
    fn forget(&self, asked: &[Question]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.states.len() > asked.len() + KEPT {
            known.states.retain(|question, _| asked.contains(question));
        }
    }

    fn last(&self, question: &Question) -> Option<PerFamily<Option<IpAddr>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.states.get(question)?.answer.map(|answer| answer.addresses)
    }

    /// Takes note of an answer. Returns whether it says something new.
    fn learn(&self, question: Question, answer: Result<Answer, String>) -> bool {
        let counter = if answer.is_ok() { &self.stats.answered } else { &self.stats.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let state = known.states.entry(question.clone()).or_default();
        match (answer, state.answer) {
            (Ok(answer), last) => {
                let failed = state.failure.take().is_some();
                state.answer = Some(answer);
                match last {
                    None => info!("relay.external_ip: {}", told(&question, &answer)),
                    Some(last) if last.addresses != answer.addresses => {
                        self.stats.changes.fetch_add(1, Ordering::Relaxed);
                        info!(
                            "relay.external_ip has changed: {} instead of {}; new allocations are told the new address, running ones \
                             keep what they were told",
                            told(&question, &answer),
                            list(&last)
                        );
                    }
                    Some(_) if failed => info!("relay.external_ip: {} again", told(&question, &answer)),
                    Some(_) => return false,
                }
                last.is_none_or(|last| last.addresses != answer.addresses)
            }
            (Err(why), last) => {
                let is_new = state.failure.as_ref() != Some(&why);
                let is_first = state.failure.is_none();
                state.failure = Some(why.clone());
                match last {
                    Some(last) if is_first => warn!(
                        "relay.external_ip: {question} cannot be asked for now ({why}); {} stays in use",
                        list(&last)
                    ),
                    None if is_new => warn!(
                        "relay.external_ip: {question} is not known: {why}; what waits for it does not relay until then"
                    ),
                    _ => {}
                }
                last.is_none() && is_new
            }
        }
    }
}

/// Asks for the external addresses of these relayed addresses, each with those that it had.
async fn automatic(
    locals: Vec<(IpAddr, Option<PerFamily<Option<IpAddr>>>)>,
    stun_server: &str,
) -> Vec<(Question, Result<Answer, String>)> {
    let v4: Vec<IpAddr> = locals.iter().map(|(local, _)| *local).filter(IpAddr::is_ipv4).collect();
    // IPv6 is not translated in clouds.
    let (pairs, cloud, none) = match v4.is_empty() {
        true => (metadata::Pairs::new(), "", "no metadata service is asked about IPv6".to_owned()),
        false => match metadata::ask(&v4).await {
            Ok((pairs, cloud)) => {
                let none = format!("the metadata of {cloud} has no public address for it");
                (pairs, cloud, none)
            }
            Err(why) => (metadata::Pairs::new(), "", why),
        },
    };
    let mut answers = Vec::new();
    for (local, last) in locals {
        let answer = match pairs.get(&local) {
            Some(public) => valid(one(*public, cloud)),
            None if stun_server.is_empty() => {
                Err(format!("{none}, and relay.stun_server is not set; set it, or write the address"))
            }
            None => match stun::ask(local, stun_server).await {
                Ok((mapped, port)) => {
                    if mapped.port() != port {
                        warn!(
                            "relay.external_ip: the NAT of {local} changes ports ({port} became {}), so peers may not reach relayed \
                             addresses; it must forward the ports of relay.ports unchanged",
                            mapped.port()
                        );
                    }
                    valid(one(mapped.ip(), "STUN"))
                }
                Err(why) => Err(format!("{none}; {why}")),
            },
        };
        answers.push((Question::Auto(local), answer.or_else(|why| itself(local, last).ok_or(why))));
    }
    answers
}

/// A public address is its own external one if nobody has ever said otherwise. A service that is silent for a moment takes back
/// nothing.
fn itself(local: IpAddr, last: Option<PerFamily<Option<IpAddr>>>) -> Option<Answer> {
    let own = one(local, "it is public itself, and nobody says otherwise");
    (is_public(local) && last.is_none_or(|last| last == own.addresses)).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::settings::RelaySettings;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn settings(external_ip: &[&str]) -> RelaySettings {
        let mut settings = Settings::default().relay;
        settings.external_ip = external_ip.iter().map(|text| text.parse().unwrap()).collect();
        settings
    }

    fn asker() -> (ExternalSource, Asker) {
        ExternalSource::new()
    }

    fn resolve(source: &ExternalSource, external_ip: &[&str], relay: &[&str]) -> (Vec<String>, Vec<String>) {
        let relay: Vec<IpAddr> = relay.iter().map(|text| ip(text)).collect();
        let Resolved { entries, unknown, .. } = source.known().resolve(&settings(external_ip), &relay);
        let unknown = unknown.iter().map(|(ip, _)| ip.to_string()).collect();
        (entries.iter().map(ToString::to_string).collect(), unknown)
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    /// Nothing is guessed: a relayed address waits until its external one is known, and keeps it when nobody answers any more.
    #[test]
    fn an_address_waits_until_its_external_one_is_known_and_keeps_it() {
        let (source, asker) = asker();
        let local = Question::Auto(ip("10.0.0.5"));
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5"]), (vec![], strings(&["10.0.0.5"])));
        assert!(asker.learn(local.clone(), Err("nobody answers".into())), "the reason is new");
        assert!(!asker.learn(local.clone(), Err("nobody answers".into())));
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5"]).1, ["10.0.0.5"]);
        let reason = &source.known().resolve(&settings(&["auto"]), &[ip("10.0.0.5")]).unknown[0].1;
        assert_eq!(reason, "relay.external_ip: its external address is not known: nobody answers");

        assert!(asker.learn(local.clone(), Ok(one(ip("203.0.113.5"), "AWS"))));
        let known = (strings(&["203.0.113.5/10.0.0.5"]), vec![]);
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5"]), known);
        assert!(!asker.learn(local.clone(), Ok(one(ip("203.0.113.5"), "AWS"))));
        assert!(!asker.learn(local.clone(), Err("nobody answers".into())));
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5"]), known);

        assert!(asker.learn(local, Ok(one(ip("203.0.113.6"), "AWS"))));
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5"]).0, ["203.0.113.6/10.0.0.5"]);
        let counts = source.stats().counts();
        assert_eq!((counts.changes, counts.answered, counts.failed), (1, 3, 3));
    }

    /// A service that is silent for a moment does not make a public relayed address its own external one.
    #[test]
    fn silence_takes_no_answer_back() {
        let (local, other) = (ip("9.9.9.9"), ip("203.0.113.5"));
        let itself = |local: IpAddr, last: Option<IpAddr>| {
            super::itself(local, last.map(|last| one(last, "AWS").addresses))
                .map(|answer| answer.addresses.v4)
        };
        assert_eq!(itself(local, None), Some(Some(local)));
        assert_eq!(itself(local, Some(local)), Some(Some(local)));
        assert_eq!(itself(local, Some(other)), None);
        assert_eq!(itself(ip("10.0.0.5"), None), None);
    }

    /// Reloads ask anew, but a round is given up for other questions alone: otherwise frequent reloads would prevent every answer.
    #[tokio::test(start_paused = true)]
    async fn frequent_reloads_keep_no_answer_away() {
        let (source, asker) = asker();
        let questions = Questions {
            list: vec![Question::Auto(ip("127.0.0.1"))],
            stun_server: "127.0.0.1:9".into(),
            interval: Duration::from_secs(3600),
        };
        source.ask(&questions);
        let asking = tokio::spawn(asker.run(Arc::new(Notify::new())));
        let since = tokio::time::Instant::now();
        while source.stats().counts().failed == 0 {
            assert!(since.elapsed() < Duration::from_secs(60), "no round came to its end");
            source.ask_now(&questions);
            sleep(Duration::from_millis(100)).await;
        }
        drop(source);
        asking.await.unwrap();
    }

    #[test]
    fn entries_are_for_the_addresses_that_no_other_is_for() {
        let (source, asker) = asker();
        for (local, public) in
            [("10.0.0.5", "203.0.113.5"), ("fd00::5", "2001:db8::5"), ("10.0.0.6", "203.0.113.5")]
        {
            asker.learn(Question::Auto(ip(local)), Ok(one(ip(public), "STUN")));
        }
        let both = ["10.0.0.5", "fd00::5"];
        let all = strings(&["203.0.113.5/10.0.0.5", "2001:db8::5/fd00::5"]);
        assert_eq!(resolve(&source, &["auto"], &both), (all, vec![]));
        let mixed = strings(&["203.0.113.9", "2001:db8::5/fd00::5"]);
        assert_eq!(resolve(&source, &["203.0.113.9", "auto"], &both), (mixed, vec![]));
        let one_of = strings(&["203.0.113.5/10.0.0.5"]);
        assert_eq!(resolve(&source, &["auto/10.0.0.5"], &both), (one_of.clone(), vec![]));
        // Two relayed addresses behind one public address cannot both be reached.
        assert_eq!(resolve(&source, &["auto"], &["10.0.0.5", "10.0.0.6"]), (one_of, strings(&["10.0.0.6"])));
        // An address that is its own external one
        asker.learn(Question::Auto(ip("9.9.9.9")), Ok(one(ip("9.9.9.9"), "itself")));
        assert_eq!(resolve(&source, &["auto"], &["9.9.9.9"]), (vec![], vec![]));
    }

    #[test]
    fn the_addresses_of_a_name_are_for_one_relayed_address_per_family() {
        let (source, asker) = asker();
        let name = Question::Name("turn.example.org".into());
        let external = ["turn.example.org"];
        assert_eq!(resolve(&source, &external, &["10.0.0.5", "fd00::5"]).1, ["10.0.0.5", "fd00::5"]);
        let answer = Answer { addresses: PerFamily { v4: Some(ip("203.0.113.5")), v6: None }, source: "DNS" };
        asker.learn(name, Ok(answer));
        let known = strings(&["203.0.113.5/10.0.0.5"]);
        assert_eq!(resolve(&source, &external, &["10.0.0.5", "fd00::5"]), (known.clone(), vec![]));
        assert_eq!(resolve(&source, &external, &["10.0.0.5", "10.0.0.6"]).1, ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(
            resolve(&source, &["turn.example.org/10.0.0.5"], &["10.0.0.5", "10.0.0.6"]),
            (known, vec![])
        );
    }
}
