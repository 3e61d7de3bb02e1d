//! What is known about external addresses, and what `relay.external_ip` means by that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::answer::{Answer, Question};
use crate::config::external::{ExternalIp, Public};
use crate::config::settings::RelaySettings;

/// What is not known, and nobody was asked yet.
pub const ASKING: &str = "it is being asked for";

/// What is asked for, whom, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    pub(super) list: Vec<Question>,
    pub(super) stun_server: String,
    pub(super) interval: Duration,
}

/// What is known about a question.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub answer: Option<Answer>,
    /// Why the last asking failed.
    pub failure: Option<String>,
}

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(super) states: BTreeMap<Question, State>,
}

/// What `relay.external_ip` means for the relayed addresses of a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// External addresses.
    pub entries: Vec<ExternalIp>,
    /// Relayed addresses whose external address is not known, and why.
    pub unknown: Vec<(IpAddr, String)>,
    /// What is to be asked for.
    pub questions: Questions,
}

impl Known {
    /// What `relay.external_ip` means for these relayed addresses.
    pub fn resolve(&self, settings: &RelaySettings, relay: &[IpAddr]) -> Resolved {
        let mut resolved = Resolved {
            questions: Questions {
                list: Vec::new(),
                stun_server: settings.stun_server.clone(),
                interval: Duration::from_secs(settings.external_ip_interval.into()),
            },
            ..Resolved::default()
        };
        let entries = &settings.external_ip;
        // What other entries are for, before `auto` and names are for the rest
        let is_claimed = |ip: &IpAddr| {
            entries.iter().any(|entry| match (&entry.public, entry.local) {
                (_, Some(local)) => local == *ip,
                (Public::Address(public), None) => public.is_ipv4() == ip.is_ipv4(),
                _ => false,
            })
        };
        let free: Vec<IpAddr> = relay.iter().copied().filter(|ip| !is_claimed(ip)).collect();
        for entry in entries {
            let locals = match entry.local {
                Some(local) => relay.iter().copied().filter(|ip| *ip == local).collect(),
                None => free.clone(),
            };
            match &entry.public {
                Public::Address(public) => {
                    resolved.entries.push(ExternalIp { public: *public, local: entry.local });
                }
                Public::Name(name) => {
                    let question = Question::Name(name.clone());
                    match self.answer(&question) {
                        Ok(answer) => resolved.named(name, &answer, &locals),
                        Err(why) => resolved.unknown.extend(locals.iter().map(|ip| (*ip, why.clone()))),
                    }
                    resolved.questions.list.push(question);
                }
                Public::Auto => {
                    for local in locals {
                        let question = Question::Auto(local);
                        match self.answer(&question) {
                            Ok(Answer { addresses, .. }) => {
                                let public = if local.is_ipv4() { addresses.v4 } else { addresses.v6 };
                                resolved.pair(local, public.filter(|public| *public != local));
                            }
                            Err(why) => resolved.unknown.push((local, why)),
                        }
                        resolved.questions.list.push(question);
                    }
                }
            }
        }
        resolved
    }

    /// The answer to a question, or why there is none.
    pub(super) fn answer(&self, question: &Question) -> Result<Answer, String> {
        let state = self.states.get(question);
        state.and_then(|state| state.answer).ok_or_else(|| {
            let failure = state.and_then(|state| state.failure.clone());
            let what = match question {
                Question::Name(name) => format!("relay.external_ip: {name}"),
                Question::Auto(_) => "relay.external_ip: its external address is not known".to_owned(),
            };
            format!("{what}: {}", failure.as_deref().unwrap_or(ASKING))
        })
    }
}

impl Resolved {
    /// Pairs the addresses of a name with these relayed ones.
    fn named(&mut self, name: &str, answer: &Answer, locals: &[IpAddr]) {
        for (_, public) in answer.addresses.present() {
            let family = if public.is_ipv4() { "IPv4" } else { "IPv6" };
            let same: Vec<IpAddr> =
                locals.iter().copied().filter(|ip| ip.is_ipv4() == public.is_ipv4()).collect();
            match same[..] {
                [] => {}
                [only] => self.pair(only, Some(*public)),
                [first, ..] => self.unknown.extend(same.iter().map(|ip| {
                    let why = format!(
                        "relay.external_ip: {name} could be for any of several {family} relayed addresses; write which one, like \
                         \"{name}/{first}\""
                    );
                    (*ip, why)
                })),
            }
        }
    }

    fn pair(&mut self, local: IpAddr, public: Option<IpAddr>) {
        let Some(public) = public else { return };
        match self.entries.iter().find(|entry| entry.public == public) {
            None => self.entries.push(ExternalIp { public, local: Some(local) }),
            Some(_) => {
                let why = format!(
                    "relay.external_ip: {public} is the external address of another relayed address, too"
                );
                self.unknown.push((local, why));
            }
        }
    }
}
