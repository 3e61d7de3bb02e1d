//! `cargo bench --bench relay`: what a relayed packet costs, hairpin beside coturn and a bare relay, in one run.
//!
//! The contestants take turns in a testbed of two hosts, under an open-loop load; docs/performance.md explains every
//! figure. The same program plays every part: without a subcommand it directs, `floor` is the bare relay, `load` the
//! generator.
//!
//! - [`testbed`]: two hosts and their clean-up. [`contestant`]: who is measured. [`case`]: under what.
//! - [`load`]: the generator. [`floor`]: the bare relays. [`sys`]: their sockets, the only `unsafe`.
//! - [`cpu`]: what the kernel counts. [`report`]: the table.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

mod case;
mod clock;
mod contestant;
mod cpu;
mod floor;
mod load;
mod report;
mod sys;
mod testbed;

use std::fs;
use std::io::Read;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use case::{CASES, Case};
use clock::Clock;
use contestant::{Contestant, Paths};
use report::Column;
use testbed::{Running, Testbed};

/// What a relayed packet costs: bare relays, coturn and hairpin side by side.
#[derive(Parser)]
struct Options {
    /// cargo bench says so; without it nothing runs, since `cargo test` starts benchmarks too.
    #[arg(long, hide = true)]
    bench: bool,
    /// A contestant: `floor`, `floor:OPTION+..` (plain, marks, edge, one, timeout, timer, tokio, tokio-naive,
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
    #[command(subcommand)]
    part: Option<Part>,
}

/// The parts that the director starts.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Floor { listen: SocketAddrV4, shape: Option<String> },
    #[command(hide = true)]
    Load(load::Order),
}

/// Past this part of a CPU in the hands of others a run is put off, or repeated.
const DISTURBED: f64 = 0.03;
/// For so long the CPUs must have been idle before a run.
const QUIET: Duration = Duration::from_millis(500);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.part {
        Some(Part::Floor { listen, shape }) => serve_floor(*listen, shape.as_deref().unwrap_or_default()),
        Some(Part::Load(order)) => load::run(order).map(|figures| println!("{figures}")),
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

fn serve_floor(listen: SocketAddrV4, shape: &str) -> Result<()> {
    let shape = shape.parse().map_err(anyhow::Error::msg)?;
    Ok(floor::serve(listen, shape)?)
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
    for case in cases {
        let columns = bench.measure(case)?;
        report::print(case, &columns);
        for column in columns {
            raw.push(json!({ "case": case.name, "contestant": column.name, "runs": column.runs }));
        }
    }
    if let Some(path) = &options.json {
        let (runs, seconds) = (options.runs, options.seconds);
        let apart = bench.testbed.relay.is_namespace();
        let all = json!({ "namespaces": apart, "runs": runs, "seconds": seconds, "cases": raw });
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

/// A testbed and those who take part.
struct Bench<'a> {
    options: &'a Options,
    paths: Paths,
    present: Vec<&'a Contestant>,
    testbed: Testbed,
    dir: Scratch,
}

impl<'a> Bench<'a> {
    fn open(options: &'a Options) -> Result<Bench<'a>> {
        let paths = Paths { turnserver: options.turnserver.clone(), hairpin: options.hairpin.clone() };
        let mut present = Vec::new();
        for contestant in &options.contestants {
            match contestant.absence(&paths) {
                Some(why) => println!("{} is left out: {why}", contestant.name),
                None => present.push(contestant),
            }
        }
        let (testbed, why) = Testbed::open(options.relay_cpu, options.clients_cpu)?;
        if let Some(why) = why {
            println!(
                "over loopback, since {why:#}: receive work cannot be told apart, only ratios mean something"
            );
        }
        Ok(Bench { options, paths, present, testbed, dir: Scratch::new()? })
    }

    /// All runs of one case, the contestants taking turns.
    fn measure(&self, case: &Case) -> Result<Vec<Column>> {
        let column = |contestant: &&Contestant| Column { name: contestant.name.clone(), runs: Vec::new() };
        let mut columns: Vec<Column> = self.present.iter().map(column).collect();
        for run in 0..self.options.runs {
            for (contestant, column) in self.present.iter().zip(&mut columns) {
                eprint!("\r{}, run {}: {:<40}", case.name, run + 1, contestant.name);
                match self.run_undisturbed(case, contestant) {
                    Ok(figures) => column.runs.push(figures),
                    Err(_) if INTERRUPTED.load(Ordering::Relaxed) => bail!("interrupted"),
                    Err(why) => {
                        eprintln!("\r{}: {why:#}", contestant.name);
                        column.runs.push(Value::Null);
                    }
                }
            }
        }
        eprint!("\r{:<70}\r", "");
        Ok(columns)
    }

    /// The run that others disturbed least, of those that patience allows.
    fn run_undisturbed(&self, case: &Case, contestant: &Contestant) -> Result<Value> {
        let others = |figures: &Value| figures["others_cpu"].as_f64().unwrap_or(0.0);
        let clock = Clock::start();
        let patient = || clock.now() < self.options.patience * 1_000_000_000;
        let mut least: Option<Value> = None;
        loop {
            while patient() && self.others_share(QUIET) > DISTURBED {
                ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            }
            let figures = self.run(case, contestant)?;
            let best = match least.take() {
                Some(best) if others(&best) <= others(&figures) => best,
                _ => figures,
            };
            if others(&best) <= DISTURBED || !patient() {
                return Ok(best);
            }
            least = Some(best);
        }
    }

    /// How much of the two CPUs is in use while the benchmark rests.
    fn others_share(&self, time: Duration) -> f64 {
        let cpus = [self.options.relay_cpu, self.options.clients_cpu];
        let clock = Clock::start();
        let busy = || cpu::busy(&cpus, clock.now() as f64 / 1e9);
        let before = busy();
        std::thread::sleep(time);
        (busy() - before) / (clock.now() as f64 / 1e9)
    }

    fn run(&self, case: &Case, contestant: &Contestant) -> Result<Value> {
        let dir = &self.dir.0;
        let (mut server, address) = contestant.start(&self.testbed, &self.paths, dir)?;
        let result = self.load(case, contestant, address, &server);
        if let Some(status) = server.0.try_wait()? {
            bail!("ended by itself ({status}): {}", contestant::last_words(dir)?);
        }
        result
    }

    fn load(
        &self,
        case: &Case,
        contestant: &Contestant,
        server: SocketAddrV4,
        process: &Running,
    ) -> Result<Value> {
        let &Options { warm_up, seconds, tick, .. } = self.options;
        let rate = self.options.rate.unwrap_or(case.rate);
        let protocol = match contestant.protocol {
            load::Protocol::Turn => "turn",
            load::Protocol::Floor => "floor",
        };
        let mut words = format!(
            "load --protocol {protocol} --server {server} --ip {} --allocations {} --payload {} --burst {} --rate {rate} \
             --warm-up {warm_up} --seconds {seconds} --tick {tick} --process {} --cpus {} {}",
            self.testbed.clients.ip,
            case.allocations,
            case.payload,
            case.burst,
            process.pid(),
            self.options.relay_cpu,
            self.options.clients_cpu,
        );
        for (name, thread) in [("napi", self.testbed.relay.napi), ("own-napi", self.testbed.clients.napi)] {
            if let Some(thread) = thread {
                words += &format!(" --{name} {thread}");
            }
        }
        let mut command = self.testbed.clients.command(std::env::current_exe()?);
        command
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut load = Running(command.spawn()?);
        let status = loop {
            if let Some(status) = load.0.try_wait()? {
                break status;
            }
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            std::thread::sleep(Duration::from_millis(20));
        };
        let (mut figures, mut said) = (String::new(), String::new());
        load.0.stdout.take().context("no output")?.read_to_string(&mut figures)?;
        load.0.stderr.take().context("no output")?.read_to_string(&mut said)?;
        ensure!(status.success(), "{}", said.trim());
        serde_json::from_str(&figures).context("the generator's figures")
    }
}

/// A directory for configurations and logs, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("hairpin-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is a few files in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
