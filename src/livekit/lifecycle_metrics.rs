//! What is counted of participants that leave. No label has a value that a client chooses.

use std::collections::HashSet;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::rooms::UserKind;

/// Rooms are counted by how many participants they have, or have relayed: the least of each bucket, and its name.
const SIZES: [(usize, &str); 9] = [
    (0, "0"),
    (1, "1"),
    (2, "2"),
    (3, "3-5"),
    (6, "6-10"),
    (11, "11-20"),
    (21, "21-50"),
    (51, "51-100"),
    (101, "101+"),
];

/// Upper bounds of the histogram, in seconds.
const SECONDS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 60.0, 600.0];

/// The metrics.
pub struct LifecycleMetrics {
    /// Webhooks by what became of them.
    pub webhooks: IntCounterVec,
    revocations: IntCounterVec,
    /// Seconds from an event to the confirmation of a relay.
    pub revocation_seconds: Histogram,
    /// Revocations that a relay has not confirmed.
    pub pending: IntGaugeVec,
    /// Comparisons with LiveKit's lists.
    pub reconciliations: IntCounterVec,
    /// Whether LiveKit has answered last.
    pub up: IntGauge,
    /// By how many seconds LiveKit's clock is ahead.
    pub clock_offset: Gauge,
    participants: IntGauge,
    /// Sessions that are not followed, because there are too many.
    pub unfollowed: IntCounter,
    rooms: IntGaugeVec,
    relayed_rooms: IntGaugeVec,
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// A relay has confirmed it.
    Confirmed,
    /// A relay has refused it, again and again.
    Refused,
    /// There were too many, and a relay had not confirmed it yet.
    Dropped,
    /// It was not made, because the table of tags is full.
    TableFull,
}

impl RevocationOutcome {
    const ALL: [RevocationOutcome; 4] = [
        RevocationOutcome::Confirmed,
        RevocationOutcome::Refused,
        RevocationOutcome::Dropped,
        RevocationOutcome::TableFull,
    ];

    fn as_str(self) -> &'static str {
        match self {
            RevocationOutcome::Confirmed => "confirmed",
            RevocationOutcome::Refused => "refused",
            RevocationOutcome::Dropped => "dropped",
            RevocationOutcome::TableFull => "table_full",
        }
    }
}

impl LifecycleMetrics {
    /// All of them, at zero.
    pub fn new(registry: &Registry) -> LifecycleMetrics {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, label: &str| {
            add(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let metrics = LifecycleMetrics {
            webhooks: counters("hairpin_livekit_webhooks_total", "Webhooks of LiveKit, by what became of them.", &[
                "outcome",
            ]),
            revocations: counters(
                "hairpin_livekit_revocations_total",
                "Revocations of sessions (sid) and participants (tag), per relay, by what became of them.",
                &["kind", "outcome"],
            ),
            revocation_seconds: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "hairpin_livekit_revocation_seconds",
                        "Time from the event that a participant has left to the relay's confirmation that it is revoked.",
                    )
                    .buckets(SECONDS.to_vec()),
                ),
            ),
            pending: gauges(
                "hairpin_livekit_pending_revocations",
                "Revocations that a relay has not confirmed yet.",
                "relay",
            ),
            reconciliations: counters(
                "hairpin_livekit_reconciliations_total",
                "Lists of rooms and participants that LiveKit was asked for, by whether it has answered.",
                &["outcome"],
            ),
            up: add(registry, IntGauge::new("hairpin_livekit_up", "Whether LiveKit has answered everything in the last comparison with its lists: 1, else 0.")),
            clock_offset: add(
                registry,
                Gauge::new("hairpin_livekit_clock_offset_seconds", "By how much LiveKit's clock is ahead of this machine's."),
            ),
            participants: add(
                registry,
                IntGauge::new("hairpin_livekit_participants", "Sessions of participants that are known to be in a room."),
            ),
            unfollowed: add(
                registry,
                IntCounter::new(
                    "hairpin_livekit_unfollowed_participants_total",
                    "Sessions that are not followed, because there are too many.",
                ),
            ),
            rooms: gauges("hairpin_livekit_rooms", "Rooms, by how many sessions they have.", "participants"),
            relayed_rooms: gauges(
                "hairpin_livekit_relayed_rooms",
                "Rooms, by how many of their sessions have an allocation on a relay.",
                "relayed",
            ),
        };
        for outcome in ["accepted", "ignored", "unauthorized", "repeated", "malformed", "busy"] {
            metrics.webhooks.with_label_values(&[outcome]);
        }
        for kind in [UserKind::Sid, UserKind::Tag] {
            for outcome in RevocationOutcome::ALL {
                metrics.revocations.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        for outcome in ["ok", "failed"] {
            metrics.reconciliations.with_label_values(&[outcome]);
        }
        metrics.count_rooms([].into_iter());
        metrics
    }

    /// Counts a revocation.
    pub fn revoked(&self, kind: UserKind, outcome: RevocationOutcome) {
        self.revocations.with_label_values(&[kind.as_str(), outcome.as_str()]).inc();
    }

    /// How many revocations were counted.
    #[cfg(test)]
    pub fn revocations_of(&self, kind: UserKind, outcome: RevocationOutcome) -> u64 {
        self.revocations.with_label_values(&[kind.as_str(), outcome.as_str()]).get()
    }

    /// The rooms as they are: how many sessions each has, and how many of them are relayed.
    pub fn count_rooms(&self, rooms: impl Iterator<Item = (usize, usize)>) {
        let (mut sizes, mut relayed, mut participants) = ([0; SIZES.len()], [0; SIZES.len()], 0);
        for (all, some) in rooms {
            sizes[bucket(all)] += 1;
            relayed[bucket(some)] += 1;
            participants += all as i64;
        }
        self.participants.set(participants);
        for (index, (least, name)) in SIZES.into_iter().enumerate() {
            // A room without sessions is none.
            if least > 0 {
                self.rooms.with_label_values(&[name]).set(sizes[index]);
            }
            self.relayed_rooms.with_label_values(&[name]).set(relayed[index]);
        }
    }

    /// A relay is not in the configuration any more.
    pub fn forget_relay(&self, name: &str) {
        // It has no figure if it was never asked.
        let _ = self.pending.remove_label_values(&[name]);
    }

    /// The names of relays, so that their figures are there from the start.
    pub fn relays<'a>(&self, names: impl Iterator<Item = &'a str>) {
        for name in names.collect::<HashSet<_>>() {
            self.pending.with_label_values(&[name]);
        }
    }
}

impl UserKind {
    /// What metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            UserKind::Sid => "sid",
            UserKind::Tag => "tag",
        }
    }
}

fn bucket(size: usize) -> usize {
    SIZES.iter().rposition(|(least, _)| *least <= size).unwrap_or(0)
}

/// Registers a metric.
fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("the name and the labels of a metric are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_counted_by_size_and_by_relayed_participants() {
        let metrics = LifecycleMetrics::new(&Registry::new());
        metrics.count_rooms([(1, 0), (2, 2), (4, 2), (150, 7)].into_iter());
        let rooms = |name| metrics.rooms.with_label_values(&[name]).get();
        let relayed = |name| metrics.relayed_rooms.with_label_values(&[name]).get();
        assert_eq!((rooms("1"), rooms("2"), rooms("3-5"), rooms("101+")), (1, 1, 1, 1));
        assert_eq!((relayed("0"), relayed("2"), relayed("6-10"), relayed("101+")), (1, 2, 1, 0));
        assert_eq!(metrics.participants.get(), 157);
        metrics.count_rooms([].into_iter());
        assert_eq!((rooms("1"), metrics.participants.get()), (0, 0));
    }
}
