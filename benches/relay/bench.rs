//! The testbed, those who take part, and their turns in it.

use std::fs;
use std::io::Read;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::case::{Case, Client, FEW, Form, Kind, Strangers, THIN, Traffic};
use crate::clock::Clock;
use crate::contestant::{self, Contestant, Paths};
use crate::cpu;
use crate::highest;
use crate::load::Protocol;
use crate::report::Column;
use crate::testbed::{Running, Testbed};
use crate::tls::Identity;

/// Past this part of a CPU in the hands of others a run is put off, or repeated.
const DISTURBED: f64 = 0.03;
/// For so long the CPUs must have been idle before a run.
const QUIET: Duration = Duration::from_millis(500);
/// Seconds that the set-up of a run may take.
const SET_UP: f64 = 10.0;

/// Set by a signal: what runs ends.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A testbed and those who take part.
pub struct Bench<'a> {
    options: &'a Options,
    paths: Paths,
    present: Vec<&'a Contestant>,
    testbed: Testbed,
    dir: Scratch,
}

impl<'a> Bench<'a> {
    /// Opens the testbed; says who is left out, and why loopback has to do if so.
    pub fn open(options: &'a Options) -> Result<Bench<'a>> {
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
        let dir = Scratch::new()?;
        Identity::of(&dir.0).make(testbed.relay.ip)?;
        Ok(Bench { options, paths, present, testbed, dir })
    }

    /// Whether relay and clients are hosts of their own.
    pub fn has_namespaces(&self) -> bool {
        self.testbed.relay.is_namespace()
    }

    /// All runs of one case, the contestants taking turns.
    pub fn measure(&self, case: &Case) -> Result<Vec<Column>> {
        let present: Vec<&Contestant> =
            self.present.iter().copied().filter(|contestant| case.kind.suits(contestant.protocol)).collect();
        let column = |contestant: &&Contestant| Column { name: contestant.name.clone(), runs: Vec::new() };
        let mut columns: Vec<Column> = present.iter().map(column).collect();
        for run in 0..self.options.runs {
            for (contestant, column) in present.iter().zip(&mut columns) {
                eprint!("\r{}, run {}: {:<40}", case.name, run + 1, contestant.name);
                match self.once(&case.kind, contestant) {
                    Ok(figures) => column.runs.push(figures),
                    Err(_) if INTERRUPTED.load(Ordering::Relaxed) => bail!("interrupted"),
                    Err(why) => {
                        eprintln!("\r{}: {why:#}", contestant.name);
                        column.runs.push(Value::Null);
                    }
                }
            }
            if let Kind::Highest(traffic) = &case.kind {
                self.at_half(traffic, &present, &mut columns);
            }
        }
        eprint!("\r{:<70}\r", "");
        Ok(columns)
    }

    /// One run of one contestant.
    fn once(&self, kind: &Kind, contestant: &Contestant) -> Result<Value> {
        let seconds = self.options.seconds;
        match kind {
            Kind::Traffic(traffic) => {
                let rate = self.options.rate.unwrap_or(traffic.rate);
                self.undisturbed(|| self.run("load", &Traffic { rate, ..*traffic }, seconds, contestant))
            }
            Kind::Growth(traffic) => {
                let of =
                    |traffic: &Traffic| self.undisturbed(|| self.run("load", traffic, seconds, contestant));
                let few = of(&Traffic { allocations: FEW, ..*traffic })?;
                let mut many = of(traffic)?;
                let (at_few, at_many) = (few["ns_per_packet"].as_f64(), many["ns_per_packet"].as_f64());
                many["growth"] = json!(at_few.zip(at_many).map(|(few, many)| many / few));
                many["ns_per_packet_of_few"] = json!(at_few);
                Ok(many)
            }
            Kind::Storm { clients } => {
                let traffic = Traffic { allocations: *clients, ..THIN };
                self.undisturbed(|| self.run("storm", &traffic, seconds, contestant))
            }
            // Nothing is timed, so nobody disturbs.
            Kind::Memory(traffic) => self.run("memory", traffic, seconds, contestant),
            Kind::Highest(traffic) => highest::search(traffic.rate, |rate| {
                self.undisturbed(|| {
                    self.run("load", &Traffic { rate, ..*traffic }, highest::PROBE, contestant)
                })
            }),
        }
    }

    /// Adds to the last run of everyone who has a highest rate how it does at half of coturn's.
    fn at_half(&self, traffic: &Traffic, present: &[&Contestant], columns: &mut [Column]) {
        let highest = |column: &Column| column.runs.last()?["packets_per_second"].as_f64();
        let Some(most) = columns.iter().find(|column| column.name == "coturn").and_then(highest) else {
            return;
        };
        let rate = (most / 2.0) as u64;
        for (contestant, column) in present.iter().zip(columns) {
            let Some(run) = column.runs.last_mut().filter(|run| !run.is_null()) else { continue };
            let traffic = Traffic { rate, ..*traffic };
            match self.undisturbed(|| self.run("load", &traffic, self.options.seconds, contestant)) {
                Ok(figures) => run["at_half"] = figures,
                Err(why) => eprintln!("\r{} at half of coturn's rate: {why:#}", contestant.name),
            }
        }
    }

    /// The run that others disturbed least, of those that patience allows.
    fn undisturbed(&self, run: impl Fn() -> Result<Value>) -> Result<Value> {
        let others = |figures: &Value| figures["others_cpu"].as_f64().unwrap_or(0.0);
        let clock = Clock::start();
        let patient = || clock.now() < self.options.patience * 1_000_000_000;
        let mut least: Option<Value> = None;
        loop {
            while patient() && self.others_share(QUIET) > DISTURBED {
                ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            }
            let figures = run()?;
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

    /// A server of its own, a generator that plays this part, and perhaps strangers beside it.
    fn run(&self, part: &str, traffic: &Traffic, seconds: f64, contestant: &Contestant) -> Result<Value> {
        let dir = &self.dir.0;
        let (mut server, address) =
            contestant.start(&self.testbed, &self.paths, dir, traffic.client, part == "storm")?;
        let strangers = traffic.strangers.map(|strangers| self.flood(strangers, address)).transpose()?;
        let mut words = format!("{part} {}", self.order(traffic, seconds, contestant, address, &server));
        if let Some(strangers) = &strangers {
            words += &format!(" --strangers {}", strangers.pid());
        }
        let result = self.play(&words);
        drop(strangers);
        if let Some(status) = server.0.try_wait()? {
            bail!("ended by itself ({status}): {}", contestant::last_words(dir)?);
        }
        result
    }

    /// What the generator is told.
    fn order(
        &self,
        traffic: &Traffic,
        seconds: f64,
        contestant: &Contestant,
        server: SocketAddrV4,
        process: &Running,
    ) -> String {
        let &Options { warm_up, tick, relay_cpu, clients_cpu, .. } = self.options;
        let &Traffic { allocations, payload, burst, rate, client, form, .. } = traffic;
        let protocol = match contestant.protocol {
            Protocol::Turn => "turn",
            Protocol::Floor => "floor",
        };
        let mut words = format!(
            "--protocol {protocol} --server {server} --ip {} --allocations {allocations} --payload {payload} \
             --burst {burst} --rate {rate} --warm-up {warm_up} --seconds {seconds} --tick {tick} --process {} \
             --cpus {relay_cpu} {clients_cpu}",
            self.testbed.clients.ip,
            process.pid(),
        );
        for (name, thread) in [("napi", self.testbed.relay.napi), ("own-napi", self.testbed.clients.napi)] {
            if let Some(thread) = thread {
                words += &format!(" --{name} {thread}");
            }
        }
        if client != Client::default() {
            words += &format!(" --client {client}");
        }
        if client == Client::Tls {
            words += &format!(" --certificate {}", Identity::of(&self.dir.0).certificate.display());
        }
        if form != Form::default() {
            words += &format!(" --form {form}");
        }
        words
    }

    /// Strangers who go on until they are dropped, or the run should long be over.
    fn flood(&self, strangers: Strangers, server: SocketAddrV4) -> Result<Running> {
        let Strangers { kind, sources, rate } = strangers;
        let seconds = self.options.warm_up + self.options.seconds + SET_UP;
        let words = format!(
            "flood --server {server} --kind {kind} --sources {sources} --rate {rate} --seconds {seconds}"
        );
        let mut command = self.testbed.clients.command(std::env::current_exe()?);
        command.args(words.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Running(command.spawn()?))
    }

    /// Runs a part on the clients' host; what it prints in the end.
    fn play(&self, words: &str) -> Result<Value> {
        let mut command = self.testbed.clients.command(std::env::current_exe()?);
        command
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut part = Running(command.spawn()?);
        let status = loop {
            if let Some(status) = part.0.try_wait()? {
                break status;
            }
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            std::thread::sleep(Duration::from_millis(20));
        };
        let (mut figures, mut said) = (String::new(), String::new());
        part.0.stdout.take().context("no output")?.read_to_string(&mut figures)?;
        part.0.stderr.take().context("no output")?.read_to_string(&mut said)?;
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
