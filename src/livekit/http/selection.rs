//! Which relays a client gets: those of its region first, otherwise by chance among the healthy ones, and two at the most.
//!
//! A relay that clients cannot be sent to is left out, also if it is the only one: it does not answer, is not ready, drains, fails
//! all its probes, or has not said yet who is revoked there. So are single URLs at which probes fail.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::livekit::ice_url::{ClientTransport, IceUrl};
use crate::livekit::relays::Relay;

/// The most relays in an answer. Clients gather candidates from each, which takes time and sockets.
const RELAYS: usize = 2;

/// A relay that clients may be sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The region that it serves.
    pub region: String,
    /// The URLs that work as far as is known.
    pub urls: Vec<String>,
}

impl Candidate {
    /// A relay; `None` if clients cannot be sent to it now.
    pub fn of(relay: &Relay) -> Option<Candidate> {
        if !relay.is_usable() {
            return None;
        }
        let urls = relay.working_urls();
        (!urls.is_empty()).then(|| Candidate { region: relay.settings.region.clone(), urls })
    }

    fn is_of(&self, region: &str) -> bool {
        !self.region.is_empty() && self.region.eq_ignore_ascii_case(region)
    }
}

/// The URLs of each relay in the answer for a client of this region, the best relay first. No URL is there twice: relays behind one
/// DNS name are one.
pub fn choose(mut candidates: Vec<Candidate>, region: Option<&str>, rng: &mut impl Rng) -> Vec<Vec<String>> {
    candidates.shuffle(rng);
    if let Some(region) = region {
        candidates.sort_by_key(|one| !one.is_of(region));
    }
    let mut answer: Vec<Vec<String>> = Vec::new();
    for Candidate { urls, .. } in candidates {
        let is_known = |url: &String| answer.iter().any(|entry| contains(entry, url));
        let same = answer.iter().position(|entry| urls.iter().any(|url| contains(entry, url)));
        let new: Vec<String> = urls.iter().filter(|url| !is_known(url)).cloned().collect();
        match same {
            Some(entry) => answer[entry].extend(new),
            None if answer.len() < RELAYS => answer.push(new),
            None => {}
        }
    }
    answer.iter_mut().for_each(|urls| {
        urls.sort_by_key(|url| rank(url));
        urls.dedup_by(|one, other| is_same(one, other));
    });
    answer
}

fn contains(urls: &[String], url: &str) -> bool {
    urls.iter().any(|known| is_same(known, url))
}

/// Whether two URLs lead to the same place: `turn:HOST` is `turn:HOST:3478?transport=udp`.
fn is_same(one: &str, other: &str) -> bool {
    let place = |url| IceUrl::parse(url).map(|url| IceUrl { host: url.host.to_ascii_lowercase(), ..url });
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}

/// The order of URLs: UDP has the least delay, and what is no TURN URL comes last.
fn rank(url: &str) -> u8 {
    let transport = IceUrl::parse(url).map(|url| url.transport);
    match transport {
        Some(ClientTransport::Udp) => 0,
        Some(ClientTransport::Tcp) => 1,
        Some(ClientTransport::Tls) => 2,
        None => 3,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn relay(region: &str, urls: &[&str]) -> Candidate {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Candidate { region: region.into(), urls }
    }

    /// Every answer that chance gives.
    fn answers(candidates: &[Candidate], region: Option<&str>) -> Vec<Vec<Vec<String>>> {
        (0..200).map(|seed| choose(candidates.to_vec(), region, &mut StdRng::seed_from_u64(seed))).collect()
    }

    fn one(candidates: &[Candidate]) -> Vec<Vec<String>> {
        choose(candidates.to_vec(), None, &mut StdRng::seed_from_u64(7))
    }

    const UDP: &str = "turn:192.0.2.1:3478?transport=udp";
    const TCP: &str = "turn:192.0.2.1:3478?transport=tcp";
    const TLS: &str = "turns:turn.example.org:443?transport=tcp";

    #[test]
    fn udp_comes_first() {
        let v6 = "turn:[2001:db8::1]:3478?transport=udp";
        let stun = "stun:192.0.2.1:3478";
        assert_eq!(one(&[relay("", &[stun, TLS, TCP, v6, UDP])]), [[v6, UDP, TCP, TLS, stun]]);
    }

    #[test]
    fn the_region_comes_first_and_two_relays_are_the_most() {
        let relays = [relay("eu", &["turn:eu-1"]), relay("us", &["turn:us-1"]), relay("eu", &["turn:eu-2"])];
        let mut firsts = std::collections::BTreeSet::new();
        for answer in answers(&relays, Some("EU")) {
            assert_eq!(answer.len(), 2);
            assert!(answer.iter().all(|urls| urls[0].starts_with("turn:eu-")), "{answer:?}");
            firsts.insert(answer[0][0].clone());
        }
        assert_eq!(firsts.len(), 2, "chance decides within a region");
        for answer in answers(&relays, Some("us")) {
            assert_eq!(answer[0], ["turn:us-1"]);
            assert_eq!(answer.len(), 2, "another one, if that of the region fails");
        }
    }

    #[test]
    fn without_a_region_every_healthy_relay_gets_its_share() {
        let relays = [relay("eu", &["turn:a"]), relay("", &["turn:b"]), relay("us", &["turn:c"])];
        for region in [None, Some("asia"), Some("")] {
            let mut counts = std::collections::BTreeMap::<String, usize>::new();
            for answer in answers(&relays, region) {
                assert_eq!(answer.len(), 2);
                *counts.entry(answer[0][0].clone()).or_default() += 1;
            }
            assert!(counts.len() == 3 && counts.values().all(|n| *n > 30), "{counts:?}");
        }
    }

    /// Chromium never finishes gathering when two entries name one host and port over UDP.
    #[test]
    fn relays_behind_one_name_are_one_entry() {
        let relays = [
            relay("", &["turn:turn.example.org:3478?transport=udp"]),
            relay("", &["turn:TURN.example.org", "turns:turn.example.org:443"]),
            relay("", &["turn:192.0.2.9:3478"]),
        ];
        for answer in answers(&relays, None) {
            assert_eq!(answer.len(), 2, "{answer:?}");
            let all: Vec<_> = answer.iter().flatten().filter_map(|url| IceUrl::parse(url)).collect();
            assert_eq!(all.len(), 3, "{answer:?}");
        }
        // Other ports of one host are another relay.
        let relays = [relay("", &["turn:192.0.2.9:3478"]), relay("", &["turn:192.0.2.9:3479"])];
        assert_eq!(one(&relays).len(), 2);
        assert_eq!(one(&[relay("", &[UDP, UDP])]), [[UDP]]);
    }

    #[test]
    fn without_relays_there_is_no_answer() {
        assert_eq!(one(&[]), Vec::<Vec<String>>::new());
    }
}
