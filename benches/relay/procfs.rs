//! The kernel's counters in /proc: CPU time of processes and kernel threads, resident memory, dropped packets.

use std::fs;

/// Nanoseconds of CPU time of all threads of a process, from the scheduler's statistics.
pub fn cpu_time(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks.flatten().filter_map(|task| schedstat(&task.path().join("schedstat"))).sum()
}

fn schedstat(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

/// Seconds for which these CPUs were busy, in steps of 10 ms.
pub fn busy_seconds(cpus: &[usize], since_boot: f64) -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let idle = |cpu: &usize| {
        let name = format!("cpu{cpu} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let ticks = line.split(' ').skip(3).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        Some(since_boot - ticks.sum::<f64>() / 100.0)
    };
    cpus.iter().filter_map(idle).sum()
}

/// Resident memory of a process in KiB. `smaps_rollup` counts pages; `status` is only approximate.
pub fn resident_kib(pid: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = pages.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The kernel thread that receives for a network device, if its NAPI is threaded.
pub fn napi_thread(device: &str) -> Option<u32> {
    let prefix = format!("napi/{device}-");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        comm.starts_with(&prefix).then_some(pid)
    })
}

/// Packets dropped in a network namespace.
#[derive(Clone, Copy, Default)]
pub struct DropCounts {
    /// Datagrams dropped because a socket's receive queue was full.
    pub sockets: u64,
    /// Packets dropped on sending because the other end of the link was full.
    pub link: u64,
}

impl DropCounts {
    /// The counts so far in the namespace of a process.
    pub fn read(pid: u32) -> DropCounts {
        let net = format!("/proc/{pid}/net");
        let snmp = fs::read_to_string(format!("{net}/snmp")).unwrap_or_default();
        let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = (udp.next().unwrap_or_default(), udp.next().unwrap_or_default());
        let mut columns = names.split_whitespace().zip(values.split_whitespace());
        let sockets =
            columns.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok());
        let devices = fs::read_to_string(format!("{net}/dev")).unwrap_or_default();
        let dropped = |line: &str| line.split_whitespace().nth(12)?.parse::<u64>().ok();
        DropCounts { sockets: sockets.unwrap_or(0), link: devices.lines().skip(2).filter_map(dropped).sum() }
    }

    /// The packets dropped since `earlier`.
    pub fn since(self, earlier: DropCounts) -> DropCounts {
        DropCounts {
            sockets: self.sockets.saturating_sub(earlier.sockets),
            link: self.link.saturating_sub(earlier.link),
        }
    }
}
