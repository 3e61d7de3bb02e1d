//! The kernel's counters at the beginning and end of a measurement.

use super::args::LoadArgs;
use crate::clock::Clock;
use crate::download;
use crate::procfs::{self, DropCounts};

/// Counters at one moment; times in nanoseconds.
#[derive(Clone, Copy)]
pub struct Counters {
    at: u64,
    server: u64,
    server_napi: u64,
    web: u64,
    own: u64,
    own_napi: u64,
    busy_seconds: f64,
    downloaded: u64,
    relay_drops: DropCounts,
    client_drops: DropCounts,
}

/// What was used between two moments.
pub struct Usage {
    pub seconds: f64,
    /// Nanoseconds of the server's threads.
    pub server: f64,
    /// Nanoseconds of the kernel thread that receives for the server.
    pub server_napi: f64,
    /// Nanoseconds of the web server.
    pub web: f64,
    /// Bytes that were downloaded.
    pub downloaded: f64,
    /// CPU time of other processes, as a share of one CPU.
    pub others: f64,
    pub relay_drops: DropCounts,
    pub client_drops: DropCounts,
}

impl Counters {
    pub fn read(clock: Clock, args: &LoadArgs) -> Counters {
        let cpu_time = |pid: Option<u32>| pid.map_or(0, procfs::cpu_time);
        let at = clock.now();
        Counters {
            at,
            server: procfs::cpu_time(args.server_pid),
            server_napi: cpu_time(args.server_napi),
            web: cpu_time(args.web_pid),
            own: procfs::cpu_time(std::process::id()) + cpu_time(args.beside_pid),
            own_napi: cpu_time(args.own_napi),
            busy_seconds: procfs::busy_seconds(&args.cpus, at as f64 / 1e9),
            downloaded: args.progress.as_deref().map_or(0, download::progress),
            relay_drops: DropCounts::read(args.server_pid),
            client_drops: DropCounts::read(std::process::id()),
        }
    }

    pub fn since(&self, before: &Counters) -> Usage {
        let seconds = (self.at - before.at) as f64 / 1e9;
        // The time of a thread that has ended is no longer counted.
        let since = |time: fn(&Counters) -> u64| time(self).saturating_sub(time(before)) as f64;
        let (server, server_napi) =
            (since(|counters| counters.server), since(|counters| counters.server_napi));
        let web = since(|counters| counters.web);
        let own = since(|counters| counters.own) + since(|counters| counters.own_napi);
        let known = server + server_napi + web + own;
        Usage {
            seconds,
            server,
            server_napi,
            web,
            downloaded: since(|counters| counters.downloaded),
            others: (self.busy_seconds - before.busy_seconds - known / 1e9) / seconds,
            relay_drops: self.relay_drops.since(before.relay_drops),
            client_drops: self.client_drops.since(before.client_drops),
        }
    }
}

impl Usage {
    /// CPU time of the relay's host, as a share of its CPU.
    pub fn relay_cpu(&self) -> f64 {
        (self.server + self.server_napi + self.web) / 1e9 / self.seconds
    }
}
