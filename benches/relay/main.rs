//! `cargo bench --bench relay`: what a relayed packet costs, hairpin beside coturn and a bare relay, in one run.
//!
//! The contestants take turns in a testbed of two hosts, under an open-loop load; docs/performance.md explains every
//! figure. The same program plays every part: without a subcommand it directs, `floor` is the bare relay, `load` the
//! generator, `flood` those who disturb it.
//!
//! - [`testbed`]: two hosts and their clean-up. [`contestant`]: who is measured. [`case`]: under what. [`bench`]: in
//!   which order. [`highest`]: how the highest rate is searched.
//! - [`load`]: the generator. [`flood`]: strangers beside it. [`floor`]: the bare relays. [`stream`], [`tls`]: what
//!   load and floor are over TCP and TLS. [`sys`]: their sockets, the only `unsafe`.
//! - [`cpu`]: what the kernel counts. [`report`]: the tables. [`targets`]: what was wanted. [`plot`]: the
//!   pictures.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

mod bench;
mod case;
mod clock;
mod contestant;
mod cpu;
mod flood;
mod floor;
mod highest;
mod load;
mod plot;
mod report;
mod stream;
mod sys;
mod targets;
mod testbed;
mod tls;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use bench::{Bench, INTERRUPTED};
use case::{CASES, Case};
use contestant::Contestant;

/// What a relayed packet costs: bare relays, coturn and hairpin side by side.
#[derive(Parser)]
struct Options {
    /// cargo bench says so; without it nothing runs, since `cargo test` starts benchmarks too.
    #[arg(long, hide = true)]
    bench: bool,
    /// A contestant: `floor`, `floor:OPTION+..` (plain, marks, edge, one, gather, timeout, timer, tokio, tokio-naive,
    /// tokio-timer), `coturn`, `hairpin`, or `NAME=COMMAND` for another TURN server, where {ip}, {port}, {user},
    /// {password}, {realm} and {dir} are filled in. May be repeated.
    #[arg(short, long = "contestant", default_values = ["hairpin", "coturn", "floor"])]
    contestants: Vec<Contestant>,
    /// A case by name; all when none is given. May be repeated.
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Runs of every contestant in every case.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of traffic before each measurement.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds for which a run may be put off or repeated because other processes use the CPUs.
    #[arg(long, default_value_t = 20)]
    patience: u64,
    /// Packets a second instead of the case's.
    #[arg(long)]
    rate: Option<u64>,
    /// Microseconds between two rounds of the generator.
    #[arg(long, default_value_t = 50)]
    tick: u64,
    /// The server's CPU.
    #[arg(long, default_value_t = 0)]
    relay_cpu: usize,
    /// The CPU of clients and peers.
    #[arg(long, default_value_t = 1)]
    clients_cpu: usize,
    /// coturn.
    #[arg(long, default_value = "turnserver")]
    turnserver: PathBuf,
    /// hairpin; by default the one built with this benchmark.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_hairpin"))]
    hairpin: PathBuf,
    /// Every run's figures go into this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Instead of the cases, the cost by the number of allocations and by the rate, as two pictures in this directory.
    #[arg(long)]
    plot: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The parts that the director starts.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Floor(floor::Order),
    #[command(hide = true)]
    Load(load::Order),
    #[command(hide = true)]
    Storm(load::Order),
    #[command(hide = true)]
    Memory(load::Order),
    #[command(hide = true)]
    Flood(flood::Order),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.part {
        Some(Part::Floor(order)) => floor::serve(order),
        Some(Part::Load(order)) => print(load::run(order)),
        Some(Part::Storm(order)) => print(load::storm::run(order)),
        Some(Part::Memory(order)) => print(load::memory::run(order)),
        Some(Part::Flood(order)) => flood::run(order).map_err(Into::into),
        None if options.bench => direct(&options),
        None => {
            println!("measured only by `cargo bench --bench relay`");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(figures: Result<Value>) -> Result<()> {
    figures.map(|figures| println!("{figures}"))
}

/// Measures everything that was asked for and prints the tables.
fn direct(options: &Options) -> Result<()> {
    let named = |case: &&Case| options.cases.is_empty() || options.cases.iter().any(|name| name == case.name);
    let cases: Vec<&Case> = CASES.iter().filter(named).collect();
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    ensure!(!cases.is_empty(), "the cases are {}", names.join(", "));
    notice_interruption()?;
    let bench = Bench::open(options)?;
    let mut raw = Vec::new();
    if let Some(dir) = &options.plot {
        raw = plot::draw(&bench, dir)?;
    }
    let mut measured = Vec::new();
    for case in cases.into_iter().filter(|_| options.plot.is_none()) {
        let columns = bench.measure(case)?;
        report::print(case, &columns);
        for column in &columns {
            raw.push(json!({ "case": case.name, "contestant": column.name, "runs": column.runs }));
        }
        measured.push((case, columns));
    }
    if !measured.is_empty() {
        targets::print(&measured);
    }
    if let Some(path) = &options.json {
        let (runs, seconds) = (options.runs, options.seconds);
        let all =
            json!({ "namespaces": bench.has_namespaces(), "runs": runs, "seconds": seconds, "cases": raw });
        fs::write(path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// SIGINT and SIGTERM end the current run; what is open is then closed on the way out.
fn notice_interruption() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        use tokio::signal::unix::{SignalKind, signal};
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    std::thread::spawn(move || {
        let [interrupt, terminate] = &mut signals;
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}
