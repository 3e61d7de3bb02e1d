//! `cargo bench --bench relay` measures the CPU time that hairpin, coturn and a minimal relay need per relayed packet.
//!
//! The servers take turns in a testbed of two hosts, under an open-loop load; docs/performance.md explains every
//! figure. One program plays every part: without a subcommand it directs the benchmark, `floor` is the minimal relay,
//! `load`, `storm` and `memory` are the load generator, and `flood`, `handshakes`, `download` and `web` are other traffic.
//!
//! - [`args`]: the command line. [`bench`]: the order of the runs. [`case`]: the cases. [`highest`]: the search for the
//!   highest rate.
//! - [`testbed`]: the two hosts. [`contestant`]: the servers. [`credentials`], [`tls`]: their user and certificate.
//! - [`load`]: the load generator. [`flood`]: strangers. [`handshakes`], [`download`]: other connections. [`floor`]: the
//!   minimal relay.
//! - [`workload`]: what a run sends. [`udp`], [`stream`], [`epoll`], [`clock`], [`procfs`]: sockets and measuring.
//! - [`report`], [`targets`]: the tables. [`plot`]: the charts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod args;
mod bench;
mod case;
mod clock;
mod contestant;
mod credentials;
mod download;
mod epoll;
mod flood;
mod floor;
mod handshakes;
mod highest;
mod load;
mod plot;
mod procfs;
mod report;
mod stream;
mod targets;
mod testbed;
mod tls;
mod udp;
mod workload;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use args::BenchArgs;
use bench::{Bench, INTERRUPTED};
use case::{CASES, Case};
use download::{DownloadArgs, WebArgs};
use flood::FloodArgs;
use floor::FloorArgs;
use handshakes::HandshakeArgs;
use load::args::LoadArgs;

/// Measures the CPU time per relayed packet of hairpin, coturn and a minimal relay, side by side.
#[derive(Parser)]
struct Cli {
    /// Passed by `cargo bench`. Without it nothing is measured, because `cargo test` also starts benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(flatten)]
    args: BenchArgs,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The parts that the benchmark starts as child processes.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Floor(FloorArgs),
    #[command(hide = true)]
    Load(LoadArgs),
    #[command(hide = true)]
    Storm(LoadArgs),
    #[command(hide = true)]
    Memory(LoadArgs),
    #[command(hide = true)]
    Flood(FloodArgs),
    #[command(hide = true)]
    Handshakes(HandshakeArgs),
    #[command(hide = true)]
    Download(DownloadArgs),
    #[command(hide = true)]
    Web(WebArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.part {
        Some(Part::Floor(args)) => floor::serve(args),
        Some(Part::Load(args)) => print(load::run(args)),
        Some(Part::Storm(args)) => print(load::storm::run(args)),
        Some(Part::Memory(args)) => print(load::memory::run(args)),
        Some(Part::Flood(args)) => flood::run(args).map_err(Into::into),
        Some(Part::Handshakes(args)) => print(handshakes::run(args)),
        Some(Part::Download(args)) => download::run(args),
        Some(Part::Web(args)) => download::serve(args).map_err(Into::into),
        None if cli.bench => direct(&cli.args),
        None => {
            println!("run `cargo bench --bench relay` to measure");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(figures: Result<Value>) -> Result<()> {
    figures.map(|figures| println!("{figures}"))
}

/// Measures the selected cases and prints their tables.
fn direct(args: &BenchArgs) -> Result<()> {
    let selected = |case: &&Case| args.cases.is_empty() || args.cases.iter().any(|name| name == case.name);
    let cases: Vec<&Case> = CASES.iter().filter(selected).collect();
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    ensure!(!cases.is_empty(), "no such case; the cases are {}", names.join(", "));
    handle_signals()?;
    let bench = Bench::open(args)?;
    let mut raw = Vec::new();
    if let Some(dir) = &args.plot {
        raw = plot::draw(&bench, dir)?;
    }
    let mut measured = Vec::new();
    for case in cases.into_iter().filter(|_| args.plot.is_none()) {
        let columns = bench.measure(case)?;
        report::print(case, &columns);
        for column in &columns {
            raw.push(json!({ "case": case.name, "contestant": column.name, "runs": column.runs }));
        }
        measured.push((case, columns));
    }
    targets::print(&measured);
    if let Some(path) = &args.json {
        let (runs, seconds) = (args.runs, args.seconds);
        let all =
            json!({ "namespaces": bench.has_namespaces(), "runs": runs, "seconds": seconds, "cases": raw });
        fs::write(path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Lets SIGINT and SIGTERM end the current run, so that the testbed is closed on the way out.
fn handle_signals() -> Result<()> {
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
