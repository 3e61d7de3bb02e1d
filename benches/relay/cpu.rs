//! What the kernel has counted: CPU time of processes and kernel threads, and packets dropped on the way.

use std::fs;

/// Nanoseconds that all threads of a process have run, as the scheduler counts them.
pub fn process(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks.flatten().filter_map(|task| schedstat(&task.path().join("schedstat"))).sum()
}

fn schedstat(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

/// Seconds that these CPUs have had something to do, in the kernel's steps of 10 ms.
pub fn busy(cpus: &[usize], since_boot: f64) -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let idle = |cpu: &usize| {
        let name = format!("cpu{cpu} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let ticks = line.split(' ').skip(3).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        Some(since_boot - ticks.sum::<f64>() / 100.0)
    };
    cpus.iter().filter_map(idle).sum()
}

/// Resident memory of a process in KiB, page by page: what `status` says is only nearly right.
pub fn resident_kib(pid: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = pages.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The kernel thread that receives for a network device, if NAPI runs in a thread.
pub fn napi_thread(device: &str) -> Option<u32> {
    let prefix = format!("napi/{device}-");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        comm.starts_with(&prefix).then_some(pid)
    })
}

/// Drops that a process's network namespace has counted.
#[derive(Clone, Copy, Default)]
pub struct Drops {
    /// Datagrams for which a socket's queue had no room.
    pub sockets: u64,
    /// Packets for which the other end of the link had no room.
    pub link: u64,
}

impl Drops {
    /// As of now, in the namespace of this process.
    pub fn read(pid: u32) -> Drops {
        let net = format!("/proc/{pid}/net");
        let snmp = fs::read_to_string(format!("{net}/snmp")).unwrap_or_default();
        let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = (udp.next().unwrap_or_default(), udp.next().unwrap_or_default());
        let mut columns = names.split_whitespace().zip(values.split_whitespace());
        let sockets =
            columns.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok());
        let devices = fs::read_to_string(format!("{net}/dev")).unwrap_or_default();
        let dropped = |line: &str| line.split_whitespace().nth(12)?.parse::<u64>().ok();
        Drops { sockets: sockets.unwrap_or(0), link: devices.lines().skip(2).filter_map(dropped).sum() }
    }

    /// What has been dropped since `earlier`.
    pub fn since(self, earlier: Drops) -> Drops {
        Drops {
            sockets: self.sockets.saturating_sub(earlier.sockets),
            link: self.link.saturating_sub(earlier.link),
        }
    }
}
