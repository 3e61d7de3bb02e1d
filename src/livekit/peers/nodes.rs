//! The nodes of a distributed LiveKit deployment, as they register in the Redis hash `nodes`: protobuf, rewritten every 2 s, removed
//! when a node stops in order, and left behind when it is killed.
//!
//! A node that was there stays for a while after it has gone, and a failed or empty answer removes none: calls go on without Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use prost::Message;

/// How long a node counts after it has renewed its entry last. LiveKit itself rewrites it every 2 s.
const ALIVE: Duration = Duration::from_secs(30);

/// By how many seconds the clock of a node may differ, as long as nothing but its clock shows that it is alive.
const SKEW: u64 = 60;

/// The most nodes.
const NODES_MAX: usize = 1024;

/// The most bytes of an entry. LiveKit's have a few hundred.
const ENTRY_MAX: usize = 16 * 1024;

/// The most characters of a node's id. LiveKit's have 15.
const ID_MAX: usize = 64;

/// The most addresses of a node. LiveKit advertises one of each family.
const IPS_MAX: usize = 8;

/// The most sentences about one answer.
const PROBLEMS_MAX: usize = 8;

/// `livekit.Node`, as far as it matters.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    ip: String,
    #[prost(message, optional, tag = "4")]
    stats: Option<NodeStats>,
}

/// `livekit.NodeStats`
#[derive(Clone, PartialEq, Message)]
struct NodeStats {
    /// Unix seconds.
    #[prost(int64, tag = "2")]
    updated_at: i64,
}

/// The nodes that are known.
#[derive(Debug, Default)]
pub struct Nodes {
    known: BTreeMap<String, Entry>,
    /// Whether Redis has ever answered with a node.
    answered: bool,
}

#[derive(Debug)]
struct Entry {
    ips: Vec<IpAddr>,
    updated_at: i64,
    /// When it was last known to be alive; `None` if it never was, or does not count any more.
    alive: Option<Duration>,
}

/// What an entry of the hash says.
struct Seen {
    id: String,
    ips: Vec<IpAddr>,
    updated_at: i64,
}

impl Nodes {
    /// Takes an answer: the values of the hash. `now` is the time since the start, `unix` that of the clock. Returns what could not be
    /// read.
    pub fn update(&mut self, values: &[Vec<u8>], now: Duration, unix: u64) -> Vec<String> {
        let mut problems = Vec::new();
        if values.len() > NODES_MAX {
            let n = values.len();
            problems
                .push(format!("the hash \"nodes\" in Redis has {n} entries, of which {NODES_MAX} are read"));
        }
        let mut present = BTreeSet::new();
        for value in values.iter().take(NODES_MAX) {
            match read(value) {
                Ok(seen) => {
                    present.insert(seen.id.clone());
                    self.saw(seen, now, unix);
                }
                Err(problem) if problems.len() < PROBLEMS_MAX => problems.push(problem),
                Err(_) => {}
            }
        }
        let is_alive = |entry: &Entry| entry.alive.is_some_and(|alive| now.saturating_sub(alive) < ALIVE);
        // If nobody is, Redis is at fault.
        if self.known.values().any(is_alive) {
            self.answered = true;
            self.known.values_mut().filter(|entry| !is_alive(entry)).for_each(|entry| entry.alive = None);
        }
        // One that was left behind is remembered for as long as it is there: without that it would look like a new node.
        self.known.retain(|id, entry| entry.alive.is_some() || present.contains(id));
        problems
    }

    fn saw(&mut self, Seen { id, ips, updated_at }: Seen, now: Duration, unix: u64) {
        if self.known.len() >= NODES_MAX && !self.known.contains_key(&id) {
            return;
        }
        let is_recent = u64::try_from(updated_at).is_ok_and(|at| at.abs_diff(unix) <= SKEW);
        let new = || Entry { ips: Vec::new(), updated_at, alive: is_recent.then_some(now) };
        let entry = self.known.entry(id).or_insert_with(new);
        if entry.updated_at != updated_at {
            (entry.updated_at, entry.alive) = (updated_at, Some(now));
        }
        entry.ips = ips;
    }

    /// Whether the nodes are known.
    pub fn is_known(&self) -> bool {
        self.answered
    }

    /// Their addresses, in order.
    pub fn ips(&self) -> Vec<IpAddr> {
        let alive = self.known.values().filter(|entry| entry.alive.is_some());
        let mut ips: Vec<IpAddr> = alive.flat_map(|entry| entry.ips.iter().copied()).collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }
}

/// Reads an entry. What anybody can write there has a bound, and so has what is said of it.
fn read(value: &[u8]) -> Result<Seen, String> {
    let strange = || "an entry of the hash \"nodes\" in Redis is not a node of LiveKit".to_owned();
    if value.len() > ENTRY_MAX {
        return Err(strange());
    }
    let Node { id, ip, stats } = Node::decode(value).map_err(|_| strange())?;
    if id.is_empty() || id.chars().count() > ID_MAX {
        return Err(strange());
    }
    let ips: Vec<IpAddr> = ip.split(',').take(IPS_MAX).filter_map(|ip| ip.trim().parse().ok()).collect();
    if ips.is_empty() {
        return Err(format!("the SFU node {id:?} in Redis has no address"));
    }
    Ok(Seen { id, ips, updated_at: stats.map_or(0, |stats| stats.updated_at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_900_000_000;

    fn node(id: &str, ip: &str, updated_at: u64) -> Vec<u8> {
        let stats = Some(NodeStats { updated_at: updated_at.try_into().unwrap() });
        Node { id: id.into(), ip: ip.into(), stats }.encode_to_vec()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ips(nodes: &Nodes) -> Vec<String> {
        nodes.ips().iter().map(ToString::to_string).collect()
    }

    /// What LiveKit writes, byte by byte: other fields are passed over.
    #[test]
    fn a_node_of_livekit_is_read() {
        let mut bytes = b"\x0a\x06ND_abc\x12\x0b203.0.113.7\x18\x04".to_vec();
        // stats: started_at 1, updated_at 1900000000; type 0, state SHUTTING_DOWN, region
        bytes.extend(b"\x22\x08\x08\x01\x10\x80\xe6\xfe\x89\x07\x30\x02\x3a\x02eu");
        let mut nodes = Nodes::default();
        assert!(nodes.update(&[bytes], at(0), NOW).is_empty());
        assert_eq!(ips(&nodes), ["203.0.113.7"], "a node that shuts down still has calls");
    }

    #[test]
    fn failed_and_empty_answers_remove_nobody() {
        let mut nodes = Nodes::default();
        assert!(!nodes.is_known());
        nodes.update(&[node("a", "192.0.2.1", NOW), node("b", "192.0.2.2", NOW)], at(0), NOW);
        assert!(nodes.is_known());
        for seconds in [2, 100, 10_000] {
            nodes.update(&[], at(seconds), NOW + seconds);
            assert_eq!(ips(&nodes), ["192.0.2.1", "192.0.2.2"], "{seconds}");
        }
    }

    /// A killed node leaves its entry, which is not renewed.
    #[test]
    fn a_node_that_renews_nothing_goes() {
        let mut nodes = Nodes::default();
        for seconds in (0..60).step_by(2) {
            let entries = [node("a", "192.0.2.1", NOW + seconds), node("b", "192.0.2.2", NOW)];
            nodes.update(&entries, at(seconds), NOW + seconds);
            let both = seconds < 30;
            assert_eq!(ips(&nodes).len(), if both { 2 } else { 1 }, "{seconds}");
        }
        assert_eq!(ips(&nodes), ["192.0.2.1"]);
        // One that stops in order removes its entry
        nodes.update(&[node("c", "192.0.2.3", NOW + 60)], at(60), NOW + 60);
        assert_eq!(ips(&nodes), ["192.0.2.1", "192.0.2.3"]);
        nodes.update(&[node("c", "192.0.2.3", NOW + 120)], at(120), NOW + 120);
        assert_eq!(ips(&nodes), ["192.0.2.3"]);
    }

    /// Whether an entry changes tells more than the clock of another machine.
    #[test]
    fn a_clock_that_differs_hides_a_node_for_a_moment_only() {
        let mut nodes = Nodes::default();
        nodes.update(&[node("a", "192.0.2.1", NOW - 3600)], at(0), NOW);
        assert!(ips(&nodes).is_empty() && !nodes.is_known());
        nodes.update(&[node("a", "192.0.2.1", NOW - 3598)], at(2), NOW + 2);
        assert_eq!(ips(&nodes), ["192.0.2.1"]);
    }

    #[test]
    fn what_is_no_node_is_told() {
        let mut nodes = Nodes::default();
        let problems =
            nodes.update(&[vec![0xff; 9], node("a", "sfu", NOW), node("b", "192.0.2.2", NOW)], at(0), NOW);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(ips(&nodes), ["192.0.2.2"]);
    }

    /// Whoever can write to Redis fills neither memory nor the log.
    #[test]
    fn what_redis_has_is_bounded() {
        let mut nodes = Nodes::default();
        let addresses = (0..100).map(|n| format!("8.8.8.{n}")).collect::<Vec<_>>().join(",");
        let long = "x".repeat(ID_MAX + 1);
        let values = [
            node("a", &addresses, NOW),
            node(&long, "192.0.2.1", NOW),
            node("", "192.0.2.2", NOW),
            node("b", &"1".repeat(ENTRY_MAX), NOW),
        ];
        let problems = nodes.update(&values, at(0), NOW);
        assert_eq!(nodes.ips().len(), IPS_MAX);
        assert!(problems.len() == 3 && problems.iter().all(|one| one.len() < 200), "{problems:?}");
        assert_eq!(nodes.update(&vec![vec![0xff]; 5000], at(2), NOW + 2).len(), PROBLEMS_MAX);
        // Others in every answer
        for round in 0..4 {
            let others: Vec<_> = (0..1000).map(|n| node(&format!("{round}-{n}"), "192.0.2.3", NOW)).collect();
            nodes.update(&others, at(4 + round), NOW + round);
            assert!(nodes.known.len() <= NODES_MAX);
        }
    }
}
