//! The command line of the benchmark itself.

use std::path::PathBuf;

use clap::Args;

use crate::contestant::Contestant;

#[derive(Args)]
pub struct BenchArgs {
    /// A server to measure: `hairpin`, `hairpin:PATH` (another build, started with the same configuration), `hairpin@MSS`
    /// (with this `listen.mss`), `coturn`,
    /// `floor` (the minimal relay), `floor:OPTION+..` (plain, marks, edge, one, gather, timeout, timer, tokio,
    /// tokio-naive, tokio-timer), or `NAME=COMMAND` for another TURN server, where {ip}, {port}, {user}, {password},
    /// {realm} and {dir} are filled in. `NAME=` before one of the others renames it. May be repeated.
    #[arg(short, long = "contestant", default_values = ["hairpin", "coturn", "floor"])]
    pub contestants: Vec<Contestant>,
    /// A case to measure; all cases by default. May be repeated.
    #[arg(long = "case")]
    pub cases: Vec<String>,
    /// Runs per server and case.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds of traffic before each measurement.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    /// Seconds for which a run may be delayed or repeated because other processes use the CPUs.
    #[arg(long, default_value_t = 20)]
    pub patience: u64,
    /// Megabytes of each download.
    #[arg(long, default_value_t = 1000)]
    pub download: u64,
    /// Mbit/s of each download; 0: as fast as it goes, for the time of a measurement.
    #[arg(long, default_value_t = 1000)]
    pub download_rate: u64,
    /// Leave TCP segmentation offload on, so that long segments cross the link as they are.
    #[arg(long)]
    pub tso: bool,
    /// Packets per second, instead of the case's rate.
    #[arg(long)]
    pub rate: Option<u64>,
    /// Microseconds between two ticks of the load generator.
    #[arg(long, default_value_t = 50)]
    pub tick: u64,
    /// The CPU of the server.
    #[arg(long, default_value_t = 0)]
    pub relay_cpu: usize,
    /// The CPU of the clients and peers.
    #[arg(long, default_value_t = 1)]
    pub clients_cpu: usize,
    /// The program of `coturn`.
    #[arg(long, default_value = "turnserver")]
    pub turnserver: PathBuf,
    /// The program of `hairpin`; by default the one built with this benchmark.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_hairpin"))]
    pub hairpin: PathBuf,
    /// Write the figures of every run to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Instead of the cases, measure the cost per packet by number of allocations and by rate, and write two charts to
    /// this directory.
    #[arg(long)]
    pub plot: Option<PathBuf>,
}
