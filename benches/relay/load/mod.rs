//! The load generator: an open loop that plays clients and peers, and counts what comes through.
//!
//! Packets leave when their time has come, whatever became of those before. Each carries its flow, its direction, a
//! sequence number and the time at which it left, and is checked for all of these where it arrives, so a relay
//! cannot look cheap by forwarding the wrong thing.

mod allocate;
mod flows;
mod frame;
pub mod memory;
pub mod storm;
mod tally;
mod traffic;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::case::{Client, Form};
use crate::clock::Clock;
use crate::cpu::{self, Drops};
use traffic::Outcome;

/// What a generator process is told to do.
#[derive(Args, Clone)]
pub struct Order {
    /// How flows are set up.
    #[arg(long)]
    pub protocol: Protocol,
    /// The relay.
    #[arg(long)]
    pub server: SocketAddrV4,
    /// The address of clients and peers.
    #[arg(long)]
    pub ip: Ipv4Addr,
    /// How clients reach the relay.
    #[arg(long, default_value_t)]
    pub client: Client,
    /// The certificate that TLS clients trust.
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// What a packet between client and relay is.
    #[arg(long, default_value_t)]
    pub form: Form,
    /// Allocations.
    #[arg(long)]
    pub allocations: usize,
    /// Bytes of payload in a packet.
    #[arg(long)]
    pub payload: usize,
    /// Packets back to back.
    #[arg(long)]
    pub burst: usize,
    /// Packets a second, both directions together.
    #[arg(long)]
    pub rate: u64,
    /// Seconds of traffic before the measurement.
    #[arg(long)]
    pub warm_up: f64,
    /// Seconds of measurement.
    #[arg(long)]
    pub seconds: f64,
    /// Microseconds between two rounds of the generator.
    #[arg(long)]
    pub tick: u64,
    /// The server's process.
    #[arg(long)]
    pub process: u32,
    /// The kernel thread that receives for the server.
    #[arg(long)]
    pub napi: Option<u32>,
    /// The kernel thread that receives for the generator.
    #[arg(long)]
    pub own_napi: Option<u32>,
    /// The process of strangers, which is no disturbance.
    #[arg(long)]
    pub strangers: Option<u32>,
    /// The CPUs of both hosts.
    #[arg(long, num_args = 2)]
    pub cpus: Vec<usize>,
}

/// How flows are set up.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Protocol {
    /// As TURN has it.
    Turn,
    /// As the floor has it.
    Floor,
}

/// What the kernel had counted at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: u64,
    server: u64,
    napi: u64,
    own: u64,
    own_napi: u64,
    busy: f64,
    at_relay: Drops,
    at_clients: Drops,
}

impl Reading {
    fn take(clock: Clock, order: &Order) -> Reading {
        let thread = |pid: Option<u32>| pid.map_or(0, cpu::process);
        let at = clock.now();
        Reading {
            at,
            server: cpu::process(order.process),
            napi: thread(order.napi),
            own: cpu::process(std::process::id()) + thread(order.strangers),
            own_napi: thread(order.own_napi),
            busy: cpu::busy(&order.cpus, at as f64 / 1e9),
            at_relay: Drops::read(order.process),
            at_clients: Drops::read(std::process::id()),
        }
    }
}

/// What was used from one reading to another.
struct Spent {
    seconds: f64,
    /// Nanoseconds of the server's threads.
    server: f64,
    /// And of the kernel thread that receives for it.
    napi: f64,
    /// The part of a CPU that others used.
    others: f64,
}

impl Reading {
    fn since(&self, before: &Reading) -> Spent {
        let seconds = (self.at - before.at) as f64 / 1e9;
        // A thread that ended in between takes its time with it.
        let since = |what: fn(&Reading) -> u64| what(self).saturating_sub(what(before)) as f64;
        let (server, napi) = (since(|reading| reading.server), since(|reading| reading.napi));
        let known = server + napi + since(|reading| reading.own) + since(|reading| reading.own_napi);
        let others = (self.busy - before.busy - known / 1e9) / seconds;
        Spent { seconds, server, napi, others }
    }
}

impl Spent {
    /// The part of a CPU that the relay's host used.
    fn relay_cpu(&self) -> f64 {
        (self.server + self.napi) / 1e9 / self.seconds
    }
}

/// Sets flows up, sends, and says what was seen.
pub fn run(order: &Order) -> Result<Value> {
    let clock = Clock::start();
    let mut flows = allocate::open(order)?;
    let outcome = traffic::run(clock, order, &mut flows)?;
    Ok(report(order, &outcome))
}

fn report(order: &Order, outcome: &Outcome) -> Value {
    let Outcome { tally, before, after, idle } = outcome;
    let spent = after.since(before);
    let Spent { seconds, server, napi, others } = spent;
    let arrived = tally.arrived.max(1) as f64;
    let at_relay = after.at_relay.since(before.at_relay);
    let at_clients = after.at_clients.since(before.at_clients);
    let planned = order.rate as f64 * seconds;
    // Past these marks the figures tell of the generator as much as of the relay.
    let mut behind = Vec::new();
    let busy = 1.0 - *idle as f64 / 1e9 / seconds;
    if busy > 0.9 {
        behind.push(format!("its CPU is {:.0} % busy", busy * 100.0));
    }
    if at_clients.sockets != 0 {
        behind.push(format!("{} packets lost in its own queues", at_clients.sockets));
    }
    if (tally.sent as f64) < planned * 0.999 {
        behind.push(format!("sent {:.2} % of what was planned", tally.sent as f64 / planned * 100.0));
    }
    if tally.late.quantile(0.99) > 1_000_000 {
        behind.push(format!("p99 of its lateness is {} us", tally.late.quantile(0.99) / 1000));
    }
    json!({
        "ns_per_packet": (server + napi) / arrived,
        "server_ns_per_packet": server / arrived,
        "napi_ns_per_packet": napi / arrived,
        "relay_cpu": spent.relay_cpu(),
        "others_cpu": others,
        "packets_per_second": tally.arrived as f64 / seconds,
        "bits_per_second": tally.arrived as f64 * order.payload as f64 * 8.0 / seconds,
        "sent": tally.sent,
        "loss": tally.sent.saturating_sub(tally.returned) as f64 / tally.sent.max(1) as f64,
        "reordered": tally.reordered,
        "wrong": tally.wrong,
        "lost_in_relay_sockets": at_relay.sockets,
        "lost_on_link": at_relay.link + at_clients.link,
        "delay_us": {
            "p50": tally.delay.quantile(0.5) as f64 / 1e3,
            "p99": tally.delay.quantile(0.99) as f64 / 1e3,
            "p99.9": tally.delay.quantile(0.999) as f64 / 1e3,
            "max": tally.delay.max() as f64 / 1e3,
        },
        "resident_kib": cpu::resident_kib(order.process),
        "generator": {
            "cpu": busy,
            "late_us_p99": tally.late.quantile(0.99) as f64 / 1e3,
            "behind": behind,
        },
    })
}
