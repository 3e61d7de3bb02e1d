//! The load generator: an open loop that plays all clients and peers and counts what arrives.
//!
//! Packets leave at fixed times, whatever happens to earlier ones. Each carries its flow, direction, sequence number and
//! time of sending, which are checked on arrival, so that a relay cannot look cheap by forwarding the wrong bytes.

pub mod args;
mod counters;
mod flow;
mod frame;
pub mod memory;
mod setup;
mod stamp;
pub mod storm;
mod tally;
mod traffic;

use anyhow::Result;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::procfs;
use args::LoadArgs;
pub use tally::Histogram;
use traffic::Outcome;

/// Makes the allocations, sends the traffic and returns the figures.
pub fn run(args: &LoadArgs) -> Result<Value> {
    let clock = Clock::start();
    let mut flows = setup::open(args)?;
    let outcome = traffic::run(clock, args, &mut flows)?;
    Ok(report(args, &outcome))
}

fn report(args: &LoadArgs, outcome: &Outcome) -> Value {
    let Outcome { tally, before, after, idle } = outcome;
    let usage = after.since(before);
    let (seconds, server, napi) = (usage.seconds, usage.server, usage.server_napi);
    let downloaded = usage.downloaded / seconds;
    let arrived = tally.arrived.max(1) as f64;
    let planned = args.workload.rate as f64 * seconds;
    // Beyond these limits the figures depend on the generator as well as on the relay.
    let mut warnings = Vec::new();
    let mut warn = |what: String| warnings.push(format!("the generator may be the bottleneck: {what}"));
    let busy = 1.0 - *idle as f64 / 1e9 / seconds;
    if busy > 0.9 {
        warn(format!("it used {:.0} % of its CPU", busy * 100.0));
    }
    if usage.client_drops.sockets != 0 {
        warn(format!("its own queues dropped {} packets", usage.client_drops.sockets));
    }
    if (tally.sent as f64) < planned * 0.999 {
        warn(format!("it sent {:.2} % of the planned packets", tally.sent as f64 / planned * 100.0));
    }
    if tally.late.quantile(0.99) > 1_000_000 {
        warn(format!("it sent packets {} us late (p99)", tally.late.quantile(0.99) / 1000));
    }
    json!({
        "ns_per_packet": (server + napi) / arrived,
        "server_ns_per_packet": server / arrived,
        "napi_ns_per_packet": napi / arrived,
        "relay_cpu": usage.relay_cpu(),
        "downloaded_per_second": (downloaded > 0.0).then_some(downloaded),
        "others_cpu": usage.others,
        "packets_per_second": tally.arrived as f64 / seconds,
        "bits_per_second": tally.arrived as f64 * args.workload.payload as f64 * 8.0 / seconds,
        "sent": tally.sent,
        "loss": tally.sent.saturating_sub(tally.returned) as f64 / tally.sent.max(1) as f64,
        "reordered": tally.reordered,
        "wrong": tally.wrong,
        "dropped_by_sockets": usage.relay_drops.sockets,
        "dropped_by_link": usage.relay_drops.link + usage.client_drops.link,
        "delay_us": {
            "p50": tally.delay.quantile(0.5) as f64 / 1e3,
            "p99": tally.delay.quantile(0.99) as f64 / 1e3,
            "p99.9": tally.delay.quantile(0.999) as f64 / 1e3,
            "max": tally.delay.max() as f64 / 1e3,
        },
        "resident_kib": procfs::resident_kib(args.server_pid),
        "generator": {
            "cpu": busy,
            "late_us_p99": tally.late.quantile(0.99) as f64 / 1e3,
        },
        "warnings": warnings,
    })
}
