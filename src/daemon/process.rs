//! What Prometheus' own client libraries tell about every process, by their names. Where /proc is hidden, some of it is missing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};
use prometheus::proto::MetricFamily;
use tokio::time::Instant;

use super::unix_now;
use crate::exposition::{UNLABELLED, counter, gauge, row, seconds};

/// The most bytes of a table that are read.
const TABLE: usize = 16 << 10;

/// How much longer than a list of the descriptors took the pause after it is, so that lists take 1 % of a CPU at most.
const PAUSE: u32 = 100;

/// Reads what the kernel knows of this process.
pub struct Process {
    /// When it started, in Unix seconds. It is one value for as long as the process runs, whatever is done to the clock.
    started: u64,
    /// Kept open, to be read when there is no file descriptor left.
    status: Option<File>,
    descriptors: DescriptorCount,
}

/// What the kernel says, at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    resident: Option<u64>,
    virtual_memory: Option<u64>,
    threads: Option<u64>,
}

impl Process {
    /// This process, which is starting.
    pub fn start() -> Process {
        let status = File::open("/proc/self/status").ok();
        Process { started: unix_now(), status, descriptors: DescriptorCount::default() }
    }

    /// The metrics now.
    pub fn families(&self) -> Vec<MetricFamily> {
        let Reading { resident, virtual_memory, threads } =
            self.status.as_ref().map(read).unwrap_or_default();
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from);
        let limit = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
        let some = |value: Option<u64>| value.map(|value| row(UNLABELLED, value));
        vec![
            counter(
                "process_cpu_seconds_total",
                "CPU time of the process in user and system mode.",
                cpu.map(|cpu| seconds(UNLABELLED, cpu)),
            ),
            gauge("process_open_fds", "Open file descriptors.", some(self.descriptors.now())),
            gauge("process_max_fds", "The limit on open file descriptors.", some(limit)),
            gauge("process_resident_memory_bytes", "Resident memory.", some(resident)),
            gauge("process_virtual_memory_bytes", "Virtual memory.", some(virtual_memory)),
            gauge(
                "process_start_time_seconds",
                "When the process started, in Unix seconds.",
                some(Some(self.started)),
            ),
            gauge("process_threads", "Threads of the process.", some(threads)),
        ]
    }
}

fn read(status: &File) -> Reading {
    let mut text = vec![0; TABLE];
    let len = status.read_at(&mut text, 0).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text[..len]))
}

/// proc_pid_status(5): `Name:\tvalue`, memory in kB.
fn parse(status: &str) -> Reading {
    let value = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| value(name).map(|kilobytes| kilobytes * 1024);
    Reading { resident: bytes("VmRSS"), virtual_memory: bytes("VmSize"), threads: value("Threads") }
}

/// How many file descriptors are open. Since Linux 6.2 the kernel says so. Before, all of them have to be listed, which takes
/// a tenth of a second for 100,000: a thread does that, and a page has what it has found last.
#[derive(Clone, Default)]
struct DescriptorCount(Arc<Listed>);

/// What the thread has found.
#[derive(Default)]
struct Listed {
    /// 0 before the first time, or without /proc.
    count: AtomicU64,
    is_listing: AtomicBool,
    /// When they may be listed again.
    next: Mutex<Option<Instant>>,
}

impl DescriptorCount {
    fn now(&self) -> Option<u64> {
        // proc_pid_fd(5): the size of the directory.
        match fs::metadata("/proc/self/fd").ok()?.len() {
            0 => self.last_listed(),
            count => Some(count),
        }
    }

    fn last_listed(&self) -> Option<u64> {
        let Listed { count, is_listing, .. } = &*self.0;
        let is_due = self.next().is_none_or(|at| at <= Instant::now());
        if is_due && !is_listing.swap(true, Ordering::Acquire) {
            let this = self.clone();
            match thread::Builder::new().name("descriptors".to_owned()).spawn(move || this.list()) {
                // There are few of them at the first time, so the first page has a count.
                Ok(thread) if count.load(Ordering::Relaxed) == 0 => drop(thread.join()),
                Ok(_) => {}
                Err(_) => is_listing.store(false, Ordering::Release),
            }
        }
        Some(count.load(Ordering::Relaxed)).filter(|count| *count > 0)
    }

    fn list(&self) {
        let started = Instant::now();
        // Without a descriptor for the list, the last count stays.
        if let Some(count) = list() {
            self.0.count.store(count, Ordering::Relaxed);
        }
        *self.next() = Some(Instant::now() + PAUSE * started.elapsed());
        self.0.is_listing.store(false, Ordering::Release);
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists the open descriptors and counts them, but for that of the list.
fn list() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::sys::eventfd::EventFd;

    use super::*;

    #[test]
    fn the_kernels_table_is_in_kilobytes() {
        let status = "Name:\thairpin\nVmPeak:\t  999 kB\nVmSize:\t  310 kB\nVmRSS:\t   21 kB\nThreads:\t7\n";
        let reading = Reading { resident: Some(21 << 10), virtual_memory: Some(310 << 10), threads: Some(7) };
        assert_eq!(parse(status), reading);
        assert_eq!(parse("Threads: many\n"), Reading::default());
    }

    /// Every family is there from the first page on, by the names of Prometheus' client libraries.
    #[test]
    fn this_process_has_every_metric() {
        let page = crate::exposition::page(Process::start().families());
        for name in
            ["cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes", "virtual_memory_bytes"]
                .into_iter()
                .chain(["start_time_seconds", "threads"])
        {
            let value = page.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(value.unwrap().parse::<f64>().unwrap() > 0.0, "{name}: {page}");
        }
    }

    /// Both ways to count descriptors see all of those that are open. Other tests open and close some meanwhile, so there is no
    /// exact number.
    #[test]
    fn open_descriptors_are_counted() {
        let counts = DescriptorCount::default();
        let open: Vec<OwnedFd> = (0..300).map(|_| EventFd::new().unwrap().into()).collect();
        for count in [counts.now(), counts.last_listed()] {
            assert!(count.unwrap() > 300, "{count:?}");
        }
        drop(open);
    }
}
