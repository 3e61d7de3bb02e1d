//! The arguments of a load generator's process.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use clap::Args;

use crate::workload::{SetupProtocol, Workload};

#[derive(Args, Clone)]
pub struct LoadArgs {
    /// How allocations are made.
    #[arg(long)]
    pub setup: SetupProtocol,
    /// The relay's address for clients.
    #[arg(long)]
    pub server: SocketAddrV4,
    /// The clients' address.
    #[arg(long)]
    pub client_ip: Ipv4Addr,
    /// The peers' address.
    #[arg(long)]
    pub peer_ip: Ipv4Addr,
    /// A process in the peers' network namespace, if that is not the generator's own.
    #[arg(long)]
    pub peer_namespace: Option<u32>,
    #[command(flatten)]
    pub workload: Workload,
    /// The certificate that TLS clients trust.
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// Seconds of traffic before the measurement.
    #[arg(long)]
    pub warm_up: f64,
    /// Seconds of the measurement.
    #[arg(long)]
    pub seconds: f64,
    /// Microseconds between two ticks.
    #[arg(long)]
    pub tick: u64,
    /// The server's process.
    #[arg(long)]
    pub server_pid: u32,
    /// The kernel thread that receives for the server.
    #[arg(long)]
    pub server_napi: Option<u32>,
    /// The kernel thread that receives for the generator.
    #[arg(long)]
    pub own_napi: Option<u32>,
    /// The process of strangers or of other traffic, which does not count as a disturbance.
    #[arg(long)]
    pub beside_pid: Option<u32>,
    /// The web server on the relay's host.
    #[arg(long)]
    pub web_pid: Option<u32>,
    /// The file that tells how many bytes a download has so far.
    #[arg(long)]
    pub progress: Option<PathBuf>,
    /// The CPUs of both hosts.
    #[arg(long, num_args = 2)]
    pub cpus: Vec<usize>,
}
