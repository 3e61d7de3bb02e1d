//! The runs: which servers take part, in which order, and what is repeated because other processes interfered.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::args::BenchArgs;
use crate::case::{Case, CaseKind, FEW, THIN};
use crate::clock::Clock;
use crate::contestant::{self, Contestant, ProgramPaths, ServerUse, TLS_PORT, WEB_PORT};
use crate::highest;
use crate::procfs;
use crate::report::Column;
use crate::testbed::{ChildProcess, Testbed};
use crate::tls::TlsIdentity;
use crate::workload::{Beside, ClientTransport, DownloadPath, Handshakes, PeerHost, Workload};

/// The share of a CPU that other processes may use; beyond, a run is delayed or repeated.
const DISTURBED: f64 = 0.03;
/// How long the CPUs must be idle before a run.
const QUIET: Duration = Duration::from_millis(500);
/// Seconds that the set-up of a run may take.
const SET_UP: f64 = 10.0;

/// Set by a signal to end the benchmark.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A testbed and the servers that take part.
pub struct Bench<'a> {
    args: &'a BenchArgs,
    paths: ProgramPaths,
    present: Vec<&'a Contestant>,
    testbed: Testbed,
    scratch: ScratchDir,
}

impl<'a> Bench<'a> {
    /// Opens the testbed. Prints which servers are missing, and why the testbed uses loopback if it does.
    pub fn open(args: &'a BenchArgs) -> Result<Bench<'a>> {
        let paths = ProgramPaths { turnserver: args.turnserver.clone(), hairpin: args.hairpin.clone() };
        let mut present = Vec::new();
        for contestant in &args.contestants {
            match contestant.missing_program(&paths) {
                Some(program) => println!("skipping {}: {program} not found", contestant.name),
                None => present.push(contestant),
            }
        }
        let (testbed, error) = Testbed::open(args.relay_cpu, args.clients_cpu, args.tso)?;
        if let Some(error) = error {
            println!(
                "measuring over loopback: {error:#}. The cost of receiving cannot be separated, so only ratios are \
                 meaningful"
            );
        }
        let scratch = ScratchDir::new()?;
        TlsIdentity::in_dir(&scratch.0).generate(testbed.relay.ip)?;
        Ok(Bench { args, paths, present, testbed, scratch })
    }

    /// Whether relay and clients have network namespaces of their own.
    pub fn has_namespaces(&self) -> bool {
        self.testbed.relay.namespace_pid().is_some()
    }

    /// Measures one case; in each round, every server has one run.
    pub fn measure(&self, case: &Case) -> Result<Vec<Column>> {
        let present: Vec<&Contestant> =
            self.present.iter().copied().filter(|contestant| case.kind.suits(contestant)).collect();
        let column = |contestant: &&Contestant| Column { name: contestant.name.clone(), runs: Vec::new() };
        let mut columns: Vec<Column> = present.iter().map(column).collect();
        for run in 0..self.args.runs {
            for (contestant, column) in present.iter().zip(&mut columns) {
                eprint!("\r{}, run {}: {:<40}", case.name, run + 1, contestant.name);
                match self.measure_once(&case.kind, contestant) {
                    Ok(figures) => column.runs.push(figures),
                    Err(_) if INTERRUPTED.load(Ordering::Relaxed) => bail!("interrupted"),
                    Err(error) => {
                        eprintln!("\r{}: {error:#}", contestant.name);
                        column.runs.push(Value::Null);
                    }
                }
            }
            if let CaseKind::Highest(workload) = &case.kind {
                self.measure_at_half(workload, &present, &mut columns);
            }
        }
        eprint!("\r{:<70}\r", "");
        Ok(columns)
    }

    /// One run of one server.
    fn measure_once(&self, kind: &CaseKind, contestant: &Contestant) -> Result<Value> {
        let seconds = self.args.seconds;
        match kind {
            CaseKind::Traffic(workload) => {
                let rate = self.args.rate.unwrap_or(workload.rate);
                self.undisturbed(|| self.run("load", &Workload { rate, ..*workload }, seconds, contestant))
            }
            CaseKind::Growth(workload) => {
                let of = |workload: &Workload| {
                    self.undisturbed(|| self.run("load", workload, seconds, contestant))
                };
                let few = of(&Workload { allocations: FEW, ..*workload })?;
                let mut many = of(workload)?;
                let (at_few, at_many) = (few["ns_per_packet"].as_f64(), many["ns_per_packet"].as_f64());
                many["growth"] = json!(at_few.zip(at_many).map(|(few, many)| many / few));
                many["ns_per_packet_of_few"] = json!(at_few);
                Ok(many)
            }
            CaseKind::Storm { clients } => {
                let workload = Workload { allocations: *clients, ..THIN };
                self.undisturbed(|| self.run("storm", &workload, seconds, contestant))
            }
            // Other processes do not affect the memory.
            CaseKind::Memory(workload) => self.run("memory", workload, seconds, contestant),
            CaseKind::Highest(workload) => highest::search(workload.rate, |rate| {
                self.undisturbed(|| {
                    self.run("load", &Workload { rate, ..*workload }, highest::PROBE, contestant)
                })
            }),
            CaseKind::Handshakes(workload, handshakes) => {
                self.measure_handshakes(workload, *handshakes, contestant)
            }
            CaseKind::Download(workload) => self.measure_downloads(workload, contestant),
        }
    }

    /// The delay with and without handshakes.
    fn measure_handshakes(
        &self,
        workload: &Workload,
        handshakes: Handshakes,
        contestant: &Contestant,
    ) -> Result<Value> {
        let run = |beside| {
            self.undisturbed(|| {
                self.run("load", &Workload { beside, ..*workload }, self.args.seconds, contestant)
            })
        };
        let quiet = run(None)?;
        let mut busy = run(Some(Beside::Handshakes(handshakes)))?;
        let more = |pointer| figure(&busy, pointer).zip(figure(&quiet, pointer));
        let to_quiet = more("/delay_us/p99").map(|(busy, quiet)| busy / quiet);
        let cpu = more("/relay_cpu").zip(figure(&busy, "/beside/per_second"));
        busy["to_quiet"] = json!(to_quiet);
        busy["us_per_handshake"] = json!(cpu.map(|((busy, quiet), rate)| (busy - quiet) / rate * 1e6));
        busy["quiet"] = quiet;
        Ok(busy)
    }

    /// The delay during a download along each path and without one, and the cost of the download.
    fn measure_downloads(&self, workload: &Workload, contestant: &Contestant) -> Result<Value> {
        let seconds = match self.args.download_rate {
            0 => self.args.seconds,
            rate => self.args.download as f64 * 8.0 / rate as f64,
        };
        let run = |path: Option<DownloadPath>, seconds| {
            let beside = path.map(Beside::Download);
            self.undisturbed(|| self.run("load", &Workload { beside, ..*workload }, seconds, contestant))
        };
        let quiet = run(None, self.args.seconds)?;
        let with_cost = |path| -> Result<Value> {
            let mut figures = run(Some(path), seconds)?;
            let cpu = figure(&figures, "/relay_cpu").zip(figure(&quiet, "/relay_cpu"));
            let cost = cpu.zip(figure(&figures, "/downloaded_per_second"));
            figures["s_per_gb"] = json!(cost.map(|((busy, quiet), rate)| (busy - quiet) / (rate / 1e9)));
            Ok(figures)
        };
        let past = with_cost(DownloadPath::Past)?;
        let mut passed = with_cost(DownloadPath::Passed)?;
        let terminated = with_cost(DownloadPath::Terminated)?;
        for (name, pointer) in [("delay", "/delay_us/p99"), ("cost", "/s_per_gb")] {
            let to_past = |figures: &Value| Some(figure(figures, pointer)? / figure(&past, pointer)?);
            let ratios = (to_past(&passed), to_past(&terminated));
            passed[format!("{name}_to_past")] = json!(ratios.0);
            passed[format!("terminated_{name}_to_past")] = json!(ratios.1);
        }
        passed["quiet"] = quiet;
        passed["past"] = past;
        passed["terminated"] = terminated;
        Ok(passed)
    }

    /// Measures every server at half of coturn's highest rate, and adds the figures to its last run.
    fn measure_at_half(&self, workload: &Workload, present: &[&Contestant], columns: &mut [Column]) {
        let highest = |column: &Column| column.runs.last()?["packets_per_second"].as_f64();
        let coturn = columns.iter().find(|column| column.name == "coturn");
        let Some(highest) = coturn.and_then(highest) else { return };
        let workload = Workload { rate: (highest / 2.0) as u64, ..*workload };
        for (contestant, column) in present.iter().zip(columns) {
            let Some(run) = column.runs.last_mut().filter(|run| !run.is_null()) else { continue };
            match self.undisturbed(|| self.run("load", &workload, self.args.seconds, contestant)) {
                Ok(figures) => run["at_half"] = figures,
                Err(error) => eprintln!("\r{} at half of coturn's highest rate: {error:#}", contestant.name),
            }
        }
    }

    /// Waits for quiet CPUs, and repeats a run that other processes disturbed, for as long as `--patience` allows.
    /// Returns the run that was disturbed least.
    fn undisturbed(&self, run: impl Fn() -> Result<Value>) -> Result<Value> {
        let others = |figures: &Value| figures["others_cpu"].as_f64().unwrap_or(0.0);
        let clock = Clock::start();
        let patient = || clock.now() < self.args.patience * 1_000_000_000;
        let mut least: Option<Value> = None;
        loop {
            while patient() && self.others_cpu(QUIET) > DISTURBED {
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

    /// How much of the two CPUs is used while the benchmark itself is idle.
    fn others_cpu(&self, time: Duration) -> f64 {
        let cpus = [self.args.relay_cpu, self.args.clients_cpu];
        let clock = Clock::start();
        let busy = || procfs::busy_seconds(&cpus, clock.now() as f64 / 1e9);
        let before = busy();
        std::thread::sleep(time);
        (busy() - before) / (clock.now() as f64 / 1e9)
    }

    /// Starts a server, a part of the load generator and perhaps other traffic, and returns the figures.
    fn run(&self, part: &str, workload: &Workload, seconds: f64, contestant: &Contestant) -> Result<Value> {
        let dir = &self.scratch.0;
        let peer_ip = match workload.peers {
            PeerHost::Clients => self.testbed.clients.ip,
            PeerHost::Relay => self.testbed.relay.ip,
        };
        let server_use = ServerUse {
            transport: workload.transport,
            peer_ip,
            storm: part == "storm",
            tls: matches!(workload.beside, Some(Beside::Handshakes(_))),
            web: matches!(workload.beside, Some(Beside::Download(_))),
        };
        let (mut server, address) = contestant.start(&self.testbed.relay, &self.paths, dir, &server_use)?;
        let mut beside =
            workload.beside.map(|beside| self.start_beside(beside, workload, address)).transpose()?;
        let mut words = format!(
            "{part} {} --setup {} --server {address} --server-pid {}",
            self.load_args(workload, seconds, peer_ip),
            contestant.setup(),
            server.pid()
        );
        if let Some(beside) = &beside {
            words += &beside.load_args();
        }
        let mut result = self.play(&words);
        if let Some(beside) = &mut beside {
            let report = beside.finish()?;
            result = result.map(|mut figures| {
                figures["beside"] = report;
                figures
            });
        }
        if let Some(status) = server.0.try_wait()? {
            bail!("the server exited ({status}): {}", contestant::last_log_lines(dir)?);
        }
        result
    }

    /// The load generator's arguments that do not depend on the server.
    fn load_args(&self, workload: &Workload, seconds: f64, peer_ip: Ipv4Addr) -> String {
        let &BenchArgs { warm_up, tick, relay_cpu, clients_cpu, .. } = self.args;
        let Testbed { relay, clients } = &self.testbed;
        let mut words = format!(
            "{} --client-ip {} --peer-ip {peer_ip} --warm-up {warm_up} --seconds {seconds} --tick {tick} \
             --cpus {relay_cpu} {clients_cpu}",
            workload.to_args(),
            clients.ip,
        );
        let peer_namespace = relay.namespace_pid().filter(|_| workload.peers == PeerHost::Relay);
        for (name, pid) in
            [("server-napi", relay.napi), ("own-napi", clients.napi), ("peer-namespace", peer_namespace)]
        {
            if let Some(pid) = pid {
                words += &format!(" --{name} {pid}");
            }
        }
        if workload.transport == ClientTransport::Tls {
            let TlsIdentity { certificate, .. } = TlsIdentity::in_dir(&self.scratch.0);
            words += &format!(" --certificate {}", certificate.display());
        }
        words
    }

    /// Starts other traffic, which ends when it is dropped or when the run should long be over.
    fn start_beside(
        &self,
        beside: Beside,
        workload: &Workload,
        server: SocketAddrV4,
    ) -> Result<OtherTraffic> {
        let tls = match workload.transport {
            ClientTransport::Tls => server,
            ClientTransport::Udp | ClientTransport::Tcp => SocketAddrV4::new(*server.ip(), TLS_PORT),
        };
        let (mut web, mut progress) = (None, None);
        let words = match beside {
            Beside::Strangers(strangers) => {
                let seconds = self.args.warm_up + self.args.seconds + SET_UP;
                format!("flood --server {server} {} --seconds {seconds}", strangers.to_args())
            }
            Beside::Handshakes(handshakes) => format!("handshakes --server {tls} {}", handshakes.to_args()),
            Beside::Download(path) => {
                let mut command = self.testbed.relay.command(std::env::current_exe()?);
                command.args(["web", "--listen", &format!("0.0.0.0:{WEB_PORT}")]);
                web = Some(ChildProcess(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?));
                let server = match path {
                    DownloadPath::Past => SocketAddrV4::new(*server.ip(), WEB_PORT),
                    DownloadPath::Passed | DownloadPath::Terminated => tls,
                };
                let TlsIdentity { certificate, .. } = TlsIdentity::in_dir(&self.scratch.0);
                let file = self.scratch.0.join("progress");
                let words = format!(
                    "download --server {server} --path {path} --rate {} --certificate {} --progress {}",
                    self.args.download_rate,
                    certificate.display(),
                    file.display(),
                );
                progress = Some(file);
                words
            }
        };
        let mut command = self.testbed.clients.command(std::env::current_exe()?);
        command.args(words.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let reports = matches!(beside, Beside::Handshakes(_));
        Ok(OtherTraffic { client: ChildProcess(command.spawn()?), reports, web, progress })
    }

    /// Runs a part on the clients' host and returns the figures that it prints.
    fn play(&self, words: &str) -> Result<Value> {
        let mut command = self.testbed.clients.command(std::env::current_exe()?);
        command
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut part = ChildProcess(command.spawn()?);
        let status = loop {
            if let Some(status) = part.0.try_wait()? {
                break status;
            }
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            std::thread::sleep(Duration::from_millis(20));
        };
        let (mut figures, mut errors) = (String::new(), String::new());
        part.0.stdout.take().context("no output")?.read_to_string(&mut figures)?;
        part.0.stderr.take().context("no output")?.read_to_string(&mut errors)?;
        ensure!(status.success(), "{}", errors.trim());
        serde_json::from_str(&figures).context("parsing the load generator's figures")
    }
}

/// The figure at a JSON pointer.
fn figure(figures: &Value, pointer: &str) -> Option<f64> {
    figures.pointer(pointer)?.as_f64()
}

/// Processes that cause other traffic.
struct OtherTraffic {
    client: ChildProcess,
    /// The client prints figures when its standard input ends.
    reports: bool,
    /// The web server on the relay's host.
    web: Option<ChildProcess>,
    /// The file that tells how many bytes a download has so far.
    progress: Option<PathBuf>,
}

impl OtherTraffic {
    /// The arguments of a load generator beside it.
    fn load_args(&self) -> String {
        let mut words = format!(" --beside-pid {}", self.client.pid());
        if let Some(web) = &self.web {
            words += &format!(" --web-pid {}", web.pid());
        }
        if let Some(file) = &self.progress {
            words += &format!(" --progress {}", file.display());
        }
        words
    }

    /// Ends it, and returns its figures if it has any.
    fn finish(&mut self) -> Result<Value> {
        if let Some(status) = self.client.0.try_wait()? {
            bail!("the other traffic ended ({status})");
        }
        if !self.reports {
            return Ok(Value::Null);
        }
        drop(self.client.0.stdin.take());
        let mut figures = String::new();
        for _ in 0..200 {
            if self.client.0.try_wait()?.is_some() {
                self.client.0.stdout.take().context("no output")?.read_to_string(&mut figures)?;
                return serde_json::from_str(&figures).context("parsing the figures of handshakes");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the other traffic does not end")
    }
}

/// A directory for configurations and logs, removed when dropped.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn new() -> Result<ScratchDir> {
        let path = std::env::temp_dir().join(format!("hairpin-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(ScratchDir(path))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // On failure a few small files remain in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
